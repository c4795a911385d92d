"""Clients of every region, and what each of their words must have come to in the end.

A write that was acknowledged must be there; one whose answer was lost may be. So each account keeps
both, and the final state is held against the two bounds. What a Redis with `appendfsync everysec` had
acknowledged within two seconds of its kill -9 may be lost, too: while an fsync takes long it answers
before it has written its log, with the module or without.
"""
import collections
import random
import threading
import time

import redis

from lab import ADDRESSES, REGIONS

UNSURE_S = 2.5
LOST = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)


class Sum:
    """What a counter must show: between what was acknowledged, and that with the unknown."""

    def __init__(self):
        self.low = self.high = 0

    def add(self, amount, known):
        self.low += min(amount, 0) if not known else amount
        self.high += max(amount, 0) if not known else amount

    def problem(self, seen):
        if self.low <= seen <= self.high:
            return None
        return f"is {seen}, must be {self.low} to {self.high}"


class Members:
    """What a collection of names that are used once must hold."""

    def __init__(self):
        self.known, self.unknown = set(), set()

    def add(self, name, known):
        (self.known if known else self.unknown).add(name)

    def problem(self, seen):
        missing = self.known - set(seen)
        strange = set(seen) - self.known - self.unknown
        if len(seen) != len(set(seen)):
            return f"holds {len(seen) - len(set(seen))} names twice"
        if missing:
            return f"lacks {len(missing)} of {len(self.known)} that were acknowledged: {sorted(missing)[:3]}"
        return f"holds what nobody wrote: {sorted(strange)[:3]}" if strange else None


class Writer(threading.Thread):
    """One client of one region. Each key has an account at each writer; they are added at the end."""

    KEYS = 5

    def __init__(self, region, number, seed, ended):
        super().__init__(daemon=True)
        self.name = f"{region}/{number}"
        self.rng = random.Random(f"{seed}/{self.name}")
        self.ended = ended
        self.redis = redis.Redis(host=ADDRESSES[region], socket_timeout=10, decode_responses=True)
        self.sums, self.members = {}, {}
        self.acknowledged = self.unknown = self.refused = 0
        self.turn = 0
        self.region = region
        self.recent = collections.deque()  # (when, what to do with the outcome)
        self.kills = []  # [when it began, when it was over]
        self.errors = {}

    def settle(self, until):
        """What was acknowledged before `until` is sure, unless a kill came soon after it."""
        while self.recent and self.recent[0][0] < until:
            when, tell = self.recent.popleft()
            tell(not any(when <= end and begin < when + UNSURE_S for begin, end in self.kills))

    def run(self):
        while not self.ended.is_set():
            self.turn += 1
            self.settle(time.monotonic() - 2 * UNSURE_S)
            tell, words = self.draw()
            try:
                self.redis.execute_command(*words)
                self.acknowledged += 1
                self.recent.append((time.monotonic(), tell))
            except redis.exceptions.ResponseError as error:
                self.refused += 1
                self.errors[str(error)] = words
                continue
            except LOST as error:
                self.unknown += 1
                tell(False)
                if isinstance(error, redis.exceptions.ConnectionError):
                    self.ended.wait(0.05)
        self.settle(time.monotonic() + 1)

    def sum(self, key, amount):
        return lambda known: self.sums.setdefault(key, Sum()).add(amount, known)

    def member(self, key, name):
        return lambda known: self.members.setdefault(key, Members()).add(name, known)

    def draw(self):
        """(what to do with the outcome, the command)."""
        rng, key, name = self.rng, self.rng.randrange(self.KEYS), f"{self.name}/{self.turn}"
        amount = rng.randrange(1, 10)
        nothing = lambda known: None  # noqa: E731
        rows = [
            (self.sum(f"sum:{key}", amount), ("INCRBY", f"sum:{key}", amount)),
            (self.sum(f"sum:{key}", -amount), ("DECRBY", f"sum:{key}", amount)),
            (self.sum(f"fields:{key} n", amount), ("HINCRBY", f"fields:{key}", "n", amount)),
            (self.member(f"set:{key}", name), ("SADD", f"set:{key}", name)),
            (self.member(f"list:{key}", name), (rng.choice(("LPUSH", "RPUSH")), f"list:{key}", name)),
            (self.member(f"stream:{key}", name), ("XADD", f"stream:{key}", "*", "name", name)),
            (self.member(f"hash:{key}", name), ("HSET", f"hash:{key}", name, amount)),
            # Nothing is promised of these but that all regions end with the same.
            (nothing, ("SET", f"text:{key}", name)),
            (nothing, ("SET", f"text:{key}", name, "PX", rng.randrange(1, 3000))),
            (nothing, ("DEL", rng.choice((f"text:{key}", f"some:{key}")))),
            (nothing, ("SADD", f"some:{key}", rng.randrange(20))),
            (nothing, ("SREM", f"some:{key}", rng.randrange(20))),
            (nothing, ("SPOP", f"some:{key}")),
            (nothing, ("LPOP", f"queue:{key}")),
            (nothing, ("RPUSH", f"queue:{key}", name)),
            (nothing, ("HSET", f"record:{key}", rng.randrange(20), name)),
            (nothing, ("HDEL", f"record:{key}", rng.randrange(20))),
            (nothing, ("PFADD", f"many:{key}", name)),
            (nothing, ("APPEND", f"long:{key}", name)),
            (nothing, ("RENAME", f"text:{key}", f"text:{rng.randrange(self.KEYS)}")),
            (nothing, ("PEXPIRE", f"record:{key}", rng.randrange(500, 5000))),
        ]
        return rng.choice(rows)


