"""Messages that reach other regions: once, behind the data that was written before them."""
import time

from harness import check, check_equal, settle_pair

POLICIES = ("DATA", "orders:", "typed", "", "PUBLISH", "DATA", "orders:local:", "typed", "")


class Ear:
    """A subscriber; what it heard, in order."""

    def __init__(self, server, *channels, command="SUBSCRIBE"):
        self.client = server.connect()
        self.connection = self.client.connection_pool.get_connection("SUBSCRIBE")
        self.connection.send_command(command, *channels)
        for _ in channels:
            self.connection.read_response()

    def hear(self, count, seconds=60):
        """That many messages, and no more that are there already."""
        found = []
        until = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < until:
            if self.connection.can_read(timeout=0.05):
                found.append(tuple(self.connection.read_response()[-2:]))
        while self.connection.can_read(timeout=0.05):
            found.append(tuple(self.connection.read_response()[-2:]))
        return found

    def close(self):
        self.connection.disconnect()


def told(place, *origins):
    regions = [place.region(origin) for origin in origins]
    for region in regions:
        check_equal(region.run("MERIDIAN.POLICY", *POLICIES), b"OK", "POLICY")
    time.sleep(0.01)  # what is stamped before a region's life is not for it
    return regions


def events_cross(place):
    """PUBLISH, SPUBLISH, from MULTI and scripts; in the order of the stream; no loop."""
    a, b = told(place, 1, 2)
    channels = ("orders:new", "orders:local:x", "other", b"orders:\xff\x00")
    here, there = Ear(a, *channels), Ear(b, *channels)
    shard = Ear(b, "orders:shard", command="SSUBSCRIBE")
    check_equal(a.run("PUBLISH", "orders:new", "1"), 1, "the reply counts who hears it here")
    a.run("publish", b"orders:\xff\x00", b"\x00binary\r\n")
    a.run("PUBLISH", "orders:local:x", "stays")
    a.run("PUBLISH", "other", "stays")
    a.run("SPUBLISH", "orders:shard", "s")
    pipe = a.client.pipeline(transaction=True)
    pipe.execute_command("SET", "k", "1")
    pipe.execute_command("PUBLISH", "orders:new", "2")
    pipe.execute()
    a.run("EVAL", "redis.call('SET', 'k', '2') return redis.call('PUBLISH', KEYS[1], '3')", 1,
          "orders:new")
    a.run("PUBLISH", "orders:new", "")
    check("error" in str(a.run("PUBLISH", "orders:new")), "arity")
    wanted = [(b"orders:new", b"1"), (b"orders:\xff\x00", b"\x00binary\r\n"),
              (b"orders:new", b"2"), (b"orders:new", b"3"), (b"orders:new", b"")]
    stays = [(b"orders:local:x", b"stays"), (b"other", b"stays")]
    check_equal(here.hear(7), wanted[:2] + stays + wanted[2:], "in the region itself")
    check_equal(there.hear(0), [], "before it was carried")
    after = b.positions().get(1, 0)
    last, _, deltas = a.tail(after)
    b.merge(1, after, last, deltas)
    check_equal(there.hear(5), wanted, "in the other region")
    check_equal(shard.hear(1), [(b"orders:shard", b"s")], "to one shard")
    b.merge(1, after, last, deltas)
    check_equal(there.hear(0), [], "a batch that comes twice")
    settle_pair(b, a)
    check_equal(here.hear(0), [], "nothing comes back")
    check_equal((a.info()["events_sent"], b.info()["events_published"]), ("6", "6"), "INFO")
    check_equal(a.content(), b.content(), "no key came of it")
    check_equal(a.run("MERIDIAN.DIGEST"), b.run("MERIDIAN.DIGEST"), "nor anything else")
    for ear in (here, there, shard):
        ear.close()


