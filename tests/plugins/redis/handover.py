"""FAILOVER and REPLICAOF by hand inside a region, in the middle of a turn of writes: what the old
primary had not logged is counted once, wherever the region goes on."""
import socket

from digests import differing
from groups import settle_all
from harness import ADDRESS, check, check_equal, same_everywhere, settle_pair

BEFORE = (("INCRBY", "n", 7), ("INCRBYFLOAT", "fl", "1.5"), ("HINCRBY", "h", "f", 1),
          ("ZINCRBY", "z", 1, "m"), ("RPUSH", "l", "a", "b"), ("SADD", "s", "a", "b"),
          ("SADD", "again", "a"), ("SET", "k", "u"), ("SET", "gone", "1"), ("SADD", "old", "a"))
WITHIN = (("INCR", "n"), ("INCRBYFLOAT", "fl", "1.5"), ("HINCRBY", "h", "f", 1),
          ("ZINCRBY", "z", 1, "m"), ("RPUSH", "l", "c"), ("LPOP", "l"), ("SREM", "s", "a"),
          ("SADD", "again", "a"), ("SET", "k", "v"), ("DEL", "gone"), ("RENAME", "old", "name"),
          ("INCR", "fresh"), ("XADD", "x", "*", "f", "v"), ("PFADD", "p", "a"))
AFTER = (("INCR", "n"), ("INCRBYFLOAT", "fl", "1.5"), ("HINCRBY", "h", "f", 1),
         ("ZINCRBY", "z", 1, "m"), ("LPOP", "l"), ("INCR", "fresh"), ("SREM", "again", "a"))


def words(*command):
    return b"*%d\r\n" % len(command) + b"".join(
        b"$%d\r\n%s\r\n" % (len(str(word)), str(word).encode()) for word in command)


def role(server):
    return server.run("ROLE")[0]


def linked(replica):
    up = replica.wait_until(lambda: b"master_link_status:up" in replica.run("INFO", "replication"),
                            True)
    check(up, f"no link to the primary: {replica.log()[-800:]}")


def pair(place):
    """A primary of region 1 and its replica."""
    options = ("--repl-diskless-sync-delay", "0", "--replica-announce-ip", ADDRESS)
    one, other = (place.region(1, arguments=options) for _ in range(2))
    other.run("REPLICAOF", ADDRESS, one.port)
    linked(other)
    return one, other


def hand_over(primary, replica, commands=()):
    """The commands and FAILOVER in one turn; at the end the roles have changed."""
    with socket.create_connection((ADDRESS, primary.port), 60) as raw:
        raw.sendall(b"".join(words(*command) for command in commands) + words("FAILOVER"))
        check_equal(replica.wait_until(lambda: role(replica), b"master"), b"master", "FAILOVER")
    linked(primary)


def transfer(source, target):
    """The state of one as the other gets it who asks for more than is in the stream."""
    check("GAP" in str(source.tail(target.positions().get(source.origin, 0))), "no stream goes on")
    cursor, begun = 0, None
    while begun is None or cursor != 0:
        cursor, positions, state = source.run("MERIDIAN.SCAN", cursor, 262144)
        cursor, begun = int(cursor), begun or positions
        end = ["END", *(word for at in begun for word in at)] if cursor == 0 else []
        said = target.run("MERIDIAN.MERGESTATE", state, *end)
        check(not isinstance(said, str), f"MERGESTATE said {said!r}")


def there_and_back(place):
    """Nothing is lost, nothing counts twice; all regions and both servers end alike."""
    one, other = pair(place)
    regions = [place.region(2, aof=False), place.region(3, aof=False)]
    for command in BEFORE:
        one.run(*command)
    settle_all([one] + regions)
    regions[0].run("INCRBY", "n", 100)
    settle_all([one] + regions)
    hand_over(one, other, WITHIN)
    settle_all([other, regions[0]])  # the third hears of it only when the first one is back
    other.run("INCR", "n")
    other.run("WAIT", 1, 60000)
    check(one.wait_until(lambda: set(differing(other, one)) <= {(0, b"again")}, True),
          f"the old primary remembers otherwise: {differing(other, one)}")
    other.kill()
    one.run("REPLICAOF", "NO", "ONE")
    for command in AFTER:
        one.run(*command)
    settle_all([one] + regions)
    same_everywhere([one] + regions, "after both")
    got = {key: one.run(*how) for key, how in (
        ("n", ("GET", "n")), ("fl", ("GET", "fl")), ("h", ("HGET", "h", "f")), ("k", ("GET", "k")),
        ("z", ("ZSCORE", "z", "m")), ("l", ("LRANGE", "l", 0, -1)), ("s", ("SMEMBERS", "s")),
        ("fresh", ("GET", "fresh")), ("gone", ("EXISTS", "gone")), ("name", ("SCARD", "name")))}
    check_equal(got, {"n": b"110", "fl": b"4.5", "h": b"3", "k": b"v", "z": b"3", "l": [b"c"],
                      "s": [b"b"], "fresh": b"2", "gone": 0, "name": 1}, "what is there")
    digest = one.run("MERIDIAN.DIGEST")
    one.kill()
    one.start()
    check_equal(one.run("MERIDIAN.DIGEST"), digest, "after a restart")


def given_up(place):
    """The primary follows a server that will not have it, and is the primary again."""
    one, other = pair(place)
    region = place.region(2, aof=False)
    for command in BEFORE:
        one.run(*command)
    settle_all([one, region])
    with socket.create_connection((ADDRESS, one.port), 60) as raw:
        raw.sendall(b"".join(words(*command) for command in WITHIN) +
                    words("REPLICAOF", ADDRESS, 1) + words("MERIDIAN.TAIL", 0, 1000000, 0) +
                    words("MERIDIAN.SCAN", 0, 1000000) + words("REPLICAOF", "NO", "ONE") +
                    words("PING"))
        said = b""
        while not said.endswith(b"+PONG\r\n"):
            part = raw.recv(65536)
            check(part, f"the connection is closed after {said[-100:]!r}")
            said += part
    check(b"changes that its primary lacks" in said, "no state is given")
    for command in AFTER:
        one.run(*command)
    settle_pair(region, one)
    transfer(one, region)
    settle_all([one, region])
    same_everywhere([one, region], "after all")
    check_equal([one.run("GET", key) for key in ("n", "fl", "fresh")], [b"9", b"4.5", b"2"],
                "each is counted once")
    linked(other)
    one.run("WAIT", 1, 60000)
    digest = one.run("MERIDIAN.DIGEST")
    check_equal(other.wait_until(lambda: other.run("MERIDIAN.DIGEST"), digest), digest,
                "what the replica remembers")


def foreign(place):
    """A server that is told to follow another region's ends, and has its own data by its log."""
    a, b = place.region(1), place.region(2, aof=False)
    for command in BEFORE:
        a.run(*command)
    settle_all([a, b])
    a.run("DEL", "gone")
    a.run("INCR", "n")
    content = a.content()
    a.run("REPLICAOF", ADDRESS, b.port)
    check(a.wait_until(lambda: a.process.poll() is not None, True), "it goes on")
    check("only by the region that wrote it" in a.log(), f"{a.log()[-600:]}")
    a.start()
    check_equal(a.content(), content, "what its log has")
    settle_all([a, b])
    same_everywhere([a, b], "afterwards")


ALL = [there_and_back, given_up, foreign]
