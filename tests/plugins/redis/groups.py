"""The groups: one function each. A group gets a Place, which makes servers and ends them."""
import random
import socket
import time

import redis
from harness import (ADDRESS, Region, Server, Shuttle, check, check_equal, same_everywhere,
                     settle_pair)
from zset_commands import ZSETS, a_plain_zadd, a_zset_command


class Place:
    def __init__(self, program, seed):
        self.program = program
        self.seed = seed
        self.random = random.Random(seed)
        self.servers = []

    def plain(self, **keywords):
        self.servers.append(Server(self.program, **keywords))
        return self.servers[-1].start()

    def region(self, origin, start=True, **keywords):
        self.servers.append(Region(self.program, origin, **keywords))
        return self.servers[-1].start() if start else self.servers[-1]

    def close(self):
        for server in self.servers:
            server.close()


# ---- workloads

STRINGS = [b"s1", b"s2", b"n1", b"n2"]
HASHES = [b"h1", b"h2"]
SETS = [b"m1", b"m2"]
LISTS = [b"l1", b"l2"]
STREAMS = [b"x1", b"x2"]
KEYS = STRINGS + HASHES + SETS + LISTS + STREAMS + ZSETS
VALUES = [b"", b"0", b"7", b"-12", b"12345678901234567890", b"3.5", b"word", b"x" * 44, b"y" * 45,
          b"z" * 300, b"\x00\xff\r\n", b"0012", b" 5"]
FIELDS = [b"f1", b"f2", b"f3", b"17"]


def a_string_command(choose):
    key = choose.choice(KEYS if choose.random() < 0.1 else STRINGS)
    value = choose.choice(VALUES)
    number = choose.choice([b"1", b"-3", b"40", b"x", b"9223372036854775807"])
    options = choose.choice([(), (), (b"NX",), (b"XX",), (b"GET",), (b"KEEPTTL",), (b"EX", b"1000"),
                             (b"px", b"900000"), (b"PXAT", b"4000000000000"), (b"EX", b"0"),
                             (b"NX", b"GET"), (b"NX", b"XX"), (b"EXAT", b"4000000000"),
                             (b"XX", b"KEEPTTL", b"GET"), (b"BAD",)])
    return choose.choice([
        (b"SET", key, value) + options, (b"SET", key, value), (b"set", key, number),
        (b"SETNX", key, value), (b"SETEX", key, b"500", value), (b"PSETEX", key, b"500000", value),
        (b"SETEX", key, b"-1", value), (b"GETSET", key, value), (b"GETDEL", key), (b"GETEX", key),
        (b"GETEX", key, b"EX", b"400"), (b"GETEX", key, b"PERSIST"),
        (b"MSET", key, value, choose.choice(STRINGS), number), (b"MSET", key, value, key),
        (b"MSET", key, value, key, number),
        (b"MSETNX", key, value, choose.choice(STRINGS), number), (b"APPEND", key, value),
        (b"SETRANGE", key, b"3", value), (b"SETRANGE", key, b"-1", value),
        (b"SETBIT", key, b"9", b"1"), (b"SETBIT", key, b"9", b"2"),
        (b"BITOP", choose.choice([b"AND", b"XOR", b"NOT"]), key, choose.choice(STRINGS)),
        (b"BITOP", b"OR", key, choose.choice(STRINGS), choose.choice(KEYS)),
        (b"BITFIELD", key, b"SET", b"u8", b"0", b"65"), (b"BITFIELD", key, b"GET", b"u8", b"0"),
        (b"INCR", key), (b"DECR", key), (b"INCRBY", key, number), (b"DECRBY", key, number),
        (b"INCRBY", key, b"5"), (b"GET", key), (b"STRLEN", key), (b"INCR",), (b"SET", key), (b"INCR", key, b"1"),
    ])


def a_key_command(choose):
    key = choose.choice(KEYS)
    when = choose.choice([b"100", b"2000", b"99999"])
    flag = choose.choice([(), (b"NX",), (b"XX",), (b"GT",), (b"LT",), (b"NX", b"GT")])
    return choose.choice([
        (b"DEL", key), (b"DEL", key, choose.choice(KEYS)), (b"UNLINK", key), (b"DEL",),
        (b"EXPIRE", key, when) + flag, (b"PEXPIRE", key, when + b"000") + flag,
        (b"EXPIREAT", key, b"40000000" + when) + flag, (b"EXPIRE", key, b"-1"),
        (b"PEXPIREAT", key, b"40000000" + when + b"000") + flag, (b"PEXPIREAT", key, b"5"),
        (b"PERSIST", key), (b"EXISTS", key), (b"TYPE", key), (b"EXPIRE", key, b"word"),
        (b"RENAME", key, choose.choice(KEYS)), (b"RENAMENX", key, choose.choice(KEYS)),
        (b"RENAME", key, key), (b"COPY", key, choose.choice(KEYS)), (b"COPY", key, key),
        (b"COPY", key, choose.choice(KEYS), b"REPLACE"), (b"COPY", key, key, b"DB", b"x"),
        (b"SORT", key, b"ALPHA"), (b"SORT", key, b"ALPHA", b"STORE", choose.choice(KEYS)),
        (b"PFADD", key, when, b"x"), (b"PFADD", b"s2", when), (b"PFCOUNT", b"s2", key),
        (b"PFMERGE", b"s1", b"s2"), (b"OBJECT", b"ENCODING", key), (b"LCS", b"s1", b"s2"),
    ])


