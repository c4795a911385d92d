#!/usr/bin/python3
"""The Redis module beside the same server without it, in one run.

Two fresh servers with the same settings, one with the module, are driven by turns
(A B A B ...) with redis-benchmark. Each pair gives one ratio; medians and spread of the ratios are
printed, with the raw rates and the server's own CPU time for each operation, which a busy machine
disturbs less than the rate.

The whole takes no longer than --within: what is left of that is shared by the rows to come.

    bench/redis/bench.py [--seconds 0.7] [--within 240] [--rounds 3] [--depths 1,16,64]
                         [--tests set,get,...] [--fsync everysec,always] [--size 100]
                         [--module FILE] [--json FILE]
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from server import ADDRESS, MODULE, Server


def options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement at most")
    parser.add_argument("--within", type=float, default=240, help="seconds for all of it")
    parser.add_argument("--rounds", type=int, default=3, help="pairs for each row")
    parser.add_argument("--depths", default="1,16,64")
    parser.add_argument("--tests", default="set,get,incr,hset,sadd,zadd,lpush")
    parser.add_argument("--size", type=int, default=100, help="bytes of a value")
    parser.add_argument("--keys", type=int, default=100000)
    parser.add_argument("--fsync", default="everysec,always", help="appendfsync, one after the other")
    parser.add_argument("--module", default=MODULE)
    parser.add_argument("--server", default=os.environ.get("REDIS_SERVER") or "redis-server")
    parser.add_argument("--client", default="redis-benchmark")
    parser.add_argument("--json", help="write the raw numbers there")
    return parser.parse_args()


# many short lists: with one list of its own the client would measure nothing but its length
LISTS = ["LPUSH", "list:__rand_int__", "element:__rand_int__"]


def run(arguments, server, test, depth, count):
    """Requests a second, and the server's CPU microseconds for each."""
    before = server.cpu_seconds()
    done = subprocess.run(
        [arguments.client, "-h", ADDRESS, "-p", str(server.port), "-n", str(count),
         "-P", str(depth), "-d", str(arguments.size), "-r", str(arguments.keys), "--csv"] +
        (LISTS if test == "lpush" else ["-t", test]),
        capture_output=True, text=True, check=True)
    rate = float(done.stdout.strip().splitlines()[-1].split(",")[1].strip('"'))
    return rate, (server.cpu_seconds() - before) * 1e6 / count


class Clock:
    """Shares what is left of the time among the rows that are left."""

    def __init__(self, arguments):
        self.end = time.monotonic() + arguments.within
        self.left = len(arguments.fsync.split(",")) * len(arguments.tests.split(",")) * \
            len(arguments.depths.split(","))

    def row(self):
        share = (self.end - time.monotonic()) / self.left
        self.left -= 1
        return max(share, 0)


def measure(arguments, plain, module, test, depth, share):
    """`share`: seconds that the row may take. A server takes up to a fifth longer with the module, and
    a client a while to begin."""
    begun = time.monotonic()
    warm = 100 * depth + 1000
    run(arguments, plain, test, depth, warm)
    rate, _ = run(arguments, plain, test, depth, 4 * warm)
    run(arguments, module, test, depth, warm)
    begin = (time.monotonic() - begun) / 6
    runs = 2.2 * arguments.rounds
    seconds = min(arguments.seconds, (share - (time.monotonic() - begun)) / runs - begin)
    count = max(int(rate * seconds), warm)
    row = {"test": test, "depth": depth, "plain": [], "module": []}
    for _ in range(arguments.rounds):
        row["plain"].append(run(arguments, plain, test, depth, count))
        row["module"].append(run(arguments, module, test, depth, count))
    return row


def show(row):
    ratios = [m[0] / p[0] for p, m in zip(row["plain"], row["module"])]
    cpu_plain = statistics.median(p[1] for p in row["plain"])
    cpu_module = statistics.median(m[1] for m in row["module"])
    row["ratio"] = statistics.median(ratios)
    row["cpu_ratio"] = cpu_plain / cpu_module if cpu_module else 1.0
    goal = 0.98 if row["test"] == "get" else 0.9
    print(f"{row['test']:5} {row['depth']:3}  {row['ratio']:5.2f}  "
          f"{min(ratios):4.2f}..{max(ratios):4.2f}  {goal:4.2f}   "
          f"{statistics.median(p[0] for p in row['plain']):9.0f} "
          f"{statistics.median(m[0] for m in row['module']):9.0f}   "
          f"{cpu_plain:6.2f} {cpu_module:6.2f}  {row['cpu_ratio']:5.2f}", flush=True)


def compare(arguments, fsync, clock):
    """The rows of one setting of the append-only file."""
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    servers = []
    rows = []
    try:
        servers.append(Server(folder, arguments.server, 7901, None, fsync))
        servers.append(Server(folder, arguments.server, 7902, arguments.module, fsync))
        print(f"appendfsync {fsync}")
        print("test  depth ratio  spread     goal    plain/s  module/s   cpu us/op     cpu ratio")
        for test in arguments.tests.split(","):
            for depth in arguments.depths.split(","):
                rows.append(measure(arguments, *servers, test, int(depth), clock.row()))
                rows[-1]["fsync"] = fsync
                show(rows[-1])
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(folder)
    return rows


def main():
    arguments = options()
    for needed in (arguments.server, arguments.client):
        if not shutil.which(needed):
            sys.exit(f"bench/redis: {needed} is not installed")
    if not os.path.exists(arguments.module):
        sys.exit(f"bench/redis: {arguments.module} is not built; run make")
    rows = []
    clock = Clock(arguments)
    for fsync in arguments.fsync.split(","):
        rows += compare(arguments, fsync, clock)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rows, file, indent=1)


main()
