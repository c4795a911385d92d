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

from lab import (ADDRESSES, BUILD, LIMIT_S, REGIONS, Failure, Lab, after, eventually, expect,
                 expect_true)
from removal import without

WITNESS = "127.40.0.1"
LEASE_S = 30  # renewed all the time
state = {}


def address(region, node):
    return ADDRESSES[region][:-1] + str(node)


def nodes(region, node=1):
    """{(region, name): what is known of it} by one node."""
    answer = requests.get(f"http://{address(region, node)}:7400/status", timeout=5).json()
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
        client = lab.locks(region, alive)
        token = client.execute_command("LOCK.ACQUIRE", key, "ann", 600000, "WAIT", 30000)[0]
        expect(client.execute_command("LOCK.CHECK", key, token), 1, f"{key} is held")
        expect(client.execute_command("LOCK.RELEASE", key, "ann", token), 1, f"{key} is released")
    word = f"{region}-{alive}-{time.monotonic()}"
    lab.redis(region).set("word", word)
    for other in REGIONS:
        if other != region and other in state["regions"]:
            eventually(f"{other} reads what {region} wrote",
                       lambda o=other: lab.redis(o).get("word") == word)


class Writer(threading.Thread):
    """Counts in every region's Redis, and renews a lock, until it is told to stop."""

    def __init__(self, lab, regions):
        super().__init__(daemon=True)
        self.lab, self.regions, self.on, self.count, self.lost = lab, regions, True, 0, None
        self.token = lab.locks("us-east", 2).execute_command(
            "LOCK.ACQUIRE", "global:held", "me", LEASE_S * 1000)[0]

    def run(self):
        while self.on:
            for region in self.regions:
                self.lab.redis(region).incr("counted")
                self.count += 1
            for node in (2, 3, 1):
                client = redis.Redis(host=address("us-east", node), port=7402, socket_timeout=5,
                                     decode_responses=True)
                try:
                    client.execute_command("LOCK.RENEW", "global:held", "me", self.token,
                                           LEASE_S * 1000)
                    break
                except redis.RedisError as error:
                    if str(error).startswith("NOTOWNER"):
                        self.lost = f"the lock was lost: {error}"
            time.sleep(0.05)


def scenario_a_lab_of_three_nodes_a_region(lab):
    lab.down()
    own = state["lab"] = Lab(lab.folder + "-nodes")
    state["regions"] = list(REGIONS)
    own.meridian("lab", "up", "--nodes", "3", "--without", "postgres")
    known = eventually("all nodes are where they belong",
                       lambda: (lambda n: n if len(n) == 9 and all(
                           node["role"] == "voter" and node["done"] for node in n.values())
                           else None)(nodes("eu-west")))
    expect(len(known), 9, "nodes")
    for region in REGIONS:
        round_of_everything(own, region, 2)


@after(scenario_a_lab_of_three_nodes_a_region)
def scenario_one_node_of_each_region_dies_in_turn(_):
    own = state["lab"]
    for region in REGIONS:
        by = ("eu-west" if region == "us-east" else "us-east", 2)
        dies = eventually(f"somebody carries {region}", lambda r=region, b=by: carrier(r, b))
        lives = 2 if dies != 2 else 3
        own.meridian("lab", "kill", f"{region}/{dies}")
        round_of_everything(own, region, lives)
        eventually(f"another node carries {region}",
                   lambda r=region, b=by, d=dies: carrier(r, b) not in (None, d))
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


class Applying(threading.Thread):
    """`meridian apply` that goes on while the scenario does; `plan` is what would be done."""

    def __init__(self, own, change):
        super().__init__(daemon=True)
        self.own, self.change, self.done = own, change, None
        with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as file:
            file.write(change(own.meridian("topology")))
            file.flush()
            self.plan = own.meridian("plan", file.name)
        self.start()

    def run(self):
        self.done = self.own.apply(self.change)

    def end(self):
        self.join(4 * LIMIT_S)
        expect_true(self.done, "apply ends")
        expect_true(self.done[0] == 0 and "done" in self.done[1], f"apply ends well: {self.done}")


