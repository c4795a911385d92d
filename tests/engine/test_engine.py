#!/usr/bin/env python3
"""The engine against real servers: redis-server with and without the Meridian module, small HTTP and
DNS servers that can be told to misbehave. Usage: test_engine.py ENGINE-TOOL [MERIDIAN.SO].

Without redis-server or the module, the tests that need them are left out, with a line that says so.
Waits are for events, never for times; each has a limit after which the test fails."""

import http.server
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import own_network  # noqa: E402

HOST = "127.95.0.1"
LIMIT = 60
failures = []


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Tool:
    """A running engine-tool: its lines, with waiting for one that fits."""

    def __init__(self, path, folder, topology, region, *servers):
        handle, name = tempfile.mkstemp(suffix=".conf", dir=folder)
        with open(handle, "w") as file:
            file.write(topology)
        self.lines = []
        self.more = threading.Condition()
        self.process = subprocess.Popen([path, name, str(region), *servers],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        self.mark = 0

    def read(self):
        for line in self.process.stdout:
            with self.more:
                self.lines.append(line.rstrip("\n"))
                self.more.notify_all()

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self, pattern):
        """The first line after the last one waited for that fits."""
        end = time.monotonic() + LIMIT
        with self.more:
            while True:
                while self.mark < len(self.lines):
                    line = self.lines[self.mark]
                    self.mark += 1
                    found = re.fullmatch(pattern, line)
                    if found:
                        return found
                if not self.more.wait(max(0, end - time.monotonic())):
                    raise AssertionError("no line fits %r; the last are:\n  %s"
                                         % (pattern, "\n  ".join(self.lines[-12:])))

    def now(self):
        """Forgets what was said so far."""
        with self.more:
            self.mark = len(self.lines)

    def end(self):
        if self.process.poll() is None:
            self.say("close")
        code = self.process.wait(LIMIT)
        assert code == 0, "engine-tool ends with %d" % code


