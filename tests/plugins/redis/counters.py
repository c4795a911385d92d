"""Fields of hashes that count: increments of all regions add up, and what was seen of them goes."""
from harness import ADDRESS, Shuttle, check, check_equal, same_everywhere, settle_pair


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def hash_counters(place):
    a, b = place.region(1), place.region(2)
    a.run("HSET", "h", "seats", "10", "price", "1.5", "name", "x")
    both_ways(a, b)
    a.run("HINCRBY", "h", "seats", 5)
    b.run("HINCRBY", "h", "seats", -2)
    a.run("HINCRBYFLOAT", "h", "price", "0.25")
    b.run("HINCRBYFLOAT", "h", "price", "0.5")
    a.run("HINCRBY", "h", "new", 1)
    b.run("HINCRBY", "h", "new", 1)
    both_ways(a, b)
    for region in (a, b):
        check_equal(region.run("HMGET", "h", "seats", "price", "new"), [b"13", b"2.25", b"2"], "sums")
    a.run("HDEL", "h", "seats")  # seen: 13; not seen: 4
    b.run("HINCRBY", "h", "seats", 4)
    a.run("HSET", "h", "new", "100")
    b.run("HINCRBY", "h", "new", 7)
    both_ways(a, b)
    for region in (a, b):
        check_equal(region.run("HMGET", "h", "seats", "new"), [b"4", b"107"], "what was not seen stays")
    check_equal(a.run("HINCRBY", "h", "seats", 1), 5, "it goes on from there")
    a.run("DEL", "h")
    b.run("HINCRBY", "h", "new", 3)
    both_ways(a, b)
    check_equal(a.run("HGETALL", "h"), [b"new", b"3"], "DEL takes what it had seen")
    b.run("HSET", "t", "f", "text", "n", 2**63 - 1)
    check("hash value is not an integer" in b.run("HINCRBY", "t", "f", 1), "no number")
    check("would overflow" in b.run("HINCRBY", "t", "n", 1), "an overflow")
    both_ways(a, b)
    same_everywhere([a, b], "hash counters")


def hash_counters_survive(place):
    """AOF, a rewritten AOF, RDB, a state transfer; each time the next increments add up."""
    a, b = place.region(1), place.region(2)
    wanted = 50
    a.run("HSET", "h", "n", "50", "f", "0.5")
    for step in range(4):
        a.run("HINCRBY", "h", "n", 1)
        b.run("HINCRBY", "h", "n", 10)
        a.run("HINCRBYFLOAT", "h", "f", "0.1")
        wanted += 11
        both_ways(a, b)
        if step == 1:
            a.run("BGREWRITEAOF")
            a.wait_until(lambda: b"aof_rewrite_in_progress:0" in a.run("INFO", "persistence"), True)
        if step == 2:
            a.run("SAVE")
        a.kill()
        a.start()
        check_equal(a.run("HGET", "h", "n"), b"%d" % wanted, f"after restart {step}")
        same_everywhere([a, b], f"after restart {step}")
    a.run("HSET", "h", "last", "7")  # its first increment and a crash in one turn
    pipe = a.client.pipeline(transaction=False)
    pipe.execute_command("HINCRBY", "h", "last", 1)
    pipe.execute_command("HINCRBY", "h", "last", 1)
    pipe.execute()
    a.kill()
    a.start()
    both_ways(a, b)
    check_equal((a.run("HGET", "h", "last"), b.run("HGET", "h", "last")), (b"9", b"9"), "a turn")
    c = place.region(3)
    c.run("HINCRBY", "h", "n", 100)
    cursor = b"0"
    while True:
        cursor, _, state = a.run("MERIDIAN.SCAN", cursor, 1 << 20)
        c.run("MERIDIAN.MERGESTATE", state, *(["END"] if cursor == b"0" else []))
        if cursor == b"0":
            break
    for source, target in ((c, a), (c, b), (a, b), (b, c), (b, a)):
        settle_pair(source, target)
    check_equal([region.run("HGET", "h", "n") for region in (a, b, c)], [b"%d" % (wanted + 100)] * 3,
                "by state transfer")
    same_everywhere([a, b, c], "at the end")


