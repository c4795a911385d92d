"""Streams in several regions: the entries of all, by id, the same everywhere."""
import threading
import time

from groups import settle_all
from harness import Shuttle, check, check_equal, same_everywhere, settle_pair
from lists import transfer


def ids(region, key="x"):
    return [entry[0] for entry in region.run("XRANGE", key, "-", "+")]


def alike(regions, key, wanted, why):
    settle_all(regions)
    for region in regions:
        check_equal(ids(region, key), wanted, f"{why}, region {region.origin}")
    same_everywhere(regions, why)


def stream_ids(place):
    """Ids that the server makes never meet; the reply has Redis's form; explicit ones are kept."""
    regions = a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    seen = set()
    for number in range(300):
        for region in regions:
            reply = region.run("XADD", "x", "*", "n", number)
            ms, seq = map(int, reply.split(b"-"))
            check_equal(seq % 64, region.origin, "the sequence is the region's own")
            check(reply not in seen and abs(ms - time.time() * 1000) < 10000, f"the id {reply!r}")
            seen.add(reply)
    for region in regions:
        check_equal(region.run("XADD", "e", "5-*", "f", "v"), b"5-%d" % region.origin, "a half id")
        check_equal(region.run("XADD", "e", "5-*", "f", "v"), b"5-%d" % (region.origin + 64), "again")
    settle_all(regions)
    check_equal(len(ids(a)), 900, "all are there")
    same_everywhere(regions, "ids")
    check_equal(a.run("XADD", "e", "7-7", "f", "v"), b"7-7", "an explicit id")
    for words in (("XADD", "e", "1-1", "f", "v"), ("XADD", "e", "1-*", "f", "v"), ("XADD", "e", "*"),
                  ("XADD", "e", "*", "f"), ("XADD", "e", "word", "f", "v"), ("XADD", "e")):
        check("error" in str(a.run(*words)), f"{words} is an error")
    check_equal(a.run("XADD", "none", "NOMKSTREAM", "*", "f", "v"), None, "NOMKSTREAM")


def stream_rules(place):
    regions = a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    for number in (10, 20, 30):
        a.run("XADD", "x", f"{number}-1", "from", "a")
    settle_all(regions)
    a.run("XADD", "x", "50-1", "from", "a")
    b.run("XADD", "x", "40-2", "from", "b")
    c.run("XADD", "x", "60-3", "from", "c")
    c.run("XTRIM", "x", "MAXLEN", 2)
    a.run("XDEL", "x", "10-1")
    alike(regions, "x", [b"30-1", b"40-2", b"50-1", b"60-3"], "late entries stand where they belong")
    for region in regions:
        info = region.run("XINFO", "STREAM", "x")
        info = dict(zip(info[::2], info[1::2]))
        check_equal(info[b"last-generated-id"], b"60-3", "the last id")
        check_equal(info[b"entries-added"], 6, "entries added")
    a.run("XADD", "x", "70-0", "who", "a")
    time.sleep(0.01)
    b.run("XADD", "x", "70-0", "who", "b")
    settle_all(regions)
    for region in regions:
        check_equal(region.run("XRANGE", "x", "70-0", "70-0"), [[b"70-0", [b"who", b"b"]]],
                    "the later of one id")
    b.run("XDEL", "x", "70-0")
    alike(regions, "x", [b"30-1", b"40-2", b"50-1", b"60-3"], "and what saw both takes both")
    a.run("DEL", "x")
    b.run("XADD", "x", "80-2", "f", "kept")
    alike(regions, "x", [b"80-2"], "a delete takes what it saw")
    b.run("XDEL", "x", "80-2")
    c.run("XGROUP", "CREATE", "made", "g", "$", "MKSTREAM")
    settle_all(regions)
    for region in regions:
        check_equal(region.run("EXISTS", "x", "made"), 2, "empty streams stay, as in Redis")
    a.run("XADD", "x", "MAXLEN", "2", "90-1", "f", "v")
    a.run("XADD", "x", "MAXLEN", "=", "2", "91-1", "f", "v")
    a.run("XADD", "x", "MINID", "91", "92-1", "f", "v")
    alike(regions, "x", [b"91-1", b"92-1"], "XADD that trims")
    a.run("XADD", "timed", "1-1", "f", "v")
    a.run("EXPIRE", "timed", "1000")
    a.run("COPY", "x", "timed", "REPLACE")
    settle_all(regions)
    same_everywhere(regions, "a copy has no expiry where the original has none")
    for region in regions:
        check_equal(region.info()["stamped_anew"], "0", "everything was explained")


def stream_first_id(place):
    """The smallest id there is may be the last to come, also after deletes."""
    regions = a, b = [place.region(origin) for origin in (1, 2)]
    for number in (2, 3, 4):
        a.run("XADD", "x", f"0-{number}", "n", str(number))
    a.run("XGROUP", "CREATE", "x", "g", "0")
    a.run("XREADGROUP", "GROUP", "g", "me", "COUNT", "1", "STREAMS", "x", ">")
    a.run("EXPIRE", "x", "1000")
    a.run("XDEL", "x", "0-3")
    b.run("XADD", "x", "0-1", "n", "1")
    alike(regions, "x", [b"0-1", b"0-2", b"0-4"], "the first id, late")
    check_equal([row[0] for row in a.run("XPENDING", "x", "g", "-", "+", "9")], [b"0-2"], "pending")
    same_everywhere(regions, "the first id, late")
    b.run("XADD", "x", "0-5", "n", "5")
    alike(regions, "x", [b"0-1", b"0-2", b"0-4", b"0-5"], "and what comes after")


