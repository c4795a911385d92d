#!/usr/bin/python3
"""Three real daemons, of which the first has a Redis Cluster of three servers behind it: what is
more than keys (waits, the change feed, events, the comparison, the status) works there, too. Prints TAP.

    shards.py MERIDIAND MAKE_PKI MERIDIAN_SO MERIDIAN
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import redis

import cluster
from cluster import REGIONS, Node, check, topology_write, wait_for

PORTS = [6379, 6380, 6381]


class Server:
    """A redis-server with the module."""

    def __init__(self, root, host, port, number, module, clustered):
        self.folder = f"{root}/redis-{number}-{port}"
        os.makedirs(self.folder)
        self.host, self.port = host, port
        words = ["redis-server", "--bind", host, "--port", str(port), "--dir", self.folder,
                 "--save", "", "--appendonly", "yes", "--logfile", f"{self.folder}/log",
                 "--loadmodule", module, "origin", str(number)]
        if clustered:
            words += ["--cluster-enabled", "yes", "--cluster-announce-ip", host]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(host=host, port=port, socket_timeout=10, decode_responses=True)

    def run(self, *words):
        return self.client.execute_command(*words)

    def close(self):
        self.process.kill()
        self.process.wait()


def answers(server):
    try:
        return server.run("PING") is True
    except redis.exceptions.RedisError:
        return False


def state(shard):
    return shard.run("CLUSTER INFO")["cluster_state"]


def waits(shards, world):
    """Each server answers for what it has written."""
    world.set("durable", "yes")
    found = [shard.run("MERIDIAN.WAIT", 2, 10000) for shard in shards]
    check(found == [2, 2, 2], "every server waits for both other regions", str(found))


def cut(nodes, one, other, wanted):
    """The path between two of them is cut, or heals; the others go on."""
    nodes[one].post("/lab/link", {"region": nodes[other].region, "cut": wanted})


def waits_round(nodes, shards, world):
    """A region that has it by way of a third is counted, too."""
    cut(nodes, 0, 1, True)
    for at in range(30):
        world.set(f"round:{at}", at)
    found = [shard.run("MERIDIAN.WAIT", 2, 20000) for shard in shards]
    check(found == [2, 2, 2], "a region is counted that has it by the way round", str(found))


def relays(nodes, far, third):
    """The cluster carries another region's stream to one that its origin does not reach."""
    cut(nodes, 1, 2, True)
    for at in range(30):
        far.client.set(f"carried:{at}", at)
        far.client.incr("carried")
    wait_for(lambda: third.client.get("carried") == "30" and
             all(third.client.get(f"carried:{at}") == str(at) for at in range(30)),
             "a cluster carries another region's stream")
    found = far.run("MERIDIAN.WAIT", 2, 20000)
    check(found == 2, "and that is counted", str(found))
    cut(nodes, 1, 2, False)


def memory(nodes, world, far):
    """A server at its maxmemory takes nothing from others, says so, and takes it later."""
    far.client.config_set("maxmemory", 1)
    world.set("waits", "1")
    wait_for(lambda: "redis-memory" in nodes[1].get("/events").decode(), "a full server is told of")
    check(far.client.get("waits") is None, "what comes waits")
    far.client.config_set("maxmemory", 0)
    wait_for(lambda: far.client.get("waits") == "1", "and is taken when there is room")


def conflicts(nodes, shards, world, far, meridian):
    """What every server's writes have won is told by the region's daemon."""
    ear = listen(shards[2], "meridian:conflicts")
    for other in (1, 2):
        cut(nodes, 0, other, True)
    keys = {f"lost:{at}" for at in range(12)}
    for key in keys:
        far.client.set(key, "far")
    time.sleep(0.02)  # by any clock of this machine what follows is later, and wins
    for key in keys:
        world.set(key, "here")
    for other in (1, 2):
        cut(nodes, 0, other, False)

    def told():
        done = subprocess.run([meridian, "conflicts", "--json", "--node", f"{nodes[0].host}:7400",
                               "lost:"], text=True, stdout=subprocess.PIPE, check=False, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]
    wait_for(lambda: {one["key"] for one in told()} == keys, "conflicts of all servers are told")
    found = told()
    check(len(found) == len(keys) and
          {one["server"] for one in found} == {f"{shards[0].host}:{port}" for port in PORTS} and
          {one["won"]["value"] for one in found} == {"here"}, "each of them once", str(found))
    metrics = nodes[0].get("/metrics").decode()
    count = next(line for line in metrics.splitlines()
                 if line.startswith('meridian_conflicts_total{kind="value"}'))
    check(int(count.split()[1]) >= len(keys), "and counted", count)
    heard_of = {json.loads(text)["key"] for text in heard([ear], 20, len(keys))[0]}
    check(keys <= heard_of, "and published to whoever listens at any server", str(heard_of))


def changes(shard, cursor):
    """The keys in the feed of one server, from there on."""
    keys = []
    while True:
        cursor, rows = shard.run("MERIDIAN.FEED", "AFTER", cursor, "COUNT", 7, "PREFIX", "fed:")
        keys += [row[4] for row in rows]
        if not rows:
            return keys


