"""The end of a client that keeps several things, and watches over a cut."""
import threading
import time

import redis

from lab import LIMIT_S, Failure, eventually, expect, expect_true, promise
from locks import acquire, release, watch


def run(lab, region, *words):
    return lab.locks(region).execute_command(*words)


class CutWatch:
    """Who watches a lock at a node that is cut off meanwhile: goes neither back nor astray."""
    KEY = "global:watched/cut"

    def __init__(self, lab, alone):
        self.lab, self.alone, self.told = lab, alone, []
        begin = watch(lab, alone, self.KEY)[0]
        token, _ = acquire(lab, "us-east", self.KEY, "ann")
        release(lab, "us-east", self.KEY, "ann", token)
        eventually("it is told",
                   lambda: len(watch(lab, alone, self.KEY, "AFTER", begin)[2]) == 2)
        self.seen = watch(lab, alone, self.KEY, "AFTER", begin)[0]
        self.waiter = threading.Thread(target=self.wait)

    def wait(self):
        self.told.append(watch(self.lab, self.alone, self.KEY, "AFTER", self.seen, "WAIT", 9500))

    def told_elsewhere(self):
        answer = watch(self.lab, "ap-southeast", self.KEY, "AFTER", self.seen)
        return answer[0] if answer[2] else None

    def cut(self):
        """While it is cut off; the others decide already."""
        self.waiter.start()
        run(self.lab, "us-east", "LOCK.ACQUIRE", self.KEY, "ben", 60000)
        ahead = eventually("the others tell it", self.told_elsewhere)
        # A revision that the node has not heard of yet is no reason to tell older changes.
        expect(watch(self.lab, self.alone, self.KEY, "AFTER", ahead, "WAIT", 300)[::2], (ahead, []),
               "the future")
        promise(not any(answer[2] for answer in self.told), "nothing is told that it cannot know")

    def healed(self):
        self.waiter.join(LIMIT_S)
        if not self.told:
            raise Failure("the watch was never answered")
        changes = self.told[0][2] or eventually("it is told in the end", lambda: watch(
            self.lab, self.alone, self.KEY, "AFTER", self.seen)[2])
        expect([change[:2] for change in changes], [("granted", "ben")], "what was missed, once")
        run(self.lab, "us-east", "LOCK.BREAK", self.KEY, "operator")


class Silent:
    """Has locks, a place in a queue, and keys, bound to one session; then nothing is heard of it."""
    DELAY_MS = 1000

    def __init__(self, lab, ttl_ms):
        self.lab, self.ttl_ms, self.answers = lab, ttl_ms, []
        self.prefix = f"us-east:silent-{ttl_ms}/"
        self.busy, _ = acquire(lab, "us-east", self.prefix + "busy", "ben", 600000)
        self.before = run(lab, "us-east", "KV.RANGE", self.prefix)[0]
        self.begin = watch(lab, "us-east", self.prefix, "PREFIX")[0]
        self.began = time.monotonic()
        session, _ = run(lab, "us-east", "SESSION.OPEN", "us-east:", "ann", ttl_ms)
        self.bound = ["SESSION", session]
        self.waiter = threading.Thread(target=self.wait)

    def passed_ms(self):
        return (time.monotonic() - self.began) * 1000

    def acquire(self, name, *words):
        return run(self.lab, "us-east", "LOCK.ACQUIRE", self.prefix + name, "ann", 1, *self.bound,
                   *words)

    def wait(self):
        try:
            self.acquire("busy", "WAIT", 60000)
        except redis.ResponseError as error:
            self.answers.append(str(error))

    def waits(self):
        words = run(self.lab, "us-east", "LOCK.INFO", self.prefix + "busy")
        return dict(zip(words[::2], words[1::2]))["waiters"] == 1 or self.answers

    def bind(self):
        """Everything in time? A slow machine may be overtaken by the end of the session."""
        try:
            self.acquire("a")
            self.acquire("b", "ALSO", self.prefix + "c", "DELAY", self.DELAY_MS)
            for name in "xy":
                run(self.lab, "us-east", "KV.PUT", self.prefix + name, "here", *self.bound,
                    "OWNER", "ann")
            self.waiter.start()
            eventually("it waits", self.waits)
        except redis.ResponseError as error:
            expect_true(str(error).startswith("NOSESSION"), f"no other reason: {error}")
            promise(self.passed_ms() >= self.ttl_ms, "a session ends in its time")
        return self.passed_ms() < self.ttl_ms


def scenario_a_client_that_falls_silent_loses_all_in_one_entry(lab):
    """Locks, a place in a queue, and keys, bound to one session; its delay counts from then on."""
    silent = None
    for ttl_ms in (900, 5000, 30000):
        silent = Silent(lab, ttl_ms)
        if silent.bind():
            break
    prefix = silent.prefix
    got = run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 1)
    promise(got is None or silent.passed_ms() >= ttl_ms + silent.DELAY_MS, f"it is held: {got}")
    silent.waiter.join(2 * LIMIT_S)
    expect_true(silent.answers and silent.answers[0].startswith("NOSESSION"),
                f"who waits is told: {silent.answers}")
    changes = run(lab, "us-east", "LOCK.WATCH", prefix, "PREFIX", "AFTER", silent.begin)[2]
    ends = [change for change in changes if change[0] in ("expired", "left")
            and change[2] == "ann"]
    expect(sorted(change[:2] for change in ends),
           [["expired", prefix + key] for key in "abc"] + [["left", prefix + "busy"]], "what ended")
    expect(len({change[4] >> 16 for change in ends}), 1, "entries of the log")
    told = run(lab, "us-east", "KV.WATCH", prefix, silent.before)[1]
    gone = [change for change in told if change[0] == "del"]
    expect((sorted(change[1] for change in gone), len({change[3] for change in gone})),
           ([prefix + "x", prefix + "y"], 1), "the keys, in one revision")
    expect_true(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "a", "cat", 100), "free at once")
    got = run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 100)
    promise(got is None or silent.passed_ms() >= ttl_ms + silent.DELAY_MS, "its delay counts")
    expect_true(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 100, "WAIT", 50000),
                "and ends")
    release(lab, "us-east", prefix + "busy", "ben", silent.busy)
