"""Sorted sets and geo over regions: add wins, the later score, increments that add up, pops, and what
survives a restart, a state transfer and a replica."""
import threading
import time

from harness import Shuttle, check, check_equal, same_everywhere, settle_pair
from zset_commands import a_zset_command


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def members(region, key="z"):
    flat = region.run("ZRANGE", key, 0, -1, "WITHSCORES")
    return dict(zip(flat[::2], flat[1::2]))


def zsets_merge(place):
    a, b = place.region(1), place.region(2)
    a.run("ZADD", "z", 1, "one", 2, "two", 5, "five")
    both_ways(a, b)
    a.run("ZADD", "z", 10, "one")
    time.sleep(0.01)
    b.run("ZADD", "z", 20, "one")  # the later score
    a.run("ZREM", "z", "two")
    b.run("ZADD", "z", 2, "two")  # changes nothing in Redis, and wins over the removal
    a.run("ZINCRBY", "z", 3, "five")
    b.run("ZINCRBY", "z", 0.5, "five")
    a.run("ZINCRBY", "z", 1, "new")
    b.run("ZADD", "z", "INCR", 1, "new")
    both_ways(a, b)
    wanted = {b"one": b"20", b"two": b"2", b"five": b"8.5", b"new": b"2"}
    for region in (a, b):
        check_equal(members(region), wanted, "what both did")
    a.run("ZREM", "z", "five")  # 8.5 were seen, 4 not
    b.run("ZINCRBY", "z", 4, "five")
    a.run("ZADD", "z", 100, "new")  # takes the 2 that it saw
    b.run("ZINCRBY", "z", 7, "new")
    a.run("ZPOPMIN", "z")  # the member "two"
    b.run("ZREMRANGEBYSCORE", "z", 19, 21)  # the member "one"
    both_ways(a, b)
    for region in (a, b):
        check_equal(members(region), {b"five": b"4", b"new": b"107"}, "what was not seen stays")
    a.run("DEL", "z")
    b.run("ZINCRBY", "z", 1, "new")
    b.run("ZADD", "z", "-inf", "late")
    both_ways(a, b)
    for region in (a, b):
        check_equal(members(region), {b"new": b"1", b"late": b"-inf"}, "DEL takes what it had seen")
    a.run("ZADD", "z", "-1e-320", "late")
    b.run("ZUNIONSTORE", "u", 2, "z", "none")
    both_ways(a, b)
    check_equal(a.run("ZSCORE", "z", "late"), b.run("ZSCORE", "z", "late"), "a very small one")
    b.run("ZADD", "z", "XX", "CH", 0, "late", 5, "new")
    both_ways(a, b)
    check_equal(members(a), members(b), "an option")
    a.run("SET", "z", "text")
    both_ways(a, b)
    check_equal(b.run("GET", "z"), b"text", "another type takes the key")
    b.run("ZADD", "s", 1, "m")
    a.run("SADD", "s", "m")
    both_ways(a, b)
    same_everywhere([a, b], "at the end")


def zsets_pop(place):
    """Who waits is woken by another region; what pops take goes everywhere, and nothing else."""
    a, b = place.region(1), place.region(2)
    got = []
    waiting = threading.Thread(target=lambda: got.append(b.connect().execute_command("BZPOPMIN", "q", 10)))
    waiting.start()
    b.wait_until(lambda: b"blocked_clients:1" in b.run("INFO", "clients"), True)
    a.run("ZADD", "q", 3, "c", 1, "a", 2, "b")
    settle_pair(a, b)
    waiting.join(10)
    check_equal(got, [[b"q", b"a", b"1"]], "a client that waited")
    settle_pair(b, a)
    for region in (a, b):
        check_equal(members(region, "q"), {b"b": b"2", b"c": b"3"}, "what is left")
    a.run("ZADD", "q", *(word for i in range(500) for word in (i + 10, f"m{i}")))
    both_ways(a, b)
    for words in (("ZPOPMAX", "q", 3), ("BZPOPMIN", "none", "q", 1), ("ZMPOP", 2, "none", "q", "MIN", "COUNT", 5),
                  ("BZMPOP", 1, 1, "q", "MAX", "COUNT", 7), ("ZREMRANGEBYRANK", "q", 5, 40)):
        a.run(*words)
    pipe = a.client.pipeline(transaction=True)
    for words in (("ZPOPMIN", "q", 2), ("ZMPOP", 1, "q", "MIN", "COUNT", 3), ("ZADD", "q", 1, "m20"),
                  ("ZPOPMAX", "q")):
        pipe.execute_command(*words)
    pipe.execute()
    a.run("EVAL", "redis.call('ZMPOP', 1, 'q', 'MIN', 'COUNT', 4) redis.call('ZADD', 'q', 2, 'again')", 0)
    both_ways(a, b)
    same_everywhere([a, b], "after pops")
    check_equal(a.run("ZCARD", "q"), 502 - 3 - 1 - 5 - 7 - 36 - 2 - 3 + 1 - 1 - 4 + 1, "as many as were taken")
    check_equal(a.info()["stamped_anew"], "0", "nothing was told as a whole")
    a.run("ZPOPMIN", "q", 1000)
    both_ways(a, b)
    check_equal(b.run("EXISTS", "q"), 0, "the last has gone")


