"""Policies per key prefix, merge functions, and conflicts as events."""
import json
import time

from harness import check, check_equal, same_everywhere, settle_pair

CART = """
local cart = {}
for _, sibling in ipairs((...)) do
        for item, quantity in sorted_pairs(json.decode(sibling.value)) do
                cart[item] = math.max(cart[item] or 0, quantity)
        end
end
return json.encode(cart)
"""

POLICIES = ("DATA", "cart:", "merge", "cart", "DATA", "session:", "last-write", "",
            "DATA", "profile:", "siblings", "", "DATA", "session:typed:", "typed", "",
            "FUNCTION", "cart", CART)


def both_ways(a, b):
    settle_pair(a, b)
    settle_pair(b, a)


def policed(place, *origins):
    regions = [place.region(origin) for origin in origins]
    for region in regions:
        check_equal(region.run("MERIDIAN.POLICY", *POLICIES), b"OK", "POLICY")
    return regions


def meet(regions, why):
    for _ in range(2):
        for source in regions:
            for target in regions:
                if source is not target:
                    settle_pair(source, target)
    same_everywhere(regions, why)


def events(region, *words):
    reply = region.run("MERIDIAN.CONFLICTS", *words)
    check(isinstance(reply, list), f"CONFLICTS said {reply!r}")
    return [dict(zip(event[::2], event[1::2])) for event in reply]


def told(region, why, **wanted):
    """The newest event has these."""
    found = events(region, "COUNT", 1)
    check(found, f"{why}: no event")
    for name, value in wanted.items():
        check_equal(found[0][name.replace("_", "-").encode()], value, f"{why}: {name}")


def policy_command(place):
    """What is malformed changes nothing; what holds is told."""
    a = place.region(1)
    check_equal(a.run("MERIDIAN.POLICY"), [], "at first")
    check_equal(a.run("MERIDIAN.POLICY", *POLICIES), b"OK", "POLICY")
    wanted = [[b"cart:", b"merge", b"cart"], [b"session:", b"last-write", b""],
              [b"profile:", b"siblings", b""], [b"session:typed:", b"typed", b""]]
    check_equal(a.run("MERIDIAN.POLICY"), wanted, "what holds")
    for words in (("DATA",), ("DATA", "x"), ("DATA", "x", "best", ""), ("DATA", "x", "merge", ""),
                  ("DATA", "x", "merge", "f"), ("DATA", "x", "typed", "f"), ("WHAT", "x"),
                  ("DATA", "x" * 65, "typed", ""), ("FUNCTION", "f"), ("FUNCTION", "", "return 1"),
                  ("FUNCTION", "f", "x" * 70000), ("DATA", "x", "typed", "") * 65):
        check("error" in str(a.run("MERIDIAN.POLICY", *words)), f"{words[:4]} was taken")
        check_equal(a.run("MERIDIAN.POLICY"), wanted, f"after {words[:4]}")
    check_equal(a.info()["policies"], "4", "INFO")
    check_equal(a.run("MERIDIAN.POLICY", "NONE"), b"OK", "NONE")
    check_equal(a.run("MERIDIAN.POLICY"), [], "after NONE")


