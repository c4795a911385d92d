"""Commands after which a key has other content as a whole: RENAME, COPY, MOVE, RESTORE, ... STORE."""
from harness import check, check_equal, same_everywhere, settle_pair


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def fill(region):
    region.run("SET", "string", "v" * 100, "PX", "4000000")
    region.run("SET", "number", "17")
    region.run("INCR", "number")
    region.run("HSET", "hash", "f", "1", "g", "2")
    region.run("PEXPIREAT", "hash", "4000000000000")
    region.run("SADD", "set", "a", "b", "c")
    region.run("SADD", "set2", "b", "c", "d")


def renamed(place):
    """The new name has all of the old one's content and expiry, everywhere; the old one is gone."""
    a, b = place.region(1), place.region(2)
    fill(a)
    both_ways(a, b)
    for kind in ("string", "number", "hash", "set"):
        wanted = a.content()[kind.encode()]
        check_equal(a.run("RENAME", kind, "other"), b"OK", kind)
        both_ways(a, b)
        check_equal(b.content().get(b"other"), wanted, f"{kind} renamed over another type")
        check_equal(b.run("EXISTS", kind), 0, f"the old name of the {kind}")
        same_everywhere([a, b], kind)
    fill(a)
    both_ways(a, b)
    check_equal(a.run("RENAMENX", "set", "hash"), 0, "RENAMENX of what is there")
    check_equal(a.run("RENAMENX", "set", "new"), 1, "RENAMENX")
    check_equal(a.run("RENAME", "new", "new"), b"OK", "RENAME to itself")
    check("no such key" in a.run("RENAME", "nothing", "new"), "RENAME of nothing")
    both_ways(a, b)
    check_equal(sorted(b.run("SMEMBERS", "new")), [b"a", b"b", b"c"], "after RENAMENX")
    a.run("RENAME", "new", "set")
    b.run("SADD", "set", "late")
    both_ways(a, b)
    check_equal(sorted(a.run("SMEMBERS", "set")), [b"a", b"b", b"c", b"late"],
                "what was added at the same time stays")
    same_everywhere([a, b], "at the end")


def copied(place):
    a, b = place.region(1), place.region(2)
    fill(a)
    for kind in ("string", "number", "hash", "set"):
        check_equal(a.run("COPY", kind, "c:" + kind), 1, f"COPY {kind}")
    check_equal(a.run("COPY", "hash", "c:set"), 0, "COPY over what is there")
    check_equal(a.run("COPY", "hash", "c:set", "REPLACE"), 1, "COPY REPLACE")
    check_equal(a.run("COPY", "set", "far", "DB", "3"), 1, "COPY to another database")
    check_equal(a.run("MOVE", "set2", "3"), 1, "MOVE")
    both_ways(a, b)
    same_everywhere([a, b], "copies")
    check_equal(b.run("HGETALL", "c:set"), [b"f", b"1", b"g", b"2"], "COPY REPLACE")
    check_equal(b.run("EXISTS", "set2"), 0, "MOVE takes it away")
    with b.connect() as three:
        pool = three.connection_pool.get_connection("_")
        for words, wanted in ((("SELECT", 3), b"OK"), (("SMEMBERS", "set2"), {b"b", b"c", b"d"}),
                              (("SMEMBERS", "far"), {b"a", b"b", b"c"})):
            pool.send_command(*words)
            reply = pool.read_response()
            check_equal(set(reply) if isinstance(reply, list) else reply, wanted, f"{words}")


