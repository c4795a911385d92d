"""A whole region dies, and comes back."""
import time

from lab import AMERICAN, REGIONS, eventually, expect, expect_true

WWW = "www.example.test"
OTHERS = ["eu-west", "ap-southeast"]


def scenario_a_region_dies_and_the_others_answer_without_it(lab):
    lab.redis("us-east").set("before", "kept")
    eventually("the others have it", lambda: lab.redis("eu-west").get("before") == "kept")
    lab.kill("us-east")
    begin = time.monotonic()
    for server in OTHERS:
        eventually(f"DNS of {server} answers without us-east",
                   lambda s=server: lab.dns(s, WWW, AMERICAN) == ["eu-west"], 10)
        expect(lab.get(server)[0], server, f"the edge of {server}")
    print(f"        {time.monotonic() - begin:.2f} s from the kill to DNS without it")
    eventually("status says down", lambda: lab.state("us-east") == "down", 10)
    region = eventually("nothing stale is told of it", lambda: nothing_stale(lab), 10)
    expect(region["routable"], False, "not routable")
    expect_true(region["why"], "it says why")
    expect(lab.status()["majority"], True, "two of three are a majority")
    events = lab.meridian("events")
    expect_true("us-east" in events and "down" in events, f"the event is told: {events}")


def nothing_stale(lab):
    region = lab.region("us-east")
    if region["redis"]["up"] is None and set(region["rtt_ms"].values()) == {None}:
        return region
    return None


def scenario_meanwhile_the_others_write_and_lock(lab):
    for region in OTHERS:
        for _ in range(20):
            lab.redis(region).incr("meanwhile")
    for region in OTHERS:
        eventually(f"{region} has both", lambda r=region: lab.redis(r).get("meanwhile") == "40")
    token = eventually("a global lock", lambda: lab.locks("eu-west").execute_command(
        "LOCK.ACQUIRE", "global:meanwhile", "ann", 60000), 15)[0]
    expect(lab.locks("ap-southeast").execute_command(
        "LOCK.RELEASE", "global:meanwhile", "ann", token), 1, "released elsewhere")


def scenario_it_comes_back_and_catches_up_before_it_gets_traffic(lab):
    lab.start("us-east")
    eventually("us-east gets traffic again",
               lambda: lab.dns("eu-west", WWW, AMERICAN) == ["us-east"], 60)
    expect(lab.redis("us-east").get("meanwhile"), "40", "it had caught up when traffic came")
    expect(lab.redis("us-east").get("before"), "kept", "and has kept what it had")
    lab.wait_all_active(60)
    lab.redis("us-east").incr("meanwhile")
    for region in REGIONS:
        eventually(f"{region} has its new write",
                   lambda r=region: lab.redis(r).get("meanwhile") == "41")
