"""kill -9 of one server after the other: each comes back, and nothing acknowledged is lost."""
from lab import AMERICAN, REGIONS, eventually, expect, expect_true

WWW = "www.example.test"


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


def scenario_the_leader_is_killed_and_another_one_leads(lab):
    leader = lab.status()["leader"]
    other = next(region for region in REGIONS if region != leader)
    token = lab.locks(other).execute_command("LOCK.ACQUIRE", "global:kept", "ann", 600000)[0]
    lab.kill_part(leader, "meridiand")
    eventually("another one leads",
               lambda: lab.status(other)["leader"] not in (None, leader), 15)
    info = eventually("the lock is known",
                      lambda: lab.locks(other).execute_command("LOCK.INFO", "global:kept"), 15)
    expect_true("ann" in info and token in info, "owner and token are as before")
    expect(eventually("it can be released", lambda: lab.locks(other).execute_command(
        "LOCK.RELEASE", "global:kept", "ann", token), 15), 1, "released")
    lab.start(leader)
    lab.wait_all_active(60)
