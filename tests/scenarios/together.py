"""What one region's client has from the others: that they have a write, and its events."""
import itertools
import time

import requests

from lab import LIMIT_S, REGIONS, eventually, expect, expect_true, promise


def wait_for(redis, regions, timeout_ms):
    """The answer of MERIDIAN.WAIT and the milliseconds that it took."""
    began = time.monotonic()
    count = redis.execute_command("MERIDIAN.WAIT", regions, timeout_ms)
    return count, (time.monotonic() - began) * 1000


def scenario_a_write_waits_for_the_other_regions(lab):
    redis = lab.redis("us-east")
    turns = itertools.count()

    def took_ms():
        turn = next(turns)
        redis.set("durable", turn)
        count, ms = wait_for(redis, 2, 50000)
        promise(count == 2, f"both others have it: {count}")
        for region in REGIONS:
            promise(lab.redis(region).get("durable") == str(turn), f"{turn} is in {region}")
        return ms
    for _ in range(4):
        took_ms()
    # The round trips of the lab: 70 ms to one, 220 ms to the other. No timer comes on top of them.
    eventually("two regions answer in about a round trip", lambda: took_ms() < 350)
    redis.set("durable", "once more")
    expect(wait_for(redis, 1, 50000)[0] >= 1, True, "one is enough")


def behind(lab, region, other):
    """What `other` has not acknowledged of `region`'s changes, as the region's own node tells."""
    servers = lab.region(region, region)["redis"]["servers"]
    return sum(peer["behind_deltas"] for server in servers for peer in server["peers"]
               if peer["region_name"] == other)


def scenario_a_cut_region_is_not_counted(lab):
    redis = lab.redis("us-east")
    lab.cut_off("ap-southeast")
    redis.set("durable", "cut")
    expect(wait_for(redis, 1, 50000)[0], 1, "the other has it")
    count, ms = wait_for(redis, 2, 1000)
    expect(count, 1, "who has it at the time-out")
    expect_true(ms >= 990, f"the time-out comes when it is due: {ms} ms")
    promise(lab.redis("eu-west").get("durable") == "cut", "the other has it")
    for turn in range(30):
        redis.set(f"behind:{turn}", turn)
    eventually("the status tells what is missing there",
               lambda: behind(lab, "us-east", "ap-southeast") > 30)
    eventually("the other has acknowledged", lambda: behind(lab, "us-east", "eu-west") == 0)
    metrics = requests.get("http://127.10.0.1:7400/metrics", timeout=20).text
    expect_true('meridian_redis_behind_seconds{server="127.10.0.1:6379",region="ap-southeast"}' in
                metrics, "for Prometheus")
    eventually("for people", lambda: "not acknowledged" in lab.meridian("status"))
    lab.heal()
    eventually("the region is back", lambda: wait_for(redis, 2, 30000)[0] == 2)
    expect(eventually("the region has it", lambda: lab.redis("ap-southeast").get("durable")),
           "cut", "what it has")
    lab.wait_all_active()
    eventually("nothing is missing", lambda: behind(lab, "us-east", "ap-southeast") == 0)


def listening(lab, region, channel):
    ear = lab.redis(region).pubsub(ignore_subscribe_messages=True)
    ear.subscribe(channel)
    expect(ear.connection.read_response()[0], "subscribe", f"{region} subscribes")
    return ear


def heard(ear, count):
    """That many messages, and whatever comes within a moment of them."""
    found = []
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        message = ear.get_message(timeout=0.2)
        if message is not None:
            found.append(message["data"])
        elif len(found) >= count:
            break
    return found


def scenario_events_reach_every_region_behind_their_data(lab):
    policy = '\ndata "orders:" { conflict = typed; publish = on; }\n'
    lab.applied(lambda good: good if "publish = on" in good else good + policy)
    for region in REGIONS:
        eventually(f"{region} knows", lambda r=region: any(
            row[3:] == ["publish"] for row in lab.redis(r).execute_command("MERIDIAN.POLICY")))
    ears = {region: listening(lab, region, "orders:new") for region in REGIONS}
    redis = lab.redis("eu-west")
    for turn in range(20):
        redis.set("orders:last", turn)
        redis.publish("orders:new", turn)
    for region, ear in ears.items():
        expect(heard(ear, 20), [str(turn) for turn in range(20)], f"what {region} heard")
        expect(lab.redis(region).get("orders:last"), "19", f"what {region} reads then")
    lab.cut_off("ap-southeast")
    redis.publish("orders:new", "while cut")
    expect(heard(ears["us-east"], 1), ["while cut"], "who is in touch hears at once")
    expect(heard(ears["ap-southeast"], 0), [], "who is cut off")
    lab.heal()
    expect(heard(ears["ap-southeast"], 1), ["while cut"], "who is back hears it then, once")
    for ear in ears.values():
        ear.close()
    lab.wait_all_active()


def scenario_any_client_follows_the_changes_of_all_regions(lab):
    reader = lab.redis("us-east")
    cursor, _ = reader.execute_command("MERIDIAN.FEED")
    for turn in range(30):
        for region in REGIONS:
            lab.redis(region).set(f"fed:{region}", turn)
            lab.redis(region).sadd("unfed", turn)
    seen = {region: [] for region in REGIONS}
    until = time.monotonic() + LIMIT_S
    while min(len(values) for values in seen.values()) < 30 and time.monotonic() < until:
        cursor, rows = reader.execute_command("MERIDIAN.FEED", "AFTER", cursor, "PREFIX", "fed:",
                                              "BLOCK", 1000)
        for row in rows:
            seen[row[4].partition(":")[2]].append(row[7])
    for region, values in seen.items():
        expect(values, [str(turn) for turn in range(30)], f"the changes of {region}, in order")
