"""What a region has no room for: it waits, or it is told of; never is a value half there."""
import json

from groups import settle_all
from harness import check, check_equal, same_everywhere

VALUE = "v" * 2000
KEYS = 200
ROOM = 250000  # for less than what comes

# policy; have the keys an expiry. Those that may evict them are taken by turns.
REFUSE = (("noeviction", True), ("volatile-lru", False))
EVICT = (("volatile-ttl", True), ("volatile-lru", True), ("volatile-lfu", True),
         ("volatile-random", True), ("allkeys-lru", False), ("allkeys-lfu", True),
         ("allkeys-random", False))


def told(server):
    return json.loads(server.run("MERIDIAN.STATUS"))


def used(server):
    return int(server.run("INFO", "memory").decode().split("used_memory:")[1].split("\r\n")[0])


def send(source, target):
    """Batch by batch until one is refused; what is said then, or None where all were taken."""
    while True:
        after = target.positions().get(source.origin, 0)
        last, count, deltas = source.tail(after, 20000)
        if count == 0:
            return None
        said = target.merge(source.origin, after, last, deltas)
        if said != last:
            check_equal(target.positions().get(source.origin, 0), after, "a refusal moves nothing")
            return said


def fill(server, name, volatile):
    pipe = server.client.pipeline(transaction=False)
    for at in range(KEYS):
        pipe.execute_command("SET", f"{name}:{at}", VALUE,
                             *(["EX", 1000 + at] if volatile else []))
    pipe.execute()


def held(server, name):
    """The numbers of the keys that are there, each with its whole value."""
    pipe = server.client.pipeline(transaction=False)
    for at in range(KEYS):
        pipe.execute_command("STRLEN", f"{name}:{at}")
    found = pipe.execute()
    check(set(found) <= {0, len(VALUE)}, f"{name}: whole values or none")
    return [at for at in range(KEYS) if found[at]]


def maxmemory(place):
    """Under each policy: a refusal that is said and made good later, or evictions that are counted."""
    rows = [(*row, False) for row in REFUSE]
    rows += [(*row, True) for row in place.random.sample(EVICT, 2)]
    for policy, volatile, evicts in rows:
        what = f"{policy}, {'with' if volatile else 'without'} expiries"
        a, b = place.region(1, aof=False), place.region(2, aof=False, start=False)
        b.arguments += ["ring", "1048576"]  # grows as what is merged, and counts as memory
        b.start()
        b.run("CONFIG", "SET", "maxmemory-policy", policy)
        fill(a, "old", volatile)
        a.run("INCRBY", "n", 5)
        b.run("INCRBY", "n", 7)
        settle_all([a, b])
        check_equal((told(b)["memory_permille"], told(b)["evicted"]), (0, 0), f"{what}: no limit")
        b.run("CONFIG", "SET", "maxmemory", used(b) + ROOM)
        fill(a, "new", volatile)
        a.run("INCRBY", "n", 2)
        said = send(a, b)
        full = told(b)
        b.run("CONFIG", "SET", "maxmemory", 0)  # each command evicts where there is a limit
        status = told(b)
        check_equal(status["maxmemory_policy"], policy, "the policy is told")
        check_equal(status["evicted"] > 0, evicts, f"{what}: evictions, {status}")
        check_equal(status["evicted"], int(b.info()["evicted_keys"]), f"{what}: in INFO")
        if evicts:
            check_equal(said, None, f"{what}: nothing waits")
            there = len(held(b, "old")) + len(held(b, "new")) + b.run("EXISTS", "n")
            back = there + status["evicted"] - 2 * KEYS - 1
            check(back in (0, 1), f"{what}: each is counted; the counter may have come back: {back}")
        else:
            check("OOM" in str(said), f"{what}: said {said!r}")
            check(full["memory_permille"] >= 900, f"{what}: full, {full}")
            check_equal(len(held(b, "old")), KEYS, f"{what}: what was there stays")
            check_equal(held(b, "new"), list(range(len(held(b, "new")))), f"{what}: in order")
        check_equal(send(a, b), None, f"{what}: with room again")
        if not evicts:
            settle_all([a, b])
            same_everywhere([a, b], what)
        check_equal((len(held(a, "old")), len(held(a, "new")), a.run("GET", "n")),
                    (KEYS, KEYS, b"14"), f"{what}: the other region keeps all")
        for server in (a, b):
            server.close()


def hot_keys(place):
    """One counter, one hash and one list that everybody writes: exact, and no faster than the ring
    allows for."""
    a, b = place.region(1, aof=False), place.region(2, aof=False)
    for server in (a, b):
        pipe = server.client.pipeline(transaction=False)
        for at in range(600):
            pipe.execute_command("INCR", "n")
            pipe.execute_command("HINCRBY", "h", f"f{at % 3}", 1)
            pipe.execute_command("RPUSH", "l", at)
        pipe.execute()
    settle_all([a, b])
    same_everywhere([a, b], "hot keys")
    check_equal((a.run("GET", "n"), a.run("HGET", "h", "f1"), a.run("LLEN", "l")),
                (b"1200", b"400", 1200), "nothing is lost")
    check(told(a)["backlog_bytes"] <= told(a)["backlog_bytes_max"], "the backlog has an end")


def large_values(place):
    """A value beyond the backlog goes as a state, whole; when it is gone, its memory is, too."""
    a, b = place.region(1, aof=False, start=False), place.region(2, aof=False)
    a.arguments += ["ring", "1048576"]
    a.start()
    size = 24 << 20
    a.run("SET", "large", "x" * size)
    check("GAP" in str(a.tail(b.positions().get(1, 0))), "the backlog ends before it")
    cursor, begun = 0, None
    while begun is None or cursor != 0:
        cursor, positions, state = a.run("MERIDIAN.SCAN", cursor, 262144)
        cursor, begun = int(cursor), begun or positions
        words = [word for pair in begun for word in pair]
        said = b.run("MERIDIAN.MERGESTATE", state, *(["END", *words] if cursor == 0 else []))
        check(not isinstance(said, str), f"MERGESTATE said {said!r}")
    check_equal(b.run("STRLEN", "large"), size, "the whole value")
    b.run("APPEND", "large", "y")
    check_equal(b.run("DEL", "large"), 1, "it goes")
    a.run("DEL", "large")
    for server in (a, b):  # a ring has room for half of what is in it besides
        def kept(server=server):
            return int(server.info()["metadata_bytes"]) - int(server.info()["ring_bytes"])
        server.wait_until(lambda: kept() < size / 2, True)
        check(kept() < size / 2, f"region {server.origin} keeps {kept()} bytes")


ALL = [maxmemory, hot_keys, large_values]
