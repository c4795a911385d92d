#!/usr/bin/python3
"""A backup of three real daemons while they go on, and a restore into new folders: what was backed up
is there, tokens and revisions only grow, and a node of the old life does not mix with the new one.
Prints TAP.

    test_backup.py MERIDIAND MAKE_PKI MERIDIAN
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import cluster
from cluster import REGIONS, check, token_of, wait_for


def meridian(args, nodes, *words):
    command = [args.meridian]
    for node in nodes:
        command += ["--node", f"{node.host}:7400"]
    done = subprocess.run(command + list(words), check=False, text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def number(answer):
    return int(answer[1:]) if answer.startswith(":") else None


def run(args, nodes, root):
    for node in nodes:
        node.start()
    wait_for(lambda: cluster.agreed(nodes), "all agree")
    held = token_of(nodes[0].command("LOCK.ACQUIRE", "global:held", "me", "3600000"))
    own = token_of(nodes[1].command("LOCK.ACQUIRE", "eu-west:held", "me", "3600000"))
    revision = number(nodes[0].command("KV.PUT", "global:value", "before"))
    check(None not in (held, own, revision), "locks are held and a value is written")
    # A backup that is larger than what the door copies.
    wait_for(lambda: all(number(nodes[0].command("KV.PUT", f"us-east:large-{i}", f"{i:060000}"))
                         for i in range(40)), "and many that are large")

    stopped, failed = threading.Event(), []

    def load():
        while not stopped.is_set():
            if token_of(nodes[0].command("LOCK.ACQUIRE", "us-east:load", "load", "1000")) is None:
                failed.append(1)
    busy = threading.Thread(target=load)
    busy.start()
    file = os.path.join(root, "cluster.backup")
    status, text = meridian(args, nodes, "backup", file, "--json")
    stopped.set()
    busy.join()
    check(status == 0 and '"whole": true' in text and
          all(f'"group": "{region}"' in text for region in REGIONS + ["global"]),
          "a backup has all groups", text)
    check(os.path.getsize(file) > 40 * 60000, "and all that they hold", str(os.path.getsize(file)))
    check(not failed, "while locks are granted")

    last = max(token_of(nodes[0].command("LOCK.ACQUIRE", f"global:after-{i}", "me", "3600000"))
               for i in range(20))
    nodes[0].command("KV.PUT", "global:value", "after")
    for node in nodes:
        node.stop()
    old = os.path.join(root, "old")
    for node in nodes:
        shutil.move(f"{node.dir}/data", f"{old}-{node.region}")
        os.makedirs(f"{node.dir}/data")
    with open(file, "rb") as whole:
        data = whole.read()
    with open(f"{file}.bad", "wb") as bad:
        bad.write(data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:])
    status, text = meridian(args, nodes, "restore", f"{file}.bad", f"{nodes[0].dir}/data")
    check(status == 1 and "no backup" in text, "a damaged backup is refused", text)
    status, text = meridian(args, nodes, "restore", file, f"{old}-{REGIONS[0]}")
    check(status == 1 and "journal-global" in text, "so is a folder that has journals", text)
    status, text = meridian(args, nodes, "restore", file, f"{nodes[0].dir}/data")
    check(status == 0 and "--life" in text, "a restore makes a folder ready", text)
    life = text.split("--life ")[1].split()[0]
    check(meridian(args, nodes, "restore", file, f"{nodes[1].dir}/data", "--life", life)[0] == 0,
          "and the second by the same life")

    # The third is a node of the old life, which has lost nothing.
    shutil.rmtree(f"{nodes[2].dir}/data")
    shutil.copytree(f"{old}-{nodes[2].region}", f"{nodes[2].dir}/data")
    for node in nodes:
        node.start()
    wait_for(lambda: cluster.agreed(nodes[:2]), "two restored nodes are a majority")
    wait_for(lambda: "before" in nodes[0].command("KV.GET", "global:value"), "the value is there")
    wait_for(lambda: "$60000\r\n" in nodes[0].command("KV.GET", "us-east:large-39"),
             "the large ones too")
    check(nodes[1].command("LOCK.ACQUIRE", "global:held", "you", "1000")[:3] in ("$-1", "*-1"),
          "the lock is held")
    check(f":{held}\r\n" in nodes[0].command("LOCK.INFO", "global:held"), "by its token")
    check(f":{own}\r\n" in nodes[1].command("LOCK.INFO", "eu-west:held"),
          "and that of a region likewise")
    token = token_of(nodes[0].command("LOCK.ACQUIRE", "global:after-0", "you", "1000"))
    check(token is not None and token > last, "what came after the backup is gone, its tokens are not",
          f"{token} {last}")
    second = number(nodes[0].command("KV.PUT", "global:value", "again"))
    check(second is not None and second > revision + (1 << 40), "revisions have jumped ahead",
          str(second))
    answer = nodes[2].command("LOCK.ACQUIRE", "global:mixed", "old", "1000")
    check(answer.startswith("-"), "a node of the old life decides nothing", answer)
    check("global:mixed" not in nodes[0].command("LOCK.LIST", "global:"), "and nothing is decided for it")
    check(all(n.status()["term"] < 50 for n in nodes[:2]), "nor does it disturb the others")

    nodes[2].stop(signal.SIGKILL)
    shutil.rmtree(f"{nodes[2].dir}/data")
    os.makedirs(f"{nodes[2].dir}/data")
    meridian(args, nodes, "restore", file, f"{nodes[2].dir}/data", "--life", life)
    nodes[2].start()
    wait_for(lambda: cluster.agreed(nodes), "restored, it is one of them")
    wait_for(lambda: token_of(nodes[2].command("LOCK.ACQUIRE", "global:third", "me", "1000")),
             "and grants locks")
    nodes[0].stop(signal.SIGKILL)
    nodes[0].start()
    wait_for(lambda: cluster.agreed(nodes), "a restart keeps the life")
    wait_for(lambda: token_of(nodes[0].command("LOCK.ACQUIRE", "us-east:own", "me", "1000")),
             "and its own group goes on")


class Args:
    pass


def main():
    args = Args()
    args.daemon, make_pki, args.meridian = (os.path.abspath(a) for a in sys.argv[1:4])
    root = tempfile.mkdtemp(prefix="meridian-backup-")
    subprocess.run([make_pki, f"{root}/pki", "test"]
                   + [f"{region}/{i + 1}" for i, region in enumerate(REGIONS)], check=True)
    cluster.topology_write(root)
    nodes = [cluster.Node(root, args.daemon, index, False) for index in range(3)]
    try:
        run(args, nodes, root)
    finally:
        for node in nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        if cluster.failures:
            for node in nodes:
                print(f"# log of {node.region}, its end:")
                for line in node.log().splitlines()[-12:]:
                    print(f"#   {line}")
        shutil.rmtree(root)
    print(f"1..{cluster.count}")
    return 1 if cluster.failures else 0


if __name__ == "__main__":
    cluster.own_network.enter()
    sys.exit(main())
