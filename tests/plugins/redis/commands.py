"""Every command that the server lists as a write: an example that ends alike in a second region, or
a refusal by name. A command without a row fails, so that a newer server cannot slip one through."""
import redis
from harness import check, check_equal, settle_pair

# Words that begin with @ are keys. A row: commands that prepare, then the one that is shown.
STRING = ("SET", "@k", "value", "PX", "4000000")
NUMBER = ("SET", "@n", "10")
HASH = ("HSET", "@h", "f", "1", "g", "2.5", "t", "text")
SET1 = ("SADD", "@s", "a", "b", "c")
SET2 = ("SADD", "@t", "b", "c", "d")
ZSET1 = ("ZADD", "@z", "1", "a", "2", "b", "3", "c")
ZSET2 = ("ZADD", "@y", "1", "b", "5", "d")
LEX = ("ZADD", "@z", "0", "a", "0", "b", "0", "c")
PLACES = ("GEOADD", "@g", "13.36", "38.11", "Palermo", "15.08", "37.5", "Catania")
LIST = ("RPUSH", "@l", "a", "b", "c", "b")
STREAM = ("XADD", "@x", "5-1", "f", "v")
STREAM2 = ("XADD", "@x", "5-2", "f", "w")
GROUP = ("XGROUP", "CREATE", "@x", "group", "0")
READ = ("XREADGROUP", "GROUP", "group", "me", "COUNT", "1", "STREAMS", "@x", ">")
HLL1 = ("PFADD", "@p", "a", "b", "c")
HLL2 = ("PFADD", "@q", "c", "d")

