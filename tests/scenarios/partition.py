"""One region is cut off from two."""
from lab import AMERICAN, BRITISH, REGIONS, after, always, eventually, expect, expect_true, keeps

WWW = "www.example.test"
ALONE = "eu-west"
OTHERS = ["us-east", "ap-southeast"]


def info(lab, region, key):
    words = lab.locks(region).execute_command("LOCK.INFO", key)
    return words and dict(zip(words[::2], words[1::2]))


def scenario_the_two_go_on_and_the_one_serves_its_users(lab):
    lab.cut_off(ALONE)
    eventually("the two take it out", lambda: lab.state(ALONE, "us-east") == "down")
    eventually("the one knows that it has no majority",
               lambda: lab.status(ALONE)["majority"] is False)
    eventually("the two have a majority", lambda: lab.status("us-east")["majority"])
    for server in OTHERS:
        lab.sent(server, WWW, BRITISH, ["us-east"])
    expect(lab.get(ALONE)[0], ALONE, "its edge serves")
    expect_true(lab.dns(ALONE, WWW, BRITISH), "its DNS answers")
    lab.redis(ALONE).set("cut:one", "written alone")
    expect(lab.redis(ALONE).get("cut:one"), "written alone", "its Redis serves")


@after(scenario_the_two_go_on_and_the_one_serves_its_users)
def scenario_the_minority_refuses_global_locks_and_grants_its_own(lab):
    eventually("NOMAJORITY",
               lambda: lab.no_majority(ALONE, "LOCK.ACQUIRE", "global:cut", "someone", 1000))
    token = lab.locks(ALONE).execute_command("LOCK.ACQUIRE", "eu-west:own", "ann", 600000)[0]
    expect_true(token > 0, "its own lock is granted")
    other = lab.locks("us-east").execute_command("LOCK.ACQUIRE", "global:cut", "ben", 600000)
    expect_true(other, "the majority grants")
    eventually("no change from a minority", lambda: lab.run(
        "drain", "us-east", "--node", "127.20.0.1:7400")[2].count("NOMAJORITY"))


@after(scenario_the_minority_refuses_global_locks_and_grants_its_own)
def scenario_both_sides_write_and_nothing_is_lost(lab):
    for region in REGIONS:
        for index in range(100):
            lab.redis(region).incr("cut:count")
            lab.redis(region).sadd("cut:set", f"{region}:{index}")
    lab.redis("us-east").set("cut:two", "written by the two")
    lab.heal()
    for region in REGIONS:
        eventually(f"{region} counts all",
                   lambda r=region: lab.redis(r).get("cut:count") == "300")
        eventually(f"{region} has every member",
                   lambda r=region: lab.redis(r).scard("cut:set") == 300)
        eventually(f"{region} has both strings", lambda r=region: lab.redis(r).mget(
            "cut:one", "cut:two") == ["written alone", "written by the two"])


@after(scenario_both_sides_write_and_nothing_is_lost)
def scenario_healed_it_returns(lab):
    lab.wait_all_active()
    lab.sent("us-east", WWW, BRITISH, [ALONE])
    lock = eventually("the majority's lock is known to all",
                      lambda: info(lab, ALONE, "global:cut"))
    expect(lock["owner"], "ben", "its owner")
    lab.locks(ALONE).execute_command("LOCK.RELEASE", "global:cut", "ben", lock["token"])
    lock = info(lab, "us-east", "eu-west:own")
    expect(lock["owner"], "ann", "the owner of the one's own lock, asked from outside")
    lab.locks("us-east").execute_command("LOCK.RELEASE", "eu-west:own", "ann", lock["token"])


def scenario_one_broken_link_of_three_takes_nobody_out(lab):
    lab.meridian("lab", "partition", "us-east", "ap-southeast")
    lab.redis("us-east").set("two-legs", "around")
    keeps("all are routable for the one between", lambda: all(
        region["routable"] for region in lab.status("eu-west")["regions"]), 6)


@after(scenario_one_broken_link_of_three_takes_nobody_out)
def scenario_data_goes_round_a_broken_link(lab):
    """The link of the scenario before is still cut."""
    eventually("what was written before is there",
               lambda: lab.redis("ap-southeast").get("two-legs") == "around")
    for index in range(200):
        lab.redis("us-east").incr("round:count")
        lab.redis("ap-southeast").sadd("round:set", index)
    eventually("counted on the far side",
               lambda: lab.redis("ap-southeast").get("round:count") == "200")
    eventually("every member came back the other way",
               lambda: lab.redis("us-east").scard("round:set") == 200)
    lab.redis("us-east").incr("round:count")
    eventually("and what is written later is there, too",
               lambda: lab.redis("ap-southeast").get("round:count") == "201")
    lab.heal()
    lab.wait_all_active()
    always("nothing counts twice after the heal", lambda: all(
        lab.redis(region).get("round:count") == "201" for region in REGIONS), 3)
    lab.sent("eu-west", WWW, AMERICAN, ["us-east"])