def stream_groups(place):
    """Groups are the region's own; they outlive late entries, which only XRANGE shows then."""
    regions = a, b = [place.region(origin) for origin in (1, 2)]
    a.run("XADD", "x", "10-1", "f", "v")
    a.run("XADD", "x", "30-1", "f", "v")
    settle_all(regions)
    b.run("XGROUP", "CREATE", "x", "g", "0")
    read = ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "x", ">")
    check_equal(len(b.run(*read)[0][1]), 2, "both are delivered")
    check_equal(b.run("XACK", "x", "g", "10-1"), 1, "one is done")
    a.run("XADD", "late", "1-1", "f", "v")
    c = place.region(3)
    c.run("XADD", "x", "20-3", "f", "late")
    a.run("XADD", "x", "40-1", "f", "new")
    settle_pair(c, b)
    settle_pair(a, b)
    check_equal(ids(b), [b"10-1", b"20-3", b"30-1", b"40-1"], "the late one is in the stream")
    check_equal(b.run("XPENDING", "x", "g")[0:3], [1, b"30-1", b"30-1"], "pending stays pending")
    check_equal([e[0] for e in b.run("XREADGROUP", "GROUP", "g", "me", "STREAMS", "x", "0")[0][1]],
                [b"30-1"], "and is read again with its fields")
    check_equal([e[0] for e in b.run(*read)[0][1]], [b"40-1"], "the late one is not delivered")
    check_equal(a.run("XINFO", "GROUPS", "x"), [], "the group is not in the other region")
    check_equal(len(b.run("XCLAIM", "x", "g", "you", "0", "30-1")), 1, "XCLAIM")
    check_equal(len(b.run("XAUTOCLAIM", "x", "g", "you", "0", "0")[1]), 2, "XAUTOCLAIM")
    digest = b.run("MERIDIAN.DIGEST")
    b.kill()
    b.start()
    check_equal(b.run("MERIDIAN.DIGEST"), digest, "after a restart")
    check_equal(b.info()["stamped_anew"], "0", "nothing was stamped anew")
    check_equal(b.run("XPENDING", "x", "g")[0], 2, "pending after a restart")


def stream_blocked(place):
    """A reader that waits is woken by another region's entry."""
    a, b = [place.region(origin) for origin in (1, 2)]
    a.run("XADD", "x", "1-1", "f", "v")
    settle_pair(a, b)
    b.run("XGROUP", "CREATE", "x", "g", "$")
    for words in (("XREAD", "BLOCK", "10000", "STREAMS", "x", "$"),
                  ("XREADGROUP", "GROUP", "g", "me", "BLOCK", "10000", "STREAMS", "x", ">")):
        b.run("XGROUP", "SETID", "x", "g", "$")
        got = []

        def wait(words=words, got=got):
            client = b.connect()
            got.append(client.execute_command(*words))
            client.close()

        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 60
        while b"blocked_clients:1" not in b.run("INFO", "clients"):
            check(time.monotonic() < deadline, f"{words} does not wait")
            time.sleep(0.01)
        wanted = a.run("XADD", "x", "*", "f", "v")
        settle_pair(a, b)
        thread.join(10)
        check(got and got[0][0][1][0][0] == wanted, f"{words} got {got!r}")


def stream_histories(place):
    """Random commands in three regions, badly carried; then a state transfer and restarts."""
    regions = a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    choose = place.random
    for step in range(1200):
        region = choose.choice(regions)
        key = choose.choice([b"x", b"y"])
        some = choose.choice(ids(region, key) or [b"1-1"])
        region.run(*choose.choice([
            (b"XADD", key, b"*", b"f", b"%d" % step), (b"XADD", key, b"*", b"f", b"%d" % step, b"g", b""),
            (b"XADD", key, b"MAXLEN", b"30", b"*", b"f", b"v"), (b"XDEL", key, some),
            (b"XTRIM", key, b"MAXLEN", b"20"), (b"XTRIM", key, b"MINID", some),
            (b"XADD", key, b"%d-0" % (step // 3 + 1), b"same", b"%d" % step),
            (b"XADD", key, b"*", b"f", b"%d" % step), (b"XADD", key, b"MAXLEN", b"~", b"1", b"*", b"f", b"v"),
            (b"DEL", key) if step % 7 == 0 else (b"XLEN", key), (b"COPY", b"x", b"z", b"REPLACE"),
            (b"EXPIRE", key, b"1000"), (b"XSETID", key, b"4000000000000-1") if step == 600 else (b"PING",),
        ]))
        shuttle.step()
    shuttle.settle()
    same_everywhere(regions, f"seed {place.seed}")
    fourth = place.region(4)
    transfer(a, fourth)
    same_everywhere([a, fourth], f"seed {place.seed}: a transfer")
    digest = a.run("MERIDIAN.DIGEST")
    a.run("BGREWRITEAOF")
    time.sleep(0.2)
    for region in (a, b):
        region.kill()
        region.start()
        check_equal(region.run("MERIDIAN.DIGEST"), digest, f"seed {place.seed}: after a restart")
        check_equal(region.info()["stamped_anew"], "0", "keys stamped anew")
    same_everywhere(regions, f"seed {place.seed}: after restarts")


ALL = [stream_ids, stream_rules, stream_first_id, stream_groups, stream_blocked, stream_histories]
