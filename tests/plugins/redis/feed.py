"""MERIDIAN.FEED: every change in the order in which it was made here, or an error that says so."""
from harness import check, check_equal, settle_pair
from waiting import Asked, blocked, kill_waiting


def rows_of(server, *words):
    reply = server.run("MERIDIAN.FEED", *words)
    check(isinstance(reply, list), f"FEED {words} said {reply!r}")
    return reply[0], reply[1]


def begun(server):
    """The feed is on; where it begins."""
    cursor, rows = rows_of(server)
    check_equal(rows, [], "at first")
    return cursor


def brief(rows):
    """Origin, key, operation and what follows."""
    return [tuple([row[1], row[4], row[5]] + row[7:]) for row in rows]


def feed_tells(place):
    """Each operation with what it says; both regions' changes; prefix, count, places."""
    a, b = place.region(1), place.region(2)
    start = begun(a)
    a.run("SET", "x:1", "v")
    a.run("SET", "x:1", "12", "EX", "1000")
    expires = a.run("PEXPIRETIME", "x:1")
    a.run("INCR", "y")
    a.run("HSET", "x:h", "f", "1", "g", "2")
    a.run("HDEL", "x:h", "f")
    a.run("SADD", "x:s", "m", "n")
    a.run("SREM", "x:s", "m")
    a.run("RPUSH", "x:l", "1", "2")
    a.run("LPOP", "x:l")
    a.run("DEL", "y")
    a.run("PERSIST", "x:1")
    b.run("SET", "x:b", b"\x00\xff")
    settle_pair(b, a)
    a.run("FLUSHALL")
    cursor, rows = rows_of(a, "AFTER", start)
    check_equal(brief(rows[:11]), [
        (1, b"x:1", b"set", b"v", 0), (1, b"x:1", b"set", b"12", expires),
        (1, b"y", b"incr"),
        (1, b"x:h", b"hset", b"f", b"1", b"g", b"2"), (1, b"x:h", b"hdel", b"f"),
        (1, b"x:s", b"sadd", b"m", b"n"), (1, b"x:s", b"srem", b"m"), (1, b"x:l", b"insert"),
        (1, b"x:l", b"remove"), (1, b"y", b"del"), (1, b"x:1", b"expire", 0)], "what was told")
    check_equal(brief(rows[11:12]), [(2, b"x:b", b"set", b"\x00\xff", 0)], "of the other region")
    check_equal(brief(rows)[-1], (1, b"", b"flushdb"), "the end")
    check_equal({row[6] for row in rows}, {b"string", b"hash", b"set", b"list", b""}, "types")
    check(all(abs(row[2] - rows[0][2]) < 60000 and row[3] == 0 for row in rows), "times, databases")
    check_equal(rows[-1][0], cursor, "the cursor is that of the last row")
    check_equal(rows_of(a, "AFTER", cursor), (cursor, []), "nothing more")
    check_equal(rows_of(a, "AFTER", "-")[1], rows, "from the beginning")
    check_equal(rows_of(a), (cursor, []), "from the end")
    at, collected = start, []
    while True:
        at, part = rows_of(a, "AFTER", at, "COUNT", 2)
        if not part:
            break
        check(len(part) <= 2, "COUNT")
        collected += part
    check_equal(collected, rows, "in parts")
    at, some = rows_of(a, "AFTER", start, "PREFIX", "y")
    check_equal(brief(some), [(1, b"y", b"incr"), (1, b"y", b"del")], "by prefix")
    check_equal(at, cursor, "the cursor passes what is not wanted")
    settle_pair(b, a)
    check_equal(rows_of(a, "AFTER", cursor)[1], [], "what was known already is told once")
    for words in (("AFTER",), ("AFTER", "x"), ("COUNT", "0"), ("COUNT", "x"), ("WHAT", "1"),
                  ("BLOCK", "-1"), ("AFTER", "0" * 16 + "-"), ("AFTER", "0" * 16 + "-1x")):
        check("usage" in str(a.run("MERIDIAN.FEED", *words)), f"{words} was taken")


