"""Keyspace notifications of what comes from another region, and clients that wait for it."""
import time

from events import Ear
from harness import check, check_equal, settle_pair
from waiting import Asked, blocked

SOON = ("wait", 0.06)  # until what lives for 40 ms has expired

# Before, in both regions; then in one of them: what the other one tells. None: as the server itself
# tells of the same commands. The rest names no command: it is told by what it does here.
MERGED = [
    ((), ("SET k v",), None),
    ((), ("SET k v EX 100",), None),
    (("SET k 1 EX 100",), ("INCR k",), ["set k"]),
    (("SET k v",), ("DEL k",), None),
    (("SET k v",), ("EXPIRE k 100",), None),
    (("SET k v EX 50",), ("EXPIRE k 100",), None),
    (("SET k v EX 50",), ("PERSIST k",), None),
    (("HSET k f v",), ("EXPIRE k 100", "PERSIST k"), None),
    ((), ("SET k v PX 40", SOON, "GET k"), None),
    (("HSET k f v",), ("PEXPIRE k 40", SOON, "EXISTS k"), None),
    (("RPUSH k v",), ("PEXPIRE k 40", SOON, "EXISTS k"), None),
    ((), ("HSET k f v",), None),
    (("HSET k f v",), ("HDEL k f",), None),
    ((), ("SADD k a",), None),
    (("SADD k a",), ("SREM k a",), None),
    ((), ("ZADD k 1 a",), None),
    (("ZADD k 1 a",), ("ZREM k a",), None),
    ((), ("XADD k 1-1 f v",), None),
    ((), ("LPUSH k a b c",), None),
    ((), ("RPUSH k a b c",), None),
    (("RPUSH k a",), ("LPUSH k b", "RPUSH k c d", "RPUSH k e"), None),
    (("RPUSH k a b c",), ("LPOP k", "RPOP k"), None),
    (("RPUSH k a b c",), ("LPOP k 2",), ["ltrim k"]),
    (("RPUSH k a",), ("LPOP k",), None),
    (("RPUSH k a b",), ("RPOP k", "LPOP k", "LPUSH k c"), None),
    (("RPUSH k a c",), ("LINSERT k BEFORE c b",), None),
    (("RPUSH k a c",), ("LSET k 0 b",), None),
    (("RPUSH k a b c d",), ("LTRIM k 0 1",), None),
    (("RPUSH k a b c d",), ("LTRIM k 2 3",), None),
    (("RPUSH k a b c d",), ("LTRIM k 7 9",), None),
    (("RPUSH k a b c",), ("LREM k 0 b",), None),
    (("RPUSH k a b c b d",), ("LREM k 0 b",), None),
    (("RPUSH k a b",), ("DEL k",), None),
    (("RPUSH k a b",), ("LMOVE k n LEFT RIGHT",), None),
    (("RPUSH k a b",), ("RENAME k n",), ["del k", "rpush n"]),
]


def heard(server, ear):
    """What was told since the last time."""
    server.run("PUBLISH", "__keyevent@0__:end", "here")
    found = []
    while found[-1:] != ["end here"]:
        channel, key = ear.connection.read_response()[-2:]
        found.append(f"{channel.decode().split(':')[1]} {key.decode()}")
    return found[:-1]


def both(place):
    a, b = place.region(1), place.region(2)
    for region in (a, b):
        region.admin("CONFIG", "SET", "notify-keyspace-events", "KEA")
    return a, b


def run(server, step):
    if step is SOON:
        time.sleep(step[1])
    else:
        reply = server.run(*step.split())
        check(not isinstance(reply, str), f"{step}: {reply}")


def merged_changes_are_told(place):
    """The event of the command, once, and nothing that the region takes for a change of its own."""
    a, b = both(place)
    ears = [(server, Ear(server, "__keyevent@0__:*", command="PSUBSCRIBE")) for server in (a, b)]
    for before, steps, wanted in MERGED:
        for server in (a, b):
            server.run("DEL", "k", "n")
        settle_pair(b, a)
        settle_pair(a, b)
        for step in before:
            run(a, step)
        settle_pair(a, b)
        for server, ear in ears:
            heard(server, ear)
        written = b.info()["local_deltas"]
        for step in steps:
            run(a, step)
        settle_pair(a, b)
        own, got = [heard(server, ear) for server, ear in ears]
        check_equal(got, own if wanted is None else wanted, f"{before} {steps}")
        if SOON not in steps:
            check_equal(b.info()["local_deltas"], written, f"{steps}: deltas of the receiver")
        check_equal(a.content(), b.content(), f"{steps}")
    for _, ear in ears:
        ear.close()
    check_equal([server.info()["stamped_anew"] for server in (a, b)], ["0", "0"], "stamped anew")


