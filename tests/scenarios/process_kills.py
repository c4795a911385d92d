"""kill -9 of one server after the other: each comes back, and nothing acknowledged is lost."""
import threading
import time

import redis

from lab import AMERICAN, REGIONS, eventually, expect, expect_true
from locks import acquire, info, release

WWW = "www.example.test"
LEASE = 4.0
CHECKPOINT = 1.0  # at most so much is added by a new leader, and the time without one
SLACK = 1.5       # of this machine


def scenario_redis_is_killed_and_loses_nothing_that_others_have(lab):
    for _ in range(50):
        lab.redis("us-east").incr("kept")
    eventually("the others have it", lambda: lab.redis("eu-west").get("kept") == "50")
    lab.kill_part("us-east", "redis")
    eventually("its Redis is seen down", lambda: lab.region("us-east")["redis"]["up"] is not True)
    lab.redis("eu-west").incr("kept")
    lab.start("us-east")
    lab.wait_all_active(60)
    for region in REGIONS:
        eventually(f"{region} has the whole count",
                   lambda r=region: lab.redis(r).get("kept") == "51")
    lab.redis("us-east").incr("kept")
    eventually("and writes go out again", lambda: lab.redis("ap-southeast").get("kept") == "52")


def scenario_knot_is_killed_and_answers_again(lab):
    lab.kill_part("us-east", "knot")
    expect_true(lab.dns("eu-west", WWW, AMERICAN), "another server answers meanwhile")
    lab.start("us-east")
    eventually("it answers", lambda: lab.dns("us-east", WWW, AMERICAN) == ["us-east"], 30)
    lab.wait_all_active(60)


def scenario_nginx_is_killed_and_answers_again(lab):
    lab.kill_part("eu-west", "nginx")
    lab.start("eu-west")
    eventually("it answers", lambda: lab.get("eu-west")[0] == "eu-west", 30)
    lab.wait_all_active(60)


def scenario_meridiand_is_killed_and_data_and_traffic_go_on(lab):
    lab.kill_part("ap-southeast", "meridiand")
    lab.redis("ap-southeast").set("alone", "yes")
    expect(lab.redis("ap-southeast").get("alone"), "yes", "Redis serves without the daemon")
    expect_true(lab.dns("ap-southeast", WWW, AMERICAN), "DNS answers from the last view")
    expect(lab.get("ap-southeast")[0], "ap-southeast", "the edge answers from the last view")
    lab.start("ap-southeast")
    lab.wait_all_active(60)
    eventually("what was written meanwhile goes out",
               lambda: lab.redis("us-east").get("alone") == "yes")


def scenario_the_leader_is_killed_and_a_lease_ends_neither_early_nor_late(lab):
    leader = lab.status()["leader"]
    rest = [region for region in REGIONS if region != leader]
    key, granted = "global:lease", []
    began = time.monotonic()
    token, _ = acquire(lab, rest[0], key, "ann", int(LEASE * 1000))
    acquired = time.monotonic()

    def wait():
        got = None
        while got is None:  # one answer may be lost with the leader: asked again
            try:
                got = lab.locks(rest[1]).execute_command("LOCK.ACQUIRE", key, "ben", 20000,
                                                         "WAIT", 9000)
            except redis.RedisError:
                time.sleep(0.05)
        granted.append((time.monotonic(), got[0]))
    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually("ben waits", lambda: info(lab, rest[0], key)["waiters"] == 1, 5)
    lab.kill_part(leader, "meridiand")
    killed = time.monotonic()
    eventually("another one leads", lambda: lab.status(rest[0])["leader"] in rest, 15)
    leaderless = time.monotonic() - killed
    expect(eventually("the lock is as it was", lambda: info(lab, rest[0], key), 5)["token"], token,
           "token")
    waiter.join(20)
    lab.start(leader)
    at, later = granted[0]
    expect_true(later > token, "the token grows")
    expect_true(at - began >= LEASE, f"not early: {at - began:.2f} s of {LEASE} s")
    late = at - acquired - LEASE
    expect_true(late <= leaderless + CHECKPOINT + SLACK,
                f"not late: {late:.2f} s, of which {leaderless:.2f} s without a leader")
    release(lab, rest[0], key, "ben", later)
    lab.wait_all_active(60)
