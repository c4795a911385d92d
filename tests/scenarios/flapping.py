"""A bad line is no dead region."""
from lab import REGIONS, eventually, keeps


def scenario_five_per_cent_of_loss_change_no_state(lab):
    for a, b in [("us-east", "eu-west"), ("us-east", "ap-southeast"), ("eu-west", "ap-southeast")]:
        lab.meridian("lab", "lose", a, b, "5%")
    keeps("every region stays active and routable", lambda: all(
        region["state"] == "active" and region["routable"]
        for region in lab.status("eu-west")["regions"]), 12)
    lab.redis("us-east").set("lossy", "arrives")
    for region in REGIONS:
        eventually(f"{region} has it", lambda r=region: lab.redis(r).get("lossy") == "arrives")
    lab.heal()


def scenario_a_slow_line_changes_no_state_and_is_measured(lab):
    lab.meridian("lab", "slow", "us-east", "eu-west", "300ms")
    eventually("the round trip is 370 ms",
               lambda: 350 < lab.region("us-east", "us-east")["rtt_ms"]["eu-west"] < 600)
    keeps("every region stays routable", lambda: all(
        region["routable"] for region in lab.status("ap-southeast")["regions"]), 5)
    lab.heal()
    eventually("it is 70 ms again",
               lambda: lab.region("us-east", "us-east")["rtt_ms"]["eu-west"] < 200)
    lab.wait_all_active()