def events_follow_their_data(place):
    """Who hears an event reads what was written before it, however the stream is cut."""
    a, b = told(place, 1, 2)
    ear = Ear(b, "orders:new")
    for turn in range(50):
        a.run("SET", "order", turn)
        a.run("PUBLISH", "orders:new", turn)
    after, heard = b.positions().get(1, 0), []
    while True:
        last, count, deltas = a.tail(after, place.random.choice([1, 100, 1000]))
        if count == 0:
            break
        b.merge(1, after, last, deltas)
        after = last
        for _, message in ear.hear(0):
            heard.append(message)
            check(int(b.run("GET", "order")) >= int(message), f"{message} came before its data")
    check_equal(heard, [b"%d" % turn for turn in range(50)], "all, in order")
    ear.close()


def events_are_no_state(place):
    """Not again from the log, a snapshot, a state transfer, or the same batch after a crash."""
    a, b = told(place, 1, 2)
    a.run("SET", "k", "1")
    a.run("PUBLISH", "orders:new", "old")
    after = b.positions().get(1, 0)
    last, _, deltas = a.tail(after)
    ear = Ear(b, "orders:new")
    b.merge(1, after, last, deltas)
    check_equal(ear.hear(1), [(b"orders:new", b"old")], "once")
    ear.close()
    for server in (a, b):
        server.kill()
        server.start()
    check_equal(a.positions()[1] >= last, True, "the origin knows its position")
    check_equal(b.positions()[1], last, "the reader, too")
    ear = Ear(b, "orders:new")
    reply = b.run("MERIDIAN.MERGE", 1, last, last, "")
    check(not isinstance(reply, str), f"MERGE said {reply}")
    c = place.region(3)
    # The same events, from another life of the reader: a server that lost its log entirely.
    other = Ear(c, "orders:new")
    c.merge(1, 0, last, deltas)
    check_equal(c.run("GET", "k"), b"1", "the data is merged")
    check_equal(other.hear(0), [], "what is older than this life of the reader is not published")
    check_equal(ear.hear(0), [], "nothing from the log")
    # A replica in the region hears what its primary merged, once.
    replica = place.region(2)
    replica.run("REPLICAOF", "127.92.0.1", b.port)
    check_equal(replica.wait_until(
        lambda: b"master_link_status:up" in replica.run("INFO", "replication"), True, 10),
        True, "the replica is up")
    near = Ear(replica, "orders:new")
    time.sleep(2)  # a new life is ahead of the clock by what it reserves
    a.run("PUBLISH", "orders:new", "new")
    settle_pair(a, b)
    check_equal(ear.hear(1), [(b"orders:new", b"new")], "the primary")
    check_equal(near.hear(1), [(b"orders:new", b"new")], "the replica")
    for one in (ear, other, near):
        one.close()


def events_and_rights(place):
    """The access list judges the channel as it does without the module."""
    a, b = told(place, 1, 2)
    ear = Ear(b, "orders:new")
    a.run("ACL", "SETUSER", "some", "on", ">p", "resetchannels", "&orders:*", "+publish", "+auth")
    a.run("ACL", "SETUSER", "none", "on", ">p", "resetchannels", "&x", "+publish", "+auth")
    for user, wanted in (("some", 0), ("none", None)):
        client = a.connect(username=user, password="p")
        try:
            reply = client.execute_command("PUBLISH", "orders:new", user)
        except Exception as error:  # pylint: disable=broad-except
            reply = None
            check("can't publish" in str(error) or "permission" in str(error), f"{user}: {error}")
        check_equal(reply, wanted, user)
        client.close()
    settle_pair(a, b)
    check_equal(ear.hear(1), [(b"orders:new", b"some")], "what was allowed")
    ear.close()
    for words in (("PUBLISH",), ("PUBLISH", "DATA", "x", "typed", "")):
        check("error" in str(a.run("MERIDIAN.POLICY", *words)), f"{words} was taken")
    check_equal(a.run("MERIDIAN.POLICY")[0], [b"orders:", b"typed", b"", b"publish"], "what holds")


ALL = [events_cross, events_follow_their_data, events_are_no_state, events_and_rights]
