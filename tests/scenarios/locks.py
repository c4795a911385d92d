"""Locks over RESP, as any Redis client uses them."""
import socket
import subprocess
import threading
import time

import redis
import requests

from lab import (ADDRESSES, LIMIT_S, MERIDIAN, REGIONS, Failure, eventually, expect, expect_true,
                 promise)


def acquire(lab, region, key, owner, ttl_ms=600000, wait_ms=None):
    words = ["LOCK.ACQUIRE", key, owner, ttl_ms]
    if wait_ms is not None:
        words += ["WAIT", wait_ms]
    return lab.locks(region).execute_command(*words)


def release(lab, region, key, owner, token):
    return lab.locks(region).execute_command("LOCK.RELEASE", key, owner, token)


def info(lab, region, key):
    """What is known of a lock, or None."""
    words = lab.locks(region).execute_command("LOCK.INFO", key)
    return words and dict(zip(words[::2], words[1::2]))


def scenario_a_lock_has_one_owner(lab):
    token, ttl = acquire(lab, "us-east", "global:single", "ann")
    expect_true(0 < ttl <= 600000, "it has a time to live")
    expect(acquire(lab, "eu-west", "global:single", "ben"), None, "held: nil")
    known = eventually("a copy elsewhere has it",
                       lambda: info(lab, "ap-southeast", "global:single"))
    expect((known["owner"], known["token"]), ("ann", token), "owner and token, asked elsewhere")
    expect(release(lab, "eu-west", "global:single", "ben", token), 0, "not his to release")
    expect(release(lab, "us-east", "global:single", "ann", token), 1, "hers")
    again, _ = acquire(lab, "eu-west", "global:single", "ben")
    expect_true(again > token, "the token grows")
    expect(release(lab, "eu-west", "global:single", "ben", again), 1, "his")
    eventually("free", lambda: info(lab, "us-east", "global:single") is None)


def scenario_a_lost_answer_may_be_asked_for_again(lab):
    first = acquire(lab, "us-east", "global:retry", "ann")
    second = acquire(lab, "us-east", "global:retry", "ann")
    expect(second[0], first[0], "the same owner gets the same token")
    release(lab, "us-east", "global:retry", "ann", first[0])


def scenario_a_lease_runs_out(lab):
    began = time.monotonic()
    token, _ = acquire(lab, "us-east", "us-east:order:1", "ann", 400)
    later = eventually("the lease is over",
                       lambda: acquire(lab, "us-east", "us-east:order:1", "ben"))
    promise(time.monotonic() - began >= 0.4, "a lease lasts its time")
    expect_true(later[0] > token, "the token grows")
    try:
        lab.locks("us-east").execute_command("LOCK.RENEW", "us-east:order:1", "ann", token, 5000)
        raise Failure("the former owner could renew")
    except redis.ResponseError as error:
        expect_true(str(error).startswith("NOTOWNER"), f"the former owner is told: {error}")
    release(lab, "us-east", "us-east:order:1", "ben", later[0])


def scenario_renewing_prolongs(lab):
    began = time.monotonic()
    token, _ = acquire(lab, "eu-west", "eu-west:job", "ann", 500)
    try:
        for _ in range(4):
            renewed = time.monotonic()
            ttl = lab.locks("eu-west").execute_command("LOCK.RENEW", "eu-west:job", "ann", token,
                                                       1000)
            expect_true(0 < ttl <= 1000, "the new time to live")
            time.sleep(0.2)
            got = acquire(lab, "eu-west", "eu-west:job", "ben", 1)
            promise(got is None or time.monotonic() - renewed >= 1, "still held")
    except redis.ResponseError as error:  # a slow machine came too late
        expect_true(str(error).startswith("NOTOWNER"), f"no other reason: {error}")
        promise(time.monotonic() - began >= 0.5, "not before the end of the lease")
    release(lab, "eu-west", "eu-west:job", "ann", token)


