"""Lists in several regions: what is pushed concurrently stays, in one order everywhere."""
import threading
import time

from groups import settle_all
from harness import Shuttle, check, check_equal, same_everywhere, settle_pair


def elements(region, key="l"):
    return region.run("LRANGE", key, 0, -1)


def every(regions, key, wanted, why):
    settle_all(regions)
    for region in regions:
        check_equal(elements(region, key), wanted, f"{why}, region {region.origin}")
    check(len({region.run("MERIDIAN.DIGEST") for region in regions}) == 1, f"{why}: digests differ")


def list_rules(place):
    """What the README promises, one sentence after the other."""
    regions = a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    a.run("RPUSH", "l", "1", "2", "3")
    settle_all(regions)
    a.run("RPUSH", "l", "a1", "a2")
    b.run("RPUSH", "l", "b1", "b2")
    c.run("LPUSH", "l", "c1", "c2")
    every(regions, "l", [b"c2", b"c1", b"1", b"2", b"3", b"a1", b"a2", b"b1", b"b2"],
          "concurrent pushes stay, by time, a command's elements together")
    a.run("LTRIM", "l", 2, 4)
    b.run("LINSERT", "l", "AFTER", "2", "between")
    c.run("RPUSH", "l", "late")
    every(regions, "l", [b"1", b"2", b"between", b"3", b"late"],
          "a trim takes what it saw, an insertion stays where it was put")
    a.run("DEL", "l")
    b.run("RPUSH", "l", "kept")
    every(regions, "l", [b"kept"], "a delete takes what it saw")
    a.run("RPUSH", "l", "x")
    settle_all(regions)
    a.run("LSET", "l", 0, "from a")
    time.sleep(0.01)
    b.run("LSET", "l", 0, "from b")
    c.run("LSET", "l", 1, "x2")
    every(regions, "l", [b"from b", b"x2"], "the last LSET of an element wins")
    a.run("LSET", "l", 0, "gone")
    b.run("LPOP", "l")
    every(regions, "l", [b"x2"], "a pop wins over a concurrent LSET")
    got = a.run("LPOP", "l"), b.run("LPOP", "l")
    check_equal(got, (b"x2", b"x2"), "a pop in two regions at once gives the element twice")
    every(regions, "l", [], "and takes it once")
    a.run("RPUSH", "l", "list")
    time.sleep(0.01)
    b.run("SET", "l", "string")
    settle_all(regions)
    for region in regions:
        check_equal(region.run("GET", "l"), b"string", "the later type")


def list_rotations(place):
    """The same list on both ends of a move, also where a client had to wait for it."""
    regions = a, b = [place.region(origin) for origin in (1, 2)]
    a.run("RPUSH", "l", "1", "2", "3")
    for words, wanted in ((("RPOPLPUSH", "l", "l"), [b"3", b"1", b"2"]),
                          (("LMOVE", "l", "l", "LEFT", "RIGHT"), [b"1", b"2", b"3"]),
                          (("LMOVE", "l", "l", "LEFT", "LEFT"), [b"1", b"2", b"3"]),
                          (("BLMOVE", "l", "l", "RIGHT", "LEFT", "1"), [b"3", b"1", b"2"])):
        a.run(*words)
        every(regions, "l", wanted, str(words))
    a.run("LTRIM", "l", 0, 0)
    a.run("RPOPLPUSH", "l", "l")
    every(regions, "l", [b"3"], "one element moved onto itself")
    for words in (("RPOPLPUSH", "l", "l"), ("LMOVE", "l", "l", "LEFT", "LEFT"),
                  ("LMOVE", "l", "l", "RIGHT", "RIGHT"), ("LMOVE", "l", "l", "LEFT", "RIGHT")):
        a.run("EXPIRE", "l", "1000")
        a.run(*words)
        every(regions, "l", [b"3"], f"{words} of one element")
        same_everywhere(regions, f"{words}: its expiry")
    check_equal(a.info()["stamped_anew"], "0", "everything was explained by its notification")


