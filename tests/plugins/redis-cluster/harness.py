"""Regions of one server or of a Redis Cluster, each with a real engine in front, and the wires
between them: what the nodes do, without the nodes."""
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BUILD = os.environ.get("MERIDIAN_BUILD", os.path.join(ROOT, "build"))
MODULE = os.environ.get("MERIDIAN_MODULE", os.path.join(BUILD, "plugins/redis/meridian.so"))
TOOL = os.path.join(BUILD, "tests/engine/engine-tool")
ADDRESS = "127.93.0.1"
LIMIT = 60


class Failed(Exception):
    pass


def check(belief, why):
    if not belief:
        raise Failed(why)


def eventually(belief, why, limit=LIMIT):
    """Waits until it holds."""
    end = time.monotonic() + limit
    while True:
        got = belief()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(why() if callable(why) else why)
        time.sleep(0.02)


def close_all(servers):
    """All of them; fails where one had ended by itself."""
    died = [text for text in [server.close() for server in servers] if text]
    check(not died, "; ".join(died))


class Error(Exception):
    """An error reply."""


class Connection:
    """RESP, by hand: replies are bytes, integers, lists, None, or Error raised."""

    def __init__(self, port):
        self.socket = socket.create_connection((ADDRESS, port), timeout=10)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, *words):
        text = b"*%d\r\n" % len(words)
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            text += b"$%d\r\n%s\r\n" % (len(data), data)
        self.socket.sendall(text)

    def read(self):
        line = self.file.readline()
        if not line:
            raise OSError("closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            return Error(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"$":
            if int(rest) < 0:
                return None
            return self.file.read(int(rest) + 2)[:-2]
        return [self.read() for _ in range(int(rest))]

    def call(self, *words):
        self.send(*words)
        reply = self.read()
        if isinstance(reply, Error):
            raise reply
        return reply


class Server:
    """One server process."""

    ports = iter(range(7200, 7900))

    def __init__(self, program, origin, *arguments, module=True, ring=1 << 20):
        self.program = program
        self.port = next(Server.ports)
        self.folder = tempfile.mkdtemp(prefix="meridian-cluster-")
        self.arguments = ["--bind", ADDRESS, "--port", str(self.port), "--dir", self.folder,
                          "--logfile", self.folder + "/log", "--save", "", "--appendonly", "yes",
                          "--appendfsync", "no", "--repl-diskless-sync-delay", "0",
                          "--replica-announce-ip", ADDRESS, *arguments]
        if module:
            self.arguments += ["--loadmodule", MODULE, "origin", str(origin), "ring", str(ring)]
        self.process = None
        self.may_end = False

    def start(self):
        self.may_end = False
        self.process = subprocess.Popen([self.program] + self.arguments,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(self.answers, lambda: f"the server does not answer: {self.log()}")
        return self

    def answers(self):
        check(self.process.poll() is None, f"the server ended: {self.log()}")
        try:
            return self.run("PING") == b"PONG"
        except (OSError, Error):
            return False

    def run(self, *words):
        connection = Connection(self.port)
        try:
            return connection.call(*words)
        finally:
            connection.close()

    def role(self):
        """None where the connection is closed: Sentinel does that as it changes a role."""
        try:
            return self.run("ROLE")[0]
        except OSError:
            return None

    def log(self):
        try:
            with open(self.folder + "/log", errors="replace") as file:
                return file.read()[-2000:]
        except FileNotFoundError:
            return ""

    def signal(self, number):
        self.may_end = True
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def close(self):
        """What to say where the server has ended by itself."""
        ended = self.process is not None and self.process.poll() is not None
        died = f"the server at port {self.port} ended: {self.log()}"
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        return died if ended and not self.may_end else None


TOPOLOGY = """cluster = test; epoch = 1;
region one { id = 1; node n1 { id = 1; link = 127.93.0.1:7101 } }
region two { id = 2; node n2 { id = 2; link = 127.93.0.1:7102 } }
region three { id = 3; node n3 { id = 3; link = 127.93.0.1:7103 } }
zone example.test { name www { policy = nearest } }
"""


class Tool:
    """A running engine-tool; `heard` is called with each line, from its own thread."""

    def __init__(self, region, heard, *servers):
        self.folder = tempfile.mkdtemp(prefix="meridian-cluster-")
        path = self.folder + "/topology.conf"
        with open(path, "w") as file:
            file.write(TOPOLOGY)
        self.lock = threading.Lock()
        self.lines = []
        self.heard = heard
        self.process = subprocess.Popen([TOOL, path, str(region), *servers], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if not line.startswith("probed"):
                self.lines.append(line[:300])
            self.heard(line)

    def say(self, command):
        try:
            with self.lock:
                self.process.stdin.write(command + "\n")
                self.process.stdin.flush()
        except (OSError, ValueError):
            pass

    def close(self, gently):
        code = 0
        if gently and self.process.poll() is None:
            self.say("close")
            try:
                code = self.process.wait(10)
            except subprocess.TimeoutExpired:
                code = -1
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        check(code == 0, f"engine-tool ends with {code}: {self.lines[-5:]}")


class Pipe:
    """The stream of one region into another, as the nodes would carry it: from the position that
    the receiver holds, one batch at a time, by state where there is a gap."""

    def __init__(self, source, target):
        self.source, self.target = source, target
        self.position = 0
        self.known = False  # the receiver has told where it stands
        self.busy = False
        self.transfers = 0
        self.errors = []
        self.state = None
        self.wants_state = False  # whatever the stream holds

    def reset(self):
        self.busy = False
        self.state = None

    def go(self):
        if self.busy or not self.known or not self.source.up or not self.target.up:
            return
        self.busy = True
        if self.wants_state:
            self.wants_state = False
            self.state = 0
        if self.state is not None:
            self.source.tool.say(f"scan {self.target.id} {self.state} 65536")
        else:
            self.source.tool.say(f"tail {self.target.id} {self.position} 65536 100")

    def tailed(self, gap, after, last, deltas):
        if not self.busy or after != self.position:
            return
        self.busy = False
        if gap:
            self.state = 0
            self.transfers += 1
        elif deltas and self.target.up:
            self.busy = True
            self.target.tool.say(f"merge {self.source.id} {after} {last} {deltas}")
            return
        self.go()

    def scanned(self, cursor, err, state):
        if not self.busy or self.state is None:
            return
        self.busy = False
        if err != "ok" or not self.target.up:
            self.state = 0
            self.go()
            return
        if self.state == 0:
            found = re.match(rf".* {self.source.id}:(\d+)", " " + state)
            self.after_state = int(found[1]) if found else 0
        self.state = cursor
        self.busy = True
        word = "stateend" if cursor == 0 else "state"
        extra = f"{self.after_state} " if cursor == 0 else "0 "
        self.target.tool.say(f"{word} {self.source.id} {extra}{state.split(' ')[0]}")

    def merged(self, gap, position, err):
        if not self.busy:
            return
        self.busy = False
        if err != "ok":
            self.errors.append(err)
            if self.state is not None:
                self.state = 0
        elif gap:
            self.position = position
        elif self.state is not None:
            if self.state == 0:
                self.state = None
                self.position = self.after_state
        elif position > self.position:
            self.position = position
            self.source.tool.say(f"acked {self.target.id} {position}")
        self.go()


class Region:
    """One region: its servers, its engine, and pipes to the others."""

    def __init__(self, id):
        self.id = id
        self.servers = []
        self.up = False
        self.downs = 0
        self.pipes_in = {}
        self.pipes_out = {}
        self.tool = None
        self.lock = threading.RLock()

    def attach(self, *servers):
        with World.lock:  # what it says is heard when it is there
            self.tool = Tool(self.id, self.heard, *servers)

    def heard(self, line):
        words = line.split(" ")
        with World.lock:
            if words[0] == "up":
                self.up = True
                told = dict(map(int, pair.split(":")) for pair in words[4:])
                self.told = {"recovered": int(words[2]), "first": int(words[3])}
                for origin, pipe in self.pipes_in.items():
                    pipe.reset()
                    pipe.position = told.get(origin, 0)
                    pipe.known = True
                for pipe in self.pipes_out.values():
                    pipe.reset()
            elif words[0] == "down":
                self.up = False
                self.downs += 1
                for pipe in [*self.pipes_in.values(), *self.pipes_out.values()]:
                    pipe.reset()
                for pipe in self.pipes_in.values():
                    pipe.known = False
            elif words[0] == "tailed":
                pipe = self.pipes_out[int(words[1])]
                pipe.tailed(words[2] == "1", int(words[3]), int(words[4]), words[5])
            elif words[0] == "scanned":
                self.pipes_out[int(words[1])].scanned(int(words[2]), words[3],
                                                      " ".join(words[4:]))
            elif words[0] == "merged":
                self.pipes_in[int(words[1])].merged(words[2] == "1", int(words[3]), words[4])
            for pipe in [*self.pipes_in.values(), *self.pipes_out.values()]:
                pipe.go()

    def close(self, gently):
        try:
            if self.tool is not None:
                self.tool.close(gently)
        finally:
            close_all(self.servers)

    # ---- what a client does

    def primaries(self):
        return [server for server in self.servers if server.process.poll() is None
                and server.role() == b"master"]

    def client(self):
        return Client(self)

    def digest(self):
        total = 0
        for server in self.primaries():
            total += int(server.run("MERIDIAN.DIGEST"), 16)
        return total & (1 << 64) - 1

    def buckets(self):
        """{bucket: [keys, sum]} as MERIDIAN.DIGESTS tells them, of all shards together."""
        found = {}
        for server in self.primaries():
            reply = server.run("MERIDIAN.DIGESTS", "0", "")
            while True:
                for bucket, keys, total in struct.iter_unpack("<IQQ", reply[2]):
                    row = found.setdefault(bucket, [0, 0])
                    row[0] += keys
                    row[1] = (row[1] + total) % 2 ** 64
                if reply[0] == 0:
                    break
                reply = server.run("MERIDIAN.DIGESTS", reply[0])
        return found

    def keys(self):
        """Every key with its server's port; a key at two primaries is listed twice."""
        return sorted((key, server.port) for server in self.primaries()
                      for key in server.run("KEYS", "*"))


class World:
    lock = threading.RLock()

    def __init__(self):
        self.regions = []

    def connect(self, *regions):
        self.regions = list(regions)
        for a in regions:
            for b in regions:
                if a is not b:
                    pipe = Pipe(a, b)
                    a.pipes_out[b.id] = pipe
                    b.pipes_in[a.id] = pipe

    def close(self, gently=False):
        problem = None
        for region in self.regions:
            try:
                region.close(gently)
            except Failed as error:
                problem = error
        if problem is not None and (gently or "ended" in str(problem)):
            raise problem

    def same(self):
        try:
            return len({region.digest() for region in self.regions}) == 1
        except (OSError, Error):
            return False

    def settle(self, why, limit=LIMIT):
        eventually(self.same, lambda: why + ": the digests differ: " + str(
            [(region.id, region.up, region.digest(), region.tool.lines[-6:],
              [(p.busy, p.state, p.position, p.errors[-3:]) for p in region.pipes_in.values()])
             for region in self.regions]), limit)


class Client:
    """Follows MOVED and ASK, as any client of Redis Cluster does."""

    def __init__(self, region):
        self.region = region
        self.connections = {}
        self.owners = {}
        self.default = region.servers[0].port

    def to(self, port):
        if port not in self.connections:
            self.connections[port] = Connection(port)
        return self.connections[port]

    def forget(self, port):
        connection = self.connections.pop(port, None)
        if connection is not None:
            connection.close()

    def run(self, *words, limit=LIMIT):
        key = words[1]
        end = time.monotonic() + limit
        asking = False
        port = self.owners.get(key, self.default)
        while True:
            try:
                connection = self.to(port)
                if asking:
                    connection.call("ASKING")
                asking = False
                reply = connection.call(*words)
                self.owners[key] = port
                return reply
            except Error as error:
                found = re.match(r"(MOVED|ASK) \d+ .*:(\d+)$", str(error))
                if found:
                    port, asking = int(found[2]), found[1] == "ASK"
                elif not re.match("TRYAGAIN|CLUSTERDOWN|READONLY|LOADING|MASTERDOWN", str(error)):
                    raise
            except OSError:
                self.forget(port)
                live = [s.port for s in self.region.servers if s.process.poll() is None]
                port = live[int(time.monotonic() * 1000) % len(live)]
            if time.monotonic() > end:
                raise Failed(f"{words} is not answered: {self.region.servers[0].log()}")
            if not asking:
                time.sleep(0.005)

    def close(self):
        for port in list(self.connections):
            self.forget(port)


def single(world, program, id):
    region = Region(id)
    region.servers = [Server(program, id).start()]
    return region


def cluster(program, id, primaries, replicas=0, node_timeout_ms=15000, ring=1 << 20):
    region = Region(id)
    count = primaries * (1 + replicas)
    region.servers = [Server(program, id, "--cluster-enabled", "yes", "--cluster-node-timeout",
                             str(node_timeout_ms), "--cluster-replica-validity-factor", "0",
                             "--cluster-announce-ip", ADDRESS, ring=ring)
                      for _ in range(count)]
    for server in region.servers:
        server.start()
    cli = shutil.which(os.path.basename(program).replace("server", "cli"))
    command = [cli, "--cluster", "create"]
    command += [f"{ADDRESS}:{server.port}" for server in region.servers]
    command += ["--cluster-replicas", str(replicas), "--cluster-yes"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    check(made.returncode == 0, f"cluster create: {made.stdout[-600:]}{made.stderr}")
    for server in region.servers:
        eventually(lambda s=server: b"cluster_state:ok" in s.run("CLUSTER", "INFO"),
                   "the cluster does not come up")
    region.cli = cli
    return region


def address(server):
    return f"{ADDRESS}:{server.port}"