def scenario_a_waiting_client_gets_it_when_it_is_released(lab):
    token, _ = acquire(lab, "us-east", "us-east:queue", "ann")
    got = []
    waiter = threading.Thread(
        target=lambda: got.append(acquire(lab, "us-east", "us-east:queue", "ben", 600000, 60000)))
    waiter.start()
    eventually("somebody waits", lambda: info(lab, "us-east", "us-east:queue")["waiters"] == 1)
    expect(got, [], "nobody has got it yet")
    release(lab, "us-east", "us-east:queue", "ann", token)
    waiter.join(2 * LIMIT_S)
    expect_true(got and got[0] and got[0][0] > token, f"the waiter has got it: {got}")
    release(lab, "us-east", "us-east:queue", "ben", got[0][0])


def scenario_a_wait_may_be_in_vain(lab):
    token, _ = acquire(lab, "us-east", "us-east:busy", "ann")
    expect(acquire(lab, "us-east", "us-east:busy", "ben", 1000, 300), None, "nil after the wait")
    release(lab, "us-east", "us-east:busy", "ann", token)


def scenario_a_waiter_that_leaves_does_not_get_it(lab):
    token, _ = acquire(lab, "us-east", "us-east:gone", "ann")
    client = socket.create_connection((ADDRESSES["us-east"], 7402), LIMIT_S)
    client.sendall(b"LOCK.ACQUIRE us-east:gone ghost 60000 WAIT 60000\r\n")
    eventually("it waits", lambda: info(lab, "us-east", "us-east:gone")["waiters"] == 1)
    client.close()
    eventually("nobody waits", lambda: info(lab, "us-east", "us-east:gone")["waiters"] == 0)
    release(lab, "us-east", "us-east:gone", "ann", token)
    ben = acquire(lab, "us-east", "us-east:gone", "ben", 1000)
    expect_true(ben, "it is free, not the ghost's")


def scenario_a_crowd_of_waiters_does_not_keep_the_holder_from_releasing(lab):
    token, _ = acquire(lab, "us-east", "us-east:crowd", "ann")
    crowd = []
    for index in range(1200):
        client = socket.create_connection((ADDRESSES["us-east"], 7402), LIMIT_S)
        client.sendall(b"LOCK.ACQUIRE us-east:crowd owner-%d 50 WAIT 60000\r\n" % index)
        crowd.append(client)
    eventually("many wait", lambda: info(lab, "us-east", "us-east:crowd")["waiters"] >= 100)
    expect_true(crowd[-1].recv(100).startswith(b"-LIMIT"), "more are refused")
    for client in crowd[100:]:
        client.close()
    eventually("who left does not wait",
               lambda: info(lab, "us-east", "us-east:crowd")["waiters"] <= 100)
    expect(release(lab, "us-east", "us-east:crowd", "ann", token), 1, "released")
    for client in crowd[:100]:
        client.close()
    eventually("free", lambda: info(lab, "us-east", "us-east:crowd") is None)


def watch(lab, region, key, *words):
    """(revision, more, [(change, owner, token)]), asked of one node."""
    answer = lab.locks(region).execute_command("LOCK.WATCH", key, *words)
    return answer[0], answer[1], [tuple([change[0], *change[2:4]]) for change in answer[2]]


def scenario_a_watch_tells_all_that_happens_to_a_lock(lab):
    key = "global:watched"
    begin = watch(lab, "eu-west", key)[0]
    token, _ = acquire(lab, "us-east", key, "ann")
    expect(acquire(lab, "us-east", key, "ben", 300, 50), None, "held, after a wait")
    release(lab, "us-east", key, "ann", token)
    later, _ = acquire(lab, "eu-west", key, "cat", 300)
    story = [("granted", "ann", token), ("waiting", "ben", 0), ("left", "ben", 0),
             ("released", "ann", token), ("granted", "cat", later), ("expired", "cat", later)]
    for region in REGIONS:  # each node has the same revisions, so a watch goes on at any
        eventually(f"{region} tells it", lambda r=region: watch(
            lab, r, key, "AFTER", begin)[2] == story)
    middle = lab.locks("eu-west").execute_command("LOCK.WATCH", key, "AFTER", begin)[2][2][4]
    expect(watch(lab, "ap-southeast", key, "AFTER", middle)[2], story[3:], "resumed elsewhere")
    expect(watch(lab, "us-east", "global:watch", "AFTER", begin)[2], [], "of another name")
    expect(watch(lab, "us-east", "global:watch", "PREFIX", "AFTER", begin)[2], story, "by prefix")
    told = requests.get(f"http://{ADDRESSES['us-east']}:7400/lock-watch",
                        params={"prefix": "global:watc", "after": middle, "wait_ms": 1000},
                        timeout=LIMIT_S).json()
    expect([change["change"] for change in told["changes"]], ["released", "granted", "expired"],
           "over HTTP")


