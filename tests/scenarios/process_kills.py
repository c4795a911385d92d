"""kill -9 of one server after the other: each comes back, and nothing acknowledged is lost."""
import threading
import time

import redis

from lab import AMERICAN, LIMIT_S, REGIONS, eventually, expect, expect_true, promise
from locks import acquire, info, release

WWW = "www.example.test"
LEASE = 6.0
LATE = 20.0  # by a new leader and the time without one a second or two; the rest is this machine


def scenario_redis_is_killed_and_loses_nothing_that_others_have(lab):
    for _ in range(50):
        lab.redis("us-east").incr("kept")
    eventually("the others have it", lambda: lab.redis("eu-west").get("kept") == "50")
    lab.kill_part("us-east", "redis")
    eventually("its Redis is seen down", lambda: lab.region("us-east")["redis"]["up"] is not True)
    lab.redis("eu-west").incr("kept")
    lab.start("us-east")
    lab.wait_all_active()
    for region in REGIONS:
        eventually(f"{region} has the whole count",
                   lambda r=region: lab.redis(r).get("kept") == "51")
    lab.redis("us-east").incr("kept")
    eventually("and writes go out again", lambda: lab.redis("ap-southeast").get("kept") == "52")


def scenario_knot_is_killed_and_answers_again(lab):
    lab.kill_part("us-east", "knot")
    expect_true(lab.dns("eu-west", WWW, AMERICAN), "another server answers meanwhile")
    lab.start("us-east")
    eventually("it answers", lambda: lab.dns("us-east", WWW, AMERICAN) == ["us-east"])
    lab.wait_all_active()


def scenario_nginx_is_killed_and_answers_again(lab):
    lab.kill_part("eu-west", "nginx")
    lab.start("eu-west")
    eventually("it answers", lambda: lab.get("eu-west")[0] == "eu-west")
    lab.wait_all_active()


def scenario_meridiand_is_killed_and_data_and_traffic_go_on(lab):
    lab.kill_part("ap-southeast", "meridiand")
    lab.redis("ap-southeast").set("alone", "yes")
    expect(lab.redis("ap-southeast").get("alone"), "yes", "Redis serves without the daemon")
    expect_true(lab.dns("ap-southeast", WWW, AMERICAN), "DNS answers from the last view")
    expect(lab.get("ap-southeast")[0], "ap-southeast", "the edge answers from the last view")
    lab.start("ap-southeast")
    lab.wait_all_active()
    eventually("what was written meanwhile goes out",
               lambda: lab.redis("us-east").get("alone") == "yes")


def scenario_the_leader_is_killed_and_a_lease_ends_neither_early_nor_late(lab):
    leader = eventually("somebody leads", lambda: lab.status()["leader"])
    rest = [region for region in REGIONS if region != leader]
    key, granted = "global:lease", []
    began = time.monotonic()
    token, _ = acquire(lab, rest[0], key, "ann", int(LEASE * 1000))
    acquired = time.monotonic()

    def wait():
        got = None
        while got is None:  # one answer may be lost with the leader: asked again
            try:
                got = lab.locks(rest[1]).execute_command("LOCK.ACQUIRE", key, "ben", 600000,
                                                         "WAIT", 9000)
            except redis.RedisError:
                time.sleep(0.05)
        granted.append((time.monotonic(), got[0]))
    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually("ben waits", lambda: granted or info(lab, rest[0], key)["waiters"] == 1)
    lab.kill_part(leader, "meridiand")
    eventually("another one leads", lambda: lab.status(rest[0])["leader"] in rest)
    seen = eventually("the lock is known", lambda: info(lab, rest[0], key))["token"]
    promise(seen == token or time.monotonic() - began >= LEASE, "the lock is as it was")
    waiter.join(2 * LIMIT_S)
    lab.start(leader)
    at, later = granted[0]
    promise(later > token, "the token grows")
    promise(at - began >= LEASE, f"not early: {at - began:.2f} s of {LEASE} s")
    late = at - acquired - LEASE
    expect_true(late <= LATE, f"not late: {late:.2f} s")
    release(lab, rest[0], key, "ben", later)
    lab.wait_all_active()
