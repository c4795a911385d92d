"""Conflict policies from the topology document, changed while the regions serve."""
import json
import os
import tempfile

import requests

from lab import ADDRESSES, REGIONS, after, eventually, expect, expect_true

CART = '''
function cart { text = """
local cart = {}
for _, sibling in ipairs((...)) do
        for item, quantity in sorted_pairs(json.decode(sibling.value)) do
                cart[item] = math.max(cart[item] or 0, quantity)
        end
end
return json.encode(cart)
"""; }
'''


def everywhere(lab, what, condition):
    for region in REGIONS:
        eventually(f"{region}: {what}", lambda r=region: condition(lab.redis(r)))


def planned(lab, addition, command):
    """The document in force with this at its end: the status, and what was said."""
    good = lab.meridian("topology")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "topology.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(good + addition)
        status, out, err = lab.patiently(command, path)
        return status, out + err


def cut_all(lab):
    for region in REGIONS:
        lab.cut_off(region)


def scenario_a_bad_policy_is_refused_with_its_place(lab):
    for addition, says in (('data "x:" { conflict = best; }', "not a conflict policy"),
                           ('data "x:" { conflict = merge; }', "has no function"),
                           ('data "x:" { conflict = merge; function = f; }', "no function 'f'"),
                           ('function f { text = """return 1 +"""; }', "function:1:")):
        for command in ("plan", "apply"):
            status, said = planned(lab, addition, command)
            expect_true(status == 1 and says in said, f"{command} of {addition}: {status} {said}")


def scenario_policies_are_applied_live(lab):
    policies = CART + '''
data "cart:" { conflict = merge; function = cart; }
data "profile:" { conflict = siblings; }
data "session:" { conflict = last-write; }
'''
    out = lab.applied(lambda good: good if 'data "cart:"' in good else good + policies)
    for line in ("+ data cart: (merge by cart)", "+ data session: (last-write)", "+ function cart"):
        expect_true(line in out, f"apply says {line!r}: {out}")
    everywhere(lab, "the module knows", lambda r: len(r.execute_command("MERIDIAN.POLICY")) == 3)


@after(scenario_policies_are_applied_live)
def scenario_concurrent_writes_end_as_the_policies_say(lab):
    for region in REGIONS:
        lab.redis(region).set("seen", "before")
    everywhere(lab, "in touch", lambda r: r.get("seen") == "before")
    cut_all(lab)
    for at, region in enumerate(REGIONS):
        redis = lab.redis(region)
        redis.set("cart:7", json.dumps({"tea": at + 1, region: 1}))
        redis.set("profile:7", region)
        redis.incr("session:7")
        redis.set("plain", region)
    lab.heal()
    cart = json.dumps({"ap-southeast": 1, "eu-west": 1, "tea": 3, "us-east": 1},
                      separators=(",", ":"))
    everywhere(lab, "the cart has all", lambda r: r.get("cart:7") == cart)
    everywhere(lab, "all siblings are kept", lambda r: sorted(
        row[2] for row in r.execute_command("MERIDIAN.SIBLINGS", "profile:7")) == sorted(REGIONS))
    everywhere(lab, "a counter is one register", lambda r: r.get("session:7") == "1")
    lab.wait_all_active()


def conflicts(lab, *words):
    return [json.loads(line) for line in lab.meridian("conflicts", "--json", *words).splitlines()]


@after(scenario_concurrent_writes_end_as_the_policies_say)
def scenario_conflicts_are_told(lab):
    eventually("the conflicts of every key", lambda: {"cart:7", "profile:7", "session:7", "plain"} <=
               {conflict["key"] for conflict in conflicts(lab)})
    winner = lab.redis("us-east").get("plain")
    told = eventually("the winner's region tells of it",
                      lambda: conflicts(lab, "--region", winner, "plain"))
    expect({(conflict["kind"], conflict["region_name"], conflict["won"]["value"])
            for conflict in told}, {("value", winner, winner)}, "what is told")
    people = lab.meridian("conflicts", "cart:")
    expect_true("siblings" in people and "cart:7" in people and "plain" not in people,
                f"for people: {people}")
    metrics = "".join(requests.get(f"http://{ADDRESSES[region]}:7400/metrics", timeout=20).text
                      for region in REGIONS)
    expect_true(any(f'meridian_conflicts_total{{kind="value"}} {count}\n' in metrics
                    for count in range(1, 1000)), "counted for Prometheus")


@after(scenario_concurrent_writes_end_as_the_policies_say)
def scenario_a_policy_goes_again(lab):
    lab.applied(lambda good: good if '\ndata "' not in good else
                good[:good.index('\ndata "')] + good[good.index("\npostgres "):])
    everywhere(lab, "no policies", lambda r: r.execute_command("MERIDIAN.POLICY") == [])
    for region in REGIONS:
        lab.redis(region).incr("session:7")
    everywhere(lab, "increments add up again", lambda r: r.get("session:7") == "4")
