"""MERIDIAN.DIGESTS: the same in all regions that hold the same, and different where one does not."""
import glob
import struct

from harness import Shuttle, check, check_equal, settle_pair

BUCKETS = 65536


def walk(server, prefix="", buckets=None):
    """All payloads of one walk, how many keys it saw, and in how many calls."""
    words = [0, prefix]
    if buckets is not None:
        bits = bytearray(BUCKETS // 8)
        for bucket in buckets:
            bits[bucket // 8] |= 1 << bucket % 8
        words.append(bytes(bits))
    payload, keys, calls = b"", 0, 0
    while True:
        reply = server.run("MERIDIAN.DIGESTS", *words)
        check(isinstance(reply, list), f"DIGESTS said {reply!r}")
        payload, keys, calls = payload + reply[2], keys + reply[1], calls + 1
        if reply[0] == 0:
            return payload, keys, calls
        words = [reply[0]]


def sums(server, prefix=""):
    """{bucket: (keys, sum)}"""
    payload, keys, _ = walk(server, prefix)
    found = {bucket: (count, total) for bucket, count, total in struct.iter_unpack("<IQQ", payload)}
    check_equal(sum(count for count, _ in found.values()), keys, "keys of all buckets")
    return found


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def names(server, buckets, prefix=""):
    """{(db, key): [type, memory, value, hlc, origin]}"""
    data, at, found = walk(server, prefix, buckets)[0], 0, {}
    while at < len(data):
        db, at = varint(data, at)
        length, at = varint(data, at)
        key, at = data[at:at + length], at + length
        begin, kind, memory, value, hlc, origin = struct.unpack_from("<BBQQQB", data, at)
        at += 27
        if begin:
            found[(db, key)] = [kind, memory, value, hlc, origin]
        else:
            found[(db, key)][2] = (found[(db, key)][2] + value) % 2 ** 64
    return found


def differing(a, b):
    """The names of the keys that differ, found as `meridian verify` does."""
    left, right = sums(a), sums(b)
    buckets = {bucket for bucket in set(left) | set(right) if left.get(bucket) != right.get(bucket)}
    if not buckets:
        return []
    left, right = names(a, buckets), names(b, buckets)
    return sorted(key for key in set(left) | set(right) if left.get(key) != right.get(key))


def fill(region, tag):
    """Every type, in the small and in the large form."""
    region.run("SET", f"string {tag}", "v" * 30)
    region.run("SET", f"big {tag}", "x" * 200000)
    region.run("INCRBY", "counter", "5")
    region.run("INCRBYFLOAT", "float", "0.5")
    region.run("SET", f"expires {tag}", "v", "EX", "5000")
    region.run("HSET", "hash", f"f {tag}", "1")
    region.run("SADD", "set", tag, "1", "2")
    region.run("SADD", "large set", *[f"{tag} {i}" for i in range(1500)])
    region.run("HSET", "large hash", *[word for i in range(900) for word in (f"{tag} {i}", i)])
    region.run("RPUSH", "list", *[f"{tag} {i}" for i in range(300)])
    region.run("PFADD", "hll", *[f"{tag} {i}" for i in range(50)])
    region.run("PFADD", "large hll", *[f"{tag} {i}" for i in range(5000)])
    for number in range(100):
        region.run("XADD", "stream", "*", "f", f"{tag} {number}")
    region.run("ZADD", "sorted", "1.5", tag)
    region.run("DEL", f"gone {tag}")


def digests_of_equal_regions(place):
    """Whatever way the values came, and however they are encoded."""
    regions = [place.region(origin) for origin in (1, 2, 3)]
    shuttle = Shuttle(regions, place.seed)
    for turn in range(6):
        for region in regions:
            fill(region, f"{region.origin} {turn}")
        shuttle.step()
    shuttle.settle()
    regions[1].run("PFCOUNT", "hll")  # keeps its result in the value
    regions[2].run("DEBUG", "RELOAD")
    wanted = sums(regions[0])
    check(len(wanted) > 20, "there is something to compare")
    for region in regions[1:]:
        check_equal(differing(regions[0], region), [], f"region {region.origin} has the same")
        check_equal(sums(region), wanted, "sums")
    everything = names(regions[0], range(BUCKETS))
    check_equal(len(everything), len(regions[0].content()), "every key is named")
    check_equal(names(regions[0], range(BUCKETS), "str"),
                {key: what for key, what in everything.items() if key[1].startswith(b"str")},
                "by prefix")


def digests_name_what_differs(place):
    a, b = place.region(1), place.region(2)
    writes = (("SET", "string", "2"), ("HSET", "hash", "f 1", "2"), ("SADD", "set", "another"),
              ("RPUSH", "list", "another"), ("DEL", "big 1"), ("EXPIRE", "string 1", "100"),
              ("XADD", "stream", "*", "f", "another"), ("PFADD", "large hll", "a", "b", "c", "d"),
              ("SREM", "large set", "1 700"), ("HSET", "large hash", "1 700", "x"),
              ("SETRANGE", "big 1", "150000", "y"), ("LSET", "list", "7", "y"))
    for write in writes:
        fill(a, "1")
        settle_pair(a, b)
        check_equal(differing(a, b), [], "at first")
        a.run(*write)
        check_equal(differing(a, b), [(0, write[1].encode())], f"after {write}")
        settle_pair(a, b)
        settle_pair(b, a)
        check_equal(differing(a, b), [], f"after {write} came")


def edit_log(server, was, now):
    """Another value in the log, behind the module's back."""
    for name in glob.glob(server.folder + "/appendonlydir/*.aof"):
        with open(name, "rb") as file:
            data = file.read()
        with open(name, "wb") as file:
            file.write(data.replace(was, now))


# The module refuses DEBUG POPULATE, which makes keys that it does not hear of, by its name only.
RENAMED = ("--rename-command", "DEBUG", "HIDDEN")


def digests_see_behind_the_modules_back(place):
    a, b = place.region(1), place.region(2, arguments=RENAMED)
    for number in range(50):
        a.run("SET", f"key {number}", f"{number} " + "x" * 100)
    settle_pair(a, b)
    a.stop()
    edit_log(a, b"17 " + b"x" * 100, b"17 y" + b"x" * 99)
    a.start()
    settle_pair(a, b)
    settle_pair(b, a)
    check(a.run("GET", "key 17") != b.run("GET", "key 17"), "the values differ")
    check_equal(a.run("MERIDIAN.DIGEST"), b.run("MERIDIAN.DIGEST"), "what is remembered does not")
    check_equal(differing(a, b), [(0, b"key 17")], "a value that was changed")
    b.admin("HIDDEN", "POPULATE", "3", "unheard of")
    check_equal(differing(a, b), [(0, b"key 17")] + [(0, b"unheard of:%d" % i) for i in range(3)],
                "keys that the module does not know")


def digests_in_several_databases(place):
    a, b = place.region(1), place.region(2)
    for db in (0, 3, 15):
        client = a.connect(db=db)
        client.execute_command("SET", "key", f"in {db}")
        client.close()
    settle_pair(a, b)
    check_equal(sorted(names(b, range(BUCKETS))), [(db, b"key") for db in (0, 3, 15)], "names")
    check_equal(differing(a, b), [], "all databases")
    b.connect(db=3).execute_command("DEL", "key")
    check_equal(differing(a, b), [(3, b"key")], "a database")


def digests_in_slices(place):
    """No call takes long, whatever is in the server."""
    a = place.region(1, arguments=RENAMED)
    a.admin("HIDDEN", "POPULATE", "30000", "small")
    for turn in range(20):
        a.run("RPUSH", "large", *range(turn * 2000, turn * 2000 + 2000))
    a.run("CONFIG", "RESETSTAT")
    _, keys, calls = walk(a)
    check_equal(keys, 30001, "keys that were seen")
    check(calls > 20, f"it took {calls} calls only")
    stats = a.run("INFO", "commandstats").decode()
    line = next(line for line in stats.split("\r\n") if line.startswith("cmdstat_meridian.digests"))
    each = float(line.split("usec_per_call=")[1].split(",")[0])
    check(each < 5000, f"a call takes {each} us")  # half a millisecond where the machine is idle


def digests_arguments(place):
    a = place.region(1, arguments=RENAMED)
    for words in ((), ("x",), (0,), (1, "x"), (0, "", b"short"), (0, "", b"", b""), (-1,)):
        check("error" in str(a.run("MERIDIAN.DIGESTS", *words)), f"{words} are refused")
    check("begin again" in a.run("MERIDIAN.DIGESTS", 12345), "no such walk")
    a.admin("HIDDEN", "POPULATE", "5000", "key")
    first = a.run("MERIDIAN.DIGESTS", 0, "")[0]
    others = [a.run("MERIDIAN.DIGESTS", 0, "")[0] for _ in range(4)]
    check("begin again" in a.run("MERIDIAN.DIGESTS", first), "the oldest of five is forgotten")
    check(isinstance(a.run("MERIDIAN.DIGESTS", others[0]), list), "the others are not")


ALL = [digests_of_equal_regions, digests_name_what_differs, digests_see_behind_the_modules_back,
       digests_in_several_databases, digests_in_slices, digests_arguments]