@after(scenario_one_node_of_each_region_dies_in_turn)
def scenario_a_witness_comes_and_a_region_goes_while_clients_work(_):
    own = state["lab"]
    writer = Writer(own, ["us-east", "eu-west"])
    writer.start()
    section = ("\nregion south { id = 9; role = witness; node south-1 { id = 41; "
               f'link = "{WITNESS}:7401"; admin = "{WITNESS}:7400"; locks = "{WITNESS}:7402"; }} }}\n')
    applying = Applying(own, lambda text: text if "region south" in text else text + section)
    for words in ("votes: 9 before", "then 10", "south-1 (id 41) comes"):
        expect_true(words in applying.plan, f"the plan says {words!r}: {applying.plan}")
    eventually("it is agreed", lambda: "region south" in own.meridian("topology"))
    state["witness"] = start_node(own, "south", 41, WITNESS)
    applying.end()
    eventually("the new node is a witness",
               lambda: nodes("us-east", 2)["south-1"]["role"] == "witness")
    said = own.applied(without)
    expect_true("done" in said, f"the region is taken out: {said}")
    state["regions"].remove("ap-southeast")
    own.kill("ap-southeast")
    writer.on = False
    writer.join(2 * LIMIT_S)
    expect(writer.lost, None, "the lock is held all the time")
    for region in state["regions"]:
        eventually(f"{region} has counted all",
                   lambda r=region: int(own.redis(r).get("counted")) == writer.count)


@after(scenario_a_witness_comes_and_a_region_goes_while_clients_work)
def scenario_a_region_that_would_be_left_without_state_is_refused(_):
    own = state["lab"]
    def others(text):
        for number in (1, 2, 3):
            number_id = 2 if number == 1 else 20 + number
            text = text.replace(f"id = {number_id};\n                link = \"127.20.0.{number}",
                                f"id = {50 + number};\n                link = \"127.20.0.{number}")
        return text
    status, said = own.apply(others)
    expect_true(status != 0 and "keep no node" in said, f"refused: {said}")


@after(scenario_a_region_that_would_be_left_without_state_is_refused)
def scenario_the_witness_is_lost(_):
    own = state["lab"]
    state["witness"].send_signal(signal.SIGKILL)
    state["witness"].wait(10)
    for region in state["regions"]:
        round_of_everything(own, region, 2)


@after(scenario_the_witness_is_lost)
def scenario_a_dead_node_is_replaced_by_another_while_clients_work(_):
    own = state["lab"]
    writer = Writer(own, state["regions"])
    own.meridian("lab", "kill", "us-east/3")
    writer.start()
    expect(own.meridian("topology").count("node us-east-3 {"), 1, "it is in the document")
    applying = Applying(own, lambda text: text.replace("127.10.0.3:", "127.10.0.4:").replace(
        "node us-east-3 {", "node us-east-4 {").replace("id = 13;", "id = 14;"))
    for words in ("us-east-4 (id 14) comes", "us-east-3 (id 13) goes"):
        expect_true(words in applying.plan, f"the plan says {words!r}: {applying.plan}")
    eventually("it is agreed", lambda: "node us-east-4" in own.meridian("topology"))
    state["fourth"] = start_node(own, "us-east", 14, address("us-east", 4), ADDRESSES["us-east"])
    applying.end()
    eventually("one is there instead of the other", lambda: (
        lambda known: known["us-east-4"]["role"] == "voter" and "us-east-3" not in known)(
            nodes("eu-west", 2)))
    writer.on = False
    writer.join(2 * LIMIT_S)
    expect(writer.lost, None, "the lock is held all the time")
    own.meridian("lab", "kill", "us-east/1")
    round_of_everything(own, "us-east", 2)  # of 1, 2 and 4 two are there: the new one votes


@after(scenario_a_dead_node_is_replaced_by_another_while_clients_work)
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