def expired_elsewhere_is_told(place):
    """A key that has no expiry here any more is told as expired, not as deleted."""
    a, b = both(place)
    for make in ("SET k v", "RPUSH k v", "HSET k f v", "ZADD k 1 v"):
        a.run(*make.split())
        a.run("PEXPIRE", "k", 40)
        settle_pair(a, b)
        if b.run("PERSIST", "k") != 1:  # too late, on a slow machine
            a.run("DEL", "k")
            settle_pair(a, b)
            settle_pair(b, a)
            continue
        check_equal(a.wait_until(lambda: a.run("EXISTS", "k")), 0, "it expires")
        ear = Ear(b, "__keyevent@0__:*", command="PSUBSCRIBE")
        settle_pair(a, b)
        check_equal(heard(b, ear), ["expired k"], f"{make}, expired elsewhere")
        check_equal(b.run("EXISTS", "k"), 0, "it is gone")
        ear.close()
        settle_pair(b, a)
        check_equal(a.run("MERIDIAN.DIGEST"), b.run("MERIDIAN.DIGEST"), make)


def notifications_as_configured(place):
    """Only the classes that are asked for, under the key's name too, and in its database."""
    a, b = both(place)
    for flags, wanted in (("", []), ("lE", [(b"__keyevent@2__:rpush", b"k")]),
                          ("lK", [(b"__keyspace@2__:k", b"rpush")]),
                          ("gE", [(b"__keyevent@2__:expire", b"k")])):
        b.admin("CONFIG", "SET", "notify-keyspace-events", flags)
        ear = Ear(b, "__key*", command="PSUBSCRIBE")
        pipe = a.connect(db=2).pipeline(transaction=True)
        pipe.execute_command("RPUSH", "k", "v")
        pipe.execute_command("EXPIRE", "k", 100)
        pipe.execute()
        settle_pair(a, b)
        a.run("SET", "other", "v")
        settle_pair(a, b)
        check_equal(ear.hear(len(wanted)), wanted, f"notify-keyspace-events '{flags}'")
        ear.close()
        pipe.execute_command("DEL", "k")
        pipe.execute()
        settle_pair(a, b)


def who_waits_is_woken(place):
    """Elements that come by a merge wake those that wait for one, whatever they wait by."""
    a, b = place.region(1), place.region(2)
    b.run("XGROUP", "CREATE", "y", "group", "$", "MKSTREAM")
    settle_pair(b, a)
    for add, wait, wanted in (
            (("RPUSH", "l", "v"), ("BLPOP", "l", 0), [b"l", b"v"]),
            (("LPUSH", "l", "v"), ("BRPOP", "l", 0), [b"l", b"v"]),
            (("RPUSH", "l", "v"), ("BLMOVE", "l", "other", "LEFT", "RIGHT", 0), b"v"),
            (("RPUSH", "l", "v"), ("BLMPOP", 0, 1, "l", "LEFT"), [b"l", [b"v"]]),
            (("ZADD", "z", 1, "v"), ("BZPOPMIN", "z", 0), [b"z", b"v", b"1"]),
            (("ZADD", "z", 1, "v"), ("BZPOPMAX", "z", 0), [b"z", b"v", b"1"]),
            (("ZADD", "z", 1, "v"), ("BZMPOP", 0, 1, "z", "MIN"), [b"z", [[b"v", b"1"]]]),
            (("XADD", "x", "5-1", "f", "v"), ("XREAD", "BLOCK", 0, "STREAMS", "x", "$"),
             [[b"x", [[b"5-1", [b"f", b"v"]]]]]),
            (("XADD", "y", "6-1", "f", "v"),
             ("XREADGROUP", "GROUP", "group", "me", "BLOCK", 0, "STREAMS", "y", ">"),
             [[b"y", [[b"6-1", [b"f", b"v"]]]]])):
        asked = Asked(b, *wait)
        blocked(b, 1)
        a.run(*add)
        settle_pair(a, b)
        check_equal(asked.answer(), wanted, f"{wait} of {add}")
        settle_pair(b, a)
    check_equal(a.content(), b.content(), "what was popped is gone in both")


ALL = [merged_changes_are_told, expired_elsewhere_is_told, notifications_as_configured,
       who_waits_is_woken]
