#!/usr/bin/python3
"""Instructions that the server needs for each command, with the module and without it: callgrind
counts them, so a busy machine does not disturb the figures. System calls are not in them.

Each workload runs in a fresh server with the same seed: first once to warm up, then counted. The
last column is what is aimed at: instructions without the module, divided by those with it.

    bench/redis/instructions.py [--tests set,get,...] [--depths 64] [--count 9600] [--top 0]
"""
import argparse
import collections
import glob
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile

from server import ADDRESS, MODULE, Server

VALUE = "x" * 100
KEYS = 2000
CLIENTS = 12
ROW = re.compile(r"\s*([\d,]+) \([^)]*\)\s+(.*)")
BEFORE_MAIN = re.compile(r"libc_start|\(below main\)|:main \[|ld-linux")

# Large copies by loops and not by one instruction, whose every byte would be counted.
os.environ["GLIBC_TUNABLES"] = "glibc.cpu.x86_rep_movsb_threshold=1000000000"


def key(rng, kind):
    return f"{kind}:{rng.randrange(KEYS):012d}"


def small(rng):
    return f"element:{rng.randrange(10):012d}"


def large(rng):
    return f"element:{rng.randrange(KEYS):012d}"


def pushed_popped(rng, number):
    name = f"list:{rng.randrange(KEYS) // 2 * 2:012d}"
    return ["LPUSH", name, large(rng)] if number % 2 == 0 else ["RPOP", name]


def alternating(first, second):
    """The second takes away what the first has put."""
    last = [None]

    def make(rng, number):
        if number % 2 == 0:
            last[0] = (key(rng, first[0].lower()), small(rng))
            return [first[0], last[0][0]] + [word or last[0][1] for word in first[1:]]
        return [second, last[0][0]] + ([last[0][1]] if second[1:] != "EL" else [])
    return make


TESTS = {
    "set": lambda rng, n: ["SET", key(rng, "key"), VALUE],
    "get": lambda rng, n: (["SET", key(rng, "key"), VALUE] if n < 2 * KEYS else
                           ["GET", key(rng, "key")]),
    "incr": lambda rng, n: ["INCR", key(rng, "counter")],
    "hset": lambda rng, n: ["HSET", "hash", large(rng), VALUE],
    "hset10": lambda rng, n: ["HSET", key(rng, "hash"), small(rng), VALUE],
    "sadd": lambda rng, n: ["SADD", "set", large(rng)],
    "sadd10": lambda rng, n: ["SADD", key(rng, "set"), small(rng)],
    "saddnew": lambda rng, n: ["SADD", "set", f"element:{rng.randrange(1 << 40):012d}"],
    "lpush": lambda rng, n: ["LPUSH", key(rng, "list"), large(rng)],
    "pushpop": pushed_popped,
    "zadd": lambda rng, n: ["ZADD", "zset", str(rng.randrange(1 << 30)), large(rng)],
    "zadd10": lambda rng, n: ["ZADD", key(rng, "zset"), str(rng.randrange(1 << 30)), small(rng)],
    "srem": alternating(["SADD", None], "SREM"),
    "hdel": alternating(["HSET", None, VALUE], "HDEL"),
    "del": alternating(["SET", VALUE], "DEL"),
    "setex": lambda rng, n: ["SET", key(rng, "key"), VALUE, "EX", "1000"],
    "expire": lambda rng, n: (["SET", key(rng, "key"), VALUE] if n < KEYS else
                              ["EXPIRE", key(rng, "key"), "1000"]),
}


def encode(words):
    return b"".join([b"*%d\r\n" % len(words)] +
                    [b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words])


class Load:
    """Clients that each send `depth` commands and then read the answers."""

    def __init__(self, port, test, depth):
        self.clients = []
        for _ in range(CLIENTS):
            connection = socket.create_connection((ADDRESS, port))
            self.clients.append((connection, connection.makefile("rb")))
        self.rng = random.Random(7)
        self.test = TESTS[test]
        self.depth = depth
        self.number = 0

    def round(self):
        for connection, _ in self.clients:
            commands = []
            for _ in range(self.depth):
                commands.append(encode(self.test(self.rng, self.number)))
                self.number += 1
            connection.sendall(b"".join(commands))
        for _, answers in self.clients:
            for _ in range(self.depth):
                line = answers.readline()
                if line[:1] == b"-":
                    raise SystemExit(f"bench/redis: {line.decode().strip()}")
                if line[:1] == b"$" and line[:2] != b"$-":
                    answers.read(int(line[1:]) + 2)

    def run(self, count):
        for _ in range(max(count // (CLIENTS * self.depth), 1)):
            self.round()
        return max(count // (CLIENTS * self.depth), 1) * CLIENTS * self.depth


def functions(path):
    """Instructions of each function by itself."""
    shown = subprocess.run(["callgrind_annotate", "--auto=no", "--threshold=100", path],
                           capture_output=True, text=True, check=True).stdout
    found = collections.Counter()
    for line in shown.splitlines():
        parts = ROW.match(line)
        if parts and "PROGRAM TOTALS" not in line:
            found[parts[2]] += int(parts[1].replace(",", ""))
    # the frames above main are shown with all that they call
    return {name: cost for name, cost in found.items() if not BEFORE_MAIN.search(name)}


def count(arguments, folder, port, module, test, depth):
    """Instructions for each command, of all functions and of each."""
    out = os.path.join(folder, f"out.{port}.{test}.{depth}")
    tool = ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={out}"]
    server = Server(folder, arguments.server, port, module, tool=tool)
    try:
        load = Load(port, test, depth)
        load.run(max(arguments.count, 2 * KEYS))
        control = ["callgrind_control", "-z", str(server.process.pid)]
        subprocess.run(control, check=True, capture_output=True)
        done = load.run(arguments.count)
        control[1] = "-d"
        subprocess.run(control, check=True, capture_output=True)
    finally:
        server.stop()
        shutil.rmtree(server.folder)
    found = functions(sorted(glob.glob(out + ".*"))[0])
    return {name: cost / done for name, cost in found.items()}


def show_added(plain, ours, top):
    added = {name: cost - plain.get(name, 0) for name, cost in ours.items()}
    for name in sorted(added, key=added.get, reverse=True)[:top]:
        print(f"{added[name]:9.1f}  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tests", default=",".join(TESTS))
    parser.add_argument("--depths", default="64")
    parser.add_argument("--count", type=int, default=9600, help="commands that are counted")
    parser.add_argument("--top", type=int, default=0, help="functions that add most")
    parser.add_argument("--module", default=MODULE, help="one or several, with commas between")
    parser.add_argument("--server", default="redis-server")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    modules = arguments.module.split(",")
    try:
        print("instructions a command, without the module, with it, and the ratio")
        for test in arguments.tests.split(","):
            for depth in map(int, arguments.depths.split(",")):
                plain = count(arguments, folder, 7908, None, test, depth)
                before = sum(plain.values())
                row = f"{test:8} {depth:3}  {before:7.0f}"
                for at, module in enumerate(modules):
                    ours = count(arguments, folder, 7909 + at, module, test, depth)
                    row += f"  {sum(ours.values()):7.0f} {before / sum(ours.values()):5.3f}"
                    show_added(plain, ours, arguments.top)
                print(row, flush=True)
    finally:
        shutil.rmtree(folder)


main()
