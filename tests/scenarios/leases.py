"""The end of a client that keeps several things, and watches over a cut."""
import threading
import time

import redis

from lab import ADDRESSES, Failure, eventually, expect, expect_true
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
                   lambda: len(watch(lab, alone, self.KEY, "AFTER", begin)[2]) == 2, 5)
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
        ahead = eventually("the others tell it", self.told_elsewhere, 10)
        # A revision that the node has not heard of yet is no reason to tell older changes.
        expect(watch(self.lab, self.alone, self.KEY, "AFTER", ahead, "WAIT", 300)[::2], (ahead, []),
               "the future")
        expect(self.told, [], "nothing is told that it cannot know")

    def healed(self):
        self.waiter.join(15)
        if not self.told:
            raise Failure("the watch was never answered")
        changes = self.told[0][2] or eventually("it is told in the end", lambda: watch(
            self.lab, self.alone, self.KEY, "AFTER", self.seen)[2])
        expect([change[:2] for change in changes], [("granted", "ben")], "what was missed, once")
        run(self.lab, "us-east", "LOCK.BREAK", self.KEY, "operator")


def scenario_a_client_that_falls_silent_loses_all_in_one_entry(lab):
    """Locks, a place in a queue, and keys, bound to one session; its delay counts from then on."""
    prefix = "us-east:silent/"
    session, _ = run(lab, "us-east", "SESSION.OPEN", "us-east:", "ann", 900)
    bound = ["SESSION", session]
    busy, _ = acquire(lab, "us-east", prefix + "busy", "ben")
    before = run(lab, "us-east", "KV.RANGE", prefix)[0]
    begin = watch(lab, "us-east", prefix, "PREFIX")[0]
    run(lab, "us-east", "LOCK.ACQUIRE", prefix + "a", "ann", 1, *bound)
    run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "ann", 1, *bound, "ALSO", prefix + "c",
        "DELAY", 1000)
    waits = redis.Redis(host=ADDRESSES["us-east"], port=7402, socket_timeout=10)
    answers = []

    def wait():
        try:
            waits.execute_command("LOCK.ACQUIRE", prefix + "busy", "ann", 1, *bound, "WAIT", 9000)
        except redis.ResponseError as error:
            answers.append(str(error))
    waiter = threading.Thread(target=wait)
    waiter.start()
    for name in "xy":
        run(lab, "us-east", "KV.PUT", prefix + name, "here", *bound, "OWNER", "ann")
    expect(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 9000), None, "it is held")
    waiter.join(10)
    expect_true(answers and answers[0].startswith("NOSESSION"), f"who waits is told: {answers}")
    changes = run(lab, "us-east", "LOCK.WATCH", prefix, "PREFIX", "AFTER", begin)[2]
    ends = [change for change in changes if change[0] in ("expired", "left")]
    expect(sorted(change[:2] for change in ends),
           [["expired", prefix + key] for key in "abc"] + [["left", prefix + "busy"]], "what ended")
    expect(len({change[4] >> 16 for change in ends}), 1, "entries of the log")
    told = run(lab, "us-east", "KV.WATCH", prefix, before)[1]
    gone = [change for change in told if change[0] == "del"]
    expect((sorted(change[1] for change in gone), len({change[3] for change in gone})),
           ([prefix + "x", prefix + "y"], 1), "the keys, in one revision")
    expect_true(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "a", "cat", 100), "free at once")
    expect(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 100), None, "its delay counts")
    expect_true(run(lab, "us-east", "LOCK.ACQUIRE", prefix + "b", "cat", 100, "WAIT", 5000),
                "and ends")
    release(lab, "us-east", prefix + "busy", "ben", busy)
