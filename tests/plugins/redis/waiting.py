"""MERIDIAN.WAIT: the answer is what other regions have told, and comes when they tell it."""
import threading
import time

from harness import check, check_equal


class Asked:
    """A command under way on a connection of its own."""

    def __init__(self, server, *words):
        self.client = server.connect()
        self.reply = None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.ask, args=words, daemon=True)
        self.thread.start()

    def ask(self, *words):
        try:
            self.reply = self.client.execute_command(*words)
        except Exception as error:  # pylint: disable=broad-except
            self.reply = "error: " + str(error)
        self.took = time.monotonic() - self.began

    def answer(self, seconds=60):
        self.thread.join(seconds)
        check(not self.thread.is_alive(), "no answer came")
        self.client.close()
        return self.reply

    def waits(self):
        return self.thread.is_alive()


def blocked(server, count):
    def look():
        info = server.run("INFO", "clients").decode()
        return int(info.split("blocked_clients:")[1].split("\r\n")[0])
    check_equal(server.wait_until(look, count), count, "clients that wait")


def kill_waiting(server):
    for line in server.run("CLIENT", "LIST").decode().split("\n"):
        if "flags=b" in line:
            server.run("CLIENT", "KILL", "ID", line.split()[0][3:])


def position(server):
    after = 0
    while True:
        last, count, _ = server.tail(after)
        if count == 0:
            return after
        after = last


def wait_answers(place):
    """Counted, woken, timed out; never more than was told."""
    a = place.region(1)
    check_equal(a.run("MERIDIAN.WAIT", 0, 0), 0, "for nobody")
    check_equal(a.run("MERIDIAN.WAIT", 1, 20), 0, "nobody has told")
    a.run("SET", "k", "1")
    first = position(a)
    a.run("MERIDIAN.ACKED", 2, first)
    check_equal(a.run("MERIDIAN.WAIT", 1, 0), 1, "told before")
    check_equal(a.run("MERIDIAN.WAIT", 2, 20), 1, "a time-out counts honestly")
    a.run("SET", "k", "2")
    last = position(a)
    one, two, many = (Asked(a, "MERIDIAN.WAIT", n, 0, "AT", last) for n in (1, 2, 64))
    short = Asked(a, "MERIDIAN.WAIT", 2, 300, "AT", last)
    blocked(a, 4)
    a.run("MERIDIAN.ACKED", 2, first)
    a.run("MERIDIAN.ACKED", 3, first)
    blocked(a, 4)
    a.run("MERIDIAN.ACKED", 3, last)
    check_equal(one.answer(), 1, "one")
    check_equal(short.answer(), 1, "one of two in time")
    check(short.took >= 0.29, f"the time-out came after {short.took} s")
    check(two.waits() and many.waits(), "two and many wait")
    a.run("MERIDIAN.ACKED", 2, last)
    check_equal(two.answer(), 2, "two")
    check(many.waits(), "nobody has so many regions")
    kill_waiting(a)
    check("error" in str(many.answer()), "a client that was killed")
    blocked(a, 0)
    # A region that lost its last second says less.
    a.run("MERIDIAN.ACKED", 2, first)
    check_equal(a.run("MERIDIAN.WAIT", 2, 20), 1, "taken back")
    a.run("MERIDIAN.ACKED", 2, last)
    a.run("MERIDIAN.MEMBERS", 1, 2)
    check_equal(a.run("MERIDIAN.WAIT", 2, 20), 1, "a region that was removed does not count")
    a.run("MERIDIAN.ACKED", 1, last)
    check_equal(a.run("MERIDIAN.WAIT", 2, 20), 1, "this region does not count")


