#!/usr/bin/python3
"""What `make install` installs, and the examples of deploy/, on three machines that stand for real ones:
two regions with a Redis that wants a password, and a witness, set up the way docs/install.md says.

The examples are used as they are; only addresses, ports below 1024 and folders become this machine's
own. The last line is `N passed, N failed`."""
import hashlib
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import dns.message
import dns.query
import dns.rdatatype
import redis
import requests

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(os.path.dirname(HERE), folder) for folder in ("", "scenarios", "plugins")]
from fixture import end_process  # noqa: E402
from lab import BUILD, eventually, expect, expect_true  # noqa: E402
from tally import Tally  # noqa: E402

# The examples' addresses, and what stands for them here.
HERE_IS = {"203.0.113.10": "127.61.0.1", "203.0.113.20": "127.62.0.1", "203.0.113.30": "127.63.0.1",
           "10.1.0.5": "127.61.0.1", "10.2.0.5": "127.62.0.1", "10.3.0.5": "127.63.0.1",
           "10.1.0.11": "127.61.0.11", "10.1.0.12": "127.61.0.12", "10.2.0.11": "127.62.0.11",
           "10.2.0.12": "127.62.0.12", "@53": "@5353", ":53;": ":5353;", ":80;": ":8080;"}
# What the example of us-east-1 says that the others say otherwise.
NODES = {1: ("us-east", {}),
         2: ("eu-west", {"us-east": "eu-west", "node       1": "node       2", "origin 1": "origin 2",
                         "203.0.113.10": "203.0.113.20", "10.1.0.5": "10.2.0.5"}),
         3: ("witness", {"us-east": "witness", "node       1": "node       3",
                         "203.0.113.10": "203.0.113.30", "10.1.0.5": "10.3.0.5"})}
PASSWORD = "correct horse"


def changed(text, pairs):
    for before, after in pairs.items():
        text = text.replace(before, after)
    return text


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # pylint: disable=invalid-name
        body = b"the shop"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):  # pylint: disable=arguments-differ
        pass


