"""A region is taken out of the topology: the others go on, and its id is never used again."""
import re

from lab import after, eventually, expect, expect_true

GONE = "ap-southeast"
LEFT = ["us-east", "eu-west"]


def without(text):
    """The document without the region: its section, its node in lists, the names that are its own."""
    text = re.sub(r"\nregion " + GONE + r" \{.*?\n\}\n", "\n", text, flags=re.S)
    text = re.sub(r"\n[^\n{}]*\{[^{}]*\bregion = " + GONE + r"\b[^{}]*\}", "", text)
    return re.sub(r",\s*" + GONE + r"(-\d+)?\b|\b" + GONE + r"(-\d+)?\s*,\s*", "", text)


def info(lab, region, field):
    return lab.redis(region).info("meridian")["meridian_" + field]


def scenario_the_others_agree_on_what_a_removed_region_left(lab):
    gone = lab.redis(GONE)
    for at in range(20):
        gone.set(f"left:{at}", at)
        gone.pfadd(f"uniques:{at % 3}", at)
    for region in LEFT:
        eventually(f"{region} has it", lambda r=region: lab.redis(r).exists("left:19"))
    lab.meridian("lab", "partition", GONE, "eu-west")
    for at in range(10):
        gone.delete(f"left:{at}")
    gone.set("last", "word")
    eventually("one of them has the last of it", lambda: lab.redis("us-east").get("last"))
    lab.kill(GONE)
    lab.heal()
    said = lab.applied(without)
    expect_true(GONE not in lab.meridian("topology"), f"it is removed: {said}")
    for region in LEFT:
        eventually(f"{region} has its last word", lambda r=region: lab.redis(r).get("last"))
        eventually(f"{region} has its deletes",
                   lambda r=region: lab.redis(r).exists(*[f"left:{i}" for i in range(10)]) == 0)
        lab.redis(region).delete("left:11" if region == "us-east" else "left:12")
    for region in LEFT:
        eventually(f"{region} collects its tombstones",
                   lambda r=region: info(lab, r, "tombstones") == 0)
    eventually("nothing differs", lambda: lab.run("verify")[0] == 0)
    expect(lab.redis("eu-west").pfcount("uniques:1"), lab.redis("us-east").pfcount("uniques:1"),
           "the HyperLogLogs")


@after(scenario_the_others_agree_on_what_a_removed_region_left)
def scenario_the_id_of_a_removed_region_is_not_used_again(lab):
    good = lab.meridian("topology")
    for name in (GONE, "mars"):
        section = f"""
region {name} {{
        id = 3
        node {name}-1 {{ id = 30; link = "127.30.0.1:7401"; admin = "127.30.0.1:7400";
                locks = "127.30.0.1:7402" }}
}}
"""
        status, said = lab.apply(lambda text, more=section: text + more)
        expect_true(status != 0 and "id 3" in said and "never used again" in said,
                    f"id 3 is refused: {status} {said}")
    expect(lab.meridian("topology"), good, "nothing has changed")
