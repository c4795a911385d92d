#!/usr/bin/python3
"""Replication lag between two regions beyond the network's one-way delay.

A writer sets a probe key in us-east and notes the time; a reader in eu-west asks for it without a
pause until it is there. Meridian's link carries the lab's one-way delay (35 ms), which is taken off.
The rival in the same run is Redis's own replication (one primary, one replica, no added delay, so
nothing is taken off), read by the same reader. Both at idle and under a load of writes.

Needs a running lab (`make lab`); the rival's two servers are started and stopped here.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import redis

ORIGIN = ("127.10.0.1", 6379)
TARGET = ("127.20.0.1", 6379)
RIVAL = "127.98.0.1"


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def one_way_ms(build):
    """The delay that the lab adds in one direction, from the round trip that Meridian measures."""
    text = subprocess.run([os.path.join(build, "meridian"), "status", "--json"],
                          check=True, capture_output=True, text=True).stdout
    for region in json.loads(text)["regions"]:
        if region["name"] == "us-east":
            rtt = region["rtt_ms"]["eu-west"]
            if rtt is None:
                sys.exit("bench/replication: the round trip us-east to eu-west is not known yet")
            return rtt / 2
    sys.exit("bench/replication: status shows no region us-east; is the lab up? (make lab)")


class Load(threading.Thread):
    """About `rate` SETs a second to one server, in pipelines, over 10,000 keys."""

    def __init__(self, address, rate):
        super().__init__(daemon=True)
        self.address, self.rate, self.done, self.sent = address, rate, threading.Event(), 0
        self.seconds = 0.0

    def run(self):
        if self.rate == 0:
            return
        batch = max(1, self.rate // 200)
        payload = b"".join(
            b"*3\r\n$3\r\nSET\r\n$8\r\nload%04d\r\n$100\r\n%s\r\n" % (i % 10000, b"x" * 100)
            for i in range(batch))
        answer = len(b"+OK\r\n") * batch
        with socket.create_connection(self.address) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            start = time.monotonic()
            while not self.done.is_set():
                sock.sendall(payload)
                left = answer
                while left > 0:
                    left -= len(sock.recv(min(left, 65536)))
                self.sent += batch
                ahead = self.sent / self.rate - (time.monotonic() - start)
                if ahead > 0:
                    time.sleep(ahead)
            self.seconds = time.monotonic() - start


def measure(origin, target, rate, samples, interval):
    """Lags in ms of `samples` probe writes, and the load that was really reached."""
    writer = redis.Redis(*origin)
    reader = redis.Redis(*target)
    load = Load(origin, rate)
    load.start()
    time.sleep(0.5)
    lags = []
    for i in range(samples):
        value = b"%d" % i
        start = time.monotonic()
        writer.set("bench:probe", value)
        deadline = start + 10
        while reader.get("bench:probe") != value:
            if time.monotonic() > deadline:
                sys.exit(f"bench/replication: a write to {origin} did not reach {target} in 10 s")
        lags.append((time.monotonic() - start) * 1000)
        time.sleep(interval)
    load.done.set()
    load.join()
    return lags, (load.sent / load.seconds if load.seconds else 0)


def start_rival(folder):
    """A stock primary with one stock replica on loopback."""
    servers = []
    for port, more in ((7001, []), (7002, ["--replicaof", f"{RIVAL} 7001"])):
        path = os.path.join(folder, str(port))
        os.mkdir(path)
        servers.append(subprocess.Popen(
            ["redis-server", "--bind", RIVAL, "--port", str(port), "--dir", path, "--save", "",
             "--appendonly", "yes", "--repl-diskless-sync-delay", "0", *more],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if redis.Redis(RIVAL, 7002).info("replication")["master_link_status"] == "up":
                return servers
        except redis.RedisError:
            pass
        time.sleep(0.1)
    for server in servers:
        server.terminate()
    sys.exit("bench/replication: the rival's replica did not come up in 20 s")


def report(name, rows, delay):
    for label, lags, reached in rows:
        beyond = [lag - delay for lag in lags]
        print(f"  {name:22} {label:12} p50 {statistics.median(beyond):7.2f} ms   "
              f"p99 {percentile(beyond, 0.99):7.2f} ms   max {max(beyond):7.2f} ms   "
              f"({len(lags)} probes, {reached:,.0f} writes/s beside)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.path.join(os.path.dirname(__file__), "../../build"))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rate", type=int, default=20000)
    args = parser.parse_args()
    delay = one_way_ms(args.build)
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    servers = start_rival(folder)
    loads = (("idle", 0), (f"{args.rate}/s", args.rate))
    try:
        ours, theirs = [], []
        for label, rate in loads:  # in turn, so that both meet the same machine
            ours.append((label, *measure(ORIGIN, TARGET, rate, args.samples, 0.02)))
            theirs.append((label, *measure((RIVAL, 7001), (RIVAL, 7002), rate, args.samples, 0.02)))
        print(f"replication lag, us-east to eu-west, beyond the one-way delay of {delay:.1f} ms")
        report("meridian", ours, delay)
        report("redis primary/replica", theirs, 0)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
