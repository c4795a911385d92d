"""Regions of three nodes: any one node of a region may die, and everything goes on; a witness region is
added and a data region taken away while clients hold locks and write; a dead node is replaced by another.

These scenarios have a lab of their own, which takes the place of the other one.
"""
import os
import signal
import subprocess
import tempfile
import threading
import time

import redis
import requests

from lab import ADDRESSES, BUILD, REGIONS, Failure, Lab, eventually, expect, expect_true
from removal import apply, without

WITNESS = "127.40.0.1"
state = {}


def address(region, node):
    return ADDRESSES[region][:-1] + str(node)


def locks(region, node):
    return redis.Redis(host=address(region, node), port=7402, socket_timeout=5,
                       decode_responses=True)


def nodes(region, node=1):
    """{(region, name): what is known of it} by one node."""
    answer = requests.get(f"http://{address(region, node)}:7400/status", timeout=3).json()
    return {node["name"]: node for node in answer["nodes"]}


def carrier(region, by):
    """The number of the node that carries a region's data, as another region sees it."""
    for name, node in nodes(*by).items():
        if node["region"] == region and node["carries"]:
            return int(name[-1])
    return None


def round_of_everything(lab, region, alive):
    """Locks of both groups at a node that lives, and data to the other regions."""
    for key in (f"{region}:works", "global:works"):
        client = locks(region, alive)
        token = eventually(f"{key} is granted",
                           lambda k=key, c=client: c.execute_command("LOCK.ACQUIRE", k, "ann",
                                                                     20000, "WAIT", 3000), 15)[0]
        expect(client.execute_command("LOCK.CHECK", key, token), 1, f"{key} is held")
        expect(client.execute_command("LOCK.RELEASE", key, "ann", token), 1, f"{key} is released")
    word = f"{region}-{alive}-{time.monotonic()}"
    lab.redis(region).set("word", word)
    for other in REGIONS:
        if other != region and other in state["regions"]:
            eventually(f"{other} reads what {region} wrote",
                       lambda o=other: lab.redis(o).get("word") == word, 15)


class Writer(threading.Thread):
    """Counts in every region's Redis, and renews a lock, until it is told to stop."""

    def __init__(self, lab, regions):
        super().__init__(daemon=True)
        self.lab, self.regions, self.on, self.count, self.lost = lab, regions, True, 0, None
        self.token = locks("us-east", 2).execute_command("LOCK.ACQUIRE", "global:held", "me",
                                                         10000)[0]

    def run(self):
        while self.on:
            for region in self.regions:
                self.lab.redis(region).incr("counted")
                self.count += 1
            for node in (2, 3, 1):
                try:
                    if locks("us-east", node).execute_command("LOCK.RENEW", "global:held", "me",
                                                              self.token, 10000) == 0:
                        self.lost = "the lock was lost"
                    break
                except redis.RedisError:
                    continue
            time.sleep(0.05)


def scenario_a_lab_of_three_nodes_a_region(lab):
    lab.down()
    own = state["lab"] = Lab(lab.folder + "-nodes")
    state["regions"] = list(REGIONS)
    own.meridian("lab", "up", "--nodes", "3", "--without", "postgres")
    known = eventually("all nodes are where they belong",
                       lambda: (lambda n: n if len(n) == 9 and all(
                           node["role"] == "voter" and node["done"] for node in n.values())
                           else None)(nodes("eu-west")), 20)
    expect(len(known), 9, "nodes")
    for region in REGIONS:
        round_of_everything(own, region, 2)


def scenario_one_node_of_each_region_dies_in_turn(_):
    own = state["lab"]
    for region in REGIONS:
        by = ("eu-west" if region == "us-east" else "us-east", 2)
        dies = eventually(f"somebody carries {region}", lambda r=region, b=by: carrier(r, b))
        lives = 2 if dies != 2 else 3
        own.meridian("lab", "kill", f"{region}/{dies}")
        round_of_everything(own, region, lives)
        eventually(f"another node carries {region}",
                   lambda r=region, b=by, d=dies: carrier(r, b) not in (None, d), 10)
        own.meridian("lab", "start", f"{region}/{dies}")


