"""FLUSHDB and FLUSHALL: what was seen goes everywhere, what was written at the same time stays."""
import glob

from harness import Shuttle, check, check_equal, same_everywhere, settle_pair


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def fill(region):
    region.run("SET", "string", "v")
    region.run("SET", "number", "5", "EX", "5000")
    region.run("INCRBY", "number", "2")
    region.run("HSET", "hash", "f", "1", "g", "2")
    region.run("SADD", "set", "a", "b")
    region.run("RPUSH", "list", "a", "b")


def tear(server):
    """Takes the last record of the module off the log."""
    name = glob.glob(server.folder + "/appendonlydir/*.incr.aof")[0]
    with open(name, "rb") as file:
        data = file.read()
    with open(name, "wb") as file:
        file.write(data[:data.rindex(b"*2\r\n$12\r\nmeridian.log")])


def flushed(place):
    """One delta where nothing needs more; concurrent writes survive, counters included."""
    a, b, c = (place.region(origin) for origin in (1, 2, 3))
    for number in range(200):
        a.run("SET", f"key {number}", "v")
    settle_pair(a, b)
    before = int(b.info()["local_deltas"])
    check_equal(b.run("FLUSHALL"), b"OK", "FLUSHALL")
    check_equal(int(b.info()["local_deltas"]), before + 1, "one delta")
    # c hears of the flush before it hears of what was flushed
    settle_pair(b, c)
    settle_pair(a, c)
    settle_pair(b, a)
    for region in (a, b, c):
        check_equal(region.run("DBSIZE"), 0, f"keys in region {region.origin}")
    fill(a)
    both_ways(a, b)
    both_ways(a, c)
    b.run("INCRBY", "number", "100")
    b.run("HSET", "hash", "late", "1")
    b.run("SADD", "set", "late")
    b.run("RPUSH", "list", "late")
    b.run("SET", "new", "1")
    check_equal(a.run("FLUSHDB", "SYNC"), b"OK", "FLUSHDB SYNC")
    check_equal(a.run("DBSIZE"), 0, "nothing is left")
    shuttle = Shuttle([a, b, c], place.seed)
    shuttle.settle()
    same_everywhere([a, b, c], "after the flush")
    check_equal([c.run("GET", "number"), c.run("HGETALL", "hash"), c.run("SMEMBERS", "set"),
                 c.run("LRANGE", "list", 0, -1), c.run("GET", "new"), c.run("EXISTS", "string"),
                 c.run("TTL", "number")],
                [b"100", [b"late", b"1"], [b"late"], [b"late"], b"1", 0, -1], "what was written meanwhile")


def flushed_databases(place):
    a, b = place.region(1), place.region(2)
    pipe = a.client.pipeline(transaction=False)
    for words in (("SET", "zero", "0"), ("SELECT", 3), ("SET", "three", "3"), ("SELECT", 5),
                  ("SADD", "five", "5"), ("SELECT", 0)):
        pipe.execute_command(*words)
    pipe.execute()
    both_ways(a, b)
    one = b.connect(db=3)
    one.execute_command("FLUSHDB")
    both_ways(a, b)
    check_equal([len(a.databases(db)) for db in (0, 3, 5)], [1, 0, 1], "FLUSHDB of database 3")
    check_equal(a.run("EVAL", "return redis.call('FLUSHALL', 'ASYNC')", 0), b"OK", "in a script")
    both_ways(a, b)
    check_equal([len(b.databases(db)) for db in (0, 3, 5)], [0, 0, 0], "FLUSHALL")
    pipe = a.client.pipeline(transaction=True)
    for words in (("SET", "k", "1"), ("FLUSHDB",), ("SET", "k", "2"), ("INCR", "k")):
        pipe.execute_command(*words)
    check_equal(pipe.execute(), [b"OK", b"OK", b"OK", 3], "in a transaction")
    both_ways(a, b)
    check_equal(b.run("GET", "k"), b"3", "what came after the flush")
    for words in (("FLUSHALL", "NOW"), ("FLUSHDB", "SYNC", "SYNC")):
        check("error" in a.run(*words), f"{words}")
    check_equal(a.run("GET", "k"), b"3", "a bad FLUSHALL changes nothing")
    same_everywhere([a, b], "at the end")


def flushed_and_restarted(place):
    """The log, with and without its last record; a reload is no flush; an in-region replica follows."""
    a, b = place.region(1), place.region(2, aof=False, rdb=True)
    fill(a)
    both_ways(a, b)
    check_equal(a.run("DEBUG", "RELOAD"), b"OK", "DEBUG RELOAD")
    settle_pair(a, b)
    check_equal(b.run("DBSIZE"), 5, "a reload deletes nothing")
    a.run("FLUSHALL")
    a.run("SET", "after", "1")
    digest = a.run("MERIDIAN.DIGEST")
    a.kill()
    a.start()
    check_equal((a.run("DBSIZE"), a.run("MERIDIAN.DIGEST")), (1, digest), "after a restart")
    both_ways(a, b)
    same_everywhere([a, b], "after a restart")
    fill(a)
    both_ways(a, b)
    a.run("FLUSHALL")
    a.kill()
    tear(a)
    a.start()
    check_equal(a.run("DBSIZE"), 0, "the command itself is in the log")
    both_ways(a, b)
    same_everywhere([a, b], "after a log whose last record is torn off")
    check_equal(b.run("DBSIZE"), 0, "the other region")
    fill(a)
    both_ways(a, b)
    b.run("FLUSHALL")
    b.kill()  # with an empty snapshot, which FLUSHALL has saved
    b.start()
    both_ways(a, b)
    same_everywhere([a, b], "after a flush that only a snapshot remembers")


ALL = [flushed, flushed_databases, flushed_and_restarted]
