#!/usr/bin/python3
"""The leader is killed: how long until the next grant? Three nodes beside three nodes of etcd, A B A B.

Meridian twice: three nodes of one region (its own group), and three regions of one node each (the
global group; no delay is injected). A client at each node that is left asks for a new lock, again and
again, each time with 200 ms of patience; what counts is the first grant of any. etcd is asked for a put,
the least that needs its leader. The kill is SIGKILL, so the others hear the connection close, as after
a crash of the process, not of the machine.

    leader.py [--rounds N]
"""
import argparse
import base64
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import bench

PATIENCE = 0.2


def resp(sock, *words):
    """One command; its first line, empty where nothing came in time."""
    data = f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
    sock.sendall(data.encode())
    return sock.recv(4096).decode()


def meridian_grant(door, prefix, number):
    host, port = door.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as sock:
        return resp(sock, "LOCK.ACQUIRE", f"{prefix}{number}", "me", "60000").startswith("*2")


def etcd_grant(door, _prefix, number):
    host, port = door.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
    try:
        key = base64.b64encode(f"k{number}".encode()).decode()
        connection.request("POST", "/v3/kv/put", json.dumps({"key": key, "value": key}))
        return connection.getresponse().status == 200
    finally:
        connection.close()


def meridian_leader(servers, mark):
    """The index of the node that the first one takes for the leader; of a region, that carries."""
    host = servers.doors[0].rsplit(":", 1)[0]
    with urllib.request.urlopen(f"http://{host}:7400/status", timeout=2) as answer:
        status = json.loads(answer.read())
    return next(node["id"] for node in status["nodes"] if node[mark]) - 1


def etcd_leader(servers, _mark):
    for i, door in enumerate(servers.doors):
        request = urllib.request.Request(f"http://{door}/v3/maintenance/status", b"{}")
        with urllib.request.urlopen(request, timeout=2) as answer:
            status = json.loads(answer.read())
        if status["leader"] == status["header"]["member_id"]:
            return i
    raise KeyError("leader")


def found(ask):
    """What `ask` gives, once it gives something."""
    box = []

    def look():
        box.append(ask())
        return True

    bench.wait_for(look, "a leader that knows it")
    return box[-1]


def next_grant(grant, doors, prefix, killed_at):
    """Seconds from the kill to the first grant at any of the doors."""
    first = []

    def client(door, number):
        while not first and time.monotonic() < killed_at + 30:
            number += 10
            try:
                if grant(door, prefix, number):
                    first.append(time.monotonic() - killed_at)
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.005)

    threads = [threading.Thread(target=client, args=(door, i)) for i, door in enumerate(doors)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(first) if first else float("inf")


KINDS = [  # name, servers, what marks the leader, its locks, asking, finding, the aim
    ("meridian, in a region", bench.Region, "carries", "us-east:l", meridian_grant, meridian_leader, 2),
    ("meridian, global", bench.Meridian, "leader", "global:l", meridian_grant, meridian_leader, 3),
    ("etcd", bench.Etcd, None, "", etcd_grant, etcd_leader, None),
]


def one(root, kind):
    _, make, mark, prefix, grant, leader_of, _ = kind
    os.makedirs(root)
    servers = make(root, 3)
    try:
        leader = found(lambda: leader_of(servers, mark))
        bench.wait_for(lambda: grant(servers.doors[leader], prefix, 0), "a first grant")
        time.sleep(1)  # followers have heard of it, and leases stand
        doors = [door for i, door in enumerate(servers.doors) if i != leader]
        servers.processes[leader].send_signal(signal.SIGKILL)
        servers.processes[leader].wait()
        return next_grant(grant, doors, prefix, time.monotonic())
    finally:
        servers.processes = [p for p in servers.processes if p.poll() is None]
        servers.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if shutil.which("etcd") is None:
        sys.exit("leader: etcd is missing: apt-get install etcd-server")
    subprocess.run(["ninja", "-C", f"{bench.ROOT}/build", "meridiand", "tests/meridiand/make_pki"],
                   check=True, stdout=subprocess.DEVNULL)
    root = tempfile.mkdtemp(prefix="bench-leader-",
                            dir=os.environ.get("BENCH_DIR", bench.ROOT + "/build"))
    times = {kind[0]: [] for kind in KINDS}
    try:
        for turn in range(args.rounds):
            for number, kind in enumerate(KINDS):
                times[kind[0]].append(one(f"{root}/{turn}-{number}", kind))
        rival = statistics.median(times["etcd"])
        print(f"{'leader killed':24} {'median s':>9} {'least':>7} {'most':>7} {'of etcd':>8}  aim")
        for name, *_, aim in KINDS:
            middle = statistics.median(times[name])
            print(f"{name:24} {middle:9.2f} {min(times[name]):7.2f} {max(times[name]):7.2f} "
                  f"{middle / rival:8.2f}  {'' if aim is None else f'< {aim} s'}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