def a_hash_command(choose):
    key = choose.choice(KEYS if choose.random() < 0.1 else HASHES)
    field, other = choose.choice(FIELDS), choose.choice(FIELDS)
    value = choose.choice(VALUES)
    return choose.choice([
        (b"HSET", key, field, value), (b"HSET", key, field, value, other, b"2"), (b"HSET", key, field),
        (b"HMSET", key, field, value), (b"HSETNX", key, field, value), (b"HDEL", key, field),
        (b"HDEL", key, field, other), (b"HINCRBY", key, field, b"4"), (b"HINCRBY", key, field, b"x"),
        (b"HINCRBYFLOAT", key, field, b"1.25"), (b"HGET", key, field), (b"HLEN", key), (b"HSETNX", key, field),
        (b"HINCRBY", key, field, b"4", b"5"),
    ])


def a_set_command(choose):
    key = choose.choice(KEYS if choose.random() < 0.1 else SETS)
    member, other = choose.choice(FIELDS), choose.choice(VALUES)
    return choose.choice([
        (b"SADD", key, member), (b"SADD", key, member, other), (b"SADD", key), (b"SADD", key, b"5"),
        (b"SADD", key, b"5", b"6", b"7"), (b"SREM", key, member), (b"SREM", key, member, other),
        (b"SMOVE", key, choose.choice(SETS), member), (b"SMOVE", b"m1", b"m1", member),
        (b"SINTERSTORE", key, b"m1", b"m2"), (b"SUNIONSTORE", key, b"m1", choose.choice(KEYS)),
        (b"SDIFFSTORE", key, choose.choice(SETS), b"m2"), (b"SUNIONSTORE", key),
        (b"SCARD", key), (b"SISMEMBER", key, member),
    ])


def a_list_command(choose):
    key = choose.choice(KEYS if choose.random() < 0.1 else LISTS)
    other = choose.choice(LISTS)
    value, pivot = choose.choice(VALUES), choose.choice(VALUES)
    side, end = choose.choice([b"LEFT", b"RIGHT"]), choose.choice([b"left", b"RIGHT"])
    number = choose.choice([b"0", b"1", b"-1", b"2", b"-3", b"word"])
    return choose.choice([
        (b"RPUSH", key, value, pivot, b"7"), (b"LPUSH", key, value, pivot), (b"RPUSH", key),
        (b"RPUSH", key, b"1", b"2", b"3", b"4"), (b"LPUSHX", key, value), (b"RPUSHX", key, value),
        (b"LPOP", key), (b"RPOP", key), (b"LPOP", key, b"2"), (b"RPOP", key, b"100"),
        (b"LPOP", key, b"0"), (b"LMOVE", key, other, side, end), (b"RPOPLPUSH", key, other),
        (b"LMOVE", key, key, side, end), (b"RPOPLPUSH", key, key), (b"LSET", key, number, value),
        (b"LMPOP", b"2", key, other, side), (b"LMPOP", b"1", key, side, b"COUNT", b"3"),
        (b"LINSERT", key, b"BEFORE", pivot, value), (b"LINSERT", key, b"after", pivot, value),
        (b"LINSERT", key, b"BEFORE", pivot, pivot), (b"LINSERT", key, b"BESIDE", pivot, value),
        (b"LINSERT", key, b"AFTER", b"2", b"2"), (b"LREM", key, number, pivot),
        (b"LREM", key, b"0", b"7"), (b"LTRIM", key, number, b"-2"), (b"LTRIM", key, b"1", number),
        (b"LTRIM", key, b"-6", b"-1"), (b"LTRIM", key, b"5", b"2"), (b"LRANGE", key, b"0", b"-1"),
        (b"LTRIM", key, b"0", b"20"), (b"LTRIM", key, b"0", b"20"), (b"LPOS", key, pivot),
        (b"LREM", key, number, pivot, b"1"), (b"LSET", key, number),
        (b"BLPOP", key, other, b"0.01"), (b"BLMOVE", key, other, side, end, b"0.01"),
    ])


def a_stream_command(choose):
    key = choose.choice(KEYS if choose.random() < 0.1 else STREAMS)
    name = b"%d-%d" % (choose.randrange(1, 12), choose.randrange(3))
    value, number = choose.choice(VALUES), choose.choice([b"0", b"1", b"3"])
    return choose.choice([
        (b"XADD", key, name, b"f", value), (b"XADD", key, name, b"f", value, b"g", b""),
        (b"XADD", key, b"MAXLEN", number, name, b"f", value), (b"XADD", key, name, b"f"),
        (b"XADD", key, b"NOMKSTREAM", name, b"f", value), (b"XDEL", key, name),
        (b"XADD", key, b"MINID", name, b"12-1", b"f", value), (b"XDEL", key, name, b"3-1", b"5-2"),
        (b"XTRIM", key, b"MAXLEN", number), (b"XTRIM", key, b"MINID", name), (b"XLEN", key),
        (b"XSETID", key, name), (b"XGROUP", b"CREATE", key, b"g", b"$", b"MKSTREAM"),
        (b"XRANGE", key, b"-", name), (b"DEL", key), (b"RENAME", key, choose.choice(STREAMS)),
        (b"COPY", key, choose.choice(STREAMS), b"REPLACE"), (b"EXPIRE", key, b"500"), (b"PERSIST", key),
    ])