def feeds(shards, world, far):
    """The feeds of all servers together have every change once, wherever it was made."""
    begin = [shard.run("MERIDIAN.FEED", "AFTER", "$")[0] for shard in shards]
    for at in range(30):
        world.set(f"fed:{at}", at)
        far.client.set(f"fed:far:{at}", at)
    wait_for(lambda: all(world.get(f"fed:far:{at}") for at in range(30)), "the others' keys come")
    keys = sorted(key for shard, at in zip(shards, begin) for key in changes(shard, at))
    wanted = sorted([f"fed:{at}" for at in range(30)] + [f"fed:far:{at}" for at in range(30)])
    check(keys == wanted, "the feeds together have every change once", f"{len(keys)}: {keys}")


def listen(server, channel):
    ear = server.client.pubsub(ignore_subscribe_messages=True)
    ear.subscribe(channel)
    ear.connection.read_response()
    return ear


def heard(ears, seconds=3, enough=1 << 30):
    """What each hears within that time of the last message, or until one has heard enough."""
    found = [[] for _ in ears]
    end = time.monotonic() + seconds
    while time.monotonic() < end and max(map(len, found)) < enough:
        for at, ear in enumerate(ears):
            message = ear.get_message(timeout=0.01)
            if message is not None:
                found[at].append(message["data"])
                end = time.monotonic() + 1
    return found


def events(shards, far):
    """An event is heard once by each subscriber, of whatever server, in every region."""
    ears = [listen(server, "news:x") for server in (*shards, far)]
    for at in range(5):
        far.client.publish("news:x", f"far {at}")
    found = heard(ears)
    check(all(sorted(one) == [f"far {at}" for at in range(5)] for one in found),
          "events of another region are heard once at every server", str(found))
    for at, shard in enumerate(shards):
        shard.client.publish("news:x", f"here {at}")
    found = heard(ears)
    check(all(sorted(one) == ["here 0", "here 1", "here 2"] for one in found),
          "events of every server are heard once in each region", str(found))


def run(nodes, shards, far, third, meridian):
    world = redis.cluster.RedisCluster(host=shards[0].host, port=PORTS[0], decode_responses=True)
    wait_for(lambda: all(r["redis"]["up"] for r in nodes[0].status()["regions"]), "all are up")
    wait_for(lambda: len(shards[2].run("MERIDIAN.POLICY")) == 1, "the policies are told to all")
    waits(shards, world)
    feeds(shards, world, far)
    events(shards, far)
    memory(nodes, world, far)
    relays(nodes, far, third)
    waits_round(nodes, shards, world)
    conflicts(nodes, shards, world, far, meridian)

    def told():
        own = [r for r in nodes[0].status()["regions"] if r["self"]][0]["redis"]["servers"]
        return [[peer["region_name"] for peer in server["peers"]] for server in own]
    wait_for(lambda: told() == [REGIONS[1:]] * 3, "the status tells of each server")
    seen = subprocess.run([meridian, "status", "--node", f"{nodes[0].host}:7400"], text=True,
                          stdout=subprocess.PIPE, check=False, timeout=60).stdout
    check("Redis: keeps" in seen and "tombstones" in seen, "and people see what it keeps", seen)
    for at in range(200):
        world.hset(f"hash:{at % 20}", str(at), at)
        far.client.sadd(f"set:{at % 20}", at)
    done = subprocess.run([meridian, "verify", "--node", f"{nodes[0].host}:7400"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60)
    check(done.returncode == 0, "verify: the cluster and the others have the same", done.stdout)
    world.close()


def main():
    daemon, make_pki, module, meridian = (os.path.abspath(a) for a in sys.argv[1:5])
    if shutil.which("redis-server") is None:
        print("1..0 # skip there is no redis-server")
        return 0
    root = tempfile.mkdtemp(prefix="meridian-shards-")
    subprocess.run([make_pki, f"{root}/pki", "test"]
                   + [f"{region}/{i + 1}" for i, region in enumerate(REGIONS)], check=True)
    topology_write(root)
    with open(f"{root}/topology.conf", "a", encoding="utf-8") as file:
        file.write('data "news:" { conflict = typed; publish = on; }\n')
    nodes = [Node(root, daemon, index, True) for index in range(3)]
    with open(nodes[0].conf, encoding="utf-8") as file:
        text = file.read()
    one = nodes[0].host
    behind = " ".join(f"node {one}:{port};" for port in PORTS)
    with open(nodes[0].conf, "w", encoding="utf-8") as file:
        file.write(text.replace(f"redis {one}:6379;", f"redis {{ {behind} cluster on }}"))
    servers = []
    try:
        shards = [Server(root, one, port, 1, module, True) for port in PORTS]
        servers += shards
        others = [Server(root, node.host, 6379, node.number, module, False) for node in nodes[1:]]
        servers += others
        wait_for(lambda: all(answers(server) for server in servers), "the servers answer")
        made = subprocess.run(["redis-cli", "--cluster", "create",
                               *[f"{one}:{port}" for port in PORTS], "--cluster-yes"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, timeout=60)
        check(made.returncode == 0, "the cluster is made", made.stdout[-400:])
        wait_for(lambda: all(state(shard) == "ok" for shard in shards), "the cluster is there")
        for node in nodes:
            node.start()
        run(nodes, shards, *others, meridian)
        for node in nodes:
            check(node.stop() == 0, f"{node.region} stops at the end")
    finally:
        for node in nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        for server in servers:
            server.close()
        if cluster.failures:
            for node in nodes:
                print(f"# log of {node.region}, its end:")
                for line in node.log().splitlines()[-25:]:
                    print(f"#   {line}")
        shutil.rmtree(root)
    print(f"1..{cluster.count}")
    return 1 if cluster.failures else 0


if __name__ == "__main__":
    cluster.own_network.enter()
    sys.exit(main())
