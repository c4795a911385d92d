"""Everything ends and starts again: data and the council's state are kept."""
from lab import REGIONS, after, eventually, expect_true


def kept(lab, region):
    client = lab.redis(region)
    return (client.get("kept:string") == "v" and client.get("kept:count") == "12" and
            client.smembers("kept:set") == {"a", "b"})


def done(lab, *words):
    """What it said, where it succeeded."""
    status, out, _ = lab.run(*words)
    return out if status == 0 else None


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
    region = eventually("a leader", lambda: lab.status()["leader"])
    out = eventually("it is shown first", lambda: done(lab, "evacuate", region, "--dry-run"))
    expect_true("nothing is done" in out, out)
    # Whatever came between, as an election, the same command goes on from there.
    out = eventually("it is evacuated", lambda: done(lab, "evacuate", region, "a restart"))
    for part in ("writer", "traffic", "agreement", "changes", "ready"):
        expect_true(part in out, f"{part} is told: {out}")
    eventually("drained", lambda: lab.state(region) == "drained")
    eventually("another one leads", lambda: lab.status()["leader"] not in (None, region))
    eventually("one of another region writes",
               lambda: (lab.status()["postgres"]["writer"] or region)[:len(region)] != region)
    lab.down()
    lab.up()
    eventually("drained after the restart", lambda: lab.state(region) == "drained")
    eventually("it is brought back", lambda: done(lab, "unevacuate", region))
    lab.wait_all_active()


@after(scenario_everything_is_kept_over_a_restart)
def scenario_writes_go_on_after_it(lab):
    for region in REGIONS:
        lab.redis(region).incr("kept:count")
    for region in REGIONS:
        eventually(f"{region} has the sum", lambda r=region: lab.redis(r).get("kept:count") == "15")