def restored(place):
    """DUMP in one region, RESTORE there or in another."""
    a, b = place.region(1), place.region(2)
    fill(a)
    dumps = {kind: a.run("DUMP", kind) for kind in ("string", "number", "hash", "set")}
    both_ways(a, b)
    for kind in dumps:
        b.run("DEL", kind)
    for kind, dump in dumps.items():
        check_equal(b.run("RESTORE", kind, "0", dump), b"OK", kind)
    check("BUSYKEY" in b.run("RESTORE", "hash", "0", dumps["set"]), "RESTORE over what is there")
    check_equal(b.run("RESTORE", "hash", "5000000", dumps["set"], "REPLACE"), b"OK", "REPLACE")
    check_equal(b.run("RESTORE", "set", "4000000000000", dumps["string"], "REPLACE", "ABSTTL"), b"OK",
                "ABSTTL")
    check_equal(b.run("RESTORE", "number", "1", dumps["string"], "REPLACE", "ABSTTL"), b"OK", "past")
    check("error" in b.run("RESTORE", "bad", "0", "nonsense"), "a bad payload")
    both_ways(a, b)
    same_everywhere([a, b], "restored")
    check_equal(a.run("PEXPIRETIME", "set"), 4000000000000, "the expiry")
    check_equal(a.run("EXISTS", "number"), 0, "restored into the past")


def stored(place):
    """SINTERSTORE and the like, BITOP; also with an empty result."""
    a, b = place.region(1), place.region(2)
    fill(a)
    both_ways(a, b)
    for words in (("SINTERSTORE", "i", "set", "set2"), ("SUNIONSTORE", "u", "set", "set2"),
                  ("SDIFFSTORE", "hash", "set", "set2"), ("BITOP", "OR", "o", "string", "number"),
                  ("BITOP", "NOT", "set2", "string")):
        check(isinstance(a.run(*words), int), f"{words}")
    both_ways(a, b)
    same_everywhere([a, b], "stored")
    check_equal(b.run("SMEMBERS", "hash"), [b"a"], "SDIFFSTORE over a hash")
    check_equal(a.run("SINTERSTORE", "u", "set", "nothing"), 0, "an empty result")
    check_equal(a.run("BITOP", "AND", "o", "nothing"), 0, "an empty BITOP")
    both_ways(a, b)
    check_equal(b.run("EXISTS", "u", "o"), 0, "an empty result deletes")
    same_everywhere([a, b], "at the end")


def replaced_in_batches(place):
    """In scripts and transactions; after a restart from the log; a large value in parts."""
    a, b = place.region(1), place.region(2)
    fill(a)
    a.run("EVAL", "redis.call('RENAME','set','x'); redis.call('SADD','x','y');"
          "redis.call('COPY','x','z'); redis.call('INCR','number');"
          "redis.call('RENAME','number','n2'); return redis.call('INCR','n2')", 0)
    pipe = a.client.pipeline(transaction=True)
    for words in (("SET", "k", "1"), ("INCR", "k"), ("RENAME", "k", "k2"), ("INCR", "k2"),
                  ("HSET", "hash", "more", "1"), ("RENAME", "hash", "h2"), ("HDEL", "h2", "f"),
                  ("SUNIONSTORE", "z", "z", "set2"), ("MOVE", "z", "1")):
        pipe.execute_command(*words)
    pipe.execute()
    a.run("EVAL", "for i = 1, 30000 do redis.call('SADD', KEYS[1], 'member ' .. i) end;"
          "for i = 1, 3000 do redis.call('HSET', KEYS[2], i, string.rep('v', 1000)) end", 2, "large",
          "long")
    a.run("RENAME", "large", "larger")
    a.run("COPY", "long", "longer")
    _, count, deltas = a.tail(0, 64 << 20)
    check(count > 33000, f"{count} deltas")
    both_ways(a, b)
    same_everywhere([a, b], "after the stream")
    check_equal((b.run("SCARD", "larger"), b.run("HLEN", "longer"), b.run("GET", "n2")),
                (30000, 3000, b"20"), "what came")
    digest = a.run("MERIDIAN.DIGEST")
    content = a.content()
    for region in (a, b):
        region.kill()
        region.start()
        check_equal(region.run("MERIDIAN.DIGEST"), digest, "the digest after a restart")
        check_equal(region.content(), content, "the content after a restart")
        check_equal(int(region.info()["stamped_anew"]), 0, "nothing had to be stamped anew")


ALL = [renamed, copied, restored, stored, replaced_in_batches]