def last_write(place):
    """A key under last-write is one register, whatever its type: writes never mix."""
    a, b = policed(place, 1, 2)
    a.run("SET", "session:n", "10")
    both_ways(a, b)
    a.run("INCRBY", "session:n", "5")
    time.sleep(0.005)
    b.run("INCRBY", "session:n", "7")
    meet([a, b], "counter")
    check_equal(a.run("GET", "session:n"), b"17", "a counter does not add up")
    a.run("HSET", "session:h", "f", "1", "g", "1")
    both_ways(a, b)
    a.run("HSET", "session:h", "f", "2")
    time.sleep(0.005)
    b.run("HSET", "session:h", "g", "3")
    meet([a, b], "hash")
    check_equal(a.run("HGETALL", "session:h"), [b"f", b"1", b"g", b"3"], "a hash does not mix")
    a.run("SADD", "session:s", "x", "y")
    both_ways(a, b)
    a.run("SADD", "session:s", "a")
    a.run("SADD", "session:s", "a")
    time.sleep(0.005)
    b.run("SPOP", "session:s", "2")
    meet([a, b], "set")
    check_equal(a.run("EXISTS", "session:s"), 0, "a set that was emptied later is gone")
    b.run("INCRBYFLOAT", "session:f", "1.5")
    b.run("EXPIRE", "session:f", "1000")
    b.run("APPEND", "session:f", "0")
    meet([a, b], "float")
    check_equal(a.run("GET", "session:f"), b"1.50", "the text")
    check(a.run("PTTL", "session:f") > 900000, "the expiry came along")
    a.run("HSET", "session:h", "t", "4")
    time.sleep(0.005)
    b.run("SET", "session:h", "text")
    meet([a, b], "types")
    check_equal(a.run("GET", "session:h"), b"text", "the later type")
    pipe = b.client.pipeline(transaction=True)
    for words in (("INCR", "session:m"), ("INCR", "session:m"), ("SADD", "session:q", "1", "2"),
                  ("SPOP", "session:q"), ("INCRBYFLOAT", "session:m", "1"),
                  ("MSET", "session:x", "1", "session:y", "2")):
        pipe.execute_command(*words)
    pipe.execute()
    meet([a, b], "MULTI")
    check_equal(a.run("GET", "session:m"), b"3", "in a transaction")
    a.run("INCR", "session:typed:n")
    b.run("INCR", "session:typed:n")
    meet([a, b], "typed below")
    check_equal(a.run("GET", "session:typed:n"), b"2", "the longest prefix counts")


def siblings(place):
    """All concurrent values are kept, shown, and resolved by the next write that saw them."""
    regions = a, b, c = policed(place, 1, 2, 3)
    a.run("SET", "profile:1", "one")
    meet(regions, "first")
    check_equal([row[2] for row in b.run("MERIDIAN.SIBLINGS", "profile:1")], [b"one"], "alone")
    a.run("SET", "profile:1", "from a")
    time.sleep(0.005)
    b.run("SET", "profile:1", "from b")
    time.sleep(0.005)
    c.run("APPEND", "profile:1", " c")
    meet(regions, "three at once")
    for region in regions:
        check_equal(region.run("GET", "profile:1"), b"one c", "the newest is shown")
        rows = region.run("MERIDIAN.SIBLINGS", "profile:1")
        check_equal([row[0] for row in rows], [1, 2, 3], "regions")
        check_equal([row[2] for row in rows], [b"from a", b"from b", b"one c"], "values")
    told(c, "at the winner", kind=b"siblings", key=b"profile:1", won_region=3, policy=b"siblings",
         won_value=b"one c")
    check_equal(events(a), [], "events where nothing won")
    b.run("SET", "profile:1", "resolved")
    c.run("SET", "profile:2", "x", "EX", "1000")
    meet(regions, "resolved")
    for region in regions:
        check_equal([row[2] for row in region.run("MERIDIAN.SIBLINGS", "profile:1")],
                    [b"resolved"], "after the next write")
    a.run("DEL", "profile:1")
    b.run("SET", "profile:1", "kept")
    a.run("DEL", "profile:2")
    meet(regions, "deleted")
    check_equal(c.run("GET", "profile:1"), b"kept", "a delete takes only what it saw")
    check_equal(c.run("EXISTS", "profile:2"), 0, "a delete that saw all")
    check_equal(c.run("MERIDIAN.SIBLINGS", "nothing"), [], "no key")
    a.run("HSET", "profile:h", "f", "1")
    b.run("HSET", "profile:h", "g", "2")
    meet(regions, "hash")
    check_equal(c.run("HGETALL", "profile:h"), [b"f", b"1", b"g", b"2"], "other types are typed")
    a.run("FLUSHDB")
    b.run("SET", "profile:1", "after all")
    meet(regions, "emptied")
    check_equal([row[2] for row in c.run("MERIDIAN.SIBLINGS", "profile:1")], [b"after all"],
                "what FLUSHDB had not seen stays")
    for region in (a, b):
        region.run("SET", "profile:gone", "v", "PX", "80")
    meet(regions, "with an expiry")
    time.sleep(0.15)
    for region in regions:
        check_equal(region.run("GET", "profile:gone"), None, "expired")
    meet(regions, "after the expiry")


