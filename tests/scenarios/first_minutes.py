"""What a newcomer sees in the first minutes."""
import subprocess

from lab import ADDRESSES, AMERICAN, MERIDIAN, REGIONS, SINGAPOREAN, eventually, expect, expect_true


def scenario_the_lab_starts(lab):
    out = lab.up()
    for word in ["us-east", "eu-west", "ap-southeast", "127.10.0.1:6379", "Try:"]:
        expect_true(word in out, f"`lab up` prints {word!r}")
    lab.wait_all_active()


def scenario_what_it_says_to_try_works(lab):
    tries = [line.strip() for line in lab.up().split("Try:")[1].splitlines() if line[:2] == "  "]
    words = ["hello", ADDRESSES["us-east"], ADDRESSES["eu-west"], "200 OK", "acquired"]
    expect(len(tries), len(words) + 1, "commands to try; the last kills a region")
    for command, word in zip(tries, words):
        command = command.replace("build/meridian", MERIDIAN)
        done = subprocess.run(["sh", "-c", command], env=lab.environment, capture_output=True,
                              text=True, timeout=200, check=False)
        expect_true(word in done.stdout, f"`{command}` shows {word!r}: {done.stdout}{done.stderr}")


def scenario_starting_it_again_changes_nothing(lab):
    before = [lab.pid(region, "redis") for region in REGIONS]
    out = lab.up()
    expect_true("runs already" in out, "`lab up` says that it runs")
    expect([lab.pid(region, "redis") for region in REGIONS], before, "the same processes")


def status_if_measured(lab):
    status = lab.status()
    return status["majority"] and status["leader"] and all(
        value is not None and region["state"] == "active" and region["redis"]["up"]
        for region in status["regions"] for value in region["rtt_ms"].values()) and status


def scenario_status_keeps_its_contract(lab):
    status = eventually("status knows every round trip", lambda: status_if_measured(lab))
    expect(status["majority"], True, "majority")
    expect_true(isinstance(status["epoch"], int), "epoch is a number")
    expect_true(status["leader"] in REGIONS, "leader is a region")
    expect(sorted(region["name"] for region in status["regions"]), sorted(REGIONS), "regions")
    for region in status["regions"]:
        others = set(REGIONS) - {region["name"]}
        expect(region["state"], "active", f"state of {region['name']}")
        expect(region["redis"]["up"], True, f"Redis of {region['name']}")
        expect(set(region["rtt_ms"]), others, "round trips to the others")
        expect(set(region["redis"]["lag_ms"]), others, "lag of the others")
        expect(set(region["postgres"]), {"role", "lag_ms", "lag_bytes"}, "fields of postgres")
        expect(region["postgres"]["role"], "primary" if region["name"] == "us-east" else "standby",
               f"PostgreSQL's role in {region['name']}")


def scenario_round_trips_are_those_of_the_wide_area(lab):
    wanted = {("us-east", "eu-west"): 70, ("us-east", "ap-southeast"): 220,
              ("eu-west", "ap-southeast"): 179}
    eventually("round trips as between the real regions", lambda: all(
        0 <= lab.region(a)["rtt_ms"][b] - ms < 60 for (a, b), ms in wanted.items()))


def scenario_status_is_drawn_for_people(lab):
    out = lab.meridian("status")
    for word in ["us-east", "active", "round trip", "majority", "leader"]:
        expect_true(word in out, f"`status` shows {word!r}")


def scenario_a_dead_node_is_passed_over_with_a_word(lab):
    status, _, err = lab.run("status", "--node", "127.10.0.99:7400", "--node",
                             ADDRESSES["eu-west"] + ":7400")
    expect(status, 0, "exit status")
    expect_true("127.10.0.99:7400 does not answer" in err, "it says which node is dead")


def scenario_it_works_from_elsewhere(lab):
    done = subprocess.run([MERIDIAN, "lab", "status"], cwd="/", env=lab.environment,
                          capture_output=True, text=True, timeout=200, check=False)
    expect(done.returncode, 0, "`lab status` from /")


def scenario_why_route_tells_the_rule(lab):
    out = lab.meridian("why-route", SINGAPOREAN.split("/", maxsplit=1)[0], "www.example.test")
    expect_true("ap-southeast" in out.splitlines()[0], f"Singapore is sent to ap-southeast: {out}")
    out = lab.meridian("why-route", AMERICAN.split("/", maxsplit=1)[0], "api-eu.example.test")
    expect_true("eu-west" in out.splitlines()[0], f"api-eu is eu-west for everyone: {out}")


def scenario_doctor_finds_nothing(lab):
    eventually("doctor finds nothing", lambda: (
        lambda seen: seen[0] == 0 and "all is well" in seen[1])(lab.run("doctor")))


def scenario_help_names_every_command(lab):
    out = lab.meridian("help")
    for word in ["status", "why-route", "lock acquire", "drain", "plan", "apply", "doctor", "lab"]:
        expect_true(f"meridian {word}" in out, f"help has {word}")