class Backend:
    """An HTTP server whose answers are set from outside."""

    def __init__(self):
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status = backend.answers.get(self.path, 404)
                if status == 0:  # hang
                    time.sleep(0.5)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.answers = {"/healthz": 200}
        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.address = "%s:%d" % (HOST, self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Dns:
    """Answers every query with a code, a number of answers, or not at all."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.address = "%s:%d" % self.socket.getsockname()
        self.code, self.answers, self.silent, self.wrong_id = 0, 1, False, False
        self.asked = b""
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                self.asked, client = self.socket.recvfrom(512)
                if not self.silent:
                    self.socket.sendto(self.answer(bytearray(self.asked)), client)
            except OSError:
                return

    def answer(self, message):
        message[2] |= 0x84
        message[3] = self.code
        message[7] = self.answers
        if self.wrong_id:
            message[0] ^= 0xff
        return bytes(message)

    def end(self):
        self.socket.close()


class Certificates:
    """An authority, and a certificate of its own for whoever asks."""

    def __init__(self, folder):
        self.folder = os.path.join(folder, "pki")
        os.mkdir(self.folder)
        self.serial = 0
        self.openssl("req", "-x509", *self.fresh("ca"), "-out", self.path("ca.crt"), "-subj", "/CN=ca")

    def path(self, name):
        return os.path.join(self.folder, name)

    def openssl(self, *words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=LIMIT)

    def fresh(self, name):
        return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", self.path(name + ".key"))

    def issue(self, name):
        """Paths of authority, certificate and key."""
        self.serial += 1
        self.openssl("req", *self.fresh(name), "-out", self.path(name + ".csr"), "-subj", "/CN=" + name)
        self.openssl("x509", "-req", "-in", self.path(name + ".csr"), "-CA", self.path("ca.crt"),
                     "-CAkey", self.path("ca.key"), "-set_serial", str(self.serial), "-days", "2",
                     "-out", self.path(name + ".crt"))
        return [self.path(end) for end in ("ca.crt", name + ".crt", name + ".key")]


class Redis:
    def __init__(self, folder, module=None, origin=1, *more, tls=None):
        self.port = free_port()
        self.address = "%s:%d" % (HOST, self.port)
        self.tls = None
        port = ["--port", str(self.port)]
        if tls:
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-ca-cert-file", tls[0],
                    "--tls-cert-file", tls[1], "--tls-key-file", tls[2]]
            self.tls = ssl.create_default_context(cafile=tls[0])
            self.tls.check_hostname = False
            self.tls.load_cert_chain(tls[1], tls[2])
        self.arguments = ["redis-server", "--bind", HOST, *port, "--dir", folder,
                          "--save", "", "--appendonly", "no", "--daemonize", "no", *more]
        if module:
            self.arguments += ["--loadmodule", module, "origin", str(origin)]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                if self.ask("PING").startswith((b"+PONG", b"-NOAUTH")):
                    return self
            except OSError:
                time.sleep(0.02)
            assert self.process.poll() is None, "redis-server does not start"
        self.kill()
        raise AssertionError("redis-server does not answer")

    def connect(self):
        plain = socket.create_connection((HOST, self.port), timeout=LIMIT)
        return self.tls.wrap_socket(plain) if self.tls else plain

    def ask(self, *words):
        return self.ask_all(*words).split(b"\r\n")[0]

    def ask_all(self, *words):
        with self.connect() as connection:
            text = b"*%d\r\n" % len(words)
            for word in words:
                text += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
            connection.sendall(text)
            return connection.recv(65536)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


def topology(backends="", zone="zone example.test { name www { policy = nearest } }"):
    return """cluster = test; epoch = 1;
region one { id = 1; backends = [%s]
  node n1 { id = 1; link = %s:7401 } }
region two { id = 2; node n2 { id = 2; link = %s:7402 } }
%s
""" % (backends, HOST, HOST, zone)


def test_http(tool_path, folder):
    first, second, edge = Backend(), Backend(), Backend()
    second.answers = {"/": 200}
    edge.answers = {"/healthz": 404}
    closed = "%s:%d" % (HOST, free_port())
    backends = '"%s", "%s", "%s"' % (first.address, second.address, closed)
    tool = Tool(tool_path, folder, topology(backends), 1, "edge=" + edge.address)
    try:
        tool.wait(r"probed backend 0 good GET /healthz answers 200")
        tool.wait(r"probed backend 1 good GET / answers 200")
        tool.wait(r"probed backend 2 bad cannot connect to .*: connection refused")
        tool.wait(r"probed edge 0 good .*404")
        edge.answers["/healthz"] = 502
        tool.wait(r"probed edge 0 bad GET /healthz answers 502")
        first.answers["/healthz"] = 503
        tool.wait(r"probed backend 0 bad GET /healthz answers 503")
        first.answers["/healthz"] = 0
        tool.wait(r"probed backend 0 bad no answer in 80 ms")
        first.answers["/healthz"] = 200
        tool.wait(r"probed backend 0 good .*")
        # A topology with one backend less: the others go on being probed, by their new places.
        name = os.path.join(folder, "next.conf")
        with open(name, "w") as file:
            file.write(topology('"%s"' % second.address).replace("epoch = 1", "epoch = 2"))
        tool.say("topology " + name)
        tool.say("status")
        tool.wait(r"status 0 0 0 0 ")
        tool.wait(r"probed backend 0 good GET / answers 200")
        tool.wait(r"probed edge 0 .*")
        assert not any(re.match("probed backend [12]", line) for line in tool.lines[tool.mark - 3:])
        tool.end()
    finally:
        tool.process.kill()
        for server in (first, second, edge):
            server.end()


def test_garbage(tool_path, folder):
    """A backend that speaks no HTTP, and one that closes at once."""
    babble = socket.create_server((HOST, 0))
    mute = socket.create_server((HOST, 0))

    def serve(server, text):
        while True:
            try:
                connection, _ = server.accept()
                connection.sendall(text)
                connection.close()
            except OSError:
                return

    threading.Thread(target=serve, args=(babble, b"SSH-2.0-x\r\n"), daemon=True).start()
    threading.Thread(target=serve, args=(mute, b""), daemon=True).start()
    backends = ", ".join('"%s:%d"' % server.getsockname() for server in (babble, mute))
    tool = Tool(tool_path, folder, topology(backends), 1)
    try:
        for _ in range(3):
            tool.wait(r"probed backend 0 bad (GET /healthz is not answered in HTTP|.*reset.*)")
            tool.wait(r"probed backend 1 bad no answer to GET /healthz: .*")
        tool.end()
    finally:
        tool.process.kill()
        babble.close()
        mute.close()


def test_dns(tool_path, folder):
    dns = Dns()
    tool = Tool(tool_path, folder, topology(), 1, "dns=" + dns.address)
    try:
        tool.wait(r"probed dns 0 good answers")
        assert dns.asked[12:] == b"\x07example\x04test\x00\x00\x06\x00\x01"
        dns.code = 2
        tool.wait(r"probed dns 0 bad the DNS server answers SERVFAIL")
        dns.code, dns.answers = 0, 0
        tool.wait(r"probed dns 0 bad the DNS server does not know the zone")
        dns.silent = True
        tool.wait(r"probed dns 0 bad no answer in 80 ms")
        dns.silent, dns.answers, dns.wrong_id = False, 1, True
        tool.wait(r"probed dns 0 bad no answer in 80 ms")
        dns.wrong_id = False
        tool.wait(r"probed dns 0 good answers")
        dns.end()
        tool.wait(r"probed dns 0 bad .*")
        tool.end()
    finally:
        tool.process.kill()
        dns.end()


def test_redis_plain(tool_path, folder):
    redis = Redis(folder)
    tool = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address)
    try:
        tool.wait(r"probed redis 0 bad cannot connect to Redis: Connection refused")
        redis.start()
        tool.wait(r"note redis-no-module Redis at .* the Meridian module is not loaded: .*")
        tool.wait(r"probed redis 0 bad Redis at .* the Meridian module is not loaded: .*")
        tool.say("status")
        tool.wait(r"status 1 0 1 0 Redis at .*")
        redis.process.send_signal(signal.SIGSTOP)
        tool.wait(r"probed redis 0 bad no answer in 80 ms")
        tool.wait(r"probed redis 0 bad no answer in 80 ms")
        redis.process.send_signal(signal.SIGCONT)
        tool.wait(r"probed redis 0 bad Redis at .*")
        tool.end()
    finally:
        tool.process.kill()
        redis.kill()


def test_redis_password(tool_path, folder):
    redis = Redis(folder, None, 1, "--requirepass", "secret").start()
    tool = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address)
    right = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "password=secret")
    wrong = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "password=other")
    named = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "password=secret",
                 "user=default")
    nobody = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "password=secret",
                  "user=nobody")
    found = Tool(tool_path, folder, topology(), 1, "replica=" + redis.address, "password=other")
    tools = (tool, right, wrong, named, nobody, found)
    try:
        tool.wait(r"probed redis 0 bad Redis answers: NOAUTH .*")
        right.wait(r"note redis-no-module .*")
        wrong.wait(r"probed redis 0 bad cannot connect to Redis: Redis refuses user or password")
        named.wait(r"note redis-no-module .*")
        nobody.wait(r"probed redis 0 bad cannot connect to Redis: Redis refuses user or password")
        found.wait(r"probed redis 0 bad cannot connect to Redis: Redis refuses user or password")
        for each in tools: # also the one that has found no primary
            each.end()
    finally:
        for each in tools:
            each.process.kill()
        redis.kill()


def tls_words(files):
    """For the tool."""
    return ["%s=%s" % pair for pair in zip(("ca", "cert", "key"), files)]


def test_redis_tls(tool_path, folder):
    """Who accepts whom: a server that wants certificates, one that wants none, one without TLS."""
    pki, other = Certificates(folder), Certificates(tempfile.mkdtemp(dir=folder))
    server, mine, strange = pki.issue("server"), pki.issue("mine"), other.issue("mine")
    strict = Redis(folder, tls=server).start()
    lax = Redis(folder, None, 1, "--tls-auth-clients", "no", "--requirepass", "secret", tls=server).start()
    plain = Redis(folder).start()
    no_module = r"note redis-no-module .*"
    unwanted = r"probed redis 0 bad cannot connect to Redis: (TLS: .*certificate.*|TLS: .*alert.*|" \
               r"Server closed the connection|Connection reset by peer|Broken pipe)"
    rows = [
        (strict, tls_words(mine), no_module),
        (strict, tls_words(mine[:1]), unwanted),
        (strict, tls_words([mine[0]] + strange[1:]), unwanted),
        (strict, tls_words(strange), r"probed redis 0 bad cannot connect to Redis: TLS: the server's "
                                     r"certificate is not accepted: .*"),
        (strict, [], r"probed redis 0 bad cannot connect to Redis: .*"),
        (lax, tls_words(mine[:1]) + ["password=secret"], no_module),
        (lax, tls_words(mine) + ["password=other"],
         r"probed redis 0 bad cannot connect to Redis: Redis refuses user or password"),
        (plain, tls_words(mine), r"probed redis 0 bad cannot connect to Redis: .*"),
    ]
    tools = [Tool(tool_path, folder, topology(), 1, "redis=" + server.address, *words)
             for server, words, _ in rows]
    try:
        for tool, (_, _, line) in zip(tools, rows):
            tool.wait(line)
            tool.end()
    finally:
        for tool in tools:
            tool.process.kill()
        for server in (strict, lax, plain):
            server.kill()


def test_redis_tls_files(tool_path, folder):
    """Files that are of no use are named before anything runs."""
    pki = Certificates(folder)
    ca, cert, key = pki.issue("mine")
    empty, missing, open_key = (pki.path(name) for name in ("empty", "missing", "open.key"))
    open(empty, "w").close()
    shutil.copy(key, open_key)
    os.chmod(open_key, 0o640)
    for files, line in (((missing, cert, key), r".*/missing cannot be read: No such file.*"),
                        ((empty,), r".*/empty holds no certificate of an authority.*"),
                        ((ca, empty, key), r".*/empty holds no certificate .*"),
                        ((ca, cert, missing), r".*/missing cannot be read: No such file.*"),
                        ((ca, cert, open_key), r".*/open.key can be read or written by others.*"),
                        ((ca, cert, pki.path("ca.key")), r".*/ca.key is no key .* for .*")):
        os.chmod(key, 0o600)
        tool = Tool(tool_path, folder, topology(), 1, *tls_words(files))
        tool.wait("refused " + line)
        tool.process.wait(LIMIT)


def test_redis_module_tls(tool_path, folder, module):
    files = Certificates(folder).issue("server")
    test_redis_module(tool_path, folder, module, files)


def test_redis_module(tool_path, folder, module, tls=None):
    one, two = (os.path.join(folder, name) for name in ("one", "two"))
    for each in (one, two):
        os.mkdir(each)
    words = tls_words(tls) if tls else []
    left = Redis(one, module, 1, tls=tls).start()
    right = Redis(two, module, 2, tls=tls).start()
    a = Tool(tool_path, one, topology(), 1, "redis=" + left.address, *words)
    b = Tool(tool_path, two, topology(), 2, "redis=" + right.address, *words)
    try:
        up = a.wait(r"up (\d+) (\d+) (\d+)(.*)")
        b.wait(r"up .*")
        a.wait(r"probed redis 0 good answers")

        # A tail waits for the write, and comes with it.
        begun = re.search(r"1:(\d+)", up[4])[1]  # what is there already: the begin of its life
        a.say("tail 2 %s 65536 5000" % begun)
        left.ask("SET", "greeting", "hello")
        tailed = a.wait(r"tailed 2 0 %s (\d+) ([0-9a-f]+)" % begun)
        last, deltas = int(tailed[1]), tailed[2]
        assert last > 0 and b"hello".hex() in deltas
        b.say("merge 1 0 %d %s" % (last, deltas))
        b.wait(r"merged 1 0 %d ok" % last)
        assert right.ask("GET", "greeting") == b"$5"
        b.say("merge 1 0 %d %s" % (last, deltas))  # twice is once
        b.wait(r"merged 1 0 %d ok" % last)
        b.say("merge 1 %d %d 00" % (last + 5, last + 9))  # ahead of what it has
        b.wait(r"merged 1 1 %d ok" % last)
        b.say("merge 1 %d %d ffffffff" % (last, last + 9))
        b.wait(r"merged 1 0 \d+ ERR_\w+")
        a.say("acked 2 %d" % last)

        # More than the system takes at once, for a server that does not read for a while.
        left.ask("SET", "large", "x" * 200000)
        a.say("tail 2 %d 65536 5000" % last)
        tailed = a.wait(r"tailed 2 0 %s (\d+) ([0-9a-f]+)" % last)
        assert b"x".hex() * 200000 in tailed[2]
        done = 0
        while done < 40:
            right.process.send_signal(signal.SIGSTOP)
            for _ in range(40):
                b.say("merge 1 %d %s %s" % (last, tailed[1], tailed[2]))
            b.say("status")
            b.wait(r"status .*")
            right.process.send_signal(signal.SIGCONT)
            done = 0
            while done < 40 and b.wait(r"merged 1 0 %s ok|(down)" % tailed[1])[1] is None:
                done += 1
            if done < 40:  # it was given up meanwhile
                b.wait(r"up .*")
        last = int(tailed[1])
        assert right.ask("STRLEN", "large") == b":200000"

        # Nothing to tell, but for who is a member: an answer after the time, from where it was or
        # beyond.
        a.say("tail 2 %d 65536 50" % last)
        idle = a.wait(r"tailed 2 0 %d (\d+) [0-9a-f]*" % last)
        assert int(idle[1]) >= last

        # Two peers at once, each on its own connection; a long wait holds up nobody.
        a.say("tail 2 %s 65536 60000" % idle[1])
        a.say("tail 3 0 65536 100")
        a.wait(r"tailed 3 0 0 \d+ [0-9a-f]+")
        a.say("scan 3 0 65536")
        scanned = a.wait(r"scanned 3 0 ok ([0-9a-f]+) 1:(\d+)")
        b.say("stateend 1 %s %s" % (scanned[2], scanned[1]))
        b.wait(r"merged 1 0 \d+ ok")

        # The connection of a tail alone is cut: the node sees nothing, the tail goes on.
        a.now()
        clients = left.ask_all("CLIENT", "LIST").decode()
        tails = re.findall(r"^id=(\d+) .* cmd=meridian.tail ", clients, re.MULTILINE)
        assert len(tails) == 2, clients
        for client in tails:
            assert left.ask("CLIENT", "KILL", "ID", client) == b":1"
        left.ask("SET", "greeting", "once more")
        told = a.wait(r"tailed 2 0 %s (\d+) ([0-9a-f]+)" % idle[1])
        assert b"once more".hex() in told[2]
        assert "down" not in a.lines[-5:]
        a.say("tail 2 %s 65536 60000" % told[1])

        # Every connection is cut: Redis counts as gone until the control connection stands again.
        a.now()
        left.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        a.wait(r"down")
        a.wait(r"up .*")
        a.say("tail 2 %s 65536 60000" % told[1])
        left.ask("SET", "greeting", "again")
        a.wait(r"tailed 2 0 %s \d+ [0-9a-f]+" % told[1])

        # Redis dies with a tail waiting, and comes back empty: another incarnation.
        a.say("tail 2 99999999999999999 65536 60000")
        left.kill()
        a.wait(r"down")
        a.say("tail 2 0 65536 10")  # while it is down: dropped
        a.say("scan 2 0 10")
        a.wait(r"probed redis 0 bad cannot connect.*")
        a.now()
        left.start()
        again = a.wait(r"up (\d+) .*")
        assert again[1] != up[1], "the incarnation stays"
        assert not any(line.startswith(("tailed", "scanned")) for line in a.lines[a.mark - 1:])
        a.wait(r"probed redis 0 good answers")

        # Redis hangs: it is given up, and taken up again.
        left.process.send_signal(signal.SIGSTOP)
        a.wait(r"probed redis 0 bad no answer in 80 ms")
        left.process.send_signal(signal.SIGCONT)
        a.wait(r"probed redis 0 good answers")
        a.say("status")
        a.wait(r"status 1 1 0 1 ")
        a.end()
        b.end()
    finally:
        for tool in (a, b):
            tool.process.kill()
        left.kill()
        right.kill()


def test_redis_user(tool_path, folder, module):
    """The user of the example has each right that it needs; one that lacks a right is told of."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(os.path.join(root, "deploy/examples/redis.conf")) as file:
        rules = re.search(r"^user meridian (.*)$", file.read(), re.MULTILINE)[1]
    for name in sorted(os.listdir(os.path.join(root, "src/engine"))):
        with open(os.path.join(root, "src/engine", name)) as file:
            for command in re.findall(r'BYTES\("(MERIDIAN\.[A-Z]+)"\)', file.read()):
                assert "+" + command.lower() in rules.split(), "%s says %s" % (name, command)
    redis = Redis(folder, module, 1).start()
    rules = rules.replace("#@sha256@", ">secret").split()
    assert redis.ask("ACL", "SETUSER", "meridian", *rules) == b"+OK"
    words = ["redis=" + redis.address, "user=meridian", "password=secret"]
    tool = Tool(tool_path, folder, topology(), 1, *words)
    try:
        tool.wait(r"up .*")
        tool.say("tail 2 0 65536 50")
        tool.wait(r"tailed .*")
        tool.say("scan 2 0 65536")
        tool.wait(r"scanned .*")
        tool.say("acked 2 5")
        tool.say("merge 2 0 0 ")
        tool.wait(r"merged .*")
        tool.wait(r"probed redis 0 good answers")
        assert redis.ask("ACL", "LOG") == b"*0", redis.ask_all("ACL", "LOG")
        assert redis.ask("ACL", "SETUSER", "meridian", "-meridian.members") == b"+OK"
        assert redis.ask("CLIENT", "KILL", "USER", "meridian").startswith(b":")
        tool.wait(r"note redis-denied Redis at .* refuses: NOPERM .*; give the daemon's user .*")
        tool.end()
    finally:
        tool.process.kill()
        redis.kill()


def test_redis_refuses(tool_path, folder, module):
    """What keeps a server from doing its part is told once, and when it is over; so is a connection
    that is closed time after time, as the answer is larger than the server's limit."""
    redis = Redis(folder, module, 1).start()
    rules = "on >secret ~* &* +@all".split()
    assert redis.ask("ACL", "SETUSER", "meridian", *rules) == b"+OK"
    tool = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "user=meridian",
                "password=secret")
    try:
        begun = re.search(r"1:(\d+)", tool.wait(r"up \d+ \d+ \d+(.*)")[1])[1]
        redis.ask("SET", "large", "x" * 300000)
        redis.ask("CONFIG", "SET", "client-output-buffer-limit", "normal 100kb 0 0")
        tool.say("scan 3 0 65536")
        tool.wait(r"scanned 3 0 ERR_CLOSED.*")
        tool.say("tail 2 %s 65536 0" % begun)
        tool.wait(r"note redis-cut .*3 times before MERIDIAN\.TAIL was.* limits.*")
        redis.ask("CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0")
        tool.wait(r"note redis-cut Redis at .* answers again.*")
        assert b"x".hex() * 300000 in tool.wait(r"tailed 2 0 %s \d+ ([0-9a-f]+)" % begun)[1]

        # What may not be run is told of once, however often it is asked for; so is full memory.
        redis.ask("ACL", "SETUSER", "meridian", "-meridian.tail")
        tool.say("tail 2 %s 65536 0" % begun)
        tool.wait(r"note redis-denied .* NOPERM .*meridian.tail.*; give the daemon's user .*")
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        tool.say("merge 2 0 0 ")
        tool.wait(r"note redis-memory .* refuses what other regions send.*")
        tool.say("merge 2 0 0 ")
        tool.wait(r"merged 2 0 0 ERR_LIMIT")
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        tool.say("merge 2 0 0 ")
        tool.wait(r"note redis-memory .* has room again.*")
        redis.ask("ACL", "SETUSER", "meridian", "+meridian.tail")
        tool.wait(r"note redis-denied .* lets the daemon's user do its work again")
        tool.wait(r"tailed 2 0 %s \d+ .*" % begun)
        told = [line.split()[1] for line in tool.lines if line.startswith("note redis-")]
        assert told.count("redis-denied") == 2 and told.count("redis-memory") == 2, told

        # By mistake the server is made a replica.
        redis.ask("REPLICAOF", HOST, str(free_port()))
        tool.say("merge 2 0 0 ")
        tool.wait(r"note redis-readonly .* is a replica and refuses .*REPLICAOF NO ONE")
        redis.ask("REPLICAOF", "NO", "ONE")
        tool.say("merge 2 0 0 ")
        tool.wait(r"note redis-readonly .* is no replica any more.*")
        tool.end()
    finally:
        tool.process.kill()
        redis.kill()


