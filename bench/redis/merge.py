#!/usr/bin/python3
"""How many changes of another region a Redis merges in a second, beside what clients of a plain one
can write into it.

One server with the module is filled by clients, one change a key; its stream is then read in batches
(MERIDIAN.TAIL) and merged into a second one (MERIDIAN.MERGE), as the daemon does it. Only the merging
is timed. The rival is the same number of the same writes by redis-benchmark's pipeline of 64 into a
server without the module; all write an append-only file (everysec). By turns; medians and spread.

    bench/redis/merge.py [--changes 200000] [--rounds 3]
"""
import argparse
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from server import ADDRESS, MODULE, Server


class Client:
    """Just enough of RESP2 for bulk answers of any size."""

    def __init__(self, port):
        self.socket = socket.create_connection((ADDRESS, port))
        self.file = self.socket.makefile("rb")

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def answer(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise SystemExit(f"bench/redis: {rest.decode()}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        return rest

    def call(self, *words):
        self.send(*words)
        return self.answer()


def fill(arguments, port, test):
    """Seconds that redis-benchmark takes."""
    start = time.monotonic()
    subprocess.run(["redis-benchmark", "-h", ADDRESS, "-p", str(port), "-t", test, "-P", "64",
                    "-n", str(arguments.changes), "-r", str(arguments.changes), "-d", "100", "-q"],
                   check=True, capture_output=True)
    return time.monotonic() - start


def batches_of(client, after):
    """The stream after a position, in the daemon's batches: (after, last, deltas)."""
    while True:
        last, count, deltas = client.call("MERIDIAN.TAIL", after, 262144, 0)
        if count == 0:
            return
        yield after, last, deltas
        after = last


def position_of(client, origin):
    """How far it has merged that origin's stream."""
    positions = client.call("MERIDIAN.POSITIONS")[5]
    return dict((region, clock) for region, clock in positions).get(origin, 0)


def merge(client, batches):
    """Seconds to merge them, two batches under way at a time."""
    start = time.monotonic()
    for number, (after, last, deltas) in enumerate(batches):
        client.send("MERIDIAN.MERGE", 1, after, last, deltas)
        if number > 0:
            client.answer()
    client.answer()
    return time.monotonic() - start


def row(arguments, folder, test):
    servers = [Server(folder, arguments.server, 7905, arguments.module,
                      options=["ring", str(1 << 30)]),
               Server(folder, arguments.server, 7906, arguments.module, origin=2),
               Server(folder, arguments.server, 7907, None)]
    try:
        origin, target = Client(7905), Client(7906)
        rates, plain = [], []
        cpu = servers[1].cpu_seconds()
        changes = 0
        for _ in range(arguments.rounds):
            after = position_of(target, 1)
            fill(arguments, 7905, test)
            batches = list(batches_of(origin, after))
            plain.append(arguments.changes / fill(arguments, 7907, test))
            rates.append(arguments.changes / merge(target, batches))
            changes += arguments.changes
        cpu = (servers[1].cpu_seconds() - cpu) * 1e6 / changes
        print(f"{test:6} {statistics.median(rates):9.0f} {min(rates):9.0f}..{max(rates):.0f} "
              f"{cpu:6.2f} {statistics.median(plain):12.0f}", flush=True)
    finally:
        for server in servers:
            server.stop()
            shutil.rmtree(server.folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--changes", type=int, default=200000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tests", default="set,incr,sadd,hset,zadd")
    parser.add_argument("--module", default=MODULE)
    parser.add_argument("--server", default="redis-server")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    try:
        print("test   merged/s  spread            cpu us  plain writes/s")
        for test in arguments.tests.split(","):
            row(arguments, folder, test)
    finally:
        shutil.rmtree(folder)


main()
