#!/usr/bin/python3
"""Three real daemons on 127.97.0.1 to .3: they find each other, elect, grant locks, lose one, go on,
and have it back; with a redis-server and its module, data follows. Prints TAP.

    cluster.py MERIDIAND MAKE_PKI [MERIDIAN_SO] [--keep]
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import own_network  # noqa: E402

REGIONS = ["us-east", "eu-west", "ap-southeast"]
WAIT_S = 60
count = 0
failures = 0


def check(good, what, why=""):
    global count, failures
    count += 1
    failures += not good
    print(f"{'ok' if good else 'not ok'} {count} - {what}", flush=True)
    if not good and why:
        print(f"# {why}", flush=True)
    return good


def wait_for(ask, what, seconds=WAIT_S):
    """Asks until the answer is true; a failed question is a no."""
    end = time.monotonic() + seconds
    last = ""
    while time.monotonic() < end:
        try:
            if ask():
                return check(True, what)
            last = "not so"
        except (OSError, ValueError, KeyError) as error:
            last = repr(error)
        time.sleep(0.05)
    return check(False, what, last)


def resp(host, port, *words, seconds=30):
    """One RESP command; the raw first answer, as text."""
    text = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    with socket.create_connection((host, port), timeout=seconds) as door:
        door.sendall(text.encode())
        return door.recv(65536).decode()


class Redis:
    """The Redis of a region."""

    def __init__(self, node, module):
        self.node, self.module, self.process = node, module, None
        self.dir = os.path.join(node.dir, "redis")
        os.makedirs(self.dir)

    def start(self):
        log = open(os.path.join(self.node.dir, "redis.log"), "ab")
        self.process = subprocess.Popen(
            ["redis-server", "--bind", self.node.host, "--port", "6379", "--dir", self.dir,
             "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--loadmodule",
             self.module, "origin", str(self.node.number)], stdout=log, stderr=log)
        log.close()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        return resp(self.node.host, 6379, *words)

    def get(self, key):
        lines = self.ask("GET", key).split("\r\n")
        return lines[1] if lines[0].startswith("$") and lines[0] != "$-1" else None


class Node:
    def __init__(self, root, daemon, index, with_redis):
        self.root, self.daemon, self.index = root, daemon, index
        self.region, self.number = REGIONS[index], index + 1
        self.host = f"127.97.0.{self.number}"
        self.dir = os.path.join(root, self.region)
        self.conf = os.path.join(self.dir, "meridiand.conf")
        self.process = None
        os.makedirs(self.dir)
        pki = f"{root}/pki/{self.region}-{self.number}"
        with open(self.conf, "w", encoding="utf-8") as file:
            file.write(f"""cluster test; region {self.region}; node {self.number};
