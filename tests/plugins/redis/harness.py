"""Servers with and without the module, and the shuttle that stands for the daemons between them."""
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time

import redis

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
MODULE = os.environ.get("MERIDIAN_MODULE", os.path.join(ROOT, "build/plugins/redis/meridian.so"))
ADDRESS = "127.92.0.1"


READS = {  # type: the command that reads all of it, None where the key stands
    b"string": ("GET", None), b"hash": ("HGETALL", None), b"set": ("SMEMBERS", None),
    b"zset": ("ZRANGE", None, 0, -1, "WITHSCORES"), b"list": ("LRANGE", None, 0, -1),
    b"stream": ("XRANGE", None, "-", "+"),
}


class Failed(Exception):
    pass


def check(belief, why):
    if not belief:
        raise Failed(why)


def check_equal(got, wanted, why):
    if got != wanted:
        raise Failed(f"{why}: got {got!r}, wanted {wanted!r}")


class Server:
    """One server process; its folder lives until close()."""

    ports = iter(range(7300, 7900))

    def __init__(self, program, origin=None, arguments=(), aof=True, rdb=False):
        self.program = program
        self.port = next(Server.ports)
        self.folder = tempfile.mkdtemp(prefix="meridian-test-redis-")
        self.arguments = ["--bind", ADDRESS, "--port", str(self.port), "--dir", self.folder,
                          "--logfile", self.folder + "/log", "--enable-debug-command", "yes",
                          "--appendfsync", "no",
                          "--appendonly", "yes" if aof else "no", "--save", "3600 1" if rdb else ""]
        self.arguments += list(arguments)
        if origin is not None:
            self.arguments += ["--loadmodule", MODULE, "origin", str(origin)]
        self.process = None
        self.client = None

    def start(self, fails=False):
        self.process = subprocess.Popen([self.program] + self.arguments,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = self.connect()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if fails:
                    return self
                raise Failed(f"the server ended: {self.log()}")
            try:
                self.client.execute_command("PING")
                if fails:
                    raise Failed("the server should have refused to start")
                return self
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                time.sleep(0.02)
        raise Failed(f"the server does not answer: {self.log()}")

    def connect(self, **keywords):
        client = redis.Redis(host=ADDRESS, port=self.port, socket_timeout=60, **keywords)
        client.response_callbacks.clear()
        return client

    def log(self):
        try:
            with open(self.folder + "/log") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def run(self, *words):
        """The reply, or the text of the error reply."""
        try:
            return self.client.execute_command(*words)
        except redis.exceptions.ResponseError as error:
            return "error: " + str(error)
        except redis.exceptions.ConnectionError:
            if self.process.poll() is not None:
                raise Failed(f"the server died at {words[:3]!r}: {self.log()[-1500:]}") from None
            raise

    def wait_until(self, look, wanted=0, seconds=60):
        """What `look` gives, once it is `wanted` or time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and look() != wanted:
            time.sleep(0.005)
        return look()

    def admin(self, *words):
        """A command that must succeed."""
        reply = self.run(*words)
        check(not isinstance(reply, str), f"{words!r} said {reply!r}")
        return reply

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def databases(self, db):
        """The content of one database."""
        other = Server.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.client = self.connect(db=db)
        try:
            return other.content()
        finally:
            other.client.close()

    def content(self):
        """Everything visible: key -> (type, value, absolute expiry)."""
        found = {}
        for key in sorted(self.client.execute_command("KEYS", "*")):
            kind = self.run("TYPE", key)
            value = self.run(*(word if word is not None else key for word in READS[kind]))
            if kind == b"zset":  # a large set keeps the sign of a zero, a small one does not
                value = [b"0" if word == b"-0" else word for word in value]
            if kind in (b"hash", b"zset"):
                value = sorted(zip(value[::2], value[1::2]))
            elif kind == b"set":
                value = sorted(value)
            elif kind == b"string" and value[:4] == b"HYLL":  # the same registers, kept in two ways
                value = (b"HyperLogLog", self.run("PFCOUNT", key))
            found[key] = (kind, value, self.run("PEXPIRETIME", key))
        return found

    def info(self):
        text = self.run("INFO", "meridian").decode()
        return dict(line[9:].split(":") for line in text.split("\r\n") if line.startswith("meridian_"))


class Region(Server):
    def __init__(self, program, origin, **keywords):
        super().__init__(program, origin=origin, **keywords)
        self.origin = origin

    def positions(self):
        reply = self.run("MERIDIAN.POSITIONS")
        check(isinstance(reply, list), f"POSITIONS said {reply!r}")
        return dict(map(tuple, reply[5]))

    def tail(self, after, bytes_max=65536, block_ms=0):
        return self.run("MERIDIAN.TAIL", after, bytes_max, block_ms)

    def merge(self, origin, after, last, deltas):
        reply = self.run("MERIDIAN.MERGE", origin, after, last, deltas)
        return reply[0] if isinstance(reply, list) else reply  # the rest is holes


class Shuttle:
    """Carries deltas between regions, badly: late, twice, out of order, in small batches."""

    def __init__(self, regions, seed):
        self.regions = regions
        self.random = random.Random(seed)
        self.taken = {}
        self.flying = []

    def take(self, source, target):
        after = self.taken.get((source, target), 0)
        reply = source.tail(after, self.random.choice([1, 64, 500, 65536]))
        check(isinstance(reply, list), f"TAIL said {reply!r}")
        last, _, deltas = reply
        if last > after:
            self.flying.append((source, target, after, last, deltas))
            self.taken[(source, target)] = last

    def step(self):
        source, target = self.random.sample(self.regions, 2)
        if self.random.random() < 0.6:
            self.take(source, target)
        if self.flying and self.random.random() < 0.7:
            at = self.random.randrange(len(self.flying))
            source, target, after, last, deltas = self.flying[at]
            reply = target.merge(source.origin, after, last, deltas)
            if isinstance(reply, int):
                check(reply >= last, f"MERGE went to {reply}, not to {last}")
                if self.random.random() < 0.8:
                    del self.flying[at]
            else:
                check("GAP" in reply, f"MERGE said {reply!r}")

    def settle(self):
        """Everything arrives, in order this time."""
        self.flying.clear()
        for _ in range(3):
            for source in self.regions:
                for target in self.regions:
                    if source is not target:
                        settle_pair(source, target)


def settle_pair(source, target):
    while True:
        after = target.positions().get(source.origin, 0)
        reply = source.tail(after)
        check(isinstance(reply, list), f"TAIL after {after} said {reply!r}")
        last, count, deltas = reply
        if last <= after:
            return
        merged = target.merge(source.origin, after, last, deltas)
        check_equal(merged, last, "a settling MERGE")
        if count == 0:
            return


def same_everywhere(regions, why):
    wanted = regions[0].content()
    for region in regions[1:]:
        got = region.content()
        for key in sorted(set(wanted) | set(got)):
            check_equal(got.get(key), wanted.get(key),
                        f"{why}: region {region.origin} and {regions[0].origin} differ in {key!r}")
    digests = {region.run("MERIDIAN.DIGEST") for region in regions}
    check_equal(len(digests), 1, f"{why}: number of digests")