def a_command(choose):
    return choose.choice([a_string_command, a_string_command, a_key_command, a_hash_command,
                          a_set_command, a_list_command, a_stream_command, a_zset_command,
                          a_zset_command])(choose)


def a_plain_look(server):
    look = {}
    for key, (kind, value, expiry) in server.content().items():
        look[key] = (kind, value, expiry // 10000 if expiry > 0 else expiry,
                     server.run("OBJECT", "ENCODING", key), server.run("DEBUG", "DIGEST-VALUE", key),
                     server.run("DUMP", key) if kind == b"string" else None)
    return look


# ---- groups

def parity(place):
    """The same commands give the same replies and the same content, encodings and expiry included."""
    plain = place.plain()
    region = place.region(1)
    history = []
    for step in range(4000):
        words = a_command(place.random)
        history.append(words)
        got, wanted = region.run(*words), plain.run(*words)
        check_equal(got, wanted, f"seed {place.seed} step {step} {words!r}")
        if step % 100 == 99:
            check_equal(a_plain_look(region), a_plain_look(plain),
                        f"seed {place.seed} step {step}, content after {history[-100:]!r}")


def parity_in_transactions(place):
    plain = place.plain()
    region = place.region(1)
    for step in range(250):
        commands = [a_command(place.random) for _ in range(place.random.randrange(1, 8))]
        end = place.random.choice([b"EXEC", b"EXEC", b"EXEC", b"DISCARD"])
        replies = []
        for server in (region, plain):
            connection = server.client.connection_pool.get_connection("_")
            replies.append([])
            for words in [(b"MULTI",)] + commands + [(end,)]:
                connection.send_command(*words)
                try:
                    replies[-1].append(connection.read_response())
                except redis.exceptions.RedisError as error:
                    replies[-1].append(str(error))
            server.client.connection_pool.release(connection)
        got, wanted = ([[str(x) for x in reply] if isinstance(reply, list) else reply
                        for reply in side] for side in replies)
        check_equal(got, wanted, f"seed {place.seed} step {step} {commands!r}")
        if step % 25 == 24:
            check_equal(a_plain_look(region), a_plain_look(plain), f"content at step {step}")


def parity_in_scripts(place):
    plain = place.plain()
    region = place.region(1)
    script = "return redis.pcall(unpack(ARGV))"
    for step in range(1000):
        words = a_command(place.random)
        got, wanted = (server.run("EVAL", script, 0, *words) for server in (region, plain))
        if not isinstance(wanted, str):
            check_equal(got, wanted, f"seed {place.seed} step {step} {words!r}")
        if step % 100 == 99:
            check_equal(a_plain_look(region), a_plain_look(plain), f"content at step {step}")


def refused(place):
    """What would make regions differ is refused with a sentence; what cannot still runs."""
    region = place.region(1)
    region.run("SET", "a", "1")
    for words, why in ((("SWAPDB", "0", "1"), "another name"), (("DEBUG", "POPULATE", "5"), "alone"),
                       (("MIGRATE", "h", "1", "a", "0", "1"), "outside of the regions")):
        check(why in str(region.run(*words)), f"{words} is refused with a reason")
    check("preamble" in str(region.run("CONFIG", "SET", "aof-use-rdb-preamble", "no")),
          "CONFIG SET aof-use-rdb-preamble no is refused")
    check_equal(region.client.execute_command("KEYS", "*"), [b"a"], "nothing was changed")
    for words in (("PING",), ("DBSIZE",), ("SORT", "s"), ("LRANGE", "l", "0", "-1"),
                  ("PUBLISH", "c", "m"), ("CONFIG", "GET", "maxmemory"), ("SELECT", "0"),
                  ("FUNCTION", "FLUSH"), ("SCAN", "0"), ("OBJECT", "ENCODING", "a"),
                  ("MEMORY", "USAGE", "a"), ("LATENCY", "RESET"), ("CONFIG", "RESETSTAT"),
                  ("EVAL", "return 1", "0"), ("WAIT", "0", "1"), ("TIME",), ("LPOS", "l", "a")):
        reply = region.run(*words)
        check(not (isinstance(reply, str) and "error" in reply), f"{words!r} said {reply!r}")
    check(int(region.info()["commands_refused"]) >= 4, "refusals are counted")