def cart_merged(place):
    """The cart: union with the higher quantity, everywhere, with no write of anybody."""
    regions = a, b, c = policed(place, 1, 2, 3)
    a.run("SET", "cart:7", '{"tea":1}')
    meet(regions, "first")
    before = [region.positions()[region.origin] for region in regions]
    a.run("SET", "cart:7", '{"tea":3}')
    b.run("SET", "cart:7", '{"tea":1,"milk":2}')
    c.run("SET", "cart:7", '{"bread":1,"tea":2}')
    meet(regions, "merged")
    for region in regions:
        check_equal(region.run("GET", "cart:7"), b'{"bread":1,"milk":2,"tea":3}', "the cart")
        check_equal(len(region.run("MERIDIAN.SIBLINGS", "cart:7")), 3, "siblings")
    check(before, "positions")
    b.run("SET", "cart:7", '{"tea":4}')
    meet(regions, "resolved")
    check_equal(a.run("GET", "cart:7"), b'{"tea":4}', "the write that saw all counts")
    # What is no JSON makes the function fail: the last write shows, and it is told.
    a.run("SET", "cart:7", "broken")
    time.sleep(0.005)
    b.run("SET", "cart:7", '{"tea":5}')
    meet(regions, "failed")
    check_equal(c.run("GET", "cart:7"), b'{"tea":5}', "the last write is shown")
    check_equal(c.info()["conflicts_merge_failed"], "1", "counted")
    told(c, "failure", kind=b"merge-failed", key=b"cart:7")
    # Another function shows anew what is kept, without a write.
    other = 'local n = 0 for _, s in ipairs((...)) do n = n + #s.value end return n'
    for region in regions:
        check_equal(region.run("MERIDIAN.POLICY", "DATA", "cart:", "merge", "f",
                               "FUNCTION", "f", other), b"OK", "another function")
        check_equal(region.run("GET", "cart:7"), b"15", "shown anew")
    same_everywhere(regions, "another function")
    for region in regions:
        region.run("MERIDIAN.POLICY", "DATA", "cart:", "merge", "f",
                   "FUNCTION", "f", "while true do end")
        check_equal(region.run("GET", "cart:7"), b'{"tea":5}', "a function without end")
    told(a, "without end", kind=b"merge-failed")


def policy_changes(place):
    """Policies change while the regions write, one region after the other: all stay alike."""
    regions = a, b, c = [place.region(origin) for origin in (1, 2, 3)]
    choose = place.random
    said = [("NONE",), ("DATA", "k", "last-write", ""), ("DATA", "k", "siblings", ""),
            ("DATA", "k", "merge", "cart", "FUNCTION", "cart", "return (...)[1].value"),
            ("DATA", "k", "typed", "")]
    for turn in range(40):
        for region in regions:
            if choose.random() < 0.4:
                check_equal(region.run("MERIDIAN.POLICY", *choose.choice(said)), b"OK", "POLICY")
            for _ in range(4):
                key = "k%d" % choose.randrange(3)
                region.run(*choose.choice([
                    ("SET", key, turn), ("INCR", key), ("DEL", key), ("HSET", key, "f", turn),
                    ("HSET", key, "g", "%d" % choose.randrange(9)), ("HDEL", key, "f"),
                    ("SADD", key, turn), ("SADD", key, "m"), ("SREM", key, "m"), ("SPOP", key),
                    ("APPEND", key, "x"), ("EXPIRE", key, "1000"), ("PERSIST", key),
                    ("INCRBYFLOAT", key, "0.5"),
                    ("LPUSH", key, turn), ("RPOP", key), ("PFADD", key, turn)]))
        if turn % 3 == 2:
            for region in regions:  # what is shown must be the same: the same functions
                region.run("MERIDIAN.POLICY", *said[3])
            meet(regions, f"seed {place.seed}, turn {turn}")


