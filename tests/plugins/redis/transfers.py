"""State transfers between real servers: large keys go in slices, whatever happens between them."""
from harness import check, check_equal, same_everywhere, settle_pair

MEMBERS = 6000
PART_MAX = 160 << 10


def fill(region, first=0, count=MEMBERS):
    with region.client.pipeline(transaction=False) as pipe:
        for i in range(first, first + count, 200):
            names = [b"member-%06d" % n for n in range(i, i + 200)]
            pipe.execute_command("SADD", "set", *names)
            pipe.execute_command("HSET", "hash", *[word for name in names for word in (name, b"v" + name)])
            pipe.execute_command("ZADD", "zset", *[word for n, name in enumerate(names) for word in (i + n, name)])
            pipe.execute_command("RPUSH", "list", *names)
            for name in names[::4]:
                pipe.execute_command("XADD", "stream", "*", "name", name)
        pipe.execute()


def scan(source, cursor, bytes_max=262144):
    cursor, positions, state = source.run("MERIDIAN.SCAN", cursor, bytes_max)
    return int(cursor), positions, state


def transfer(source, target, between=lambda number: None):
    """The lengths of the parts."""
    cursor, lengths, adopted = 0, [], []
    while True:
        first = cursor == 0
        cursor, positions, state = scan(source, cursor)
        if first:
            adopted = [word for pair in positions for word in pair]
        lengths.append(len(state))
        end = ["END"] + adopted if cursor == 0 else []
        reply = target.run("MERIDIAN.MERGESTATE", state, *end)
        check(not isinstance(reply, str) and (cursor != 0 or isinstance(reply, list)),
              f"MERGESTATE said {reply!r}")
        if cursor == 0:
            return lengths
        between(len(lengths))


def large_keys_go_in_slices(place):
    source, target = place.region(1), place.region(2)
    fill(source)
    source.run("SET", "plain", "x" * 100)
    lengths = transfer(source, target)
    check(len(lengths) > 15, f"{len(lengths)} parts")
    check(max(lengths) < PART_MAX, f"a part of {max(lengths)} bytes")
    check_equal(target.run("SCARD", "set"), MEMBERS, "members")
    same_everywhere([source, target], "after a transfer")


def clients_go_on_between_slices(place):
    source, target = place.region(1), place.region(2)
    fill(source)
    transfer(source, target)

    def between(number):
        name = b"member-%06d" % (number * 97 % MEMBERS)
        for region in (source, target):
            for command, key in (("SREM", "set"), ("HDEL", "hash"), ("ZREM", "zset")):
                region.run(command, key, name)
        source.run("LREM", "list", 1, name)
        target.run("LPUSH", "list", b"new-%d" % number)
        target.run("SADD", "set", b"new-%d" % number)
        source.run("XTRIM", "stream", "MAXLEN", MEMBERS // 4 - number)
        target.run("XADD", "stream", "*", "new", number)
        if number == 12:
            source.run("DEL", "hash")
        if number == 15:
            source.run("HSET", "hash", "again", "there")

    transfer(source, target, between)
    transfer(target, source)
    transfer(source, target)
    same_everywhere([source, target], "after changes between the slices")
    check(source.run("SISMEMBER", "set", "new-3") == 1, "what was written between is there")
    check_equal(target.run("HGET", "hash", "again"), b"there", "a hash that was made again")
    before = target.content()
    target.kill()
    target.start()
    check_equal(target.content(), before, "after the log was replayed")


def a_transfer_goes_on_after_a_restart(place):
    source, target, third = place.region(1), place.region(2), place.region(3)
    fill(source, count=2000)
    for i in range(3000):
        third.run("SADD", f"key{i}", "goes", "stays")
    settle_pair(third, source)
    with source.client.pipeline(transaction=False) as pipe:
        for i in range(3000):
            pipe.execute_command("SREM", f"key{i}", "goes")
        pipe.execute()
    cursor, parts = 0, 0
    while parts < 6:
        cursor, _, state = scan(source, cursor, 20000)
        check_equal(target.run("MERIDIAN.MERGESTATE", state), b"OK", "a part")
        parts += 1
    settle_pair(third, target)  # the link to the sender is cut; the streams of others go on
    resume = [int(word) for word in target.run("MERIDIAN.POSITIONS")[7]]
    check_equal((resume[0], resume[2]), (1, cursor), "where it goes on")
    target.kill()
    target.start()
    after = [int(word) for word in target.run("MERIDIAN.POSITIONS")[7]]
    check_equal(after, resume, "where it goes on after a restart")
    for i in range(500):
        source.run("SET", f"later{i}", "x")  # the sender's table grows
    cursor, rest = after[2], 0
    while cursor != 0:
        cursor, _, state = scan(source, cursor, 20000)
        reply = target.run("MERIDIAN.MERGESTATE", state, *(["END", 1, after[3]] if cursor == 0 else []))
        check(not isinstance(reply, str), f"MERGESTATE said {reply!r}")
        rest += 1
    check(rest > 3, f"{rest} parts were left")
    check_equal(len(target.run("MERIDIAN.POSITIONS")), 7, "nothing is under way")
    settle_pair(source, target)
    for region in (source, target):
        settle_pair(region, third)
    same_everywhere([source, target, third], "after a transfer that went on")
    reply = target.run("MERIDIAN.MERGESTATE", scan(source, 12, 20000)[2])
    check("BROKEN" in reply, f"a part from nowhere: {reply!r}")


ALL = [a_transfer_goes_on_after_a_restart, large_keys_go_in_slices, clients_go_on_between_slices]