def hash_counters_random(place):
    regions = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    total = 0
    for _ in range(900):
        region = place.random.choice(regions)
        field = f"f{place.random.randrange(4)}"
        amount = place.random.randrange(-3, 6)
        what = place.random.randrange(8)
        if what == 0:
            region.run("HSET", "h", field, place.random.choice(["5", "0.5", "text", "-1"]))
        elif what == 1:
            region.run("HDEL", "h", field)
        elif what == 2:
            region.run("HINCRBYFLOAT", "h", field, amount / 4)
        elif what == 3 and place.random.random() < 0.2:
            region.run("DEL", "h")
        else:
            region.run("HINCRBY", "h", field, amount)
        region.run("HINCRBY", "sum", field, amount)
        total += amount
        shuttle.step()
    shuttle.settle()
    same_everywhere(regions, f"seed {place.seed}")
    check_equal(sum(int(n) for n in regions[1].run("HVALS", "sum")), total, "nothing is lost")
    for region in regions:
        region.kill()
        region.start()
    same_everywhere(regions, "after a restart")


def hash_counters_wrapped(place):
    """Transactions, scripts, sums beyond 64 bits, a replica inside a region that takes over, expiry."""
    a, b = place.region(1), place.region(2)
    a.admin("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    replica = place.region(1, aof=False, arguments=["--replicaof", ADDRESS, str(a.port)])
    a.run("HSET", "h", "n", "5", "f", "1.5")
    pipe = a.client.pipeline(transaction=True)
    for words in (("HINCRBY", "h", "n", 1), ("HINCRBYFLOAT", "h", "f", "0.25"),
                  ("HINCRBY", "h", "n", 1), ("HINCRBYFLOAT", "h", "new", "1e3")):
        pipe.execute_command(*words)
    check_equal(pipe.execute(), [6, b"1.75", 7, b"1000"], "in a transaction")
    script = "return {redis.call('HINCRBY','h','n',3), redis.call('HINCRBYFLOAT','h','f','0.1')}"
    check_equal(a.run("EVAL", script, 0), [10, b"1.85"], "in a script")
    both_ways(a, b)
    b.run("HINCRBY", "h", "n", 100)
    b.run("HINCRBYFLOAT", "h", "f", "1e18")
    a.run("HINCRBY", "h", "big", 2**62)
    a.run("HINCRBY", "h", "big", 2**62 - 1)
    b.run("HINCRBY", "h", "big", 2**62)
    both_ways(a, b)
    check_equal(a.run("HGET", "h", "big"), b"%d" % (2**63 - 1), "a sum that is too large")
    check_equal((a.run("HINCRBY", "h", "big", -5), b.run("HINCRBY", "h", "big", -5)), (2**63 - 6,) * 2,
                "it goes on from what shows")
    both_ways(a, b)
    same_everywhere([a, b], "wrapped")
    a.wait_until(lambda: replica.run("MERIDIAN.DIGEST") == a.run("MERIDIAN.DIGEST"), True)
    same_everywhere([a, replica], "on a replica")
    a.kill()
    replica.run("REPLICAOF", "NO", "ONE")
    replica.run("HINCRBY", "h", "n", 1000)
    replica.run("HDEL", "h", "f")
    both_ways(replica, b)
    check_equal(b.run("HMGET", "h", "n", "f"), [b"1110", None], "after a failover")
    b.run("PEXPIRE", "h", 20)
    check_equal(b.wait_until(lambda: b.run("EXISTS", "h")), 0, "it expires")
    replica.run("HINCRBY", "h", "n", 2)
    both_ways(replica, b)
    check_equal(b.run("HGETALL", "h"), [b"n", b"2"], "what an expiry had not seen")
    same_everywhere([replica, b], "at the end")


def sums_beyond_64_bits(place):
    """Where the sum of all regions lies beyond 64 bits it stays at the limit, and whoever adds to it there
    says what it has become: by the short way and the long, alone and behind others of one turn."""
    a, b = place.region(1), place.region(2)
    limit = 2**63 - 1
    for name, there, here in (("base", ("SET", "base", limit), ("INCRBY", "base", limit)),
                              ("parts", ("INCRBY", "parts", limit), ("INCRBY", "parts", limit)),
                              ("low", ("INCRBY", "low", -limit), ("INCRBY", "low", -limit)),
                              ("exact", ("INCRBY", "exact", limit), ("INCRBY", "other", 1))):
        b.run(*there)
        a.run(*here)
        both_ways(a, b)
        step = 1 if name == "low" else -1
        for region in (a, b, a):
            value = int(region.run("GET", name))
            pipe = region.client.pipeline(transaction=False)
            for _ in range(3):
                pipe.execute_command("INCRBY", name, step)
            check_equal(pipe.execute(), [value + step * i for i in (1, 2, 3)], name)
            both_ways(a, b)
            both_ways(a, b)
            same_everywhere([a, b], f"{name} after an increment")
            check_equal(int(b.run("GET", name)), value + 3 * step, f"{name}: the outcome")


ALL = [hash_counters, sums_beyond_64_bits, hash_counters_survive, hash_counters_random, hash_counters_wrapped]