def list_blocked(place):
    """A push of another region wakes the clients that wait here; what they take is gone everywhere."""
    regions = a, b = [place.region(origin) for origin in (1, 2)]
    for words in (("BLPOP", "q", "10"), ("BRPOP", "other", "q", "10"), ("BLMPOP", "10", "1", "q", "LEFT"),
                  ("BLMOVE", "q", "done", "LEFT", "RIGHT", "10"), ("BRPOPLPUSH", "q", "done", "10"),
                  ("BLMOVE", "q", "q", "LEFT", "RIGHT", "10")):
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
        a.run("RPUSH", "q", "job")
        settle_pair(a, b)
        thread.join(10)
        check(got and b"job" in str(got[0]).encode(), f"{words} got {got!r}")
        every(regions, "q", [b"job"] if words[:3] == ("BLMOVE", "q", "q") else [], str(words))
        a.run("DEL", "q")
        settle_all(regions)
    for region in regions:
        check_equal(elements(region, "done"), [b"job", b"job"], "what was moved")
    check_equal(b.info()["stamped_anew"], "0", "everything was explained by its notification")


def list_queue(place):
    """Producers and consumers in three regions, badly carried: every job is done, at least once."""
    regions = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    pushed, done = set(), set()
    for step in range(1500):
        region = place.random.choice(regions)
        if place.random.random() < 0.5:
            job = b"%d" % step
            pushed.add(job)
            region.run("RPUSH", "q", job)
        else:
            job = region.run("LPOP", "q")
            done |= {job} - {None}
        shuttle.step()
    shuttle.settle()
    same_everywhere(regions, f"seed {place.seed}")
    left = set(elements(regions[0], "q"))
    check(not done - pushed, "only what was pushed is taken")
    check_equal(left | done, pushed, f"seed {place.seed}: jobs that are left or done")
    check(not left & done, f"seed {place.seed}: what was taken and carried does not come back")


def list_big(place):
    """A list of many elements: merged, transferred, reloaded and trimmed in sensible time."""
    count = 100000
    a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    pipe = a.client.pipeline(transaction=False)
    for number in range(count):
        pipe.execute_command("RPUSH", "big", b"%d" % number)
    pipe.execute()
    began = time.monotonic()
    settle_pair(a, b)
    check_equal(b.run("LLEN", "big"), count, "merged")
    transfer(a, c)
    check_equal(c.run("LLEN", "big"), count, "transferred")
    for region in (a, b, c):
        check_equal(region.run("LINDEX", "big", 77777), b"77777", "an element in the middle")
    b.run("LTRIM", "big", 10, -11)
    b.run("LINSERT", "big", "BEFORE", "50000", "middle")
    settle_pair(b, a)
    settle_pair(b, c)
    for region in (a, b, c):
        check_equal(region.run("LLEN", "big"), count - 19, "trimmed")
        check_equal(region.run("LINDEX", "big", 49990), b"middle", "inserted")
        check_equal(region.run("OBJECT", "ENCODING", "big"), b"quicklist", "encoding")
    digest = a.run("MERIDIAN.DIGEST")
    a.run("BGREWRITEAOF")
    while b"aof_rewrite_in_progress:1" in a.run("INFO", "persistence") or \
            b"aof_rewrite_scheduled:1" in a.run("INFO", "persistence"):
        time.sleep(0.02)
    for region in (a, b):  # from a snapshot, and from a log
        region.kill()
        region.start()
        check_equal(region.run("MERIDIAN.DIGEST"), digest, f"region {region.origin} after a restart")
        check_equal(region.info()["stamped_anew"], "0", "keys stamped anew")
    check(time.monotonic() - began < 600, f"it took {time.monotonic() - began:.1f} s")


def transfer(source, target):
    cursor = b"0"
    while True:
        cursor, _, state = source.run("MERIDIAN.SCAN", cursor, 1 << 20)
        end = ("END",) if cursor == b"0" else ()
        said = target.run("MERIDIAN.MERGESTATE", state, *end)
        check(isinstance(said, list) if end else said == b"OK", f"MERGESTATE said {said!r}")
        if end:
            return


ALL = [list_rules, list_rotations, list_blocked, list_queue, list_big]