def test_redis_slow(tool_path, folder, module):
    """A server that reads a large value for a state may answer nobody for long: it is waited for."""
    redis = Redis(folder, module, 1).start()
    tool = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address, "stall=200")
    try:
        tool.wait(r"up .*")
        tool.say("scan 2 0 65536")
        tool.wait(r"scanned 2 0 ok .*")
        redis.process.send_signal(signal.SIGSTOP)
        tool.say("scan 3 0 65536")
        for _ in range(12):  # the watch looks twice a second
            tool.wait(r"probed redis 0 bad no answer in 80 ms")
        redis.process.send_signal(signal.SIGCONT)
        tool.wait(r"scanned 3 0 ok .*")
        assert "down" not in tool.lines, tool.lines
        tool.end()
    finally:
        tool.process.kill()
        redis.kill()


def test_redis_wrong_region(tool_path, folder, module):
    redis = Redis(folder, module, 2).start()
    tool = Tool(tool_path, folder, topology(), 1, "redis=" + redis.address)
    try:
        tool.wait(r"note redis-refused Redis's module is set to region 2, but this node is of "
                  r"region 1: .*")
        tool.wait(r"probed redis 0 bad Redis's module is set to region 2.*")
        tool.end()
    finally:
        tool.process.kill()
        redis.kill()


