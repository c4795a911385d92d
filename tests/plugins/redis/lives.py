"""A server that lost the end of its log, or came back from an older snapshot: what is given back,
what stays deleted, and that no stamp is given twice."""
import glob
import os
import shutil
import struct
import time

import redis

from harness import check, check_equal, same_everywhere, settle_pair


def holes(region):
    """[(origin, mixed, low, high)]"""
    data = region.run("MERIDIAN.POSITIONS")[6]
    return [struct.unpack_from("<BBQQ", data, at) for at in range(0, len(data), 18)]


def pull(target, source):
    """All that `source` holds, as a state."""
    cursor = b"0"
    while True:
        cursor, positions, state = source.run("MERIDIAN.SCAN", cursor, 1 << 20)
        target.admin("MERIDIAN.MERGESTATE", state)
        if cursor == b"0":
            return target.admin("MERIDIAN.MERGESTATE", b"", "END")


def close(region):
    for origin, _, low, high in holes(region):
        if origin == region.origin:
            region.run("MERIDIAN.CLOSE", low, high)


def begun(place, *origins):
    """Regions whose first lives have nothing to look for."""
    regions = [place.region(origin) for origin in origins]
    for region in regions:
        close(region)
        check(not [hole for hole in holes(region) if hole[0] == region.origin], "a hole is left")
    return regions


def log_of(region):
    return glob.glob(region.folder + "/appendonlydir/*.incr.aof")[0]


def lost_tail(place):
    """The log loses what two others hold, one more of it than the other; all of that comes back."""
    a, b, c = begun(place, 1, 2, 3)
    a.run("SET", "k", "kept")
    size = os.path.getsize(log_of(a))
    for index in range(10):
        a.run("SADD", "m", f"early{index}")
    settle_pair(a, c)
    for index in range(10):
        a.run("SADD", "m", f"late{index}")
    settle_pair(a, b)
    known = b.positions()[1]
    a.kill()
    os.truncate(log_of(a), size)
    a.start()
    check_equal(a.run("EXISTS", "m"), 0, "the set is lost at home")
    first = int(a.info()["first"])
    check(first > known, "the new life is beyond all that was given out")
    a.run("SADD", "m", "after")
    check(a.positions()[1] > known, "so are its stamps")
    # A reader goes past the lost part, and knows that.
    settle_pair(a, c)
    lacks = [hole for hole in holes(c) if hole[0] == 1]
    check(len(lacks) == 1 and lacks[0][3] == first, f"holes of a reader: {lacks}")
    check_equal(c.run("SCARD", "m"), 11, "what it had stays, though home does not have it")
    pull(a, b)
    check_equal(a.run("SCARD", "m"), 21, "all comes back")
    close(a)
    pull(c, a)
    check_equal(c.run("SCARD", "m"), 21, "and goes on to who lacked it")
    settle_pair(a, b)
    for region in (a, b, c):
        for source in (a, b, c):
            if source is not region:
                settle_pair(source, region)
        check(not [hole for hole in holes(region) if hole[0] == 1 and hole[2] < known],
              f"region {region.origin} has a hole: {holes(region)}")
    same_everywhere([a, b, c], "after the refill")


def crash_before_the_refill(place):
    """A second crash, before anything came back, opens a second hole; both are filled."""
    a, b = begun(place, 1, 2)
    size = os.path.getsize(log_of(a))
    a.run("SADD", "m", "one")
    settle_pair(a, b)
    a.kill()
    os.truncate(log_of(a), size)
    a.start()
    a.run("SADD", "m", "two")
    a.kill()
    a.start()
    check_equal(len([hole for hole in holes(a) if hole[0] == 1]), 2, "holes")
    pull(a, b)
    check_equal(sorted(a.run("SMEMBERS", "m")), [b"one", b"two"], "members")
    close(a)
    settle_pair(a, b)
    settle_pair(b, a)
    same_everywhere([a, b], "after two crashes")


def clock_is_kept(place):
    """The whole log goes, and another server's clock is ahead: no stamp comes twice."""
    a, b = begun(place, 1, 2)
    a.run("SET", "k", "old")
    settle_pair(a, b)
    known = b.positions()[1]
    a.kill()
    shutil.rmtree(a.folder + "/appendonlydir")
    # What the file says counts, not the wall clock: two seconds ahead stand for a clock set back.
    path = a.folder + "/meridian.1.clock"
    with open(path, "rb") as file:
        data = file.read()
    check(len(data) == 16 and struct.unpack_from("<Q", data, 4)[0] >= known, "the clock is kept")
    a.start()
    check(int(a.info()["first"]) > struct.unpack_from("<Q", data, 4)[0], "beyond what was kept")
    pull(a, b)
    check_equal(a.run("GET", "k"), b"old", "given back")
    a.kill()
    with open(path, "wb") as file:
        file.write(data[:-1] + bytes([data[-1] ^ 1]))
    a.start()
    check_equal(a.run("GET", "k"), b"old", "a damaged clock is not used, and no reason to stop")


def kept_clock(region):
    with open(region.folder + "/meridian.1.clock", "rb") as file:
        return struct.unpack_from("<Q", file.read(), 4)[0]


