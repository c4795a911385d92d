"""Redis with the module in three regions, all of which write."""
from lab import REGIONS, eventually, expect


def everywhere(lab, what, condition):
    for region in REGIONS:
        eventually(f"{region}: {what}", lambda r=region: condition(lab.redis(r)))


def scenario_a_string_written_in_one_region_is_read_in_all(lab):
    for region in REGIONS:
        lab.redis(region).set(f"from:{region}", "hello")
    for region in REGIONS:
        everywhere(lab, f"from:{region}", lambda r, k=region: r.get(f"from:{k}") == "hello")
    lab.redis("eu-west").delete("from:us-east")
    everywhere(lab, "the delete", lambda r: r.get("from:us-east") is None)


def scenario_counters_of_three_regions_add_up(lab):
    for turn in range(100):
        for region in REGIONS:
            lab.redis(region).incrby("visits", turn % 3 + 1)
    total = 3 * sum(turn % 3 + 1 for turn in range(100))
    everywhere(lab, "the exact sum", lambda r: r.get("visits") == str(total))


def scenario_sets_are_add_wins(lab):
    lab.redis("us-east").sadd("cart", "book")
    everywhere(lab, "the book", lambda r: r.smembers("cart") == {"book"})
    lab.cut_off("ap-southeast")
    lab.redis("us-east").srem("cart", "book")
    lab.redis("ap-southeast").sadd("cart", "book", "pen")
    lab.redis("us-east").sadd("cart", "cup")
    lab.heal()
    everywhere(lab, "an add that the remove had not seen stays",
               lambda r: r.smembers("cart") == {"book", "pen", "cup"})
    lab.wait_all_active()


def scenario_hashes_merge_field_by_field(lab):
    lab.redis("us-east").hset("profile", "name", "Ada")
    lab.redis("eu-west").hset("profile", "city", "London")
    lab.redis("ap-southeast").hset("profile", mapping={"draft": "x", "age": "36"})
    lab.redis("ap-southeast").hdel("profile", "draft")
    everywhere(lab, "all fields", lambda r: r.hgetall("profile") ==
               {"name": "Ada", "city": "London", "age": "36"})


def scenario_expiry_is_the_same_everywhere(lab):
    lab.redis("us-east").set("session", "s", px=600000)
    everywhere(lab, "it has a time to live", lambda r: 0 < r.pttl("session") <= 600000)
    lab.redis("us-east").pexpire("session", 1000)
    everywhere(lab, "it is gone", lambda r: not r.exists("session"))


def scenario_lag_is_measured(lab):
    for region in REGIONS:
        eventually(f"{region} knows how far it is behind the others",
                   lambda r=region: all(lag is not None for lag in
                                        lab.region(r)["redis"]["lag_ms"].values()))


def scenario_a_pipeline_of_many_writes_arrives_whole(lab):
    pipe = lab.redis("eu-west").pipeline(transaction=False)
    keys = [f"bulk:{index}" for index in range(5000)]
    for index, key in enumerate(keys):
        pipe.set(key, index)
    pipe.execute()
    wanted = [str(index) for index in range(5000)]
    everywhere(lab, "all of it", lambda r: r.mget(keys) == wanted)


def scenario_one_of_many_writes_to_a_key_wins_everywhere(lab):
    for index, region in enumerate(REGIONS):
        lab.redis(region).set("title", f"version {index}")
    eventually("one winner", lambda: len({lab.redis(r).get("title") for r in REGIONS}) == 1)
    expect(lab.redis("us-east").type("title"), "string", "its type")


def scenario_values_of_any_size_go_to_the_other_regions(lab):
    here = lab.redis("us-east")
    sizes = [9 << 20, 20 << 20]
    for size in sizes:
        here.set(f"long:{size}", "x" * size)
    here.set("long:after", "yes")
    for region in REGIONS:
        for size in sizes:
            eventually(f"{region} has {size} bytes", lambda r=region, s=size:
                       lab.redis(r).strlen(f"long:{s}") == s)
        eventually(f"{region} has what came after", lambda r=region: lab.redis(r).get("long:after"))
    here.delete(*[f"long:{size}" for size in sizes])
    lab.wait_all_active()