def scenario_a_watch_waits(lab):
    key = "us-east:awaited"
    begin, _, _ = watch(lab, "us-east", key)
    told = []
    waiter = threading.Thread(target=lambda: told.append(
        watch(lab, "ap-southeast", key, "AFTER", begin, "WAIT", 50000)))
    waiter.start()
    token, _ = acquire(lab, "us-east", key, "ann")
    waiter.join(2 * LIMIT_S)
    expect(told and told[0][2], [("granted", "ann", token)], "told to a client in another region")
    release(lab, "us-east", key, "ann", token)
    began = time.monotonic()
    now = watch(lab, "us-east", key)[0]
    expect(watch(lab, "us-east", key, "AFTER", now, "WAIT", 300)[2], [], "nothing happened")
    expect_true(time.monotonic() - began > 0.2, "for as long as it waited")


def scenario_who_watches_too_slowly_is_told_so(lab):
    key = "us-east:slow"
    begin = watch(lab, "us-east", key)[0]
    client = socket.create_connection((ADDRESSES["us-east"], 7402), LIMIT_S)
    for turn in range(90):  # two changes each: more than are remembered
        words = "".join(f"LOCK.ACQUIRE us-east:slow/{turn}/{i} ann 1\r\n" for i in range(400))
        client.sendall(words.encode())
        answers = b""
        while answers.count(b"\r\n:1\r\n") < 400:
            answers += client.recv(1 << 16)
    client.close()
    try:
        watch(lab, "us-east", key, "AFTER", begin)
        raise Failure("changes were forgotten without a word")
    except redis.ResponseError as error:
        expect_true(str(error).startswith("COMPACTED"), f"it is cut: {error}")
    expect(watch(lab, "us-east", key)[2], [], "and begins anew")


