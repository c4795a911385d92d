"""What one region's client may ask of the others: that they have a write."""
import time

from lab import REGIONS, eventually, expect, expect_true


def wait_for(redis, regions, timeout_ms):
    """The answer of MERIDIAN.WAIT and the milliseconds that it took."""
    began = time.monotonic()
    count = redis.execute_command("MERIDIAN.WAIT", regions, timeout_ms)
    return count, (time.monotonic() - began) * 1000


def scenario_a_write_waits_for_the_other_regions(lab):
    redis = lab.redis("us-east")
    took = []
    for turn in range(5):
        redis.set("durable", turn)
        count, ms = wait_for(redis, 2, 10000)
        expect(count, 2, "both others have it")
        for region in REGIONS:
            expect(lab.redis(region).get("durable"), str(turn), f"in {region}")
        took.append(ms)
    # The round trips of the lab: 70 ms to one, 220 ms to the other. No timer comes on top of them.
    expect_true(min(took) < 350, f"two regions answer in about a round trip: {took} ms")
    redis.set("durable", "once more")
    expect(wait_for(redis, 1, 10000)[0] >= 1, True, "one is enough")


def scenario_a_cut_region_is_not_counted(lab):
    redis = lab.redis("us-east")
    lab.cut_off("ap-southeast")
    redis.set("durable", "cut")
    count, ms = wait_for(redis, 2, 2000)
    expect(count, 1, "who has it at the time-out")
    expect_true(1990 <= ms < 6000, f"the time-out comes when it is due: {ms} ms")
    expect(lab.redis("eu-west").get("durable"), "cut", "the other has it")
    lab.heal()
    expect(wait_for(redis, 2, 30000)[0], 2, "the region is back")
    expect(eventually("the region has it", lambda: lab.redis("ap-southeast").get("durable")),
           "cut", "what it has")
    lab.wait_all_active(60)
