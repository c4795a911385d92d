"""A whole region dies, and comes back."""
import time

import redis

from lab import AMERICAN, REGIONS, after, eventually, expect, expect_true

WWW = "www.example.test"
AUDITED = "us-east:audited"
OTHERS = ["eu-west", "ap-southeast"]


def scenario_a_region_dies_and_the_others_answer_without_it(lab):
    lab.redis("us-east").set("before", "kept")
    eventually("the others have it", lambda: lab.redis("eu-west").get("before") == "kept")
    eventually("it grants a lock", lambda: lab.locks("us-east").execute_command(
        "LOCK.ACQUIRE", AUDITED, "ann", 600000))
    for server in OTHERS:
        eventually(f"{server} keeps a copy of that", lambda s=server: last_grant(lab, s) == "ann")
    lab.kill("us-east")
    begin = time.monotonic()
    for server in OTHERS:
        lab.sent(server, WWW, AMERICAN, ["eu-west"])
        expect(lab.get(server)[0], server, f"the edge of {server}")
    print(f"        {time.monotonic() - begin:.2f} s from the kill to DNS without it")
    eventually("status says down", lambda: lab.state("us-east") == "down")
    region = eventually("nothing stale is told of it", lambda: nothing_stale(lab))
    expect(region["routable"], False, "not routable")
    expect_true(region["why"], "it says why")
    eventually("two of three are a majority", lambda: lab.status()["majority"])
    eventually("the event is told", lambda: (
        lambda events: "us-east" in events and "down" in events)(lab.meridian("events")))


def last_grant(lab, region):
    """Who got us-east's lock last, by that region's copy; None: it has none yet."""
    try:
        told = lab.locks(region).execute_command("LOCK.WATCH", AUDITED, "COPY", "AFTER", 0)
    except redis.exceptions.ResponseError as error:
        expect_true(str(error).startswith("UNREACHABLE"), f"no copy yet: {error}")
        return None
    return next((owner for what, _, owner, *_ in reversed(told[2]) if what == "granted"), None)


def nothing_stale(lab):
    region = lab.region("us-east")
    if region["redis"]["up"] is None and set(region["rtt_ms"].values()) == {None}:
        return region
    return None


@after(scenario_a_region_dies_and_the_others_answer_without_it)
def scenario_what_it_granted_last_is_still_known(lab):
    for region in OTHERS:
        expect(last_grant(lab, region), "ann", f"by the copy of {region}")
    told = lab.meridian("lock", "watch", AUDITED, "--copy")
    expect_true(f"granted {AUDITED} ann" in told, "on the command line")


@after(scenario_a_region_dies_and_the_others_answer_without_it)
def scenario_meanwhile_the_others_write_and_lock(lab):
    for region in OTHERS:
        for _ in range(20):
            lab.redis(region).incr("meanwhile")
    for region in OTHERS:
        eventually(f"{region} has both", lambda r=region: lab.redis(r).get("meanwhile") == "40")
    token = lab.locks("eu-west").execute_command(
        "LOCK.ACQUIRE", "global:meanwhile", "ann", 600000)[0]
    expect(lab.locks("ap-southeast").execute_command(
        "LOCK.RELEASE", "global:meanwhile", "ann", token), 1, "released elsewhere")


@after(scenario_meanwhile_the_others_write_and_lock)
def scenario_it_comes_back_and_catches_up_before_it_gets_traffic(lab):
    lab.start("us-east")
    lab.sent("eu-west", WWW, AMERICAN, ["us-east"])
    expect(lab.redis("us-east").get("meanwhile"), "40", "it had caught up when traffic came")
    expect(lab.redis("us-east").get("before"), "kept", "and has kept what it had")
    lab.wait_all_active()
    lab.redis("us-east").incr("meanwhile")
    for region in REGIONS:
        eventually(f"{region} has its new write",
                   lambda r=region: lab.redis(r).get("meanwhile") == "41")