ROWS = {
    "append": [STRING, ("APPEND", "@k", "more")],
    "bitfield": [STRING, ("BITFIELD", "@k", "SET", "u8", "8", "66", "INCRBY", "u4", "0", "1")],
    "bitop": [STRING, NUMBER, ("BITOP", "XOR", "@d", "@k", "@n")],
    "blmove": [LIST, ("BLMOVE", "@l", "@m", "LEFT", "RIGHT", "1")],
    "blmpop": [LIST, ("BLMPOP", "1", "1", "@l", "LEFT", "COUNT", "2")],
    "blpop": [LIST, ("BLPOP", "@l", "1")],
    "brpop": [LIST, ("BRPOP", "@l", "1")],
    "brpoplpush": [LIST, ("BRPOPLPUSH", "@l", "@m", "1")],
    "bzmpop": [ZSET1, ("BZMPOP", "1", "1", "@z", "MIN")],
    "bzpopmax": [ZSET1, ("BZPOPMAX", "@z", "1")],
    "bzpopmin": [ZSET1, ("BZPOPMIN", "@z", "1")],
    "copy": [HASH, ("COPY", "@h", "@d")],
    "decr": [NUMBER, ("DECR", "@n")],
    "decrby": [NUMBER, ("DECRBY", "@n", "4")],
    "del": [STRING, HASH, SET1, ("DEL", "@k", "@h", "@s")],
    "expire": [HASH, ("EXPIRE", "@h", "4000")],
    "expireat": [SET1, ("EXPIREAT", "@s", "4000000000")],
    "flushall": [STRING, HASH, SET1, NUMBER, ("INCR", "@n"), ("FLUSHALL",)],
    "flushdb": [STRING, HASH, SET1, NUMBER, ("INCR", "@n"), ("FLUSHDB", "ASYNC")],
    "geoadd": [PLACES],
    "georadius": [PLACES, ("GEORADIUS", "@g", "15", "37", "200", "km", "STORE", "@d")],
    "georadiusbymember": [PLACES, ("GEORADIUSBYMEMBER", "@g", "Palermo", "200", "km", "STOREDIST", "@d")],
    "geosearchstore": [PLACES, ("GEOSEARCHSTORE", "@d", "@g", "FROMLONLAT", "15", "37", "BYRADIUS", "200",
                                "km")],
    "getdel": [STRING, ("GETDEL", "@k")],
    "getex": [STRING, ("GETEX", "@k", "PERSIST")],
    "getset": [STRING, ("GETSET", "@k", "other")],
    "hdel": [HASH, ("HDEL", "@h", "f", "g")],
    "hincrby": [HASH, ("HINCRBY", "@h", "f", "5")],
    "hincrbyfloat": [HASH, ("HINCRBYFLOAT", "@h", "g", "0.25")],
    "hmset": [("HMSET", "@h", "f", "1", "g", "2")],
    "hset": [HASH],
    "hsetnx": [HASH, ("HSETNX", "@h", "new", "1")],
    "incr": [NUMBER, ("INCR", "@n")],
    "incrby": [NUMBER, ("INCRBY", "@n", "7")],
    "incrbyfloat": [NUMBER, ("INCRBYFLOAT", "@n", "0.5")],
    "linsert": [LIST, ("LINSERT", "@l", "BEFORE", "b", "x")],
    "lmove": [LIST, ("LMOVE", "@l", "@m", "LEFT", "LEFT")],
    "lmpop": [LIST, ("LMPOP", "1", "@l", "RIGHT", "COUNT", "2")],
    "lpop": [LIST, ("LPOP", "@l", "2")],
    "lpush": [LIST, ("LPUSH", "@l", "x", "y")],
    "lpushx": [LIST, ("LPUSHX", "@l", "x")],
    "lrem": [LIST, ("LREM", "@l", "1", "b")],
    "lset": [LIST, ("LSET", "@l", "1", "x")],
    "ltrim": [LIST, ("LTRIM", "@l", "1", "2")],
    "move": [SET1, ("MOVE", "@s", "3")],
    "mset": [("MSET", "@k", "1", "@l", "2")],
    "msetnx": [("MSETNX", "@k", "1", "@l", "2")],
    "persist": [STRING, ("PERSIST", "@k")],
    "pexpire": [NUMBER, ("PEXPIRE", "@n", "5000000")],
    "pexpireat": [NUMBER, ("PEXPIREAT", "@n", "4000000000000")],
    "pfadd": [HLL1],
    "pfmerge": [HLL1, HLL2, ("PFMERGE", "@p", "@q")],
    "psetex": [("PSETEX", "@k", "5000000", "v")],
    "rename": [STRING, HASH, ("RENAME", "@h", "@k")],
    "renamenx": [SET1, ("RENAMENX", "@s", "@d")],
    "rpop": [LIST, ("RPOP", "@l")],
    "rpoplpush": [LIST, ("RPOPLPUSH", "@l", "@m")],
    "rpush": [LIST],
    "rpushx": [LIST, ("RPUSHX", "@l", "x")],
    "sadd": [SET1],
    "sdiffstore": [SET1, SET2, ("SDIFFSTORE", "@d", "@s", "@t")],
    "set": [STRING],
    "setbit": [STRING, ("SETBIT", "@k", "9", "1")],
    "setex": [("SETEX", "@k", "5000", "v")],
    "setnx": [("SETNX", "@k", "v")],
    "setrange": [STRING, ("SETRANGE", "@k", "2", "XX")],
    "sinterstore": [SET1, SET2, ("SINTERSTORE", "@d", "@s", "@t")],
    "smove": [SET1, SET2, ("SMOVE", "@s", "@t", "a")],
    "sort": [("SADD", "@s", "3", "1", "2"), ("SORT", "@s", "STORE", "@d")],
    "spop": [SET1, ("SPOP", "@s", "2")],
    "srem": [SET1, ("SREM", "@s", "a", "zz")],
    "sunionstore": [SET1, SET2, ("SUNIONSTORE", "@d", "@s", "@t")],
    "unlink": [SET1, ("UNLINK", "@s")],
    "xack": [STREAM, GROUP, READ, ("XACK", "@x", "group", "5-1")],
    "xadd": [STREAM],
    "xautoclaim": [STREAM, GROUP, READ, ("XAUTOCLAIM", "@x", "group", "you", "0", "0")],
    "xclaim": [STREAM, GROUP, READ, ("XCLAIM", "@x", "group", "you", "0", "5-1")],
    "xdel": [STREAM, STREAM2, ("XDEL", "@x", "5-1")],
    "xgroup|create": [STREAM, GROUP],
    "xgroup|createconsumer": [STREAM, GROUP, ("XGROUP", "CREATECONSUMER", "@x", "group", "me")],
    "xgroup|delconsumer": [STREAM, GROUP, READ, ("XGROUP", "DELCONSUMER", "@x", "group", "me")],
    "xgroup|destroy": [STREAM, GROUP, ("XGROUP", "DESTROY", "@x", "group")],
    "xgroup|setid": [STREAM, GROUP, ("XGROUP", "SETID", "@x", "group", "5-1")],
    "xreadgroup": [STREAM, GROUP, READ],
    "xsetid": [STREAM, ("XSETID", "@x", "9-1")],
    "xtrim": [STREAM, STREAM2, ("XTRIM", "@x", "MAXLEN", "1")],
    "zadd": [ZSET1],
    "zdiffstore": [ZSET1, ZSET2, ("ZDIFFSTORE", "@d", "2", "@z", "@y")],
    "zincrby": [ZSET1, ("ZINCRBY", "@z", "2.5", "a")],
    "zinterstore": [ZSET1, ZSET2, ("ZINTERSTORE", "@d", "2", "@z", "@y")],
    "zmpop": [ZSET1, ("ZMPOP", "1", "@z", "MAX", "COUNT", "2")],
    "zpopmax": [ZSET1, ("ZPOPMAX", "@z")],
    "zpopmin": [ZSET1, ("ZPOPMIN", "@z", "2")],
    "zrangestore": [ZSET1, ("ZRANGESTORE", "@d", "@z", "0", "1")],
    "zrem": [ZSET1, ("ZREM", "@z", "a", "zz")],
    "zremrangebylex": [LEX, ("ZREMRANGEBYLEX", "@z", "[a", "[b")],
    "zremrangebyrank": [ZSET1, ("ZREMRANGEBYRANK", "@z", "0", "0")],
    "zremrangebyscore": [ZSET1, ("ZREMRANGEBYSCORE", "@z", "2", "3")],
    "zunionstore": [ZSET1, ZSET2, ("ZUNIONSTORE", "@d", "2", "@z", "@y", "WEIGHTS", "2", "1")],
}