def scenario_the_command_line_watches_through_the_death_of_its_node(lab):
    process = subprocess.Popen([MERIDIAN, "lock", "watch", "global:cli/", "--prefix"],
                               env=lab.environment, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        def seen(owner):
            token, _ = acquire(lab, "eu-west", "global:cli/one", owner)
            release(lab, "eu-west", "global:cli/one", owner, token)
            return any(owner in line for line in lines)
        eventually("it tells", lambda: seen("ann"))
        lab.kill("us-east")
        eventually("others decide", lambda: acquire(lab, "eu-west", "global:cli/two", "ben"))
        eventually("it tells what happened meanwhile",
                   lambda: any("granted global:cli/two ben" in line for line in lines))
    finally:
        process.terminate()
        process.wait(LIMIT_S)
        lab.start("us-east")
    lab.wait_all_active()
    expect(len(lines), len(set(lines)), "each change once")


def scenario_several_locks_at_once(lab):
    """All or none; in the queue of each by the order of coming; one token for all."""
    run = lab.locks("us-east").execute_command
    keys = [f"global:set/{name}" for name in "abc"]
    many = ["ALSO", keys[2], "ALSO", keys[1]]
    token, _ = run("LOCK.ACQUIRE", keys[0], "ann", 600000, *many)
    again = lab.locks("eu-west").execute_command("LOCK.ACQUIRE", keys[0], "ann", 600000, *many)
    expect(again[0], token, "a repeat has the same token")
    for key in keys:
        expect(lab.locks("eu-west").execute_command("LOCK.CHECK", key, token), 1, f"{key} is held")
    expect(run("LOCK.ACQUIRE", keys[2], "ben", 600000), None, "each of them")
    got = []
    waiter = threading.Thread(target=lambda: got.append(lab.locks("ap-southeast").execute_command(
        "LOCK.ACQUIRE", keys[2], "ben", 600000, "WAIT", 60000, "ALSO", keys[0])))
    waiter.start()
    eventually("ben waits", lambda: info(lab, "us-east", keys[0])["waiters"] == 1)
    release(lab, "us-east", keys[0], "ann", token)
    expect(run("LOCK.ACQUIRE", keys[0], "cat", 600000), None, "free, but ben is before her")
    expect(got, [], "and ben has none of them yet")
    release(lab, "us-east", keys[2], "ann", token)
    waiter.join(2 * LIMIT_S)
    expect_true(got and got[0] and got[0][0] > token, f"ben has both: {got}")
    for key in (keys[0], keys[2]):
        expect(release(lab, "us-east", key, "ben", got[0][0]), 1, f"{key} by the one token")
    release(lab, "us-east", keys[1], "ann", token)
    try:
        run("LOCK.ACQUIRE", keys[0], "ann", 20000, "ALSO", "us-east:x")
        raise Failure("locks of two groups were granted together")
    except redis.ResponseError as error:
        expect_true(str(error).startswith("BADREQUEST"), f"one group: {error}")
    answer = requests.post(f"http://{ADDRESSES['us-east']}:7400/locks/{keys[0]}/acquire", timeout=LIMIT_S,
                           json={"owner": "dan", "ttl_ms": 300, "also": [keys[1]]})
    expect(answer.status_code, 200, answer.text)
    out = eventually("the command line has them, when they are free",
                     lambda: lab.run("lock", "acquire", keys[0], "eve", "300ms", "--also", keys[1],
                                     "--wait", "3s")[1])
    expect_true("and the others: token" in out, out)


def scenario_regional_locks_can_be_asked_for_anywhere(lab):
    token, _ = acquire(lab, "ap-southeast", "us-east:far", "ann")
    expect(acquire(lab, "us-east", "us-east:far", "ben"), None, "held")
    expect(release(lab, "ap-southeast", "us-east:far", "ann", token), 1, "released from afar")


def scenario_tokens_only_grow(lab):
    tokens = []
    for turn in range(12):
        region = REGIONS[turn % 3]
        token, _ = acquire(lab, region, "global:turns", f"owner-{turn}")
        tokens.append(token)
        release(lab, region, "global:turns", f"owner-{turn}", token)
    promise(tokens == sorted(set(tokens)), f"strictly growing: {tokens}")


def scenario_many_want_one(lab):
    granted = []
    key = "us-east:race"

    def race(owner):
        answer = acquire(lab, "us-east", key, owner)
        if answer:
            granted.append((owner, answer[0]))
    threads = [threading.Thread(target=race, args=(f"racer-{index}",)) for index in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LIMIT_S)
    promise(len(granted) == 1, f"one owner: {granted}")
    release(lab, "us-east", key, *granted[0])


def scenario_the_command_line_does_the_same(lab):
    out = lab.meridian("lock", "acquire", "us-east:cli", "me", "10m")
    token = out.split("token ")[1].split(",")[0]
    status, _, err = lab.run("lock", "acquire", "us-east:cli", "you", "30s")
    expect_true(status == 1 and "held by somebody else" in err, f"held: {err}")
    expect_true("me" in lab.meridian("lock", "info", "us-east:cli"), "info names the owner")
    lab.meridian("lock", "renew", "us-east:cli", "me", token, "20m")
    expect_true("us-east:cli" in lab.meridian("lock", "list", "us-east:"), "list has it")
    lab.meridian("lock", "release", "us-east:cli", "me", token)
    expect_true("is free" in lab.meridian("lock", "info", "us-east:cli"), "free")