def wait_where_nothing_blocks(place):
    """Transactions, scripts, bad words, replicas, forced ends."""
    a = place.region(1)
    a.run("SET", "k", "1")
    pipe = a.client.pipeline(transaction=True)
    pipe.execute_command("SET", "k", "2")
    pipe.execute_command("MERIDIAN.WAIT", 2, 0)
    check_equal(pipe.execute()[1], 0, "in MULTI")
    check_equal(a.run("EVAL", "return redis.call('MERIDIAN.WAIT', 1, 0)", 0), 0, "in a script")
    for words in (("x", "0"), ("1", "x"), ("-1", "0"), ("1", "-1"), ("1", str(1 << 40)), ("1",),
                  ("1", "0", "AT"), ("1", "0", "AT", "x"), ("1", "0", "IN", "1"),
                  ("1", "0", "AT", str(1 << 63))):
        check("error" in str(a.run("MERIDIAN.WAIT", *words)), f"{words} was taken")
    forced = Asked(a, "MERIDIAN.WAIT", 1, 0)
    blocked(a, 1)
    kill_waiting(a)
    check("error" in str(forced.answer()), "a client that was killed")
    blocked(a, 0)
    check_equal(a.run("WAIT", 1, 20), 0, "the server's own WAIT means its replicas")
    replica = place.region(1)
    waits = Asked(replica, "MERIDIAN.WAIT", 1, 0)
    blocked(replica, 1)
    replica.run("REPLICAOF", "127.92.0.1", a.port)
    check("error" in str(waits.answer()), "a wait ends where the primary becomes a replica")
    check("primary" in str(replica.run("MERIDIAN.WAIT", 1, 0)), "at a replica")
    check("primary" in str(replica.run("MERIDIAN.WRITTEN")), "at a replica")


def tells_clients(server):
    """Whether the server tells a filter whose command comes: not before 7.2."""
    info = server.run("INFO", "server").decode()
    return "valkey_version:" in info or "redis_version:7.0." not in info


def wait_for_own_writes(place):
    """A client waits for what it has written itself, in whatever way; others do not."""
    a = place.region(1)
    own = tells_clients(a)
    mine, other = a.connect(), a.connect()
    other.execute_command("SET", "other", "1")
    told = other.execute_command("MERIDIAN.WRITTEN")
    a.run("MERIDIAN.ACKED", 2, told)
    ways = {
        "a plain write": lambda: mine.execute_command("SET", "k", "1"),
        "a long one": lambda: mine.execute_command("SETEX", "k2", 100, "1"),
        "a wrapped one": lambda: mine.execute_command("INCRBYFLOAT", "f", "0.5"),
        "a transaction": lambda: mine.pipeline().set("m", 1).sadd("s", "x").execute(),
        "a script": lambda: mine.execute_command(
            "EVAL", "redis.call('SET', 'e', 1); return redis.call('HSET', 'h', 'f', 1)", 0),
        "what another's push woke": lambda: woken_pop(a, mine),
        "a sorted set's pop": lambda: (mine.execute_command("ZADD", "z", 1, "x", 2, "y"),
                                       mine.execute_command("ZMPOP", 1, "z", "MIN")),
    }
    for why, write in ways.items():
        write()
        other.execute_command("GET", "k")
        check_equal(mine.execute_command("MERIDIAN.WAIT", 1, 5), 0, f"nobody has {why}")
        check_equal(other.execute_command("MERIDIAN.WAIT", 1, 5), 1 if own else 0,
                    f"{why} is another client's")
        last = mine.execute_command("MERIDIAN.WRITTEN")
        check(last > told, f"{why} was written")
        check_equal(other.execute_command("MERIDIAN.WAIT", 1, 5, "AT", last), 0,
                    f"{why} by its position")
        a.run("MERIDIAN.ACKED", 2, last)
        check_equal(mine.execute_command("MERIDIAN.WAIT", 1, 20), 1, f"{why} is there")
        told = last
    pipe = other.pipeline(transaction=False)
    for at in range(100):
        pipe.execute_command("INCR", f"n:{at % 7}")
    pipe.execute_command("MERIDIAN.WAIT", 1, 20)
    check_equal(pipe.execute()[-1], 0, "after writes of the same turn")
    before = mine.execute_command("MERIDIAN.WRITTEN")
    for at in range(20):
        client = a.connect()
        client.execute_command("SET", f"c:{at}", at)
        client.close()
    if own:
        check_equal(mine.execute_command("MERIDIAN.WRITTEN"), before, "what was its last one")
    fresh = a.connect()
    check(fresh.execute_command("EVAL", "return redis.call('MERIDIAN.WRITTEN')", 0) > before,
          "a script is told of everything")
    for client in (mine, other, fresh):
        client.close()


def woken_pop(server, client):
    """A pop that waits until another client pushes."""
    done = threading.Thread(target=client.execute_command, args=("BLPOP", "q", 0), daemon=True)
    done.start()
    blocked(server, 1)
    pusher = server.connect()
    pusher.execute_command("RPUSH", "q", "x")
    done.join(20)
    check(not done.is_alive(), "the pop was not woken")
    pusher.close()


ALL = [wait_for_own_writes, wait_answers, wait_where_nothing_blocks]
