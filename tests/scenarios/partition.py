"""One region is cut off from two."""
import redis

from lab import AMERICAN, BRITISH, REGIONS, always, eventually, expect, expect_true

WWW = "www.example.test"
ALONE = "eu-west"
OTHERS = ["us-east", "ap-southeast"]


def refused(lab, region, key):
    """The words of a refused lock."""
    try:
        lab.locks(region).execute_command("LOCK.ACQUIRE", key, "someone", 1000)
    except redis.ResponseError as error:
        return str(error)
    return ""


def info(lab, region, key):
    words = lab.locks(region).execute_command("LOCK.INFO", key)
    return words and dict(zip(words[::2], words[1::2]))


def scenario_the_two_go_on_and_the_one_serves_its_users(lab):
    lab.cut_off(ALONE)
    eventually("the two take it out", lambda: lab.state(ALONE, "us-east") == "down", 15)
    eventually("the one knows that it has no majority",
               lambda: lab.status(ALONE)["majority"] is False, 15)
    expect(lab.status("us-east")["majority"], True, "the two have a majority")
    for server in OTHERS:
        eventually(f"{server} sends Britons elsewhere",
                   lambda s=server: lab.dns(s, WWW, BRITISH) == ["us-east"], 10)
    expect(lab.get(ALONE)[0], ALONE, "its edge serves")
    expect_true(lab.dns(ALONE, WWW, BRITISH), "its DNS answers")
    lab.redis(ALONE).set("cut:one", "written alone")
    expect(lab.redis(ALONE).get("cut:one"), "written alone", "its Redis serves")


def scenario_the_minority_refuses_global_locks_and_grants_its_own(lab):
    eventually("NOMAJORITY",
               lambda: refused(lab, ALONE, "global:cut").startswith("NOMAJORITY"), 15)
    token = lab.locks(ALONE).execute_command("LOCK.ACQUIRE", "eu-west:own", "ann", 600000)[0]
    expect_true(token > 0, "its own lock is granted")
    other = lab.locks("us-east").execute_command("LOCK.ACQUIRE", "global:cut", "ben", 600000)
    expect_true(other, "the majority grants")
    status, _, err = lab.run("drain", "us-east", "--node", "127.20.0.1:7400")
    expect_true(status == 1 and "NOMAJORITY" in err, f"no change from a minority: {err}")


def scenario_both_sides_write_and_nothing_is_lost(lab):
    for region in REGIONS:
        for index in range(100):
            lab.redis(region).incr("cut:count")
            lab.redis(region).sadd("cut:set", f"{region}:{index}")
    lab.redis("us-east").set("cut:two", "written by the two")
    lab.heal()
    for region in REGIONS:
        eventually(f"{region} counts all",
                   lambda r=region: lab.redis(r).get("cut:count") == "300", 30)
        eventually(f"{region} has every member",
                   lambda r=region: lab.redis(r).scard("cut:set") == 300, 30)
        eventually(f"{region} has both strings", lambda r=region: lab.redis(r).mget(
            "cut:one", "cut:two") == ["written alone", "written by the two"], 30)


def scenario_healed_it_returns(lab):
    lab.wait_all_active(60)
    eventually("Britons come home", lambda: lab.dns("us-east", WWW, BRITISH) == [ALONE], 10)
    lock = eventually("the majority's lock is known to all",
                      lambda: info(lab, ALONE, "global:cut"), 15)
    expect(lock["owner"], "ben", "its owner")
    lab.locks(ALONE).execute_command("LOCK.RELEASE", "global:cut", "ben", lock["token"])
    lock = info(lab, "us-east", "eu-west:own")
    expect(lock["owner"], "ann", "the owner of the one's own lock, asked from outside")
    lab.locks("us-east").execute_command("LOCK.RELEASE", "eu-west:own", "ann", lock["token"])


def scenario_one_broken_link_of_three_takes_nobody_out(lab):
    lab.meridian("lab", "partition", "us-east", "ap-southeast")
    lab.redis("us-east").set("two-legs", "around")
    always("all are routable for the one between", lambda: all(
        region["routable"] for region in lab.status("eu-west")["regions"]), 6)


def scenario_data_goes_round_a_broken_link(lab):
    """The link of the scenario before is still cut."""
    expect(lab.redis("ap-southeast").get("two-legs"), "around", "what was written before")
    for index in range(200):
        lab.redis("us-east").incr("round:count")
        lab.redis("ap-southeast").sadd("round:set", index)
    eventually("counted on the far side",
               lambda: lab.redis("ap-southeast").get("round:count") == "200", 10)
    eventually("every member came back the other way",
               lambda: lab.redis("us-east").scard("round:set") == 200, 10)
    lab.redis("us-east").incr("round:count")
    eventually("and what is written later is there within seconds",
               lambda: lab.redis("ap-southeast").get("round:count") == "201", 3)
    lab.heal()
    lab.wait_all_active(60)
    always("nothing counts twice after the heal", lambda: all(
        lab.redis(region).get("round:count") == "201" for region in REGIONS), 3)
    expect(lab.dns("eu-west", WWW, AMERICAN), ["us-east"], "traffic as before")