def totals(writers, field, new):
    """The accounts of all writers, key by key."""
    result = {}
    for writer in writers:
        for key, account in getattr(writer, field).items():
            whole = result.setdefault(key, new())
            if isinstance(account, Sum):
                whole.low += account.low
                whole.high += account.high
            else:
                whole.known |= account.known
                whole.unknown |= account.unknown
    return result


READ = {
    "set": lambda r, key: list(r.smembers(key)),
    "list": lambda r, key: r.lrange(key, 0, -1),
    "stream": lambda r, key: [fields["name"] for _, fields in r.xrange(key)],
    "hash": lambda r, key: r.hkeys(key),
}


def read_sum(server, key):
    key, _, field = key.partition(" ")
    return int((server.hget(key, field) if field else server.get(key)) or 0)


def problems(writers):
    """Sentences about what is not as it must be, in any region."""
    sums = totals(writers, "sums", Sum)
    members = totals(writers, "members", Members)
    for region in REGIONS:
        server = redis.Redis(host=ADDRESSES[region], decode_responses=True)
        for key, account in sorted(sums.items()):
            problem = account.problem(read_sum(server, key))
            if problem:
                yield f"{region}: {key} {problem}"
        for key, account in sorted(members.items()):
            problem = account.problem(READ[key.partition(":")[0]](server, key))
            if problem:
                yield f"{region}: {key} {problem}"


class Locker(threading.Thread):
    """Takes and gives back a global lock; `resource` is what the lock protects, and judges."""

    def __init__(self, region, resource, ended):
        super().__init__(daemon=True)
        self.owner = region
        self.resource = resource
        self.ended = ended
        self.locks = redis.Redis(host=ADDRESSES[region], port=7402, socket_timeout=4,
                                 decode_responses=True)

    def run(self):
        while not self.ended.is_set():
            try:
                began = time.monotonic()
                got = self.locks.execute_command("LOCK.ACQUIRE", "global:soak", self.owner, 2000,
                                                 "WAIT", 1000)
                if got is None:
                    continue
                token = int(got[0])
                # Its own count of the lease begins when it asked, and ends early.
                self.resource.enter(self.owner, token, began + 1.5)
                self.ended.wait(0.05)
                self.resource.leave(self.owner, token)
                self.locks.execute_command("LOCK.RELEASE", "global:soak", self.owner, token)
            except (redis.exceptions.ResponseError, *LOST):
                self.ended.wait(0.2)


class Resource:
    """Refuses old tokens, and remembers every moment at which two thought that they held the lock."""

    def __init__(self):
        self.guard = threading.Lock()
        self.holder = None
        self.token = 0
        self.entered = 0
        self.problems = []

    def enter(self, owner, token, until):
        with self.guard:
            now = time.monotonic()
            if now >= until:
                return
            if self.holder and self.holder[0] != owner and now < self.holder[2]:
                self.problems.append(f"{owner} holds the lock by token {token} while "
                                     f"{self.holder[0]} does by {self.holder[1]}")
            if token < self.token or (self.holder and token == self.token
                                      and self.holder[0] != owner):
                self.problems.append(f"{owner} was given token {token} after {self.token}")
            self.token = max(self.token, token)
            self.holder = (owner, token, until)
            self.entered += 1

    def leave(self, owner, token):
        with self.guard:
            if self.holder and self.holder[:2] == (owner, token):
                self.holder = None