def test_closed_at_any_time(tool_path, folder, redis_there):
    """Ending in the midst of everything leaves no handle and no memory."""
    dns, backend = Dns(), Backend()
    dns.silent = True
    backend.answers["/healthz"] = 0
    redis = Redis(folder)
    if redis_there:
        redis.start()
    try:
        for wait_ms in (0, 5, 20, 60, 90, 130, 250):
            tool = Tool(tool_path, folder, topology('"%s"' % backend.address), 1,
                        "redis=" + redis.address, "dns=" + dns.address, "edge=" + backend.address)
            time.sleep(wait_ms / 1000)
            tool.end()
    finally:
        dns.end()
        backend.end()
        redis.kill()


def run(name, function, *arguments):
    folder = tempfile.mkdtemp(prefix="meridian-engine-")
    begin = time.monotonic()
    try:
        function(arguments[0], folder, *arguments[1:])
        print("ok %s (%.1f s)" % (name, time.monotonic() - begin), flush=True)
    except Exception as error:  # every test runs, whatever the others do
        failures.append(name)
        print("not ok %s: %s: %s" % (name, type(error).__name__, error), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main():
    tool = sys.argv[1]
    module = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
    redis_there = shutil.which("redis-server") is not None
    run("http", test_http, tool)
    run("garbage", test_garbage, tool)
    run("dns", test_dns, tool)
    run("closed-at-any-time", test_closed_at_any_time, tool, redis_there)
    if redis_there:
        run("redis-plain", test_redis_plain, tool)
        run("redis-password", test_redis_password, tool)
        run("redis-tls", test_redis_tls, tool)
        run("redis-tls-files", test_redis_tls_files, tool)
    else:
        print("# left out: redis-server is not installed")
    if redis_there and module:
        run("redis-wrong-region", test_redis_wrong_region, tool, module)
        run("redis-user", test_redis_user, tool, module)
        run("redis-refuses", test_redis_refuses, tool, module)
        run("redis-slow", test_redis_slow, tool, module)
        run("redis-module", test_redis_module, tool, module)
        run("redis-module-tls", test_redis_module_tls, tool, module)
    else:
        print("# left out: tests with the Meridian module, which is not built")
    return 1 if failures else 0


if __name__ == "__main__":
    own_network.enter()
    sys.exit(main())
