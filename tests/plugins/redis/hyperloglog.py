"""HyperLogLogs: adds merge, a delete or a SET wins over an add at the same time."""
from harness import Shuttle, check, check_equal, same_everywhere, settle_pair


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def hll_merges(place):
    regions = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    for step in range(600):
        region = place.random.choice(regions)
        region.run("PFADD", "visits", *(f"user {place.random.randrange(4000)}" for _ in range(5)))
        if step % 50 == 0:
            region.run("PFADD", f"other {region.origin}", "x", step)
            region.run("PFMERGE", "all", "visits", f"other {region.origin}")
        if step % 97 == 0:
            check(region.run("PFCOUNT", "visits") > 0, "PFCOUNT, which changes nothing")
        shuttle.step()
    shuttle.settle()
    same_everywhere(regions, f"seed {place.seed}")
    check(1900 < regions[0].run("PFCOUNT", "visits") < 2400, "about as many as there were")
    check_equal(regions[1].run("TYPE", "visits"), b"string", "its type")
    for region in regions:
        region.kill()
        region.start()
    same_everywhere(regions, "after a restart")


def hll_dies_whole(place):
    a, b = place.region(1), place.region(2)
    a.run("PFADD", "p", "1", "2", "3")
    a.run("PFADD", "empty")
    both_ways(a, b)
    check_equal((b.run("PFCOUNT", "p"), b.run("EXISTS", "empty")), (3, 1), "it came")
    a.run("DEL", "p")
    b.run("PFADD", "p", "4")
    both_ways(a, b)
    check_equal((a.run("EXISTS", "p"), b.run("EXISTS", "p")), (0, 0), "DEL wins")
    b.run("PFADD", "p", "5")
    a.run("PFADD", "p", "6")
    both_ways(a, b)
    check_equal((a.run("PFCOUNT", "p"), b.run("PFCOUNT", "p")), (2, 2), "what comes after it counts")
    a.run("SET", "p", "text")
    b.run("PFADD", "p", "7")
    both_ways(a, b)
    check_equal((a.run("GET", "p"), b.run("GET", "p")), (b"text", b"text"), "SET wins")
    check("WRONGTYPE" in b.run("PFADD", "p", "8"), "PFADD to a text")
    same_everywhere([a, b], "at the end")


def hll_by_hand(place):
    """SET of its bytes, copies, transactions, scripts, expiry, state transfer."""
    a, b = place.region(1), place.region(2)
    a.run("PFADD", "p", "1", "2", "3")
    registers = a.run("GET", "p")
    a.run("SET", "hand", registers)
    both_ways(a, b)
    b.run("PFADD", "hand", "4")
    a.run("PFADD", "hand", "5")
    both_ways(a, b)
    check_equal((a.run("PFCOUNT", "hand"), b.run("PFCOUNT", "hand")), (5, 5), "after SET of the bytes")
    a.run("COPY", "hand", "copy")
    a.run("RENAME", "p", "q")
    b.run("PFADD", "hand", "9")
    both_ways(a, b)
    b.run("PFADD", "copy", "6")
    a.run("PFADD", "copy", "7")
    pipe = a.client.pipeline(transaction=True)
    for words in (("PFADD", "m", "1"), ("PFADD", "m", "1", "2"), ("PFMERGE", "m2", "m", "copy")):
        pipe.execute_command(*words)
    check_equal(pipe.execute(), [1, 1, b"OK"], "in a transaction")
    a.run("EVAL", "redis.call('PFADD', 'm', '3'); return redis.call('EXPIRE', 'm', 5000)", 0)
    both_ways(a, b)
    same_everywhere([a, b], "copies")
    check_equal([b.run("PFCOUNT", key) for key in ("copy", "q", "m", "m2", "hand")], [7, 3, 3, 6, 6],
                "counts")
    check(4990 < b.run("TTL", "m") <= 5000, "an expiry")
    c = place.region(3)
    c.run("PFADD", "copy", "c1")
    for source in (a, b):
        cursor = b"0"
        while True:
            cursor, positions, state = source.run("MERIDIAN.SCAN", cursor, 1 << 20)
            last = cursor == b"0"
            end = ["END"] if last else []
            check(c.run("MERIDIAN.MERGESTATE", state, *end) is not None, "MERGESTATE")
            if last:
                break
    settle_pair(c, a)
    settle_pair(c, b)
    same_everywhere([a, b, c], "by state transfer")
    check_equal(c.run("PFCOUNT", "copy"), 8, "registers of both")
    a.run("PEXPIRE", "copy", "1")
    check_equal(a.wait_until(lambda: a.run("EXISTS", "copy")), 0, "it expires")
    a.run("PFADD", "copy", "new")
    for source, target in ((a, b), (b, a), (a, c), (c, a), (b, c), (c, b)):
        settle_pair(source, target)
    check_equal([region.run("PFCOUNT", "copy") for region in (a, b, c)], [1, 1, 1], "a new one")


ALL = [hll_merges, hll_dies_whole, hll_by_hand]