def policies_restart(place):
    """Snapshot, log, replica and state transfer keep policies, siblings and what is shown."""
    a = place.region(1, rdb=True)
    b = place.region(2)
    for region in (a, b):
        region.run("MERIDIAN.POLICY", *POLICIES)
    a.run("SET", "cart:1", '{"a":1}')
    b.run("SET", "cart:1", '{"b":2}')
    a.run("SET", "profile:1", "x")
    b.run("SET", "profile:1", "y")
    meet([a, b], "before")
    kept = a.run("MERIDIAN.SIBLINGS", "profile:1")
    check_equal(len(kept), 2, "siblings")
    replica = place.region(1)
    replica.run("REPLICAOF", "127.92.0.1", a.port)
    deadline = time.monotonic() + 60
    while "master_link_status:up" not in replica.run("INFO", "replication").decode():
        check(time.monotonic() < deadline, "the replica does not come up")
        time.sleep(0.05)
    check_equal(replica.run("MERIDIAN.SIBLINGS", "profile:1"), kept, "at the replica")
    b.run("SET", "cart:2", '{"b":2}')
    a.run("SET", "cart:2", '{"a":1}')
    meet([a, b], "with a replica")
    a.run("WAIT", 1, 5000)
    check_equal(replica.run("GET", "cart:2"), b'{"a":1,"b":2}', "merged at the replica")
    for how in ("kill", "rewrite"):
        if how == "rewrite":
            a.run("BGREWRITEAOF")
            deadline = time.monotonic() + 60
            while "aof_rewrite_in_progress:1" in a.run("INFO", "persistence").decode() or \
                    "aof_rewrite_scheduled:1" in a.run("INFO", "persistence").decode():
                check(time.monotonic() < deadline, "the rewrite does not end")
                time.sleep(0.05)
        a.kill()
        a.start()
        check_equal(len(a.run("MERIDIAN.POLICY")), 4, f"policies after {how}")
        check_equal(a.run("MERIDIAN.SIBLINGS", "profile:1"), kept, f"siblings after {how}")
        check_equal(a.run("GET", "cart:1"), b'{"a":1,"b":2}', f"shown after {how}")
        same_everywhere([a, b], how)
    c = place.region(3)
    c.run("MERIDIAN.POLICY", *POLICIES)
    cursor, positions = "0", None
    while True:
        cursor, at, state = a.run("MERIDIAN.SCAN", cursor, 1)
        positions = at if positions is None else positions
        check_equal(c.run("MERIDIAN.MERGESTATE", state), b"OK", "MERGESTATE")
        if cursor == b"0":
            break
    ends = [word for pair in positions for word in pair]
    check(isinstance(c.run("MERIDIAN.MERGESTATE", "", "END", *ends), list), "END")
    check_equal(c.run("MERIDIAN.SIBLINGS", "profile:1"), kept, "after a state transfer")
    meet([a, b, c], "after a state transfer")


