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

    def answer(self, seconds=10):
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
    one, two, many = (Asked(a, "MERIDIAN.WAIT", n, 0) for n in (1, 2, 64))
    short = Asked(a, "MERIDIAN.WAIT", 2, 300)
    blocked(a, 4)
    a.run("MERIDIAN.ACKED", 2, first)
    a.run("MERIDIAN.ACKED", 3, first)
    blocked(a, 4)
    last = position(a)
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
    for words in (("x", "0"), ("1", "x"), ("-1", "0"), ("1", "-1"), ("1", str(1 << 40)), ("1",)):
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


ALL = [wait_answers, wait_where_nothing_blocks]
