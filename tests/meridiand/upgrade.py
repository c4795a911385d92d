#!/usr/bin/python3
"""Three real daemons, of which one speaks as an older build (`level 1`), are brought to the newer one
while they serve: what the older one does not know is refused by name, and works when all know it; an
older one that comes later is not let in, and says why. Prints TAP.

    upgrade.py MERIDIAND MAKE_PKI
"""
import os
import shutil
import subprocess
import sys
import tempfile

import cluster
from cluster import REGIONS, agreed, check, wait_for

OLD = "level 1;\n"


def keep_old(node, old):
    with open(node.conf, encoding="utf-8") as file:
        text = file.read().replace(OLD, "")
    with open(node.conf, "w", encoding="utf-8") as file:
        file.write((OLD if old else "") + text)


def levels(nodes):
    return [node.status()["level"] for node in nodes]


def run(nodes):
    keep_old(nodes[2], True)
    for node in nodes:
        node.start()
    wait_for(lambda: agreed(nodes), "they agree on a leader")
    wait_for(lambda: "node 3 knows level 1" in nodes[0].command("KV.PUT", "global:word", "hello"),
             "a value is refused, and it is said whose build is too old")
    check("node 3 knows level 1" in nodes[0].command("LOCK.ACQUIRE", "global:a", "me", "9000", "ALSO",
                                                     "global:b"), "so are several locks at once")
    wait_for(lambda: cluster.token_of(nodes[1].command("LOCK.ACQUIRE", "global:a", "me", "9000")),
             "locks work meanwhile")
    check(levels(nodes) == [1, 1, 1], "the level has not risen", str(levels(nodes)))

    nodes[2].stop()
    keep_old(nodes[2], False)
    nodes[2].start()
    wait_for(lambda: levels(nodes) == [4, 4, 4], "with the newer build everywhere it rises")
    wait_for(lambda: not nodes[0].command("KV.PUT", "global:word", "hello").startswith("-"),
             "now a value is taken")
    wait_for(lambda: cluster.token_of(nodes[2].command("LOCK.ACQUIRE", "global:c", "me", "900", "ALSO",
                                                       "global:b")), "and several locks are")
    wait_for(lambda: "hello" in nodes[2].command("KV.GET", "global:word"), "and read elsewhere")

    nodes[1].stop()
    keep_old(nodes[1], True)
    nodes[1].start()
    wait_for(lambda: "later build" in nodes[1].log(), "an older build that comes back says why not")
    wait_for(lambda: nodes[1].status()["stopped"], "and takes no part")
    wait_for(lambda: "hello" in nodes[0].command("KV.GET", "global:word"), "the others go on")
    nodes[1].stop()
    keep_old(nodes[1], False)
    nodes[1].start()
    wait_for(lambda: levels(nodes) == [4, 4, 4] and not nodes[1].status()["stopped"],
             "with the newer build it is back")


def main():
    daemon, make_pki = sys.argv[1:3]
    root = tempfile.mkdtemp(prefix="meridian-upgrade-")
    nodes = []
    try:
        subprocess.run([make_pki, f"{root}/pki", "test"]
                       + [f"{region}/{index + 1}" for index, region in enumerate(REGIONS)], check=True)
        cluster.topology_write(root)
        nodes = [cluster.Node(root, daemon, index, False) for index in range(len(REGIONS))]
        run(nodes)
    finally:
        for node in nodes:
            if node.process is not None:
                node.stop()
            if cluster.failures:
                print("\n".join("# " + line for line in node.log().splitlines()[-15:]))
        shutil.rmtree(root, ignore_errors=True)
    print(f"1..{cluster.count}")
    return 1 if cluster.failures else 0


if __name__ == "__main__":
    cluster.own_network.enter()
    sys.exit(main())