def said_in_one_turn(region, *words):
    """The reply to `words`, said in one turn behind a slow command and a SET, before a script of
    the same turn that does not end; and the clock that was kept by then. None: the server has read
    the script before the rest."""
    first, slow, asks, last = (region.connect().connection_pool.get_connection("PING")
                               for _ in range(4))
    for connection in (first, slow, asks, last):
        connection.send_command("PING")
        connection.read_response()
    first.send_command("DEBUG", "SLEEP", "0.3")  # what is sent meanwhile is read in one turn
    time.sleep(0.1)
    slow.send_packed_command(slow.pack_commands([("DEBUG", "SLEEP", "0.3"), ("SET", "k", "v")]))
    asks.send_command(*words)
    last.send_command("EVAL", "while true do end", 0)
    try:
        first.read_response()
        reply = asks.read_response()
    except redis.exceptions.ResponseError as error:
        check("BUSY" in str(error), f"{words[0]} said {error}")
        reply = None
    kept = kept_clock(region)
    region.wait_until(lambda: region.run("SCRIPT", "KILL"), b"OK", 20)
    region.wait_until(lambda: region.run("ECHO", "ended"), b"ended", 20)
    for connection in (first, slow, asks, last):
        connection.disconnect()
    return reply, kept


def clock_before_replies(place):
    """What is stamped is given out only once the clock is kept, also where the reply leaves in the
    middle of a turn that takes longer than the clock is reserved for."""
    a = place.region(1, start=False)
    a.arguments += ["drift-max", "200"]  # by which it is reserved for a tenth of a second
    a.start()
    a.admin("CONFIG", "SET", "busy-reply-threshold", "20")
    for told, words in (
            (lambda reply: reply[0], ("MERIDIAN.TAIL", 0, 1 << 20, 10000)),
            (lambda reply: dict(map(tuple, reply[1]))[1], ("MERIDIAN.SCAN", 0, 1 << 20)),
            (lambda reply: dict(map(tuple, reply[5]))[1], ("MERIDIAN.POSITIONS",))):
        reply, kept = None, 0
        for _ in range(10):
            reply, kept = (reply, kept) if reply is not None else said_in_one_turn(a, *words)
        check(reply is not None and kept >= told(reply), f"{words[0]} told {reply}, kept was {kept}")


def older_snapshot(place):
    """An older snapshot is put back: what was deleted since, and whose tombstones are gone, stays
    deleted; what was written since comes back."""
    a = place.region(1, aof=False, rdb=True)
    b = place.region(2)
    for region in (a, b):
        close(region)
    a.run("SADD", "m", "deleted", "stays")
    a.run("SET", "k", "old")
    a.run("SET", "dead", "x")
    settle_pair(a, b)
    a.run("SAVE")
    shutil.copy(a.folder + "/dump.rdb", a.folder + "/older")
    b.run("SREM", "m", "deleted")
    b.run("DEL", "dead")
    a.run("SET", "k", "new")
    for _ in range(3):
        settle_pair(a, b)
        settle_pair(b, a)
    for region in (a, b):
        region.run("MERIDIAN.MEMBERS", 1, 2)
    a.kill()
    shutil.copy(a.folder + "/older", a.folder + "/dump.rdb")
    a.start()
    check_equal(a.run("GET", "dead"), b"x", "the snapshot is older")
    lost = [hole for hole in holes(a) if hole[0] == 1]
    check(lost and lost[-1][2] < b.positions()[1], "it knows what it may have lost")
    pull(a, b)
    check_equal(a.run("GET", "dead"), None, "deleted stays deleted")
    check_equal(a.run("SMEMBERS", "m"), [b"stays"], "a removed member, too")
    check_equal(a.run("GET", "k"), b"new", "what it had written since")
    close(a)
    settle_pair(a, b)
    settle_pair(b, a)
    same_everywhere([a, b], "after an older snapshot")


def relayed(place):
    """The stream of a region, from another that has merged it."""
    a, b, c = begun(place, 1, 2, 3)
    for index in range(100):
        a.run("SET", f"k{index}", index)
    settle_pair(a, b)
    a.kill()
    at = 0
    while True:
        last, count, deltas = b.run("MERIDIAN.TAIL", at, 500, 0, 1)
        if count == 0:
            break
        check_equal(c.merge(1, at, last, deltas), last, "MERGE of what was relayed")
        at = last
    check_equal(c.run("GET", "k99"), b"99", "all of it")
    check_equal(c.positions()[1], at, "the position of the last delta")
    check_equal(c.merge(1, 0, last, deltas), last, "twice is once")
    check("GAP" in str(c.run("MERIDIAN.TAIL", 0, 500, 0, 2)) or c.positions().get(2, 0) == 0,
          "what was never merged is not told")
    check("error" in str(b.run("MERIDIAN.TAIL", 0, 500, 0, 2)), "our own is asked for without")


def promoted(place):
    """A replica takes over: another life, which begins beyond the old one."""
    a, b = begun(place, 1, 2)
    a.run("SET", "k", "v")
    replica = place.region(1)
    replica.run("REPLICAOF", "127.92.0.1", a.port)
    for _ in range(500):
        if replica.run("GET", "k") == b"v" and replica.positions().get(1) == a.positions()[1]:
            break
    settle_pair(a, b)
    known = b.positions()[1]
    before = replica.run("MERIDIAN.POSITIONS")[1]
    a.kill()
    replica.admin("REPLICAOF", "NO", "ONE")
    check(replica.run("MERIDIAN.POSITIONS")[1] != before, "another incarnation")
    replica.run("SET", "k", "w")
    check(replica.positions()[1] > known, "its stamps are beyond the old one's")
    check(int(replica.info()["first"]) > known, "its life too")
    settle_pair(replica, b)
    check_equal(b.run("GET", "k"), b"w", "the readers go on")


ALL = [lost_tail, crash_before_the_refill, clock_is_kept, clock_before_replies,
       older_snapshot, relayed, promoted]
