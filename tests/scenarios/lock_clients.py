"""Locks as clients of Redis take them, modes, sessions: what is on port 7402 besides plain locks."""
import json
import time
import urllib.error
import urllib.request
import uuid

import redis
from redis.exceptions import LockError

from lab import ADDRESSES, LIMIT_S, Failure, eventually, expect, expect_true, promise

UNLOCK = """
    if redis.call("get",KEYS[1]) == ARGV[1] then
        return redis.call("del",KEYS[1])
    else
        return 0
    end"""


def run(lab, region, *words):
    return lab.locks(region).execute_command(*words)


def refused(lab, region, begins, *words):
    try:
        answer = run(lab, region, *words)
    except redis.ResponseError as error:
        expect_true(str(error).startswith(begins), f"{words} is refused by {begins}: {error}")
        return
    raise Failure(f"{words} was not refused but answered {answer}")


def scenario_the_lock_of_redis_py(lab):
    ann, ben = lab.locks("us-east"), lab.locks("eu-west")
    first = ann.lock("us-east:py", timeout=600)
    second = ben.lock("us-east:py", timeout=600)
    expect_true(first.acquire(blocking=False), "it is free")
    expect(second.acquire(blocking=False), False, "and then it is not")
    expect((first.locked(), first.owned(), second.locked()), (True, True, True), "who holds it")
    expect_true(first.extend(30), "extended by")
    left = dict(zip(*[iter(run(lab, "us-east", "LOCK.INFO", "us-east:py"))] * 2))["ttl_ms"]
    expect_true(600000 < left <= 630000, f"what was left and 30 s: {left}")
    expect_true(first.extend(60, replace_ttl=True), "extended to")
    expect_true(first.reacquire(), "its whole time again")
    left = dict(zip(*[iter(run(lab, "us-east", "LOCK.INFO", "us-east:py"))] * 2))["ttl_ms"]
    expect_true(60000 < left <= 600000, f"600 s again: {left}")
    first.release()
    expect_true(second.acquire(blocking_timeout=60), "the other one has it")
    first.local.token = b"not-this-one"
    try:
        first.release()
        raise Failure("a lock was released that another one holds")
    except LockError:
        pass
    second.release()
    with ann.lock("global:py", timeout=600):
        expect(ben.lock("global:py", timeout=600).acquire(blocking=False), False, "with ...")
    expect(run(lab, "us-east", "GET", "global:py"), None, "released at the end of the block")


def scenario_a_lock_after_the_description_of_redlock(lab):
    client, value = lab.locks("us-east"), str(uuid.uuid4())
    expect_true(client.set("us-east:red", value, nx=True, px=600000), "acquired")
    expect(client.set("us-east:red", "1", nx=True, px=600000), None, "held")
    expect(client.set("us-east:red", value, nx=True, px=600000), None, "held by the same value, too")
    expect(client.get("us-east:red"), value, "its value")
    expect(client.eval(UNLOCK, 1, "us-east:red", "1"), 0, "another value does not release it")
    expect(client.eval(UNLOCK, 1, "us-east:red", value), 1, "its own does")
    expect_true(client.set("us-east:red", "1", nx=True, ex=600), "free again")
    expect(client.eval(UNLOCK, 1, "us-east:red", "1"), 1, "and again")
    refused(lab, "us-east", "this port keeps locks", "SET", "us-east:red", value)
    refused(lab, "us-east", "this port keeps locks", "SET", "us-east:red", value, "NX")
    refused(lab, "us-east", "this port runs no scripts", "EVAL", "return redis.call('del', KEYS[1])", 1, "us-east:red", "1")
    refused(lab, "us-east", "No matching script", "EVALSHA", "0" * 40, 1, "us-east:red", "1")
    refused(lab, "us-east", "BADREQUEST", "SET", "no-region-red", value, "NX", "PX", 1000)


def scenario_readers_share_and_a_semaphore_has_places(lab):
    key = "us-east:book"
    tokens = [run(lab, "us-east", "LOCK.ACQUIRE", key, who, 600000, "SHARED")[0]
              for who in ("ann", "ben")]
    expect(run(lab, "us-east", "LOCK.ACQUIRE", key, "cid", 600000), None, "no writer beside readers")
    for who, token in zip(("ann", "ben"), tokens):
        expect(run(lab, "us-east", "LOCK.CHECK", key, token), 1, "a holder's token")
        expect(run(lab, "us-east", "LOCK.RELEASE", key, who, token), 1, "released")
        expect(run(lab, "us-east", "LOCK.CHECK", key, token), 0, "a holder's token no more")
    for who in ("ann", "ben"):
        run(lab, "us-east", "LOCK.ACQUIRE", key, who, 600000, "SLOTS", 2)
    expect(run(lab, "us-east", "LOCK.ACQUIRE", key, "cid", 600000, "SLOTS", 2), None, "no third place")
    raised = run(lab, "us-east", "LOCK.BREAK", key, "operator")
    expect_true(raised > max(tokens), "a forced release raises the token")
    later = run(lab, "us-east", "LOCK.ACQUIRE", key, "cid", 600000, "SLOTS", 2)[0]
    expect_true(later > raised, "and who comes after is beyond it")
    expect(run(lab, "us-east", "LOCK.RELEASE", key, "cid", later), 1, "released")
    refused(lab, "us-east", "a semaphore has", "LOCK.ACQUIRE", key, "cid", 600000, "SLOTS", 0)
    refused(lab, "us-east", "syntax", "LOCK.ACQUIRE", key, "cid", 600000, "SLOTS")


