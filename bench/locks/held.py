#!/usr/bin/python3
"""A million locks held, in one daemon with its log: memory, what an acquire takes beside them, and for how
long a snapshot stops the node. Locks are taken through the door, many at a time.

A client takes and gives back a lock as fast as it is answered; the longest it has waited while the log
goes on beyond a snapshot is what the snapshot stops the node for (and a sync of the disk).

    held.py [--locks N] [--fill-seconds S]
"""
import argparse
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

import bench
import waiting

BATCH = 2000
PAUSE_S = 6


def batch(first, count):
    return b"".join(waiting.words("LOCK.ACQUIRE", f"us-east:held{number}", "holder", "86400000")
                    for number in range(first, first + count))


def fill(door, locks, seconds):
    """How many were taken, and in which time."""
    host, port = door.rsplit(":", 1)
    begin, taken = time.monotonic(), 0
    with socket.create_connection((host, int(port)), timeout=30) as sock:
        sent = 0
        while taken < locks and time.monotonic() - begin < seconds:
            while sent < min(locks, taken + 4 * BATCH):
                sock.sendall(batch(sent, min(BATCH, locks - sent)))
                sent += BATCH
            answer = sock.recv(1 << 20)
            if b"-" in answer:
                raise SystemExit(f"held: refused: {answer[answer.index(b'-'):][:80]}")
            taken += answer.count(b"*2")
    return min(taken, locks), time.monotonic() - begin


def lap(sock, data, mark):
    begin = time.perf_counter()
    sock.sendall(data)
    answer = sock.recv(65536)
    if not answer.startswith(mark):
        raise SystemExit(f"held: an unexpected answer: {answer[:80]}")
    return answer, (time.perf_counter() - begin) * 1e3


def laps(door, seconds):
    """The milliseconds that acquires took, one after the other."""
    host, port = door.rsplit(":", 1)
    times, end = [], time.monotonic() + seconds
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < end:
            answer, took = lap(sock, waiting.words("LOCK.ACQUIRE", "us-east:beside", "me", "60000"), b"*2")
            times.append(took)
            token = answer.split(b"\r\n")[1][1:].decode()
            lap(sock, waiting.words("LOCK.RELEASE", "us-east:beside", "me", token), b":1")
    return sorted(times)


def snapshots(servers, seconds, filler):
    """Acquires while others fill the log, so that snapshots are taken."""
    load = os.path.join(bench.ROOT, "build/bench/locks/bench-locks-load")
    with subprocess.Popen([load, "meridian", *servers.doors, "200", str(seconds), "0", filler],
                          stdout=subprocess.DEVNULL) as process:
        times = laps(servers.doors[0], seconds - 1)
        process.wait()
    return times


def shown(name, times):
    print(f"  {name:44} p50 {statistics.median(times):7.2f}  p99 {times[int(len(times) * 0.99)]:7.2f}  "
          f"longest {times[-1]:7.1f} ms", flush=True)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--locks", type=int, default=1000000)
    parser.add_argument("--fill-seconds", type=float, default=45)
    args = parser.parse_args()
    bench.prepare()
    root = tempfile.mkdtemp(prefix="bench-held-",
                            dir=os.environ.get("BENCH_DIR", bench.ROOT + "/build"))
    servers = bench.Meridian(root, 1)
    try:
        empty_kb = waiting.memory_kb(servers)
        print("an acquire, one client, while nothing is held and while much is:")
        before = shown("nothing is held", laps(servers.doors[0], 2))
        shown("nothing is held; 200 others fill the log", snapshots(servers, PAUSE_S, "us-east:a"))
        taken, took = fill(servers.doors[0], args.locks, args.fill_seconds)
        full_kb = waiting.memory_kb(servers)
        after = shown(f"{taken} locks are held", laps(servers.doors[0], 2))
        shown(f"{taken}; 200 others fill the log", snapshots(servers, PAUSE_S, "us-east:b"))
        print(f"  {taken} locks in {took:.1f} s; {(full_kb - empty_kb) * 1024 / taken:.0f} bytes of the "
              f"process's memory each; an acquire takes {after / before:.2f} of what it took before")
    finally:
        servers.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