def start_node(own, region, number, address, servers=None):
    """A node that a person adds: certificate, configuration, daemon."""
    folder = os.path.join(own.folder, f"{region}-{number}")
    os.makedirs(folder, exist_ok=True)
    pki = own.meridian("lab", "certificate", region, str(number)).strip()
    path = os.path.join(folder, "meridiand.conf")
    parts = "" if servers is None else \
        f'redis "{servers}:6379"; dns "{servers}:5353"; edge "{servers}:8080";'
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""cluster lab; region {region}; node {number};
topology "{folder}/topology.conf"; data_dir "{folder}/data"; run_dir "{folder}/run";
pki {{ ca "{pki}/ca.crt"; cert "{pki}/node.crt"; key "{pki}/node.key"; }}
listen {{ link "{address}:7401"; admin "{address}:7400"; locks "{address}:7402"; }}
{parts}
""")
    with open(os.path.join(folder, "topology.conf"), "w", encoding="utf-8") as file:
        file.write(own.meridian("topology"))
    log = open(os.path.join(folder, "log"), "ab")  # pylint: disable=consider-using-with
    return subprocess.Popen([os.path.join(BUILD, "meridiand"), "-c", path], stdout=log, stderr=log)


def applying(own, text):
    """`meridian apply` that goes on while the scenario does."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "topology.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    plan = own.meridian("plan", path)
    process = subprocess.Popen([os.path.join(BUILD, "meridian"), "apply", path],
                               env=own.environment, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    return plan, process


def next_epoch(own, text):
    epoch = own.status()["epoch"]
    return text.replace(f"epoch = {epoch};", f"epoch = {epoch + 1};", 1)


def scenario_a_witness_comes_and_a_region_goes_while_clients_work(_):
    own = state["lab"]
    writer = Writer(own, ["us-east", "eu-west"])
    writer.start()
    section = ("\nregion south { id = 9; role = witness; node south-1 { id = 41; "
               f'link = "{WITNESS}:7401"; admin = "{WITNESS}:7400"; locks = "{WITNESS}:7402"; }} }}\n')
    plan, process = applying(own, own.meridian("topology") + section)
    for words in ("votes: 9 before", "then 10", "south-1 (id 41) comes"):
        expect_true(words in plan, f"the plan says {words!r}: {plan}")
    eventually("it is agreed", lambda: "region south" in own.meridian("topology"))
    state["witness"] = start_node(own, "south", 41, WITNESS)
    said = process.communicate(timeout=60)[0]
    expect_true(process.returncode == 0 and "done" in said, f"apply ends: {said}")
    expect(nodes("us-east", 2)["south-1"]["role"], "witness", "the new node")
    status, said = apply(own, without(own.meridian("topology")))
    expect_true(status == 0 and "done" in said, f"the region is taken out: {said}")
    state["regions"].remove("ap-southeast")
    own.kill("ap-southeast")
    writer.on = False
    writer.join(20)
    expect(writer.lost, None, "the lock is held all the time")
    for region in state["regions"]:
        eventually(f"{region} has counted all",
                   lambda r=region: int(own.redis(r).get("counted")) == writer.count, 15)


def scenario_a_region_that_would_be_left_without_state_is_refused(_):
    own = state["lab"]
    text = own.meridian("topology")
    for number in (1, 2, 3):
        number_id = 2 if number == 1 else 20 + number
        text = text.replace(f"id = {number_id};\n                link = \"127.20.0.{number}",
                            f"id = {50 + number};\n                link = \"127.20.0.{number}")
    status, said = apply(own, text)
    expect_true(status != 0 and "keep no node" in said, f"refused: {said}")


def scenario_the_witness_is_lost(_):
    own = state["lab"]
    state["witness"].send_signal(signal.SIGKILL)
    state["witness"].wait(10)
    for region in state["regions"]:
        round_of_everything(own, region, 2)


def scenario_a_dead_node_is_replaced_by_another_while_clients_work(_):
    own = state["lab"]
    writer = Writer(own, state["regions"])
    own.meridian("lab", "kill", "us-east/3")
    writer.start()
    text = own.meridian("topology")
    expect(text.count("node us-east-3 {"), 1, "it is in the document")
    text = text.replace("node us-east-3 {", "node us-east-4 {").replace("id = 13;", "id = 14;")
    text = text.replace("127.10.0.3:", "127.10.0.4:")
    plan, process = applying(own, next_epoch(own, text))
    for words in ("us-east-4 (id 14) comes", "us-east-3 (id 13) goes"):
        expect_true(words in plan, f"the plan says {words!r}: {plan}")
    eventually("it is agreed", lambda: "node us-east-4" in own.meridian("topology"))
    state["fourth"] = start_node(own, "us-east", 14, address("us-east", 4), ADDRESSES["us-east"])
    said = process.communicate(timeout=60)[0]
    expect_true(process.returncode == 0 and "done" in said, f"apply ends: {said}")
    known = nodes("eu-west", 2)
    expect((known["us-east-4"]["role"], "us-east-3" in known), ("voter", False), "who is there")
    writer.on = False
    writer.join(20)
    expect(writer.lost, None, "the lock is held all the time")
    own.meridian("lab", "kill", "us-east/1")
    round_of_everything(own, "us-east", 2)  # of 1, 2 and 4 two are there: the new one votes


def scenario_the_lab_of_three_nodes_ends(_):
    for name in ("witness", "fourth"):
        process = state.pop(name, None)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(10)
    own = state.pop("lab", None)
    if own is None:
        raise Failure("it never began")
    own.meridian("lab", "down", "--wipe")