def clients(place):
    """What the usual clients open with."""
    region = place.region(1)
    with socket.create_connection((ADDRESS, region.port), 60) as raw:
        raw.sendall(b"HELLO 3\r\n")
        check(raw.recv(4096).startswith(b"%"), "HELLO 3 answers with a map")
        raw.sendall(b"SADD m 1 2\r\nSPOP m 2\r\n")
        said = b""
        while said.count(b"\r\n") < 6:
            said += raw.recv(4096)
        check(said.startswith(b":2\r\n~2\r\n"), "SPOP answers with a set")
    check("error" in str(region.run("CLIENT", "NO-SUCH-THING")), "an unknown CLIENT subcommand")
    check_equal(region.run("PING"), b"PONG", "the connection lives on")
    check(region.run("INFO"), "INFO")
    check("redis_version" in region.run("INFO", "server").decode(), "INFO server")
    check(region.run("COMMAND", "DOCS", "set"), "COMMAND DOCS")
    check(region.run("COMMAND", "COUNT") > 200, "COMMAND COUNT")
    check_equal(region.run("CLIENT", "SETNAME", "me"), b"OK", "CLIENT SETNAME")
    check(region.run("CONFIG", "GET", "save"), "CONFIG GET")
    check("meridian" in str(region.run("MODULE", "LIST")), "MODULE LIST")
    region.run("ACL", "SETUSER", "writer", "on", ">pw", "~ok:*", "+@all", "-sadd")
    region.run("AUTH", "writer", "pw")
    check_equal(region.run("SET", "ok:1", "1"), b"OK", "an allowed key")
    check("permission" in str(region.run("SET", "no:1", "1")).lower(), "a key that is not allowed")
    check("permission" in str(region.run("SADD", "ok:2", "1")).lower(), "a refused command")


def merge_basics(place):
    """Each type, by hand: last write wins, counters add, adds win."""
    a, b = place.region(1), place.region(2)

    def both_ways():
        settle_pair(a, b)
        settle_pair(b, a)

    a.run("SET", "k", "1")
    time.sleep(0.01)
    b.run("SET", "k", "2")
    both_ways()
    check_equal((a.run("GET", "k"), b.run("GET", "k")), (b"2", b"2"), "the last write")
    a.run("SET", "n", "10")
    both_ways()
    a.run("INCRBY", "n", "5")
    b.run("INCR", "n")
    b.run("DECRBY", "n", "3")
    both_ways()
    check_equal((a.run("GET", "n"), b.run("GET", "n")), (b"13", b"13"), "a counter")
    check_equal(b.run("OBJECT", "ENCODING", "n"), b"int", "a merged counter's encoding")
    a.run("SADD", "s", "x", "y")
    both_ways()
    a.run("SREM", "s", "x")
    b.run("SADD", "s", "x")
    both_ways()
    for region in (a, b):
        check_equal(sorted(region.run("SMEMBERS", "s")), [b"x", b"y"], "the add wins")
    a.run("DEL", "s")
    b.run("SADD", "s", "z")
    both_ways()
    for region in (a, b):
        check_equal(region.run("SMEMBERS", "s"), [b"z"], "DEL takes what it had seen")
    a.run("HSET", "h", "f", "1", "g", "1")
    both_ways()
    a.run("HSET", "h", "f", "2")
    b.run("HDEL", "h", "g")
    both_ways()
    for region in (a, b):
        check_equal(region.run("HGETALL", "h"), [b"f", b"2"], "fields are separate")
    a.run("SET", "t", "1", "EX", "1000")
    both_ways()
    check_equal(a.run("PEXPIRETIME", "t"), b.run("PEXPIRETIME", "t"), "an expiry is absolute")
    b.run("PERSIST", "t")
    both_ways()
    check_equal(a.run("TTL", "t"), -1, "PERSIST travels")
    a.run("INCRBYFLOAT", "f", "1.5")
    both_ways()
    a.run("INCRBYFLOAT", "f", "0.25")
    b.run("INCRBYFLOAT", "f", "1")
    both_ways()
    check_equal((a.run("GET", "f"), b.run("GET", "f")), (b"2.75", b"2.75"), "floats add up")
    same_everywhere([a, b], "at the end")


def add_wins_in_transactions(place):
    a, b = place.region(1), place.region(2)
    a.run("SADD", "s", "x")
    settle_pair(a, b)
    b.run("SREM", "s", "x")
    pipe = a.client.pipeline(transaction=True)
    pipe.execute_command("SADD", "s", "x")
    check_equal(pipe.execute(), [0], "SADD of a member that is there")
    settle_pair(a, b)
    settle_pair(b, a)
    check_equal(b.run("SMEMBERS", "s"), [b"x"], "the add wins")
    same_everywhere([a, b], "at the end")


