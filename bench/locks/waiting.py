#!/usr/bin/python3
"""Many clients wait for few locks: memory, the time from a release to the next one's grant, and whether
they are served in the order of their coming. Beside etcd's lock service, by its HTTP gateway, with fewer
clients, as each takes it much more. One node each.

    waiting.py [--clients N] [--etcd-clients N]
"""
import argparse
import base64
import json
import os
import resource
import selectors
import shutil
import socket
import statistics
import tempfile
import time

import bench

LOCKS = 10
ROUNDS = 500  # releases that are measured


def words(*parts):
    return (f"*{len(parts)}\r\n" + "".join(f"${len(p)}\r\n{p}\r\n" for p in parts)).encode()


def memory_kb(servers):
    total = 0
    for process in servers.processes:
        with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    return total


def post(path, body):
    data = json.dumps(body)
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n{data}").encode()


class Ours:
    """What a client says, and what it hears."""
    make = bench.Meridian

    @staticmethod
    def lease(_ask, _number):
        return None

    @staticmethod
    def acquire(lock, number, _lease):
        return words("LOCK.ACQUIRE", f"us-east:{lock}", f"client-{number}", "600000", "WAIT", "600000")

    @staticmethod
    def held(answer):
        return answer.split(b"\r\n")[1][1:].decode() if answer.startswith(b"*2") else None

    @staticmethod
    def release(lock, number, held):
        return words("LOCK.RELEASE", f"us-east:{lock}", f"client-{number}", held)


class Theirs:
    make = bench.Etcd

    @staticmethod
    def lease(ask, _number):
        return json.loads(ask(post("/v3/lease/grant", {"TTL": 600})).split(b"\r\n\r\n")[1])["ID"]

    @staticmethod
    def acquire(lock, _number, lease):
        name = base64.b64encode(f"lock{lock}".encode()).decode()
        return post("/v3/lock/lock", {"name": name, "lease": lease})

    @staticmethod
    def held(answer):
        parts = answer.split(b"\r\n\r\n")
        return json.loads(parts[1])["key"] if len(parts) > 1 and b" 200 " in parts[0] else None

    @staticmethod
    def release(_lock, _number, held):
        return post("/v3/lock/unlock", {"key": held})


class Crowd:
    def __init__(self, product, door, count):
        host, port = door.rsplit(":", 1)
        self.product, self.address = product, (host, int(port))
        self.sockets, self.watch = [], selectors.DefaultSelector()
        self.answers = {}  # of whom, and when it came
        for number in range(count):
            self.sockets.append(socket.create_connection(self.address, timeout=30))

    def ask(self, number, data):
        self.sockets[number].sendall(data)
        return self.sockets[number].recv(65536)

    def come(self):
        """One after the other; so their order is known."""
        for number, door in enumerate(self.sockets):
            lease = self.product.lease(lambda data, n=number: self.ask(n, data), number)
            door.sendall(self.product.acquire(number % LOCKS, number, lease))
            door.setblocking(False)
            self.watch.register(door, selectors.EVENT_READ, number)
            self.hear(0)

    def hear(self, seconds):
        """Who was told something."""
        for key, _ in self.watch.select(seconds):
            self.answers.setdefault(key.data, (time.perf_counter(), key.fileobj.recv(65536)))

    def until(self, number, seconds=30):
        end = time.monotonic() + seconds
        while number not in self.answers and time.monotonic() < end:
            self.hear(0.5)
        if number not in self.answers:
            raise SystemExit(f"waiting: client {number} was not served in {seconds} s")
        return self.answers[number]

    def pass_on(self):
        """Each holder gives its lock back; seconds until the next in turn has it."""
        times, fair = [], 0
        rounds = min(ROUNDS, len(self.sockets) - LOCKS)
        for number in range(rounds):
            held = self.product.held(self.until(number)[1])
            helper = socket.create_connection(self.address, timeout=30)
            before = set(self.answers)
            begin = time.perf_counter()
            helper.sendall(self.product.release(number % LOCKS, number, held))
            came, _ = self.until(number + LOCKS)
            helper.close()
            times.append(came - begin)
            fair += set(self.answers) - before == {number + LOCKS}
        return times, fair / rounds

    def end(self):
        for door in self.sockets:
            door.close()


def measure(name, product, count, folder):
    os.makedirs(folder)
    servers = product.make(folder, 1)
    crowd = None
    try:
        empty = memory_kb(servers)
        crowd = Crowd(product, servers.doors[0], count)
        opened = memory_kb(servers)
        begin = time.monotonic()
        crowd.come()
        for number in range(LOCKS):
            crowd.until(number)
        took = time.monotonic() - begin
        time.sleep(2)
        full = memory_kb(servers)
        before = servers.cpu_us()
        time.sleep(2)
        idle = (servers.cpu_us() - before) / 2e6
        times, fair = crowd.pass_on()
        ms = sorted(time * 1e3 for time in times)
        print(f"{name:10} {count:8} {(opened - empty) / count:10.1f} {(full - opened) / count:10.1f} "
              f"{idle * 100:8.1f} {statistics.median(ms):10.2f} {ms[int(len(ms) * 0.99)]:9.2f} "
              f"{fair * 100:9.0f} {took:8.1f}", flush=True)
        return (full - empty) / count, statistics.median(ms)
    finally:
        if crowd is not None:
            crowd.end()
        servers.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=10000)
    parser.add_argument("--etcd-clients", type=int, default=1000)
    args = parser.parse_args()
    bench.prepare()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = max(args.clients, args.etcd_clients) + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"waiting: {wanted} open files are needed, {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    root = tempfile.mkdtemp(prefix="bench-waiting-",
                            dir=os.environ.get("BENCH_DIR", bench.ROOT + "/build"))
    try:
        print(f"{LOCKS} locks; {'':3} kB of a client: connected, and more when it waits")
        print(f"{'product':10} {'clients':>8} {'connected':>10} {'waits':>10} {'CPU %':>8} "
              f"{'next p50 ms':>10} {'p99 ms':>9} {'in turn %':>9} {'came s':>8}")
        ours = measure("meridian", Ours, args.clients, os.path.join(root, "ours"))
        theirs = measure("etcd", Theirs, args.etcd_clients, os.path.join(root, "etcd"))
        print(f"memory of a waiting client: {theirs[0] / max(0.001, ours[0]):.1f} times less than etcd's; "
              f"the next is served in {ours[1] / theirs[1]:.2f} of etcd's time")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