# Made of a DUMP of the first command's key.
RESTORED = {"restore": "RESTORE", "restore-asking": "RESTORE-ASKING"}

# Refused, with a part of the reason.
REFUSED = {
    "migrate": ("MIGRATE", "127.92.0.1", "1", "@k", "0", "100"),
    "pfdebug": ("PFDEBUG", "TODENSE", "@p"),
    "swapdb": ("SWAPDB", "0", "1"),
}

# Code is not data: each region has its own functions.
LOCAL = {"function|delete", "function|flush", "function|load", "function|restore"}


def words_of(prefix, words):
    return tuple(prefix + word[1:] if str(word)[:1] == "@" else word for word in words)


def directly(region, words):
    return region.run(*words)


def in_a_transaction(region, words):
    pipe = region.client.pipeline(transaction=True)
    pipe.execute_command(*words)
    try:
        return pipe.execute(raise_on_error=False)[0]
    except redis.exceptions.ResponseError as error:
        return "error: " + str(error)


def in_a_script(region, words):
    return region.run("EVAL", "return redis.call(unpack(ARGV))", "0", *words)


def the_names(region):
    return {name.decode() for name in region.run("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write")}


def same(a, b, why):
    settle_pair(a, b)
    settle_pair(b, a)
    for db in (0, 3):
        look = [region.databases(db) for region in (a, b)]
        for key in sorted(set(look[0]) | set(look[1])):
            check_equal(look[1].get(key), look[0].get(key), f"{why}: {key!r} in database {db}")


def run_row(a, row, prefix, way):
    """The last reply; the text of a refusal where one of its commands is refused."""
    for words in row[:-1]:
        reply = a.run(*words_of(prefix, words))
        check(not isinstance(reply, str) or "MERIDIAN" in reply, f"{words} said {reply!r}")
        if isinstance(reply, str):
            return reply
    return way(a, words_of(prefix, row[-1]))


def every_write_command(place):
    a, b = place.region(1), place.region(2)
    rows = dict(ROWS)
    names = the_names(a)
    a.admin("SADD", "dumped", "1", "2")
    for name, command in RESTORED.items():
        rows[name] = [(command, "@d", "4000000000000", a.run("DUMP", "dumped"), "ABSTTL")]
    missing = names - set(rows) - set(REFUSED) - LOCAL
    check(not missing, f"no row for {sorted(missing)}")
    pending = set()
    for way in (directly, in_a_transaction, in_a_script):
        for name in sorted(names & set(rows)):
            prefix = f"{way.__name__}:{name}:"
            row = rows[name]
            reply = run_row(a, row, prefix, way)
            if isinstance(reply, (str, redis.exceptions.ResponseError)) and "MERIDIAN" in str(reply):
                pending.add(name)
                continue
            if way is in_a_script and "not allowed from script" in str(reply):
                continue  # the server's own rule
            check(not isinstance(reply, (str, Exception)), f"{name} {way.__name__} said {reply!r}")
            same(a, b, f"{name} {way.__name__}")
    for name in sorted(names & set(REFUSED)):
        reply = str(a.run(*words_of("x", REFUSED[name])))
        check("MERIDIAN" in reply and f"'{name}'" in reply and len(reply) > 60, f"{name} said {reply!r}")
    print("    refused without a rule:", " ".join(sorted(pending)) or "none")
    digest = a.run("MERIDIAN.DIGEST")
    for region in (a, b):
        region.kill()
        region.start()
        check_equal(region.run("MERIDIAN.DIGEST"), digest, "the digest after a restart")
        check_equal(region.info()["stamped_anew"], "0", "keys stamped anew")
    same(a, b, "after a restart")


ALL = [every_write_command]