def convergence(place):
    """Random writes everywhere, carried late, twice and out of order, end alike everywhere."""
    regions = [place.region(origin, aof=False) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    for step in range(4500):
        region = place.random.choice(regions)
        roll = place.random.random()
        if roll < 0.03:
            region.run("SPOP", place.random.choice(SETS))
        elif roll < 0.06:
            region.run("INCRBYFLOAT", "f1", place.random.choice(["0.5", "2", "-1.25"]))
        elif roll < 0.2:
            region.run("INCR", "counter")
        else:
            region.run(*a_command(place.random))
        shuttle.step()
        if step % 1500 == 1499:
            shuttle.settle()
            same_everywhere(regions, f"seed {place.seed} step {step}")


def run_together(server, commands):
    """All in one turn of the server; replies and errors by text."""
    pipe = server.client.pipeline(transaction=False)
    for words in commands:
        pipe.execute_command(*words)
    return [str(reply) if isinstance(reply, Exception) else reply
            for reply in pipe.execute(raise_on_error=False)]


def a_write_of_time(choose, key):
    """Times are so far away that nothing expires, or past."""
    at = choose.choice([b"4000000000000", b"9000000000000", b"4102444800000"])
    return choose.choice([
        (b"SET", key, choose.choice([b"7", b"word", b"z" * 300]), b"PXAT", at),
        (b"SET", key, b"word", choose.choice([b"NX", b"XX"]), b"pxat", at, b"GET"),
        (b"SET", key, b"x", b"EX", b"0"), (b"SETEX", key, b"-1", b"x"),
        (b"PEXPIREAT", key, choose.choice([at, b"1"])), (b"PERSIST", key), (b"DEL", key),
        (b"UNLINK", key), (b"PEXPIREAT", choose.choice([b"h", b"m"]), at),
        (b"DEL", choose.choice([b"h", b"m", b"n"])), (b"SET", key, b"kept", b"KEEPTTL"),
    ])


def a_plain_write(choose):
    """Those that are told to the keyspace together, and now and then one that is not."""
    key = choose.choice(STRINGS)
    return choose.choice([
        (b"SET", key, choose.choice([b"7", b"-12", b"word", b"z" * 300, b""])), (b"INCR", key),
        (b"SET", b"n", b"5"), (b"INCR", b"n"), (b"DECR", b"n"), (b"INCRBY", b"n", b"40"),
        (b"DECRBY", b"n", b"-9"), (b"SET", b"big", b"w" * choose.choice([9000, 70000])),
        (b"HSET", b"h", choose.choice(FIELDS), b"1", b"g", b"v" * choose.choice([1, 300, 5000])),
        (b"SADD", b"m", choose.choice(FIELDS), choose.choice(VALUES)), a_plain_zadd(choose),
        a_write_of_time(choose, key), a_command(choose),
    ])


def pipelines(place):
    """Many commands in a turn: replies as without the module; regions end alike, before and after
    a crash; snapshots in the middle of a turn are whole."""
    plain = place.plain()
    regions = [place.region(1), place.region(2, aof=False)]
    shuttle = Shuttle(regions, place.seed)
    for step in range(120):
        for region in regions:
            commands = [a_plain_write(place.random) for _ in range(place.random.randrange(1, 180))]
            if step % 40 == 17 and region is regions[0]:
                commands.insert(len(commands) // 2, (b"BGREWRITEAOF",))
            run_together(region, commands)
        shuttle.step()
        if step % 40 == 39:
            shuttle.settle()
            same_everywhere(regions, f"seed {place.seed} step {step}")
            region = regions[0]
            region.run(b"SET", b"n", b"3")
            run_together(region, [a_plain_write(place.random) for _ in range(100)])
            content, digest = region.content(), region.run("MERIDIAN.DIGEST")
            region.kill()
            region.start()
            check_equal(region.content(), content, f"seed {place.seed} step {step} after the crash")
            check_equal(region.run("MERIDIAN.DIGEST"), digest, "metadata after the crash")
            check_equal(int(region.info()["stamped_anew"]), 0, "keys stamped anew")
    region = place.region(3, aof=False)
    for step in range(60):
        commands = [a_plain_write(place.random) for _ in range(place.random.randrange(1, 180))]
        check_equal(run_together(region, commands), run_together(plain, commands),
                    f"seed {place.seed} step {step} {commands!r}")
    check_equal(a_plain_look(region), a_plain_look(plain), f"seed {place.seed} content")


def counters_exact(place):
    regions = [place.region(origin, aof=False) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    total = 0
    for _ in range(1500):
        amount = place.random.randrange(-50, 100)
        total += amount
        place.random.choice(regions).run("INCRBY", "c", amount)
        shuttle.step()
    shuttle.settle()
    for region in regions:
        check_equal(region.run("GET", "c"), str(total).encode(), "the sum")


def settle_all(regions):
    for _ in range(2):
        for source in regions:
            for target in regions:
                if source is not target:
                    settle_pair(source, target)


def restarts(place):
    """AOF, RDB, both; SHUTDOWN and kill -9: data and metadata come back alike, and go on."""
    for aof, rdb, kill in ((True, False, False), (True, False, True), (False, True, False),
                           (True, True, True), (True, True, False)):
        what = f"aof={aof} rdb={rdb} kill={kill}"
        a, b = place.region(1, aof=aof, rdb=rdb), place.region(2, aof=False)
        for _ in range(400):
            a.run(*a_command(place.random))
            b.run(*a_command(place.random))
        a.run("INCRBY", "counter", "5")
        b.run("INCRBY", "counter", "7")
        a.run("SET", "gone", "1")
        settle_all([a, b])
        for _ in range(50):
            a.run(*a_command(place.random))
        a.run("DEL", "gone")
        a.connect().execute_command("MULTI")  # left open
        before, digest = a.content(), a.run("MERIDIAN.DIGEST")
        positions = a.positions()
        if kill:
            a.kill()
        else:
            a.stop()
        a.start()
        check_equal(a.content(), before, f"{what}: content after the restart")
        check_equal(a.run("MERIDIAN.DIGEST"), digest, f"{what}: metadata after the restart")
        after = a.positions()
        check(all(after.get(o, 0) >= p for o, p in positions.items() if o != 1),
              f"{what}: positions {after} before {positions}")
        check_equal(int(a.info()["stamped_anew"]), 0, f"{what}: keys stamped anew")
        a.run("INCR", "counter")
        settle_all([a, b])
        same_everywhere([a, b], what)
        check_equal(a.run("GET", "counter"), b"13", f"{what}: the counter")
        check_equal(b.run("EXISTS", "gone"), 0, f"{what}: a delete before the restart")
        a.close()
        b.close()


def restarted_sums(place):
    """What an increment was added to is known after a restart, before anything is merged with it."""
    a, b = place.region(1), place.region(2)
    a.run("SET", "whole", "10")
    a.run("INCRBY", "whole", "5")
    a.run("SET", "float", "1.50")
    a.run("INCRBYFLOAT", "float", "0.25")
    a.run("SET", "far", "9223372036854775807")
    a.run("INCRBY", "far", "-3")
    a.run("DECRBY", "far", "9223372036854775807")
    b.run("INCRBY", "whole", "1")
    b.run("INCRBYFLOAT", "float", "2")
    a.kill()
    a.start()
    settle_all([a, b])
    for server in (a, b):
        check_equal([server.run("GET", key) for key in ("whole", "float", "far")],
                    [b"16", b"3.75", b"-3"], f"region {server.origin}")
    same_everywhere([a, b], "after the restart")


def rewrite(place):
    """BGREWRITEAOF and DEBUG RELOAD keep the metadata."""
    a, b = place.region(1), place.region(2)
    for _ in range(300):
        a.run(*a_command(place.random))
    settle_all([a, b])
    digest, content = a.run("MERIDIAN.DIGEST"), a.content()
    a.run("BGREWRITEAOF")
    for _ in range(200):
        time.sleep(0.02)
        if b"aof_rewrite_in_progress:0" in a.run("INFO", "persistence"):
            break
    a.run("SET", "later", "1")
    digest, content = a.run("MERIDIAN.DIGEST"), a.content()
    a.kill()
    a.start()
    check_equal((a.run("MERIDIAN.DIGEST"), a.content()), (digest, content), "after the rewrite")
    a.run("DEBUG", "RELOAD")
    check_equal((a.run("MERIDIAN.DIGEST"), a.content()), (digest, content), "after DEBUG RELOAD")
    settle_all([a, b])
    same_everywhere([a, b], "after the rewrite")


def lost_log(place):
    """A log whose last record is torn off: what it told is stamped anew, and regions converge."""
    a, b = place.region(1), place.region(2)
    a.run("SET", "k", "old")
    a.run("HSET", "h", "f", "1")
    settle_all([a, b])
    a.run("SET", "k", "new")
    a.kill()
    folder = a.folder + "/appendonlydir/"
    import glob
    name = glob.glob(folder + "*.incr.aof")[0]
    with open(name, "rb") as file:
        data = file.read()
    cut = data.rindex(b"*2\r\n$12\r\nmeridian.log")
    check(data.index(b"new") < cut, "the native command stands before its record")
    with open(name, "wb") as file:
        file.write(data[:cut])
    a.start()
    check_equal(a.run("GET", "k"), b"new", "the native command is there")
    check_equal(int(a.info()["stamped_anew"]), 1, "keys stamped anew")
    settle_all([a, b])
    check_equal(b.run("GET", "k"), b"new", "the other region has it")
    same_everywhere([a, b], "after the loss")


def adoption(place):
    """Data of a server without the module gets stamps, and travels."""
    plain = place.plain(aof=False, rdb=True)
    for words in (("SET", "s", "12"), ("HSET", "h", "f", "1", "g", "2"), ("SADD", "m", "1", "a"),
                  ("SET", "t", "x", "EX", "5000")):
        plain.run(*words)
    plain.run("SAVE")
    wanted = plain.content()
    a = place.region(1, start=False, aof=False, rdb=True)
    import shutil
    shutil.copy(plain.folder + "/dump.rdb", a.folder + "/dump.rdb")
    a.start()
    b = place.region(2)
    settle_all([a, b])
    check_equal(a.content(), wanted, "the data")
    same_everywhere([a, b], "after adoption")


def state_transfer(place):
    """A new region is filled by SCAN and MERGESTATE while writes go on, then by the stream."""
    a, b = place.region(1), place.region(2)
    for _ in range(600):
        a.run(*a_command(place.random))
    for i in range(300):
        a.run("SET", f"key:{i}", i)
    cursor, positions = 0, None
    while True:
        reply = a.run("MERIDIAN.SCAN", cursor, 2000)
        check(isinstance(reply, list), f"SCAN said {reply!r}")
        cursor = int(reply[0])
        positions = positions or reply[1]
        end = ["END"] + [x for pair in positions for x in pair] if cursor == 0 else []
        said = b.run("MERIDIAN.MERGESTATE", reply[2], *end)
        check(isinstance(said, list) if end else said == b"OK", f"MERGESTATE said {said!r}")
        a.run(*a_command(place.random))
        if cursor == 0:
            break
    settle_all([a, b])
    same_everywhere([a, b], "after the transfer")
    digest = b.run("MERIDIAN.DIGEST")
    b.kill()
    b.start()
    check_equal(b.run("MERIDIAN.DIGEST"), digest, "the transfer is in the AOF")


def replica(place):
    """A replica inside the region follows by records, and can take over."""
    a = place.region(1, arguments=("--repl-diskless-sync-delay", "0"))
    b = place.region(2)
    for _ in range(100):
        a.run(*a_command(place.random))
    r = place.region(1, arguments=("--replicaof", f"{ADDRESS} {a.port}"))
    r.wait_until(lambda: b"master_link_status:up" in r.run("INFO", "replication"), True)
    for step in range(600):
        a.run(*a_command(place.random))
        b.run(*a_command(place.random))
        if step % 50 == 0:
            settle_all([a, b])
    check("read only" in str(r.run("SET", "x", "1")), "a replica is read only")
    a.run("SET", "last", "1")
    check_equal(a.run("WAIT", 1, 50000), 1, "WAIT")
    check_equal(r.wait_until(r.content, a.content()), a.content(), "the replica's content")
    check_equal(r.run("MERIDIAN.DIGEST"), a.run("MERIDIAN.DIGEST"), "the replica's metadata")
    a.kill()
    r.run("REPLICAOF", "NO", "ONE")
    r.run("INCR", "counter")
    r.run("SET", "last", "2")
    settle_all([r, b])
    same_everywhere([r, b], "after the takeover")


def expiry(place):
    """Expiry strikes once, travels as a delete of what was observed, and spares later writes."""
    a, b = place.region(1), place.region(2)
    a.run("SET", "e", "1", "PX", "80")
    a.run("HSET", "h", "f", "1")
    a.run("PEXPIRE", "h", "80")
    a.run("SADD", "m", "x")
    a.run("PEXPIRE", "m", "80")
    settle_all([a, b])
    time.sleep(0.12)
    b.run("SADD", "m", "y")
    b.run("HSET", "h", "g", "2")
    settle_pair(b, a)
    time.sleep(0.3)
    settle_all([a, b])
    for region in (a, b):
        check_equal(region.run("EXISTS", "e"), 0, "the string has expired")
        check_equal(region.run("SMEMBERS", "m"), [b"y"], "the later add survives")
        check_equal(region.run("HGETALL", "h"), [b"g", b"2"], "the later field survives")
        check_equal(region.run("TTL", "m"), -1, "and inherits no expiry")
    same_everywhere([a, b], "after expiry")


def eviction(place):
    """Eviction is no delete: the other region keeps its value."""
    a, b = place.region(1, aof=False), place.region(2, aof=False)
    for i in range(200):
        a.run("SET", f"k{i}", "v" * 1000)
    settle_all([a, b])
    a.run("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    a.run("CONFIG", "SET", "maxmemory", "1")
    a.run("SET", "x", "1")
    a.run("CONFIG", "SET", "maxmemory", "0")
    check(a.run("DBSIZE") < 200, "something was evicted")
    settle_all([a, b])
    check(b.run("DBSIZE") >= 200, "the other region keeps all")


def bad_input(place):
    """No blob and no argument brings a server down."""
    a, b = place.region(1), place.region(2)
    for _ in range(200):
        a.run(*a_command(place.random))
    last, count, deltas = a.tail(0)
    check(count > 0, "there are deltas")
    cursor, positions, state = a.run("MERIDIAN.SCAN", 0, 1 << 20)
    choose = place.random
    for step in range(600):
        blob = bytearray(choose.choice([deltas, state]))
        for _ in range(choose.randrange(1, 4)):
            blob[choose.randrange(len(blob))] = choose.randrange(256)
        blob = bytes(blob[:choose.randrange(len(blob) + 1)])
        if choose.random() < 0.5:
            b.run("MERIDIAN.MERGE", choose.choice([1, 3, 64]), 0, last, blob)
        else:
            b.run("MERIDIAN.MERGESTATE", blob, *choose.choice([(), ("END",), ("END", "1", "5")]))
    for words in (("MERGE", "2", "0", "1", ""), ("MERGE", "0", "0", "1", ""), ("MERGE",),
                  ("MERGE", "65", "0", "1", ""), ("MERGE", "1", "9", "1", ""), ("TAIL", "-1", "1", "1"),
                  ("MERGE", "1", "x", "1", ""), ("TAIL", "0", "99999999999", "1"), ("TAIL", "0"),
                  ("SCAN", "x", "1"), ("SCAN", "18446744073709551615", "1"), ("ACKED", "0", "1"),
                  ("ACKED", "1"), ("MERGESTATE",), ("MERGESTATE", "", "BEGIN"), ("LOG", "x"),
                  ("MERGESTATE", "", "END", "1"), ("RUN", "GET", "x"), ("RUN", "LPUSH", "x", "1"),
                  ("MEMBERS", "0"), ("POSITIONS", "x"), ("DIGEST", "x")):
        b.run("MERIDIAN." + words[0], *words[1:])
    check("MERIDIAN" in b.run("MERIDIAN.LOG", "x"), "LOG is not for clients")
    check("MERIDIAN" in b.run("MERIDIAN.RUN", "LPUSH", "x", "1"), "RUN is not a way round")
    check("MERIDIAN" in b.run("MERIDIAN.MERGE", 2, 0, 1, b""), "a region does not merge itself")
    check_equal(b.run("PING"), b"PONG", "the server lives")
    b.kill()
    b.start()
    check_equal(b.run("PING"), b"PONG", "and loads what it has logged")


def drift(place):
    """A clock beyond the bound is refused, and what came before it is kept."""
    a, b = place.region(1), place.region(2)
    ahead = (int(time.time() * 1000) + 3600_000) << 16
    a.run("SET", "k", "1")
    last, _, deltas = a.tail(0)
    reply = b.merge(1, 0, ahead, deltas)
    check("DRIFT" in str(reply), f"MERGE said {reply!r}")
    check("DRIFT" in str(b.tail(ahead)), "a position beyond the bound")
    check_equal(b.merge(1, 0, last, deltas), last, "the honest batch")


def blocking_tail(place):
    """TAIL waits, wakes with the first write, and gives up in time with an idle position."""
    a = place.region(1)
    a.run("SET", "k", "1")
    last, _, _ = a.tail(0)
    began = time.monotonic()
    idle, count, deltas = a.tail(last, 65536, 100)
    check(time.monotonic() - began > 0.08, "it waited")
    check(idle >= last, "an idle position")
    waiting = a.connect()
    connection = waiting.connection_pool.get_connection("_")
    connection.send_command("MERIDIAN.TAIL", idle, 65536, 50000)
    time.sleep(0.05)
    began = time.monotonic()
    a.run("SET", "k", "2")
    reply = connection.read_response()
    if reply[1] == 0 or b"k" not in reply[2]:
        connection.send_command("MERIDIAN.TAIL", reply[0], 65536, 50000)
        reply = connection.read_response()
    check(reply[1] >= 1 and time.monotonic() - began < 40, f"it woke: {reply!r}")
    for _ in range(20):  # clients that go away while they wait
        other = a.connect()
        gone = other.connection_pool.get_connection("_")
        gone.send_command("MERIDIAN.TAIL", reply[0] + 1000, 65536, 300)
        gone.disconnect()
    a.run("SET", "k", "3")
    time.sleep(0.5)
    check_equal(a.run("PING"), b"PONG", "the server lives")
    pipe = a.client.pipeline(transaction=True)
    pipe.execute_command("MERIDIAN.TAIL", 0, 65536, 5000)
    check(isinstance(pipe.execute()[0], list), "TAIL in MULTI answers at once")


def paused(place):
    """CLIENT PAUSE: nothing is propagated and the server stays up."""
    a = place.region(1)
    pipe = a.client.pipeline(transaction=False)
    pipe.execute_command("SET", "k", "1")
    pipe.execute_command("CLIENT", "PAUSE", "300", "WRITE")
    pipe.execute()
    a.run("GET", "k")
    time.sleep(0.5)
    a.run("SET", "k", "2")
    digest = a.run("MERIDIAN.DIGEST")
    a.kill()
    a.start()
    check_equal((a.run("GET", "k"), a.run("MERIDIAN.DIGEST")), (b"2", digest), "after the pause")


def databases(place):
    a, b = place.region(1, aof=True), place.region(2)
    pipe = a.client.pipeline(transaction=False)
    for words in (("SELECT", 3), ("SET", "k", "3"), ("SADD", "s", "x"), ("SELECT", 0),
                  ("SET", "k", "0")):
        pipe.execute_command(*words)
    pipe.execute()
    settle_all([a, b])
    check_equal(b.run("GET", "k"), b"0", "database 0")
    pipe = b.client.pipeline(transaction=False)
    for words in (("SELECT", 3), ("GET", "k"), ("SMEMBERS", "s"), ("SELECT", 0)):
        pipe.execute_command(*words)
    check_equal(pipe.execute()[1:3], [b"3", [b"x"]], "database 3")


def bad_arguments(place):
    """Errors at load are clear."""
    for arguments, sentence in ((["origin", "0"], "'origin' wants a number"),
                                (["origin", "65"], "'origin' wants a number"),
                                (["origin"], "'origin' wants a number"), ([], "is missing"),
                                (["origin", "1", "ring", "5"], "'ring' wants a number"),
                                (["origin", "1", "bogus", "5"], "no argument 'bogus'")):
        server = place.region(1, start=False)
        at = server.arguments.index("origin")
        server.arguments[at:] = arguments
        server.start(fails=True)
        check(sentence in server.log(), f"{arguments}: {server.log()[-600:]}")
    server = place.region(1, start=False, arguments=("--aof-use-rdb-preamble", "no"))
    server.start(fails=True)
    check("aof-use-rdb-preamble" in server.log(), "the preamble is needed")
    a = place.region(1, aof=False, rdb=True)
    a.run("SET", "k", "1")
    a.stop()
    at = a.arguments.index("origin")
    a.arguments[at + 1] = "2"
    a.start(fails=True)
    check("only by the region that wrote it" in a.log(), "another region's snapshot")


ALL = [parity, parity_in_transactions, parity_in_scripts, refused, clients, merge_basics,
       add_wins_in_transactions, convergence, pipelines, counters_exact, restarts, restarted_sums, rewrite,
       lost_log, adoption,
       state_transfer, replica, expiry, eviction, bad_input, drift, blocking_tail, paused, databases,
       bad_arguments]