def conflicts(place):
    """Each kind, told once, where the winner was written; overwriting what was seen is none."""
    a, b = place.region(1), place.region(2)
    listener = b.connect()
    channel = listener.pubsub()
    channel.subscribe("meridian:conflicts")
    channel.get_message(timeout=60)
    a.run("SET", "k", "1")
    both_ways(a, b)
    for turn in range(5):  # one after the other
        (a if turn % 2 else b).run("SET", "k", turn)
        both_ways(a, b)
    check_equal(events(a) + events(b), [], "overwriting what was seen")
    a.run("SET", "k", "lost")
    time.sleep(0.005)
    b.run("SET", "k", "won")
    both_ways(a, b)
    check_equal(events(a), [], "where nothing won")
    told(b, "value", kind=b"value", key=b"k", lost_region=1, won_region=2, lost_value=b"lost",
         won_value=b"won", lost_type=b"string", policy=b"typed", count=1)
    message = channel.get_message(timeout=60)
    check(message is not None, "nothing was published")
    told_json = json.loads(message["data"])
    check_equal((told_json["kind"], told_json["key"], told_json["lost"]["value"],
                 told_json["won"]["value"]), ("value", "k", "lost", "won"), "published")
    a.run("HSET", "h", "f", "1", "g", "1", "only a", "1")
    time.sleep(0.005)
    b.run("HSET", "h", "f", "2", "g", "2")
    both_ways(a, b)
    told(b, "fields", kind=b"field", field=b"f", lost_value=b"1", won_value=b"2", count=2)
    a.run("SADD", "t", "m")
    time.sleep(0.005)
    b.run("SET", "t", "text")
    both_ways(a, b)
    told(b, "types", kind=b"type", lost_type=b"set", won_type=b"string")
    a.run("SET", "d", "1")
    both_ways(a, b)
    a.run("SET", "d", "new")
    time.sleep(0.005)
    b.run("DEL", "d")
    both_ways(a, b)
    told(b, "delete", kind=b"delete", key=b"d", lost_value=b"new")
    for _ in range(20):
        a.run("INCR", "n")
    time.sleep(0.005)
    b.run("SET", "n", "100")
    both_ways(a, b)
    told(b, "increments", kind=b"increment", key=b"n", count=20)
    check_equal(a.run("GET", "n"), b"120", "increments stay")
    check_equal(a.info()["conflicts_value"], "0", "counted where the winner is")
    check_equal(b.info()["conflicts_value"], "1", "counted")
    a.run("SET", "long", "l" * 5000)
    a.run("SET", b"\xff\x00\"", b"\xc3\xa9\xff\n")
    time.sleep(0.005)
    b.run("SET", "long", "w" * 5000)
    b.run("SET", b"\xff\x00\"", "x")
    both_ways(a, b)
    found = events(b, "COUNT", 2)
    check_equal(len(found[0][b"lost-value"]), 256, "long values are cut")
    texts = b.run("MERIDIAN.CONFLICTS", "COUNT", 1, "JSON")
    last = json.loads(texts[0])
    check_equal((last["key"], last["lost"]["value"]), ("\ufffd\x00\"", "\u00e9\ufffd\n"), "JSON")
    ids = [event[b"id"] for event in events(b)]
    check_equal(ids, sorted(set(ids)), "ids rise")
    check_equal([event[b"id"] for event in events(b, "AFTER", ids[1])], ids[2:], "AFTER")
    check_equal([event[b"id"] for event in events(b, "AFTER", ids[1], "COUNT", 1)], ids[2:3],
                "AFTER with COUNT")
    check("usage" in str(b.run("MERIDIAN.CONFLICTS", "WHAT")), "usage")
    listener.close()


def conflicts_bounded(place):
    a, b = place.region(1), place.region(2)
    for turn in range(1500):
        a.client.execute_command("SET", f"k{turn}", "lost")
    time.sleep(0.005)
    for turn in range(1500):
        b.client.execute_command("SET", f"k{turn}", "won")
    both_ways(a, b)
    check_equal(len(events(b, "COUNT", 5000)), 1024, "the newest are kept")
    check_equal(b.info()["conflicts_value"], "1500", "all are counted")


def two_luas(place):
    """The server's own Lua and the module's live side by side."""
    a, b = policed(place, 1, 2)
    a.run("SET", "cart:1", '{"a":1}')
    b.run("SET", "cart:1", '{"b":2}')
    for turn in range(20):
        check_equal(a.run("EVAL", "return {_VERSION, cjson.encode({1, 2}), ARGV[1]}", 0, turn),
                    [b"Lua 5.1", b"[1,2]", b"%d" % turn], "the server's Lua")
        both_ways(a, b)
        check_equal(a.run("GET", "cart:1"), b'{"a":1,"b":2}', "the module's Lua")
        a.run("SET", "cart:1", '{"a":1}')
        settle_pair(a, b)
        a.run("SET", "cart:1", '{"a":1}')
        b.run("SET", "cart:1", '{"b":2}')


ALL = [policy_command, last_write, siblings, cart_merged, policy_changes, policies_restart,
       conflicts, conflicts_bounded, two_luas]
