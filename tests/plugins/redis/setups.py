"""What a server may be set up with, and what its clients rely on beside the data."""
from groups import settle_all
from harness import MODULE, Region, check, check_equal, same_everywhere, settle_pair

MAKE = (("string", "SET {} 1", "GET {}", "SET {} 2"), ("count", "INCR {}", "GET {}", "INCR {}"),
        ("hash", "HSET {} f 1", "HGETALL {}", "HSET {} f 2"),
        ("set", "SADD {} a", "SMEMBERS {}", "SREM {} a"),
        ("zset", "ZADD {} 1 a", "ZCARD {}", "ZINCRBY {} 1 a"),
        ("list", "RPUSH {} a", "LLEN {}", "LSET {} 0 b"),
        ("stream", "XADD {} * f v", "XLEN {}", "XTRIM {} MAXLEN 0"),
        ("hll", "PFADD {} a", "GET {}", "PFADD {} b"), ("gone", "SET {} 1", "GET {}", "DEL {}"),
        ("timed", "SET {} 1", "GET {}", "EXPIRE {} 1000"))


class Line:
    """One connection."""

    def __init__(self, server):
        self.connection = server.connect().connection_pool.get_connection("_")

    def say(self, *words):
        self.connection.send_command(*words)
        return self.connection.read_response()

    def close(self):
        self.connection.disconnect()


def watched(place):
    """What another region changes ends a transaction that WATCHes it, and is told to caches."""
    a, b = place.region(1, aof=False), place.region(2, aof=False)
    for name, make, _, _ in MAKE:
        a.run(*make.format(name).split())
    settle_pair(a, b)
    lines = {}
    cache, hears = Line(b), Line(b)
    cache.say("CLIENT", "TRACKING", "on", "REDIRECT", hears.say("CLIENT", "ID"))
    hears.say("SUBSCRIBE", "__redis__:invalidate")
    for name, _, read, _ in MAKE:
        lines[name] = Line(b)
        lines[name].say("WATCH", name)
        lines[name].say("MULTI")
        lines[name].say("PING")
        cache.say(*read.format(name).split())
    for name, _, _, change in MAKE:
        a.run(*change.format(name).split())
    settle_pair(a, b)
    told = set()
    while len(told) < len(MAKE) and hears.connection.can_read(timeout=20):
        told |= set(hears.connection.read_response()[2])
    check_equal(told, {name.encode() for name, *_ in MAKE}, "what caches are told")
    for name, line in lines.items():
        check_equal(line.say("EXEC"), None, f"a transaction that watches {name}")
    for line in (cache, hears, *lines.values()):
        line.close()


LIBRARY = """#!lua name=lib
redis.register_function('f', function(keys, args)
  redis.call('LPUSH', keys[1], args[1]) redis.call('INCRBY', keys[2], 5)
  redis.call('SADD', keys[3], 'x') redis.call('SPOP', keys[3]) redis.call('SADD', keys[3], 'y')
  redis.call('RENAME', keys[1], keys[4]) redis.call('RPUSH', keys[1], 'q')
  redis.call('LMOVE', keys[1], keys[4], 'LEFT', 'RIGHT')
  return redis.call('GET', keys[2]) end)"""


def several_keys(place):
    """Functions, and transactions and scripts of which one command is refused: the rest counts."""
    a, b = place.region(1), place.region(2, aof=False)
    for server in (a, b):
        server.run("FUNCTION", "LOAD", LIBRARY)
        server.run("FCALL", "f", 4, "l", "n", "s", "m", "1")
    settle_all([a, b])
    check_equal((a.run("GET", "n"), a.run("LLEN", "m"), a.run("EXISTS", "l")), (b"10", 4, 0),
                "what functions did")
    line = Line(a)
    for words in (("MULTI",), ("INCR", "n"), ("SWAPDB", 0, 1), ("RPUSH", "t", "a"), ("LPUSH", "n", "a")):
        line.say(*words)
    replies = line.say("EXEC")
    line.close()
    check_equal([replies[0], replies[2]], [11, 1], "what was not refused")
    check("is refused" in str(replies[1]) and "WRONGTYPE" in str(replies[3]), f"{replies}")
    said = a.run("EVAL", "redis.call('SET', 'k', '1') redis.call('SWAPDB', 0, 1)", 0)
    check("is refused" in str(said), f"a script: {said!r}")
    settle_all([a, b])
    same_everywhere([a, b], "after refusals")
    check_equal((b.run("GET", "n"), b.run("LRANGE", "t", 0, -1), b.run("GET", "k")),
                (b"11", [b"a"], b"1"), "what came")


def loaded_late(place):
    """MODULE LOAD into a server that has keys; its log, with and without a rewrite, read again."""
    a = place.region(1, aof=False)
    late = place.plain(arguments=("--enable-module-command", "yes"))
    late.run("SET", "old", "1")
    late.run("RPUSH", "list", "a", "b")
    late.admin("MODULE", "LOAD", MODULE, "origin", "2")
    late.__class__, late.origin = Region, 2
    late.run("INCR", "old")
    a.run("INCR", "old")
    settle_all([a, late])
    same_everywhere([a, late], "a module that was loaded late")
    digest = late.run("MERIDIAN.DIGEST")
    for how in ("LOADAOF", "RELOAD"):
        check_equal(late.run("DEBUG", how), b"OK", how)
        check_equal(late.run("MERIDIAN.DIGEST"), digest, how)
    late.arguments += ["--loadmodule", MODULE, "origin", "2"]
    late.kill()
    late.start()
    check_equal(late.run("MERIDIAN.DIGEST"), digest, "after a restart")
    settle_all([a, late])
    same_everywhere([a, late], "after a restart")


def refused_setups(place):
    """A command that writes by another name is none that the module knows; one that is off is."""
    for options, why in ((("--rename-command", "FLUSHALL", "wipe"), "rename-command"),
                         (("--databases", "65537"), "'databases' may be at most 65536")):
        server = place.region(1, start=False, aof=False, arguments=options)
        server.start(fails=True)
        check(why in server.log(), f"{options}: {server.log()[-600:]}")
    server = place.region(1, aof=False, arguments=("--rename-command", "FLUSHALL", "",
                                                   "--databases", "65536"))
    check("unknown command" in server.run("FLUSHALL"), "a command that is off")
    line = Line(server)
    line.say("SELECT", 65535)
    check_equal((line.say("INCR", "k"), line.say("INCR", "k")), (1, 2), "the last database")
    line.close()


ALL = [watched, several_keys, loaded_late, refused_setups]
