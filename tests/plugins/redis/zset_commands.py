"""Random commands on sorted sets and geo, right and wrong ones, for the workloads of groups.py."""

ZSETS = [b"z1", b"z2"]
MEMBERS = [b"f1", b"f2", b"f3", b"17", b"", b"long" * 20]
SCORES = [b"0", b"1", b"2", b"2", b"-3", b"1.5", b"0.1", b"-0", b"inf", b"-inf", b"+inf", b"1e20", b"17976931e301",
          b"3.0000000000000004", b"0x10", b"  7", b"nan", b"word", b"9007199254740993", b"1e-7"]
RANGES = [b"-inf", b"+inf", b"0", b"(1", b"2", b"word"]
RANKS = [b"0", b"1", b"-1", b"2", b"-2", b"x"]
# Of members with different scores Redis takes some by chance: only "lex" is asked so.
LEX = [b"-", b"+", b"[f2", b"(f1", b"[17", b"f"]
OPTIONS = [(), (), (), (b"NX",), (b"XX",), (b"GT",), (b"LT",), (b"CH",), (b"XX", b"GT", b"CH"),
           (b"NX", b"XX"), (b"incr",), (b"NX", b"INCR"), (b"GT", b"INCR"), (b"nx", b"ch")]


def a_zset_command(choose, keys=ZSETS):
    key, other = choose.choice(keys), choose.choice(ZSETS)
    member, second = choose.choice(MEMBERS), choose.choice(MEMBERS)
    score, amount = choose.choice(SCORES), choose.choice(SCORES)
    options = choose.choice(OPTIONS)
    low, high = choose.choice(RANGES), choose.choice(RANGES)
    first, last = choose.choice(RANKS), choose.choice(RANKS)
    end = choose.choice([b"MIN", b"max"])
    place = (choose.choice([b"13.36", b"15.1", b"-181"]), choose.choice([b"38.1", b"37.5"]))
    return choose.choice([
        (b"ZADD", key, score, member), (b"ZADD", key, score, member), (b"zadd", key, b"1", member),
        (b"ZADD", key, score, member, amount, second), (b"ZADD", key) + options + (score, member),
        (b"ZADD", key) + options + (score, member), (b"ZADD", key, score),
        (b"ZADD", key) + options + (score, member, amount, second), (b"ZADD", key, b"1", member, b"2", member),
        (b"ZINCRBY", key, score, member), (b"ZINCRBY", key, b"1", member), (b"ZINCRBY", key, b"0.1", member),
        (b"ZREM", key, member), (b"ZREM", key, member, second), (b"ZREM", key),
        (b"ZPOPMIN", key), (b"ZPOPMAX", key, b"2"), (b"ZPOPMIN", key, first), (b"ZPOPMAX", key, b"0"),
        (b"ZMPOP", b"2", key, other, end), (b"ZMPOP", b"1", key, end, b"COUNT", b"3"),
        (b"BZPOPMIN", key, other, b"0.01"), (b"BZPOPMAX", key, b"0.01"),
        (b"BZMPOP", b"0.01", b"2", key, other, end, b"COUNT", b"2"),
        (b"ZREMRANGEBYSCORE", key, low, high), (b"ZREMRANGEBYRANK", key, first, last),
        (b"ZREMRANGEBYLEX", b"lex", choose.choice(LEX), choose.choice(LEX)), (b"ZADD", b"lex", b"0", member),
        (b"ZREMRANGEBYRANK", key, b"0", b"0"),
        (b"ZRANGESTORE", other, key, b"0", b"-1"), (b"ZRANGESTORE", other, key, low, high, b"BYSCORE"),
        (b"ZUNIONSTORE", other, b"2", key, other, b"WEIGHTS", b"2", b"1"),
        (b"ZINTERSTORE", other, b"2", key, other, b"AGGREGATE", b"MAX"), (b"ZDIFFSTORE", other, b"2", key, other),
        (b"ZSCORE", key, member), (b"ZRANK", key, member), (b"ZCARD", key), (b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"),
        (b"GEOADD", key) + place + (member,), (b"GEOADD", key, b"NX", b"CH") + place + (member, b"1", b"2", second),
        (b"GEOPOS", key, member), (b"GEOSEARCHSTORE", other, key, b"FROMLONLAT", b"15", b"37", b"BYRADIUS", b"200",
                                   b"km"),
        (b"GEORADIUS", key, b"15", b"37", b"200", b"km", b"STORE", other),
        (b"GEORADIUSBYMEMBER", key, member, b"200", b"km", b"STOREDIST", other),
        (b"DEL", key), (b"EXPIRE", key, b"500"), (b"PERSIST", key), (b"RENAME", key, other),
        (b"COPY", key, other, b"REPLACE"), (b"SORT", key, b"ALPHA", b"STORE", b"l1"), (b"OBJECT", b"ENCODING", key),
    ])


def a_plain_zadd(choose):
    """Those that are told to the keyspace together."""
    return (b"ZADD", choose.choice(ZSETS), choose.choice([b"1", b"2.5", b"-7", b"0", b"1e300"]), choose.choice(MEMBERS))
