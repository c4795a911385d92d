#!/usr/bin/python3
"""A global lock over the lab's latencies, beside etcd over the same: three regions of one node each, 70,
179 and 220 ms apart (round trips, as `meridian lab` has them). Meridian delays its own links; the
members of etcd reach each other through proxies here, one before each member, which delay in both
directions what those distances come from. One client at a node takes and gives back a lock, over and over;
the leader of both is in the same region.

The floor of a region is what light needs: the way to the leader and back, and the leader's round trip to
the nearest other region. The aim is 3 ms above it. etcd's lock is its transaction "put under my lease
if absent".

    wide.py [--seconds S]
"""
import argparse
import asyncio
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request

import bench

RTT_MS = {(0, 1): 70, (0, 2): 220, (1, 2): 179}
AIM_MS = 3


def rtt_ms(a, b):
    return 0 if a == b else RTT_MS[min(a, b), max(a, b)]


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as answer:
        return json.loads(answer.read())


class Wide(bench.Meridian):
    """Three regions, far from each other."""

    def __init__(self, root, nodes):
        super().__init__(root, nodes)
        for a in range(nodes):
            for b in range(nodes):
                if a != b:
                    ask(f"http://127.96.1.{a + 1}:7400/lab/link",
                        {"region": bench.REGIONS[b], "delay_us": rtt_ms(a, b) * 500})

    def conf_write(self, number, region, host):
        path = super().conf_write(number, region, host)
        with open(path, "a", encoding="utf-8") as file:
            file.write("lab { impairments on }\n")
        return path

    def leader_index(self):
        nodes = ask("http://127.96.1.1:7400/status")["nodes"]
        return next((node["id"] for node in nodes if node["leader"]), 0) - 1

    def leader_settled(self):
        """Where it stays: it goes to where the round trips have been shorter for half a minute."""
        seen = []

        def stays():
            seen.append(self.leader_index())
            time.sleep(0.2)
            return seen[-1] >= 0 and len(seen) > 200 and len(set(seen[-200:])) == 1
        bench.wait_for(stays, "a leader that stays", 150)
        return seen[-1]


class Proxy:
    """Passes on to a port on the same host, late by the same time in both directions."""

    def __init__(self, loop, host, port, target, delay_s):
        self.loop, self.host, self.target, self.delay_s = loop, host, target, delay_s
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self.came, host, port), loop).result(10)

    async def came(self, reader, writer):
        try:
            there, back = await asyncio.open_connection(self.host, self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.passed(reader, back), self.passed(there, writer))

    async def passed(self, reader, writer):
        try:
            while data := await reader.read(65536):
                self.loop.call_later(self.delay_s, writer.write, data)
        except OSError:
            pass
        self.loop.call_later(self.delay_s, writer.close)


class WideEtcd(bench.Etcd):
    """Each member is advertised by the address of a proxy before it."""

    def __init__(self, root, nodes):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        # What one member tells another goes by its own proxy, as the listener dials; what comes
        # back by the other's. So a round trip is the sum of two members' delays.
        total = sum(RTT_MS.values()) / 2
        for i in range(nodes):
            others = [j for j in range(nodes) if j != i]
            Proxy(self.loop, f"127.96.0.{i + 1}", 2380, 12380,
                  (total - rtt_ms(*others)) / 1000)
        super().__init__(root, nodes)

    def stop(self):
        super().stop()

        async def end():
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def run(self, name, *command):
        listen = command.index("--listen-peer-urls") + 1
        words = list(command)
        words[listen] = words[listen].replace(":2380", ":12380")
        super().run(name, *words, "--heartbeat-interval", "250", "--election-timeout", "2500")

    def member(self, index):
        return ask(f"http://{self.doors[index]}/v3/maintenance/status", {})

    def lead(self, index):
        """The leader goes there."""
        wanted = self.member(index)["header"]["member_id"]

        def moved():
            now = self.member(index)["leader"]
            if now == wanted:
                return True
            for door in range(len(self.doors)):
                if self.member(door)["header"]["member_id"] == now:
                    ask(f"http://{self.doors[door]}/v3/maintenance/transfer-leadership",
                        {"targetID": wanted})
            return False
        bench.wait_for(moved, "etcd's leader in the same region", 30)


def floor_ms(region, leader):
    nearest = min(rtt_ms(leader, other) for other in range(3) if other != leader)
    return rtt_ms(region, leader) + nearest


def at_door(servers, name, region, seconds, prefix):
    doors, servers.doors = servers.doors, [servers.doors[region]]
    try:
        return bench.load(servers, name, 1, seconds, prefix)
    finally:
        servers.doors = doors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=6)
    args = parser.parse_args()
    bench.prepare()
    root = tempfile.mkdtemp(prefix="bench-wide-",
                            dir=os.environ.get("BENCH_DIR", bench.ROOT + "/build"))
    folders = [os.path.join(root, name) for name in ("ours", "etcd")]
    for folder in folders:
        os.makedirs(folder)
    servers = []
    try:
        servers.append(Wide(folders[0], 3))
        servers.append(WideEtcd(folders[1], 3))
        leader = servers[0].leader_settled()
        servers[1].lead(leader)
        print(f"both leaders in {bench.REGIONS[leader]}; one client; milliseconds")
        print(f"{'client in':14} {'product':10} {'floor':>7} {'acquire p50':>12} {'above':>7} "
              f"{'p99':>8} {'release p50':>12}  aim")
        for region in range(3):
            floor = floor_ms(region, leader)
            for name, product, prefix in (("meridian", servers[0], "global:"),
                                          ("etcd-txn", servers[1], "wide-")):
                run = at_door(product, name, region, args.seconds, f"{prefix}{region}-")
                p50 = run["first_p50_us"] / 1e3
                aim = f"floor + {AIM_MS}" if name == "meridian" else ""
                print(f"{bench.REGIONS[region]:14} {name:10} {floor:7} {p50:12.1f} {p50 - floor:7.1f} "
                      f"{run['first_p99_us'] / 1e3:8.1f} {run['second_p50_us'] / 1e3:12.1f}  {aim}",
                      flush=True)
        if servers[0].leader_index() != leader:
            print("(Meridian's leader has moved meanwhile: measure again)")
    finally:
        for product in servers:
            product.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