def feed_waits(place):
    """BLOCK wakes for what is wanted, in time, and ends with its client."""
    a, b = place.region(1), place.region(2)
    start = begun(a)
    every = Asked(a, "MERIDIAN.FEED", "BLOCK", 0)
    some = Asked(a, "MERIDIAN.FEED", "PREFIX", "job:", "BLOCK", 0)
    short = Asked(a, "MERIDIAN.FEED", "PREFIX", "none:", "BLOCK", 300)
    blocked(a, 3)
    b.run("SET", "other", "1")
    settle_pair(b, a)
    check_equal(brief(every.answer()[1]), [(2, b"other", b"set", b"1", 0)], "a merge wakes")
    check(some.waits(), "another prefix does not wake")
    a.run("SET", "job:1", "x")
    check_equal(brief(some.answer()[1]), [(1, b"job:1", b"set", b"x", 0)], "its prefix does")
    cursor, rows = short.answer()
    check_equal(rows, [], "a time-out")
    check(cursor != start, "its cursor has moved past what it does not want")
    check_equal(rows_of(a, "AFTER", start, "BLOCK", 0)[1] != [], True, "what is there comes at once")
    waits = Asked(a, "MERIDIAN.FEED", "BLOCK", 0)
    blocked(a, 1)
    kill_waiting(a)
    check("error" in str(waits.answer()), "a client that was killed")
    blocked(a, 0)
    pipe = a.client.pipeline(transaction=True)
    pipe.execute_command("MERIDIAN.FEED", "BLOCK", 0)
    check_equal(pipe.execute()[0][1], [], "in MULTI it does not block")


def feed_gaps(place):
    """What is not there any more is never passed over in silence."""
    a = place.region(1)
    start = begun(a)
    for turn in range(3000):
        a.run("SET", f"k{turn % 7}", "v" * 9000)
    reply = a.run("MERIDIAN.FEED", "AFTER", start)
    check("GAP feed begins at " in str(reply), f"too old: {reply!r}")
    at, told = str(reply).split(" at ")[1], []
    while True:
        at, rows = rows_of(a, "AFTER", at, "COUNT", 500)
        if not rows:
            break
        told += rows
    numbers = [int(row[0].split(b"-")[1]) for row in told]
    check_equal(numbers, list(range(numbers[0], 3001)), "every row from there on")
    check(1000 < len(numbers) < 3000, f"{len(numbers)} rows in 16 MiB")
    a.run("SET", "large", "v" * 100000)
    check_equal(brief(rows_of(a, "AFTER", at)[1]), [(1, b"large", b"set")], "a long value stays out")
    waits = Asked(a, "MERIDIAN.FEED", "BLOCK", 0)
    blocked(a, 1)
    b = place.region(2)
    b.run("SET", "state", "1")
    cursor, positions, state = b.run("MERIDIAN.SCAN", 0, 1 << 20)
    check_equal(cursor, b"0", "SCAN")
    last = begun(a)
    ends = [word for pair in positions for word in pair]
    check(isinstance(a.run("MERIDIAN.MERGESTATE", state, "END", *ends), list), "MERGESTATE")
    check("GAP" in str(waits.answer()), "who waits hears of a state transfer")
    reply = a.run("MERIDIAN.FEED", "AFTER", last)
    check("GAP" in str(reply), f"who had read all, too: {reply!r}")
    at = str(reply).split(" at ")[1]
    a.run("SET", "k", "1")
    check_equal(brief(rows_of(a, "AFTER", at)[1]), [(1, b"k", b"set", b"1", 0)], "it goes on")
    at = rows_of(a)[0]
    a.kill()
    a.start()
    check("GAP" in str(a.run("MERIDIAN.FEED", "AFTER", at)), "after a restart")
    replica = place.region(1)
    replica.run("REPLICAOF", "127.92.0.1", a.port)
    check("primary" in str(replica.run("MERIDIAN.FEED")), "at a replica")


ALL = [feed_tells, feed_waits, feed_gaps]