def zsets_survive(place):
    """AOF, a rewritten AOF, RDB, a state transfer, a replica; each time the next increments add up."""
    a, b = place.region(1), place.region(2)
    a.run("ZADD", "z", 50, "n", 0.5, "f")
    a.run("GEOADD", "g", 13.36, 38.11, "Palermo")
    wanted = 50
    for step in range(4):
        a.run("ZINCRBY", "z", 1, "n")
        b.run("ZINCRBY", "z", 10, "n")
        a.run("ZINCRBY", "z", 0.1, "f")
        b.run("ZADD", "z", step, "new")
        wanted += 11
        both_ways(a, b)
        if step == 1:
            a.run("BGREWRITEAOF")
            a.wait_until(lambda: b"aof_rewrite_in_progress:0" in a.run("INFO", "persistence"), True)
        if step == 2:
            a.run("SAVE")
        a.kill()
        a.start()
        check_equal(a.run("ZSCORE", "z", "n"), b"%d" % wanted, f"after restart {step}")
        check_equal(a.info()["stamped_anew"], "0", f"keys stamped anew at restart {step}")
        same_everywhere([a, b], f"after restart {step}")
    a.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    replica = place.region(1, arguments=["--replicaof", "127.92.0.1 " + str(a.port)])
    a.run("ZINCRBY", "z", 1, "n")
    a.run("ZPOPMIN", "z")
    check_equal(replica.wait_until(replica.content, a.content(), 30), a.content(), "a replica")
    a.kill()
    replica.run("REPLICAOF", "NO", "ONE")
    replica.run("ZINCRBY", "z", 2, "n")
    both_ways(replica, b)
    check_equal(b.run("ZSCORE", "z", "n"), b"%d" % (wanted + 3), "a replica goes on")
    same_everywhere([replica, b], "after the failover")
    c = place.region(3)
    c.run("ZINCRBY", "z", 100, "n")
    cursor = b"0"
    while True:
        cursor, _, state = replica.run("MERIDIAN.SCAN", cursor, 1 << 20)
        c.run("MERIDIAN.MERGESTATE", state, *(["END"] if cursor == b"0" else []))
        if cursor == b"0":
            break
    for source, target in ((c, replica), (c, b), (replica, b), (b, c), (b, replica), (replica, c)):
        settle_pair(source, target)
    check_equal(b.run("ZSCORE", "z", "n"), b"%d" % (wanted + 103), "a new region")
    same_everywhere([replica, b, c], "after the transfer")


def zsets_random(place):
    """Random writes to few keys in three regions, with crashes, end alike."""
    regions = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    for step in range(1600):
        region = place.random.choice(regions)
        region.run(*a_zset_command(place.random))
        shuttle.step()
        if step % 400 == 399:
            content = region.content()
            region.kill()
            region.start()
            check_equal(region.content(), content, f"seed {place.seed} step {step} after the crash")
            shuttle.settle()
            same_everywhere(regions, f"seed {place.seed} step {step}")
    check_equal({region.info()["stamped_anew"] for region in regions}, {"0"}, "keys told as a whole")


