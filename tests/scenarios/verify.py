"""`meridian verify`: the same keys everywhere, said while they are written."""
import glob
import json
import os
import threading

from lab import Failure, REGIONS, eventually, expect, expect_true, promise


class Writers:
    """Writes to every region until the end of the block; `written` counts."""

    def __init__(self, lab):
        self.ended = threading.Event()
        self.written = 0
        self.threads = [threading.Thread(target=self.write, args=(lab.redis(region), region))
                        for region in REGIONS]

    def write(self, client, region):
        number = 0
        while not self.ended.is_set():
            number += 1
            client.set(f"verify {number % 500}", f"{region} {number}")
            client.incr("verify counter")
            client.hset("verify hash", f"{region} {number % 50}", number)
            client.sadd("verify set", f"{region} {number % 50}")
            client.delete(f"verify {number * 7 % 500}")
            self.written += 5

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


def verify(lab, *words):
    status, out, err = lab.run("verify", "--json", *words)
    try:
        return status, json.loads(out)
    except json.JSONDecodeError as error:
        raise Failure(f"verify ended with {status}, said {out!r} {err!r}") from error


def all_asked(lab, *words):
    """The same once every region could be asked, which one that is short of time may refuse."""
    return eventually("every region is asked", lambda: (
        lambda seen: None if any(region["problem"] for region in seen[1]["regions"]) else seen)(
            verify(lab, *words)))


def scenario_regions_are_equal_while_they_are_written(lab):
    lab.wait_all_active()
    for number in range(300):
        lab.redis("us-east").set(f"still {number}", number)
    with Writers(lab) as writers:
        eventually("something is written", lambda: writers.written > 1000)
        before = writers.written
        status, told = all_asked(lab)
        expect_true(writers.written > before, "it was written meanwhile")
    promise((status, told["equal"], told["different"]) == (0, True, []),
            f"equal under load: {status} {told}")
    status, told = all_asked(lab, "still ")
    expect((status, told["moving"]), (0, 0), "verify by prefix")
    expect([region["keys"] for region in told["regions"]], [300] * 3, "keys of a prefix")
    eventually("for people", lambda: "the regions hold the same" in lab.run("verify")[1])


def scenario_what_cannot_be_asked_is_said(lab):
    lab.wait_all_active()
    lab.kill("eu-west")
    try:
        status, told = eventually("it is the only one that cannot be asked", lambda: (
            lambda seen: seen if [region["region"] for region in seen[1]["regions"]
                                  if region["problem"]] == ["eu-west"] else None)(verify(lab)))
        expect(status, 2, "a region is down")
        promise(told["different"] == [], f"the others do not differ: {told}")
        expect(all_asked(lab, "--region", "us-east,ap-southeast")[0], 0, "without it")
    finally:
        lab.start("eu-west")
    lab.wait_all_active()
    eventually("equal again", lambda: verify(lab)[0] == 0)


def scenario_a_value_changed_behind_the_modules_back_is_named(lab):
    lab.wait_all_active()
    key = "verify edited"
    lab.redis("us-east").set(key, "before " + "x" * 100)
    for region in REGIONS:
        eventually("it came", lambda r=region: lab.redis(r).exists(key))
    lab.kill("us-east")
    try:
        for name in glob.glob(os.path.join(lab.folder, "us-east", "**", "*.aof"), recursive=True):
            with open(name, "rb") as file:
                data = file.read()
            with open(name, "wb") as file:
                file.write(data.replace(b"before " + b"x" * 100, b"after: " + b"x" * 100))
    finally:
        lab.start("us-east")
    lab.wait_all_active()
    expect_true(lab.redis("us-east").get(key).startswith("after"), "the log was edited")
    status, told = all_asked(lab)
    expect((status, [found["key"] for found in told["different"]]), (1, [key]), "what differs")
    expect(told["different"][0]["differs"], "value", "how it differs")
    eventually("for people", lambda: key in lab.run("verify")[1])
    lab.redis("eu-west").set(key, "healed")
    eventually("equal after a write", lambda: verify(lab)[0] == 0)