class Machines:
    """The folder in which everything lies, and what runs."""

    def __init__(self, folder):
        self.folder, self.running, self.backends = folder, {}, []
        self.root = os.path.join(folder, "root")
        self.prefix = None

    def install(self):
        done = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--destdir", self.root],
                              capture_output=True, text=True, check=False)
        expect(done.returncode, 0, done.stdout + done.stderr)
        found = [at for at, _, names in os.walk(self.root) if "meridiand" in names]
        self.prefix = os.path.dirname(found[0])
        self.folders = {"/usr/local/lib/meridian": os.path.join(self.prefix, "lib/meridian")}

    def example(self, name, node):
        """An example as node `node` has it."""
        path = os.path.join(self.prefix, "share/meridian/examples", name)
        region, differs = NODES[node]
        with open(path, encoding="utf-8") as file:
            text = changed(file.read(), {} if name == "topology.conf" else differs)
        own = {"/etc/meridian": self.at(node, "etc"), "/var/lib/meridian": self.at(node, "var"),
               "/run/meridian": self.at(node, "run"), "/etc/knot": self.at(node, "knot"),
               "@sha256@": hashlib.sha256(PASSWORD.encode()).hexdigest()}
        return region, changed(text, {**own, **self.folders, **HERE_IS})

    def at(self, node, *names):
        return os.path.join(self.folder, str(node), *names)

    def write(self, node, name, text, mode=0o644):
        path = self.at(node, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def meridian(self, *words, status=0, **environment):
        """The installed command line; stdout, and stderr behind it."""
        done = subprocess.run([os.path.join(self.prefix, "bin/meridian"), *words], text=True, check=False,
                              env=dict({"PATH": os.environ["PATH"], "NO_COLOR": "1"}, **environment),
                              capture_output=True, cwd="/", timeout=30)
        expect(done.returncode, status, f"meridian {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def daemon(self, *words):
        return [os.path.join(self.prefix, "sbin/meridiand"), *words]

    def check(self, node):
        """`meridiand --check`: exit status, and what it says."""
        done = subprocess.run(self.daemon("-c", self.at(node, "etc/meridiand.conf"), "--check"), text=True,
                              capture_output=True, check=False, timeout=30)
        return done.returncode, done.stdout + done.stderr

    def start(self, name, *command):
        log = open(os.path.join(self.folder, f"{name}.log"), "a", encoding="utf-8")
        with log:
            self.running[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder,
                                                  stdin=subprocess.DEVNULL,
                                                  start_new_session=True)

    def kill(self, name):
        """The program and its children, at once."""
        os.killpg(self.running[name].pid, signal.SIGKILL)

    def start_backends(self):
        for host in ("127.61.0.11", "127.61.0.12", "127.62.0.11", "127.62.0.12"):
            backend = http.server.ThreadingHTTPServer((host, 8000), Backend)
            threading.Thread(target=backend.serve_forever, daemon=True).start()
            self.backends.append(backend)

    def end(self):
        for process in reversed(self.running.values()):
            end_process(process)
        for backend in self.backends:
            backend.shutdown()
            backend.server_close()

    def logs(self):
        for name in sorted(self.running):
            print(f"--- {name}")
            subprocess.run(["tail", "-n", "25", os.path.join(self.folder, f"{name}.log")], check=False)


def all_is_installed(machines):
    machines.install()
    for path in ("bin/meridian", "sbin/meridiand", "lib/meridian/meridian.so",
                 "lib/meridian/mod-meridian.so", "lib/meridian/ngx_http_meridian_module.so",
                 "lib/systemd/system/meridiand.service", "lib/sysusers.d/meridian.conf",
                 "include/meridian_lock.h", "include/meridian_flags.h", "share/man/man1/meridian.1",
                 "share/man/man8/meridiand.8", "share/man/man5/meridiand.conf.5",
                 "share/bash-completion/completions/meridian"):
        expect_true(os.path.exists(os.path.join(machines.prefix, path)), f"{path} is installed")
    found = {name for _, _, names in os.walk(machines.root) for name in names}
    expect({"meridian.control", "meridian--1.0.sql"} - found, set(), "PostgreSQL's extension")
    with open(os.path.join(machines.prefix, "lib/systemd/system/meridiand.service"),
              encoding="utf-8") as unit:
        line = next(line for line in unit if line.startswith("ExecStart="))
    expect_true("@" not in line and "/sbin/meridiand -c /etc/meridian/" in line, line)


def certificates_are_made(machines):
    authority = os.path.join(machines.folder, "ca")
    machines.meridian("pki", "init", authority, "shop")
    expect_true("there is an authority" in machines.meridian("pki", "init", authority, "shop", status=1),
                "an authority stays")
    for node, (region, _) in NODES.items():
        machines.meridian("pki", "node", authority, region, str(node), machines.at(node, "etc/pki"))
    for words, complaint in ((("node", authority, "us-east", "none", "/nowhere"), "no node's number"),
                             (("node", authority, "us east", "1", "/nowhere"), "no region's name"),
                             (("node", "/nowhere", "us-east", "1", "/nowhere"), "/nowhere/ca.crt"),
                             (("list", "/nowhere"), "no authority")):
        expect_true(complaint in machines.meridian("pki", *words, status=1), complaint)
    expect_true("usage: meridian pki node" in machines.meridian("pki", "node", "x", status=2), "usage")
    listed = machines.meridian("pki", "list", authority)
    expect([region in listed for region, _ in NODES.values()], [True] * 3, listed)


def by_tls(machines, node):
    """What the second region's Redis and daemon say of TLS: the node's own certificate serves both."""
    ca, cert, key = (machines.at(node, "etc/pki", name) for name in ("ca.crt", "node.crt", "node.key"))
    return (f"tls-port 6380\ntls-ca-cert-file {ca}\ntls-cert-file {cert}\ntls-key-file {key}\n",
            f":6380; tls on; ca {ca}; cert {cert}; key {key};")


def a_password_that_others_read_is_refused(machines):
    for node in NODES:
        region, text = machines.example("topology.conf", node)
        machines.write(node, "etc/topology.conf", text)
        region, text = machines.example("meridiand.conf", node)
        if region == "witness":
            text = text[:text.index("redis {")]
        if node == 2:
            text = text.replace(":6379;", by_tls(machines, node)[1])
        machines.write(node, "etc/meridiand.conf", text)
        machines.write(node, "etc/redis.password", PASSWORD + "\n", 0o600)
        expect(machines.check(node)[0], 0, machines.check(node)[1])
    path = machines.at(1, "etc/redis.password")
    for text, mode, complaint in ((PASSWORD, 0o640, "chmod 600"), ("\n", 0o600, "the first line"),
                                  ("x" * 256, 0o600, "the first line")):
        machines.write(1, "etc/redis.password", text, mode)
        status, said = machines.check(1)
        expect_true(status == 2 and complaint in said and path in said, said)
    os.remove(path)
    expect_true("cannot be read" in machines.check(1)[1], "without the file")


def a_wrong_password_is_told(machines):
    for node in (1, 2):
        os.makedirs(machines.at(node, "redis"))
        address = f"127.6{node}.0.1"
        own = f"bind {address}\nport 6379\ndir {machines.at(node, 'redis')}\n"
        own += by_tls(machines, node)[0] if node == 2 else ""
        machines.write(node, "redis.conf", own + machines.example("redis.conf", node)[1])
        machines.start(f"redis-{node}", "redis-server", machines.at(node, "redis.conf"))
    machines.write(1, "etc/redis.password", "battery staple\n", 0o600)
    for node in NODES:
        machines.start(f"meridiand-{node}",
                       *machines.daemon("-c", machines.at(node, "etc/meridiand.conf")))
    log = os.path.join(machines.folder, "meridiand-1.log")
    eventually("it says so", lambda: "Redis refuses user or password" in open(log, encoding="utf-8").read())
    machines.write(1, "etc/redis.password", PASSWORD + "\n", 0o600)
    end_process(machines.running["meridiand-1"])
    machines.start("meridiand-1", *machines.daemon("-c", machines.at(1, "etc/meridiand.conf")))


def names_and_the_edge(machines):
    for node in (1, 2):
        region, text = machines.example("knot.conf", node)
        rundir = machines.at(node, "knot-run")
        os.makedirs(rundir)
        own = f"server:\n    rundir: {rundir}\n"
        text = text.replace("server:\n", own, 1).replace(
            f"    geo: {machines.at(node, 'etc/geo.mmdb')}\n", "")
        machines.write(node, "knot.conf", text + f"\ndatabase:\n    storage: {rundir}\n")
        machines.write(node, "knot/shop.example.zone",
                       "@ 3600 SOA ns1 hostmaster 1 3600 600 86400 5\n@ 3600 NS ns1\nns1 A 127.61.0.1\n")
        machines.start(f"knotd-{node}", "/usr/sbin/knotd", "-c", machines.at(node, "knot.conf"))
        region, text = machines.example("nginx.conf", node)
        folder = machines.at(node, "nginx")
        os.makedirs(folder)
        paths = "".join(f"{name}_temp_path {folder}/{name};\n"
                        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = text.replace("http {\n", f"http {{\naccess_log off;\n{paths}", 1)
        user = "user root;\n" if os.getuid() == 0 else ""
        machines.write(node, "nginx.conf", f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\n{text}")
        machines.start(f"nginx-{node}", "/usr/sbin/nginx", "-e", "stderr", "-p", folder, "-c",
                       machines.at(node, "nginx.conf"))
        eventually(f"{region} by its own name", lambda r=region[:2], n=node: dns_addresses(
            f"127.6{n}.0.1", f"{r}.shop.example") == [f"127.6{n}.0.1"], 30)
        eventually("somewhere by the common one", lambda n=node: dns_addresses(
            f"127.6{n}.0.1", "www.shop.example")[0] in ("127.61.0.1", "127.62.0.1"), 30)
        answer = eventually("a page", lambda n=node: page(n), 30)
        expect(answer.headers["Meridian-Region"], region, "of the own region")


def two_regions_and_a_witness(machines):
    own = {"MERIDIAN_CONFIG": machines.at(1, "etc/meridiand.conf")}

    def active():
        status = requests.get("http://127.61.0.1:7400/status", timeout=5).json()
        states = {region["name"]: region["state"] for region in status["regions"]}
        return states if (states["us-east"], states["eu-west"]) == ("active", "active") else None

    eventually("two regions serve", active, 60)
    shown = machines.meridian("status", **own)
    expect_true("majority yes" in shown and "us-east" in shown, shown)
    checked = machines.meridian("doctor", **own)
    expect_true("all is well" in checked and "valid for 8" in checked and "us-east" in checked, checked)
    clients = [redis.Redis(f"127.6{node}.0.1", 6379, decode_responses=True) for node in (1, 2)]
    clients[0].incrby("visits", 2)
    clients[1].incrby("visits", 3)
    for client in clients:
        eventually("they add up", lambda c=client: c.get("visits") == "5", 30)
        denied = [row for row in client.acl_log() if row["reason"] != "auth"]
        expect(denied, [], "the daemon's user has the rights that it needs")
    locks = redis.Redis("127.63.0.1", 7402, decode_responses=True)
    granted = eventually("a lock from the witness",
                         lambda: locks.execute_command("LOCK.ACQUIRE", "global:install", "ann", 1000), 20)
    expect_true(granted[0] > 0, "its token")
    eventually("the regions hold the same", lambda: "the same" in machines.meridian("verify", **own), 30)


def dns_addresses(server, name):
    answer = dns.query.udp(dns.message.make_query(name, "A"), server, port=5353, timeout=2)
    return [item.address for rrset in answer.answer for item in rrset
            if rrset.rdtype == dns.rdatatype.A]


def page(node):
    answer = requests.get(f"http://127.6{node}.0.1:8080/", timeout=5)
    return answer if answer.status_code == 200 else None


def a_region_dies(machines):
    for name in ("meridiand-1", "redis-1", "nginx-1", "knotd-1"):
        machines.kill(name)

    def seen():
        status = requests.get("http://127.62.0.1:7400/status", timeout=5).json()
        states = {region["name"]: region["state"] for region in status["regions"]}
        return status["majority"] and states["us-east"] == "down"

    eventually("the other and the witness agree that it is down", seen, 60)
    locks = redis.Redis("127.62.0.1", 7402)
    expect_true(eventually("a lock without it", lambda: locks.execute_command(
        "LOCK.ACQUIRE", "global:install", "ben", 1000), 30), "its answer")
    expect(redis.Redis("127.62.0.1", 6379).incr("visits"), 6, "it goes on writing")


TESTS = [all_is_installed, certificates_are_made, a_password_that_others_read_is_refused,
         a_wrong_password_is_told, names_and_the_edge, two_regions_and_a_witness, a_region_dies]


def main():
    tally = Tally()
    folder = tempfile.mkdtemp(prefix="mi-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    machines = Machines(folder)
    try:
        machines.start_backends()
        for test in TESTS:
            if not tally.run(test, machines):  # each needs what the ones before it have set up
                machines.logs()
                break
    finally:
        machines.end()
        shutil.rmtree(folder, ignore_errors=True)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