def zsets_last_write(place):
    a, b = place.region(1), place.region(2)
    for region in (a, b):
        region.admin("MERIDIAN.POLICY", "DATA", "w", "last-write", "")
    a.run("ZADD", "w", 1, "a", 2, "b", 3, "c")
    both_ways(a, b)
    a.run("ZINCRBY", "w", 5, "a")
    time.sleep(0.01)
    b.run("ZPOPMIN", "w", 2)
    both_ways(a, b)
    for region in (a, b):
        check_equal(members(region, "w"), {b"c": b"3"}, "the whole set, as the last wrote it")
    a.run("ZREMRANGEBYRANK", "w", 0, -1)
    both_ways(a, b)
    check_equal(b.run("EXISTS", "w"), 0, "gone")
    same_everywhere([a, b], "last write")


def zsets_feed(place):
    a, b = place.region(1), place.region(2)
    cursor = a.run("MERIDIAN.FEED")[0]
    a.run("ZADD", "z", 1.5, "m", "-inf", "n")
    b.run("ZINCRBY", "z", 2, "m")
    both_ways(a, b)
    a.run("ZREM", "z", "m", "n")
    rows = [row[4:] for row in a.run("MERIDIAN.FEED", "AFTER", cursor)[1]]
    check_equal(rows, [[b"z", b"zadd", b"zset", b"m", b"1.5", b"n", b"-inf"], [b"z", b"zincrby", b"zset"],
                       [b"z", b"zrem", b"zset", b"m", b"n"]], "rows of the feed")


def gathered_commands(rng):
    """Adds to few keys between which other changes come, as one stream."""
    for _ in range(25):
        for i in range(rng.choice([1, 2, 100])):
            yield "ZADD", "large", rng.choice([i, -i, 0.5 * i]), f"m{rng.randrange(3000)}"
        for i in range(rng.choice([0, 1, 200])):
            yield "ZADD", "small", i, f"m{i % 100}"
        yield "ZREM", "large", f"m{rng.randrange(3000)}", f"m{rng.randrange(3000)}"
        yield "ZADD", "large", "inf", f"m{rng.randrange(3000)}", "-inf", "low"
    for i in range(1200):
        yield "ZADD", "large", -i, f"m{i % 1100}"
    yield "DEL", "d"
    for key in ("a", "b", "c", "d", "e"):
        yield "ZADD", key, 1, "x", 2, "y"
        yield "ZADD", key, 3, "x"
    yield from (("ZREM", "a", "x"), ("ZADD", "a", 4, "x"), ("ZREM", "a", "y"), ("DEL", "b"),
                ("ZADD", "b", 5, "z"), ("PEXPIRE", "c", 10000000), ("ZADD", "c", 6, "z"),
                ("DEL", "d"), ("RPUSH", "d", "one"), ("DEL", "d"), ("ZADD", "d", 7, "x"),
                ("DEL", "d"), ("XADD", "d", "1-1", "f", "v"), ("ZADD", "e", 8, "x"),
                ("SET", "e", "text"), ("DEL", "e"), ("ZADD", "e", 9, "z"))
    for i in range(5):
        yield "ZADD", "long", i, str(i % 4) * 100000


def zsets_gathered(place):
    """Many changes in one batch leave what they leave one by one, in the same encodings."""
    a, b = place.region(1), place.region(2)
    for round_ in range(2):
        pipe = a.client.pipeline(transaction=False)
        for words in gathered_commands(place.random):
            pipe.execute_command(*words)
        pipe.execute()
        last, _, deltas = a.tail(b.positions().get(1, 0), 1 << 24)
        check_equal(b.merge(1, b.positions().get(1, 0), last, deltas), last, "all in one batch")
        settle_pair(a, b)
        same_everywhere([a, b], f"seed {place.seed} round {round_}")
        for key in a.content():
            check_equal(b.run("OBJECT", "ENCODING", key), a.run("OBJECT", "ENCODING", key),
                        f"seed {place.seed} the encoding of {key!r}")
    b.kill()
    b.start()
    same_everywhere([a, b], "after a restart")


ALL = [zsets_gathered, zsets_merge, zsets_pop, zsets_survive, zsets_random, zsets_last_write, zsets_feed]
