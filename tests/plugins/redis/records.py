"""The records of the append-only file: those of older builds are read as those of this one, and a
damaged one takes nothing else with it."""
import glob

from harness import check, check_equal, same_everywhere, settle_pair

NEAR = 5  # src/keyspace/record.h
CLOCK = 8
# what follows the kinds of log.c: bytes of a fixed length, and whether a slice follows them
KINDS = {1: (8, False), 2: (0, True), 3: (4, True), 4: (8, True)}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        check(self.at <= len(self.data), "a record ends too early")
        return self.data[self.at - count:self.at]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    def own(self, fixed, slices):
        """What follows there, as it is."""
        begin = self.at
        self.take(fixed)
        if slices:
            self.take(self.varint())
        return self.data[begin:self.at]


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def older(record):
    """The same record as builds before RECORD_NEAR wrote it."""
    reader, out, near, last = Reader(record), b"", False, 0
    while reader.at < len(record):
        head = reader.varint()
        if head == 0:
            out += b"\0" + reader.own(4, True)
        elif head == 1:
            kind = reader.take(1)[0]
            near = near or kind == NEAR
            out += b"" if kind == NEAR else bytes([1, kind]) + reader.own(*KINDS[kind])
        elif near:
            last = (last + reader.varint()) % (1 << 64)
            rest = reader.take(head >> 1)
            out += varint((len(rest) + CLOCK) << 1 | head & 1) + last.to_bytes(CLOCK, "little") + rest
        else:
            delta = reader.take(head >> 1)
            last = int.from_bytes(delta[:CLOCK], "little")
            out += varint(head) + delta
    return out


def commands_of(data):
    """Each command of a log as a list of words."""
    at = 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        count, at, words = int(data[at + 1:end]), end + 2, []
        for _ in range(count):
            end = data.index(b"\r\n", at)
            size = int(data[at + 1:end])
            words.append(data[end + 2:end + 2 + size])
            at = end + 2 + size + 2
        yield words


def rewritten(server, change):
    """Puts other records into the log of a server that is down; how many are not as they were."""
    name = glob.glob(server.folder + "/appendonlydir/*.incr.aof")[0]
    with open(name, "rb") as file:
        commands = list(commands_of(file.read()))
    changed = 0
    with open(name, "wb") as file:
        for words in commands:
            if words[0].lower() == b"meridian.log":
                before, words = words, [words[0], change(words[1])]
                changed += words != before
            file.write(b"*%d\r\n" % len(words) +
                       b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
    return changed


def fill(server):
    """Many changes in one turn, of every kind that is written together."""
    with server.client.pipeline(transaction=False) as pipe:
        for index in range(40):
            pipe.execute_command("INCR", f"n{index % 7}")
            pipe.execute_command("SET", f"s{index}", "short" if index % 2 else "long" * 40)
            pipe.execute_command("LPUSH", f"l{index % 3}", f"e{index}")
            pipe.execute_command("HSET", "h", f"f{index}", "value" * (1 + index % 2 * 40))
            pipe.execute_command("SADD", "m", f"m{index}")
            pipe.execute_command("EXPIRE", f"s{index}", 100000)
        pipe.execute_command("DEL", "s1", "s3")
        pipe.execute_command("INCRBYFLOAT", "x", "1.5")
        pipe.execute()


def older_records(place):
    """A log as an older build wrote it, and both kinds in one log."""
    a, b = place.region(1), place.region(2)
    fill(a)
    digest, content = a.run("MERIDIAN.DIGEST"), a.content()
    a.kill()
    check(rewritten(a, older) > 0, "no record has the new form")
    check_equal(rewritten(a, older), 0, "and none is left of them")
    a.start()
    check_equal(a.run("MERIDIAN.DIGEST"), digest, "metadata from the old form")
    check_equal(a.content(), content, "content from the old form")
    check_equal(int(a.info()["stamped_anew"]), 0, "keys stamped anew")
    fill(a)
    digest = a.run("MERIDIAN.DIGEST")
    a.kill()
    a.start()
    check_equal(a.run("MERIDIAN.DIGEST"), digest, "from both forms in one log")
    settle_pair(a, b)
    settle_pair(b, a)
    same_everywhere([a, b], "after both forms")


def cut_record(place):
    """A record that ends too early is refused by itself; the server starts, and goes on."""
    a, b = place.region(1), place.region(2)
    fill(a)
    a.kill()
    check(rewritten(a, lambda record: record[:len(record) * 2 // 3]) > 0, "nothing is cut")
    a.start()
    check_equal(int(a.run("GET", "n0")), 6, "the values are those of the commands")
    check("a MERIDIAN.LOG record is refused" in a.log(), "it is told")
    check_equal(int(a.run("INCR", "n0")), 7, "and it goes on")
    settle_pair(a, b)


ALL = (older_records, cut_record)
