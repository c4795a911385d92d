"""Everything ends and starts again: data and the council's state are kept."""
from lab import REGIONS, after, eventually, expect_true


def kept(lab, region):
    client = lab.redis(region)
    return (client.get("kept:string") == "v" and client.get("kept:count") == "12" and
            client.smembers("kept:set") == {"a", "b"})


def scenario_everything_is_kept_over_a_restart(lab):
    lab.redis("us-east").set("kept:string", "v")
    lab.redis("eu-west").incrby("kept:count", 7)
    lab.redis("ap-southeast").incrby("kept:count", 5)
    lab.redis("ap-southeast").sadd("kept:set", "a", "b")
    for region in REGIONS:
        eventually(f"{region} has all", lambda r=region: kept(lab, r))
    token = lab.locks("us-east").execute_command("LOCK.ACQUIRE", "global:kept", "ann", 3600000)[0]
    epoch = lab.status()["epoch"]
    lab.down()
    lab.up()
    for region in REGIONS:
        eventually(f"{region} has all", lambda r=region: kept(lab, r))
    eventually("the epoch does not go back", lambda: lab.status()["epoch"] >= epoch)
    info = eventually("the lock is kept", lambda: lab.locks("eu-west").execute_command(
        "LOCK.INFO", "global:kept"))
    expect_true("ann" in info and token in info, "owner and token are as before")
    lab.locks("eu-west").execute_command("LOCK.RELEASE", "global:kept", "ann", token)
    lab.wait_all_active()


def scenario_an_operators_wish_is_kept_over_a_restart(lab):
    lab.meridian("drain", "ap-southeast", "over the restart")
    eventually("drained", lambda: lab.state("ap-southeast") == "drained")
    lab.down()
    lab.up()
    eventually("drained after the restart", lambda: lab.state("ap-southeast") == "drained")
    lab.meridian("undrain", "ap-southeast")
    lab.wait_all_active()


@after(scenario_everything_is_kept_over_a_restart)
def scenario_writes_go_on_after_it(lab):
    for region in REGIONS:
        lab.redis(region).incr("kept:count")
    for region in REGIONS:
        eventually(f"{region} has the sum", lambda r=region: lab.redis(r).get("kept:count") == "15")
