"""Two data regions and a witness, `lab up --witness`: any one of the three may be lost.

These scenarios have a lab of their own, which takes the place of the other one.
"""
import time

from lab import Failure, Lab, after, eventually, expect, expect_true, promise

DATA = ["us-east", "eu-west"]
WITNESS = "ap-southeast"
state = {}


def well(own, regions):
    """Agreement and data, asked at each of the regions that live."""
    for region in regions:
        token = own.locks(region).execute_command("LOCK.ACQUIRE", "global:any", "me", 600000)[0]
        expect(own.locks(region).execute_command("LOCK.RELEASE", "global:any", "me", token), 1,
               "and it is released")
        state["tokens"].append(token)
    promise(state["tokens"] == sorted(set(state["tokens"])), f"tokens only grow: {state['tokens']}")
    for region in regions:
        if region == WITNESS:
            continue
        word = f"{region} {time.monotonic()}"
        own.redis(region).set("word", word)
        for other in regions:
            if other != WITNESS:
                eventually(f"{other} has it",
                           lambda o=other, w=word: own.redis(o).get("word") == w)


def scenario_a_lab_with_a_witness(lab):
    lab.down()
    own = state["lab"] = Lab(lab.folder + "-witness")
    state["tokens"] = []
    own.meridian("lab", "up", "--witness", "--without", "postgres")
    roles = eventually("each has its role", lambda: (lambda n: n if all(
        node["done"] for node in n) else None)(own.status("us-east")["nodes"]))
    expect({node["region"]: node["role"] for node in roles},
           {"us-east": "voter", "eu-west": "voter", WITNESS: "witness"}, "who votes")
    expect(own.region(WITNESS, "us-east")["routable"], False, "nobody is sent to the witness")
    well(own, DATA + [WITNESS])


@after(scenario_a_lab_with_a_witness)
def scenario_any_one_of_the_three_is_lost(_):
    own = state["lab"]
    for lost in (WITNESS, *DATA):
        lives = [region for region in DATA + [WITNESS] if region != lost]
        own.kill(lost)
        well(own, lives)
        if lost != WITNESS:
            other = next(region for region in DATA if region != lost)
            own.sent(other, "www.example.test", None, [other])
        own.start(lost)
        eventually(f"{lost} is back", lambda r=lost, o=lives[0]: own.state(r, o) == "active")
    well(own, DATA + [WITNESS])


@after(scenario_any_one_of_the_three_is_lost)
def scenario_two_of_the_three_are_lost_and_nothing_is_decided(_):
    own = state["lab"]
    own.kill(WITNESS)
    own.kill("us-east")
    own.redis("eu-west").set("alone", "served")
    expect(own.redis("eu-west").get("alone"), "served", "data are")
    eventually("global locks are refused", lambda: own.no_majority(
        "eu-west", "LOCK.ACQUIRE", "global:alone", "me", 2000))
    expect_true(own.locks("eu-west").execute_command("LOCK.ACQUIRE", "eu-west:own", "me", 2000),
                "its own are not")


@after(scenario_two_of_the_three_are_lost_and_nothing_is_decided)
def scenario_the_lab_with_a_witness_ends(_):
    own = state.pop("lab", None)
    if own is None:
        raise Failure("it never began")
    own.meridian("lab", "down", "--wipe")