def kept(lab, ttl_ms):
    """Is a session alive as long as it is kept? None where this machine was too slow to keep it."""
    last = time.monotonic()
    session, ttl = run(lab, "us-east", "SESSION.OPEN", "us-east:", "ann", ttl_ms)
    expect(ttl, ttl_ms, "its time to live")
    until = last + 2.5 * ttl_ms / 1000
    try:
        for key in ("us-east:s1", "us-east:s2"):
            run(lab, "us-east", "LOCK.ACQUIRE", key, "ann", 1, "SESSION", session)
        while time.monotonic() < until:
            now = time.monotonic()
            expect(run(lab, "us-east", "SESSION.KEEP", "us-east:", "ann", session), ttl_ms, "kept")
            last = now
        got = run(lab, "us-east", "LOCK.ACQUIRE", "us-east:s1", "ben", 1)
        promise(got is None or time.monotonic() - last >= ttl_ms / 1000, "still held")
        return True
    except redis.ResponseError as error:
        expect_true(str(error).startswith("NOSESSION"), f"no other reason: {error}")
        promise(time.monotonic() - last >= ttl_ms / 1000, "a session that is kept does not end")
        return False


def scenario_the_end_of_a_session_frees_its_locks(lab):
    expect_true(any(kept(lab, ttl_ms) for ttl_ms in (600, 5000, 30000)), "a session can be kept")
    eventually("the session is over", lambda: run(lab, "us-east", "GET", "us-east:s1") is None)
    expect(run(lab, "us-east", "GET", "us-east:s2"), None, "both are free")
    session, _ = run(lab, "eu-west", "SESSION.OPEN", "global:", "ann", 600000)
    run(lab, "eu-west", "LOCK.ACQUIRE", "global:s", "ann", 1, "SESSION", session)
    refused(lab, "eu-west", "NOSESSION", "SESSION.CLOSE", "global:", "ben", session)
    expect(run(lab, "us-east", "SESSION.CLOSE", "global:", "ann", session), 1, "closed elsewhere")
    expect(run(lab, "eu-west", "GET", "global:s"), None, "and free at once")


def scenario_nobody_has_a_lock_for_a_while_after_its_holder_died(lab):
    key = "us-east:late"
    began = time.monotonic()
    run(lab, "us-east", "LOCK.ACQUIRE", key, "ann", 200, "DELAY", 1500)
    expect_true(run(lab, "us-east", "LOCK.ACQUIRE", key, "ben", 600000, "WAIT", 60000), "in the end")
    promise(time.monotonic() - began >= 1.7, "after lease and delay")
    expect(run(lab, "us-east", "GET", key), "ben", "it is his")
    run(lab, "us-east", "LOCK.BREAK", key, "operator")


def scenario_locks_over_http(lab):
    def ask(method, path, body=None, folder="/locks/"):
        request = urllib.request.Request(f"http://{ADDRESSES['us-east']}:7400{folder}{path}",
                                         method=method,
                                         data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    status, lock = ask("POST", "us-east:web/acquire", {"owner": "ann", "ttl_ms": 600000})
    expect((status, lock["owner"]), (200, "ann"), "acquired")
    status, refusal = ask("POST", "us-east:web/acquire", {"owner": "ben", "ttl_ms": 600000})
    expect((status, refusal["code"]), (409, "HELD"), "held")
    status, seen = ask("GET", "us-east:web")
    expect((status, seen["token"]), (200, lock["token"]), "who holds it")
    mine = {"owner": "ann", "token": lock["token"]}
    expect(ask("POST", "us-east:web/renew", {**mine, "ttl_ms": 900000})[1]["ttl_ms"], 900000, "renewed")
    expect(ask("POST", "us-east:web/release", {**mine, "token": 1})[1]["code"], "NOTOWNER", "not his")
    expect(ask("POST", "us-east:web/release", mine)[0], 200, "released")
    expect(ask("GET", "us-east:web")[0], 404, "free")
    status, lock = ask("POST", "us-east:web/acquire", {"owner": "cid", "ttl_ms": 600000})
    listed = ask("GET", "?prefix=us-east:web&limit=9", folder="/locks")[1]["locks"]
    expect([(one["key"], one["token"]) for one in listed], [("us-east:web", lock["token"])], "listed")
    status, taken = ask("POST", "us-east:web/break", {"who": "an operator"})
    expect((status, taken["token"] > lock["token"]), (200, True), "taken away, a token is used up")
    expect(ask("POST", "us-east:web/break", {"who": "an operator"})[0], 404, "nobody has it")
    for why, body in {"no number is below 0": {"owner": "a", "ttl_ms": -1}, "a day": {"owner": "a", "ttl_ms": 1 << 40},
                      "1024 slots": {"owner": "a", "ttl_ms": 9, "slots": 9999}, "an hour":
                      {"owner": "a", "ttl_ms": 9, "wait_ms": 1 << 40}, "256 bytes": {"owner": "", "ttl_ms": 9},
                      "not both": {"owner": "a", "ttl_ms": 9, "slots": 2, "shared": True}}.items():
        expect_true(why in ask("POST", "us-east:web/acquire", body)[1]["error"], why)
    for body in ({"owner": "ann"}, {"owner": "ann", "ttl_ms": 1, "wiat_ms": 1}, [], "x",
                 {"owner": "ann", "ttl_ms": -1}):
        expect(ask("POST", "us-east:web/acquire", body)[1]["code"], "BADREQUEST", f"{body}")
    expect(ask("POST", "us-east:web/steal", {})[0], 400, "no such action")
