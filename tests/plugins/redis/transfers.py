"""State transfers between real servers: large keys go in slices, whatever happens between them."""
from harness import check, check_equal, same_everywhere

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


def scan(source, cursor):
    cursor, positions, state = source.run("MERIDIAN.SCAN", cursor, 262144)
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


ALL = [large_keys_go_in_slices, clients_go_on_between_slices]