topology "{root}/topology.conf"; data_dir "data"; run_dir "run";
pki {{ ca "{pki}/ca.crt"; cert "{pki}/node.crt"; key "{pki}/node.key" }}
listen {{ link {self.host}:7401; admin {self.host}:7400; locks {self.host}:7402 }}
lab {{ impairments on }}
{f"redis {self.host}:6379;" if with_redis else ""}
""")

    def start(self):
        log = open(os.path.join(self.dir, "log"), "ab")
        self.process = subprocess.Popen([self.daemon, "-c", self.conf], stderr=log)
        log.close()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        status = self.process.wait(timeout=10)
        self.process = None
        return status

    def log(self):
        with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.host}:7400{path}", timeout=3) as answer:
            return answer.read()

    def status(self):
        return json.loads(self.get("/status"))

    def post(self, path, body):
        request = urllib.request.Request(f"http://{self.host}:7400{path}",
                                         data=json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status

    def command(self, *words):
        return resp(self.host, 7402, *words)


def topology_write(root):
    with open(f"{root}/topology.conf", "w", encoding="utf-8") as file:
        file.write("cluster = test\nepoch = 1\n")
        for index, region in enumerate(REGIONS):
            host = f"127.97.0.{index + 1}"
            file.write(f"""region {region} {{
    id = {index + 1}; latitude = {10 * index}; longitude = 20; a = ["{host}"]
    node {region}-1 {{
        id = {index + 1}; link = "{host}:7401"; admin = "{host}:7400"; locks = "{host}:7402"
    }}
}}
""")


def token_of(answer):
    """The token in `[token, ttl]`, or None."""
    lines = answer.split("\r\n")
    return int(lines[1][1:]) if lines[0] == "*2" and lines[1].startswith(":") else None


def leaders(nodes):
    return {node.status().get("leader") for node in nodes}


def agreed(nodes):
    found = leaders(nodes)
    return len(found) == 1 and None not in found


def run_redis(nodes, redis):
    """Data: written in each region, read in all; over a cut; over a kill of each kind."""
    wait_for(lambda: all(r["redis"]["up"] for r in nodes[0].status()["regions"]),
             "every Redis is up, as the first node sees it")
    for server in redis:
        server.ask("SET", f"from-{server.node.region}", server.node.region)
        server.ask("INCRBY", "sum", "5")
    wait_for(lambda: all(s.get(f"from-{r}") == r for s in redis for r in REGIONS),
             "what is written in a region is read in all")
    wait_for(lambda: all(s.get("sum") == "15" for s in redis), "counters add up")

    for other in nodes[1:]:
        nodes[0].post("/lab/link", {"region": other.region, "cut": True})
    for server in redis:
        server.ask("INCRBY", "sum", "1")
        server.ask("SADD", "members", server.node.region)
    wait_for(lambda: [s.get("sum") for s in redis] == ["16", "17", "17"],
             "cut off, each side counts for itself")
    for other in nodes[1:]:
        nodes[0].post("/lab/link", {"region": other.region})
    wait_for(lambda: all(s.get("sum") == "18" for s in redis), "healed, all is counted once")
    wait_for(lambda: all(s.ask("SCARD", "members") == ":3\r\n" for s in redis),
             "and sets hold what both sides added")

    nodes[1].stop(signal.SIGKILL)
    redis[0].ask("INCRBY", "sum", "10")
    redis[1].ask("INCRBY", "sum", "10")
    nodes[1].start()
    wait_for(lambda: all(s.get("sum") == "38" for s in redis),
             "a daemon is killed and comes back: it goes on where it was")

    time.sleep(1.2)  # appendfsync everysec
    redis[2].kill()
    redis[0].ask("INCRBY", "sum", "100")
    redis[2].start()
    wait_for(lambda: all(s.get("sum") == "138" for s in redis),
             "a Redis is killed and comes back: it catches up")


def fault(node, what, status, says):
    """The daemon does not start: it ends with a status and a sentence."""
    ended = subprocess.run([node.daemon, "-c", node.conf], check=False, stderr=subprocess.PIPE,
                           text=True, timeout=10)
    check(ended.returncode == status and says in ended.stderr, f"does not start: {what}",
          ended.stderr)


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def fault_by_text(node, path, before, after, status, says):
    """The same after a change in a file, which is undone."""
    text = text_of(path)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(before, after))
        fault(node, f"{os.path.basename(path)} with '{after}'", status, says)
    finally:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def run_faults(node, root):
    for port in (7401, 7400, 7402):
        with socket.create_server((node.host, port)):
            fault(node, f"port {port} is in use", 1, f"{node.host} port {port}")
    key = f"{root}/pki/{node.region}-{node.number}/node.key"
    os.chmod(key, 0o644)
    fault(node, "others can read the key", 2, "chmod 600")
    os.chmod(key, 0o600)
    topology = f"{root}/topology.conf"
    fault_by_text(node, topology, node.region, "us-west", 2, "has no node 1 in region 'us-east'")
    fault_by_text(node, topology, "cluster = test", "cluster = other", 2, "make them the same")
    fault_by_text(node, topology, "epoch = 1", "epok = 1", 2, "epok")
    fault_by_text(node, node.conf, "node 1;", "nod 1;", 2, "unknown key 'nod'")
    fault_by_text(node, node.conf, "node 1;", "node 2;", 2, "has no node 2 in region 'us-east'")
    fault_by_text(node, node.conf, "us-east-1/node.crt", "eu-west-2/node.crt", 2,
                  "does not belong to the certificate")
    fault_by_text(node, f"{node.dir}/data/incarnation", "\n", "x", 1, "holds no number of starts")


def run_damage(node):
    """A journal that was damaged on the disk is never read as a shorter one: the node begins anew
    with what its peers hold, and votes again when they have said so."""
    journal = f"{node.dir}/data/journal-global"
    node.stop()
    with open(journal, "r+b") as file:
        written = file.read().rstrip(b"\0")  # behind it is space that was made ready
        file.seek(len(written) // 2)
        file.write(bytes(8 * [255]))
    node.start()
    wait_for(lambda: "is damaged at byte" in node.log(), "a damaged journal is told")
    node.stop()
    os.remove(journal)
    node.start()
    wait_for(lambda: "is lost at byte 0" in node.log(), "so is one that is gone")


def run(nodes):
    for node in nodes:
        check(subprocess.run([node.daemon, "-c", node.conf, "--check"], check=False,
                             stdout=subprocess.DEVNULL).returncode == 0,
              f"the configuration of {node.region} is good")
        node.start()
    wait_for(lambda: agreed(nodes), "all three know the same leader")
    wait_for(lambda: all(n.status()["majority"] for n in nodes), "all see a majority")
    wait_for(lambda: all(r["rtt_ms"].get(o) is not None for r in nodes[0].status()["regions"]
                         for o in REGIONS if o != r["name"]),
             "round trips between all regions are known to the first")
    wait_for(lambda: all(os.path.getsize(f"{n.dir}/run/view") > 0 for n in nodes),
             "each has a view")

    first = token_of(nodes[0].command("LOCK.ACQUIRE", "global:config", "me", "30000"))
    check(first is not None, "a global lock is granted")
    check(nodes[1].command("LOCK.ACQUIRE", "global:config", "you", "30000")[:3] in ("$-1", "*-1"),
          "and held for everybody else")
    wait_for(lambda: token_of(nodes[1].command("LOCK.ACQUIRE", "eu-west:x", "me", "30000")),
             "a regional lock is granted in its region")
    wait_for(lambda: token_of(nodes[0].command("LOCK.ACQUIRE", "eu-west:y", "me", "30000")),
             "and from another region")

    second = subprocess.run([nodes[0].daemon, "-c", nodes[0].conf], check=False,
                            stderr=subprocess.PIPE, text=True, timeout=10)
    check(second.returncode == 1 and "in use by process" in second.stderr,
          "a second daemon may not have the same data", second.stderr)

    leader = next(n for n in nodes if n.region == nodes[0].status()["leader"])
    rest = [n for n in nodes if n is not leader]
    leader.stop(signal.SIGKILL)
    wait_for(lambda: agreed(rest) and leaders(rest) != {leader.region},
             "the leader is killed: the others elect another")
    wait_for(lambda: token_of(rest[0].command("LOCK.ACQUIRE", "global:after", "me", "30000")),
             "global locks are granted again")
    check(rest[1].command("LOCK.ACQUIRE", "global:config", "you", "30000")[:3] in ("$-1", "*-1"),
          "the lock from before is still held")
    wait_for(lambda: any(r["name"] == leader.region and r["state"] == "down"
                         for r in rest[0].status()["regions"]),
             "its region is down")
    leader.start()
    wait_for(lambda: agreed(nodes), "it comes back")
    wait_for(lambda: any(r["name"] == leader.region and r["state"] == "active"
                         for r in rest[0].status()["regions"]),
             "and its region is active again")

    for other in nodes[1:]:
        nodes[0].post("/lab/link", {"region": other.region, "cut": True})
    wait_for(lambda: not nodes[0].status()["majority"], "cut off, the first has no majority")
    answer = nodes[0].command("LOCK.ACQUIRE", "global:cut", "me", "30000")
    check(answer.startswith("-NOMAJORITY"), "and says so to who asks for a global lock", answer)
    check(token_of(nodes[0].command("LOCK.ACQUIRE", "us-east:cut", "me", "30000")) is not None,
          "it still grants its own region's")
    wait_for(lambda: token_of(nodes[1].command("LOCK.ACQUIRE", "global:two", "me", "30000")),
             "the two others go on")
    for other in nodes[1:]:
        nodes[0].post("/lab/link", {"region": other.region})
    wait_for(lambda: agreed(nodes) and nodes[0].status()["majority"], "healed, all agree")

    for node in nodes:
        check(node.stop() == 0, f"{node.region} stops in order")
    for node in nodes:
        node.start()
    wait_for(lambda: agreed(nodes), "after a stop of all, they agree again")
    answer = nodes[2].command("LOCK.INFO", "global:config")
    check(f":{first}\r\n" in answer, "and remember the lock with its token", answer)
    run_damage(nodes[0])
    wait_for(lambda: agreed(nodes), "it is filled again by its peers")
    wait_for(lambda: f":{first}\r\n" in nodes[0].command("LOCK.INFO", "global:config"),
             "and remembers the lock")
    for other in nodes[1:]:
        other.stop()
    for other in nodes[1:]:
        other.start()
    wait_for(lambda: agreed(nodes), "with it all agree again")


def main():
    arguments = [a for a in sys.argv[1:] if a != "--keep"]
    daemon, make_pki, *modules = (os.path.abspath(a) for a in arguments)
    with_redis = bool(modules) and shutil.which("redis-server") is not None
    root = tempfile.mkdtemp(prefix="meridian-cluster-")
    subprocess.run([make_pki, f"{root}/pki", "test"]
                   + [f"{region}/{i + 1}" for i, region in enumerate(REGIONS)], check=True)
    topology_write(root)
    nodes = [Node(root, daemon, index, with_redis) for index in range(3)]
    redis = [Redis(node, modules[0]) for node in nodes] if with_redis else []
    try:
        for server in redis:
            server.start()
        run_faults(nodes[0], root)
        run(nodes)
        if with_redis:
            run_redis(nodes, redis)
        for node in nodes:
            check(node.stop() == 0, f"{node.region} stops at the end")
    finally:
        for server in redis:
            server.kill()
        for node in nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        if failures:
            for node in nodes:
                print(f"# log of {node.region}, its end:")
                for line in node.log().splitlines()[-25:]:
                    print(f"#   {line}")
        if "--keep" in sys.argv:
            print(f"# kept: {root}")
        else:
            shutil.rmtree(root)
    print(f"1..{count}")
    return 1 if failures else 0


if __name__ == "__main__":
    own_network.enter()
    sys.exit(main())
