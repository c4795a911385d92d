"""What must hold when a region is a Redis Cluster."""
import random

from harness import World, address, check, cluster, eventually, single

KEYS = 60


def write_some(client, rng, count):
    """A bit of everything; returns what the counters got."""
    added = 0
    for _ in range(count):
        at = rng.randrange(KEYS)
        what = rng.randrange(6)
        if what == 0:
            client.run("SET", f"string:{at}", f"value-{rng.random()}")
        elif what == 1:
            client.run("INCR", f"counter:{at}")
            added += 1
        elif what == 2:
            client.run("SADD", f"set:{at}", rng.randrange(8))
        elif what == 3:
            client.run("SREM", f"set:{at}", rng.randrange(8))
        elif what == 4:
            client.run("HSET", f"hash:{at}", rng.randrange(4), rng.random())
        else:
            client.run("DEL", rng.choice(["string", "set", "hash"]) + f":{at}")
    return added


def counted(client):
    return sum(int(client.run("GET", f"counter:{at}") or 0) for at in range(KEYS))


def same_values(clients):
    for kind, read in (("string", "GET"), ("counter", "GET"), ("set", "SMEMBERS"),
                       ("hash", "HGETALL")):
        for at in range(KEYS):
            values = []
            for client in clients:
                value = client.run(read, f"{kind}:{at}")
                if kind == "hash":
                    value = sorted(zip(value[::2], value[1::2]))
                values.append(sorted(value) if kind == "set" else value)
            check(all(value == values[0] for value in values),
                  f"{kind}:{at} differs: {values}")


def open_world(world, *regions):
    """Puts the engines in front, and waits for each."""
    world.connect(*regions)
    for region in regions:
        if len(region.servers) == 1:
            region.attach("redis=" + address(region.servers[0]))
        else:
            region.attach(*("cluster=" + address(server) for server in region.servers[:2]))
    for region in regions:
        eventually(lambda r=region: r.up, lambda r=region: f"not up: {r.tool.lines}")


def streams(program):
    """Three shards here, one server there, two shards in the third: all write, all end alike. Then
    one region is cut off the streams so long that it needs the state, and gets it in parts."""
    world = World()
    rng = random.Random(1)
    try:
        one, two, three = cluster(program, 1, 3), single(world, program, 2), cluster(program, 3, 3)
        open_world(world, one, two, three)
        clients = [region.client() for region in world.regions]
        added = 0
        for _ in range(40):
            for client in clients:
                added += write_some(client, rng, 15)
        world.settle("after writes everywhere")
        same_values(clients)
        check(counted(clients[0]) == added, f"{counted(clients[0])} counted, {added} added")
        check(not any(pipe.transfers for r in world.regions for pipe in r.pipes_in.values()),
              "a state was transferred")
        world.close(gently=True)
    finally:
        world.close()


ALL = [streams]
