"""MERIDIAN.STATUS and INFO: how far the others are behind, and how far ahead their clocks are."""
import json
import time

from harness import check, check_equal, same_everywhere, settle_pair


def told(server):
    return json.loads(server.run("MERIDIAN.STATUS"))


def peer(server, region):
    found = [one for one in told(server)["peers"] if one["region"] == region]
    return found[0] if found else None


def status_behind(place):
    """What a region has not acknowledged: in changes, bytes and time, growing while it is silent."""
    a = place.region(1)
    check_equal(told(a)["peers"], [], "nobody else is there")
    a.run("MERIDIAN.MEMBERS", 1, 2, 3)
    a.run("SET", "k", "0")
    _, _, _ = a.tail(0)
    base = peer(a, 2)["behind_deltas"]
    last = a.tail(0)[0]
    a.run("MERIDIAN.ACKED", 2, last)
    check_equal(peer(a, 2)["behind_deltas"], 0, "it has all")
    check_equal(peer(a, 2)["behind_ms"], 0, "and is not behind")
    check_equal(peer(a, 3)["behind_deltas"], base, "the other has nothing")
    for at in range(500):
        a.run("SET", f"k:{at}", "x" * 100)
    told_now = peer(a, 2)
    check_equal(told_now["behind_deltas"], 500, "changes")
    check(50000 < told_now["behind_bytes"] < 100000, f"bytes: {told_now}")
    first = told_now["behind_ms"]
    check(a.wait_until(lambda: peer(a, 2)["behind_ms"] > first, True), "its age grows")
    middle = a.tail(last, 20000)[0]
    a.run("MERIDIAN.ACKED", 2, middle)
    left = peer(a, 2)
    check(0 < left["behind_deltas"] < 500 and left["behind_bytes"] < told_now["behind_bytes"],
          f"less: {left}")
    info = a.info()
    check_equal((info["behind_deltas_2"], info["behind_deltas_3"], info["needs_state_2"]),
                (str(left["behind_deltas"]), str(base + 500), "0"), "INFO says the same")
    a.run("MERIDIAN.MEMBERS", 1, 2)
    check(peer(a, 3) is None and "behind_ms_3" not in a.info(), "a region that was removed")
    check_equal(a.run("MERIDIAN.STATUS", "x")[:6], "error:", "a wrong word")


def status_needs_state(place):
    """A region that was away for longer than the ring reaches back."""
    a = place.region(1, start=False)
    a.arguments += ["ring", "1048576"]
    a.start()
    a.run("MERIDIAN.MEMBERS", 1, 2)
    a.run("SET", "k", "0")
    a.run("MERIDIAN.ACKED", 2, a.tail(0)[0])
    check_equal(peer(a, 2)["needs_state"], False, "the ring reaches back")
    for at in range(40):
        a.run("SET", f"k:{at}", "x" * 50000)
    check_equal(peer(a, 2)["needs_state"], True, "it does not any more")
    check_equal(told(a)["backlog_bytes_max"], 1048576, "the limit of the ring")


def status_clocks(place):
    """How far ahead a clock is; beyond the bound a batch is refused, and counted."""
    a = place.region(1)
    a.run("SET", "k", "v")
    last, _, deltas = a.tail(0)
    b = place.region(2)
    check_equal(b.merge(1, 0, last, deltas), last, "a batch")
    clock = peer(b, 1)
    check(-60000 < clock["clock_ahead_ms"] <= 2000, f"about our own: {clock}")
    check_equal(clock["clock_refused"], 0, "nothing was refused")
    far = int.from_bytes(deltas[1:9], "little") + (told(b)["drift_max_ms"] + 60000 << 16)
    ahead = deltas[:1] + far.to_bytes(8, "little") + deltas[9:]
    check("DRIFT" in str(b.merge(1, last, far, ahead)), "a clock far ahead")
    clock = peer(b, 1)
    check(clock["clock_refused"] == 1 and clock["clock_ahead_ms_max"] > told(b)["drift_max_ms"],
          f"is told: {clock}")
    check(b.wait_until(lambda: "merge_rate" in told(b), True), "a rate")


def send_state(source, target):
    cursor = b"0"
    while True:
        cursor, _, state = source.run("MERIDIAN.SCAN", cursor, 1 << 20)[:3]
        last = cursor == b"0"
        reply = target.run("MERIDIAN.MERGESTATE", state, *(["END"] if last else []))
        check("error" not in str(reply), f"MERGESTATE said {reply!r}")
        if last:
            return


def status_state_strikes(place):
    """A key that is due when a state with it comes dies first, as with a batch."""
    a, b = place.region(1), place.region(2)
    for key, words in (("h", ("PFADD", "h", "old")), ("s", ("SADD", "s", "old")),
                       ("n", ("INCRBY", "n", "5"))):
        a.run(*words)
        a.run("PEXPIRE", key, "100")
    settle_pair(a, b)
    b.run("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    time.sleep(0.12)
    check_equal([a.wait_until(lambda k=key: a.run("EXISTS", k)) for key in "hsn"], [0, 0, 0], "due")
    for words in (("PFADD", "h", "new"), ("SADD", "s", "new"), ("INCRBY", "n", "7")):
        a.run(*words)
    send_state(a, b)
    settle_pair(b, a)
    settle_pair(a, b)
    same_everywhere([a, b], "after the state")
    check_equal([b.run("PFCOUNT", "h"), b.run("SMEMBERS", "s"), b.run("GET", "n")],
                [1, [b"new"], b"7"], "only what is new")


ALL = [status_behind, status_needs_state, status_clocks, status_state_strikes]
