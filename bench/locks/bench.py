#!/usr/bin/python3
"""Locks beside etcd: acquire and release per second, their latency, and the servers' CPU time for each.

One node, then three (Meridian: three daemons of one region), 1 to 1,000 clients, in turn A B A B, on
the same disk; both sync their log before they answer. The load is one program (bench/locks/load.c):
RESP with a connection for each client here; gRPC written with nghttp2 there, over at most 100
connections, as etcd's own benchmarks do. etcd is measured twice: by its lock service, and by the least
that is a lock, a transaction "put under my lease if absent" and a delete. An operation is one acquire
or one release. At the end: what held locks cost in the table. Needs the
packages etcd-server and libnghttp2-dev. BENCH_DIR: a folder on the disk that is to be measured.

    bench.py [--seconds S] [--rounds N] [--clients 1,10,100,1000] [--nodes 1,3]
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REGIONS = ["us-east", "eu-west", "ap-southeast"]
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def wait_for(ask, what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ask():
                return
        except (OSError, ValueError, KeyError, StopIteration):
            pass
        time.sleep(0.05)
    sys.exit(f"bench: {what} did not come about in {seconds} s")


def cpu_us(process):
    """User and system time of a process, in microseconds; grains of 10 ms."""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


class Servers:
    """Processes of one product, and where its clients go."""

    def __init__(self, root):
        self.root, self.processes, self.doors = root, [], []

    def run(self, name, *command):
        with open(os.path.join(self.root, f"{name}.log"), "wb") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def stop(self):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(timeout=20)
        shutil.rmtree(self.root, ignore_errors=True)

    def cpu_us(self):
        return sum(cpu_us(process) for process in self.processes)


class Etcd(Servers):
    def __init__(self, root, nodes):
        super().__init__(root)
        cluster = ",".join(f"n{i}=http://127.96.0.{i + 1}:2380" for i in range(nodes))
        for i in range(nodes):
            host = f"127.96.0.{i + 1}"
            self.run(f"etcd-{i}", "etcd", "--name", f"n{i}", "--data-dir", f"{root}/etcd-{i}",
                     "--listen-client-urls", f"http://{host}:2379", "--advertise-client-urls",
                     f"http://{host}:2379", "--listen-peer-urls", f"http://{host}:2380",
                     "--initial-advertise-peer-urls", f"http://{host}:2380", "--initial-cluster",
                     cluster, "--initial-cluster-state", "new", "--logger", "zap", "--log-level",
                     "error", "--quota-backend-bytes", str(8 << 30))
            self.doors.append(f"{host}:2379")
        wait_for(lambda: all(self.healthy(door) for door in self.doors), "a healthy etcd")

    @staticmethod
    def healthy(door):
        with urllib.request.urlopen(f"http://{door}/health", timeout=2) as answer:
            return json.loads(answer.read())["health"] == "true"


class Meridian(Servers):
    def __init__(self, root, nodes):
        super().__init__(root)
        self.topology_write(nodes)
        regions = REGIONS[:nodes]
        subprocess.run([f"{ROOT}/build/tests/meridiand/make_pki", f"{root}/pki", "bench",
                        *[f"{region}/{i + 1}" for i, region in enumerate(regions)]], check=True)
        for i, region in enumerate(regions):
            host = f"127.96.1.{i + 1}"
            conf = self.conf_write(i + 1, region, host)
            self.run(region, f"{ROOT}/build/meridiand", "-c", conf)
            self.doors.append(f"{host}:7402")
        wait_for(lambda: all(self.leader(i) for i in range(nodes)), "a leader of the global group")

    def leader(self, index):
        with urllib.request.urlopen(f"http://127.96.1.{index + 1}:7400/status", timeout=2) as answer:
            return json.loads(answer.read()).get("leader") is not None

    def topology_write(self, nodes):
        with open(f"{self.root}/topology.conf", "w", encoding="utf-8") as file:
            file.write("cluster = bench\nepoch = 1\n")
            for i, region in enumerate(REGIONS[:nodes]):
                host = f"127.96.1.{i + 1}"
                file.write(f"""region {region} {{
    id = {i + 1}; latitude = {10 * i}; longitude = 20; a = ["{host}"]
    node {region}-1 {{
        id = {i + 1}; link = "{host}:7401"; admin = "{host}:7400"; locks = "{host}:7402"
    }}
}}
""")

    def conf_write(self, number, region, host):
        folder = f"{self.root}/{region}"
        pki = f"{self.root}/pki/{region}-{number}"
        os.makedirs(folder)
        with open(f"{folder}/meridiand.conf", "w", encoding="utf-8") as file:
            file.write(f"""cluster bench; region {region}; node {number};
topology "{self.root}/topology.conf"; data_dir "data"; run_dir "run";
pki {{ ca "{pki}/ca.crt"; cert "{pki}/node.crt"; key "{pki}/node.key" }}
listen {{ link {host}:7401; admin {host}:7400; locks {host}:7402 }}
""")
        return f"{folder}/meridiand.conf"


class Region(Meridian):
    """Three nodes of one region."""

    def __init__(self, root, nodes):
        Servers.__init__(self, root)
        self.nodes = nodes
        names = [f"us-east/{i + 1}" for i in range(nodes)]
        subprocess.run([f"{ROOT}/build/tests/meridiand/make_pki", f"{root}/pki", "bench", *names],
                       check=True)
        with open(f"{root}/topology.conf", "w", encoding="utf-8") as file:
            file.write("cluster = bench\nepoch = 1\nregion us-east {\n"
                       '    id = 1; latitude = 10; longitude = 20; a = ["127.96.1.1"]\n')
            for i in range(nodes):
                host = f"127.96.1.{i + 1}"
                file.write(f'    node us-east-{i + 1} {{ id = {i + 1}; link = "{host}:7401"; '
                           f'admin = "{host}:7400"; locks = "{host}:7402" }}\n')
            file.write("}\n")
        for i in range(nodes):
            host = f"127.96.1.{i + 1}"
            os.makedirs(f"{root}/{i + 1}", exist_ok=True)
            conf = self.conf_write(i + 1, "us-east", host)
            os.replace(conf, f"{root}/{i + 1}/meridiand.conf")
            shutil.rmtree(f"{root}/us-east")
            self.run(str(i + 1), f"{ROOT}/build/meridiand", "-c", f"{root}/{i + 1}/meridiand.conf")
            self.doors.append(f"{host}:7402")
        wait_for(lambda: all(self.leader(i) for i in range(nodes)), "a leader")


def sync_us(folder):
    """What one appended record and its sync cost on this disk: the median of 200."""
    times = []
    fd = os.open(os.path.join(folder, "sync"), os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(200):
        os.write(fd, b"x" * 64)
        begin = time.perf_counter()
        os.fdatasync(fd)
        times.append((time.perf_counter() - begin) * 1e6)
    os.close(fd)
    return statistics.median(times)


def load(servers, door, clients, seconds, prefix):
    before = servers.cpu_us()
    out = subprocess.run([f"{ROOT}/build/bench/locks/bench-locks-load", door, *servers.doors,
                          str(clients), str(seconds), "0", prefix], check=True,
                         stdout=subprocess.PIPE, timeout=seconds * 3 + 60).stdout
    result = json.loads(out)
    # The load runs a little longer than what it counts: the servers' time is shared out alike.
    used = (servers.cpu_us() - before) * result["seconds"] / seconds
    result["cpu_us"] = used / max(1, result["operations"])
    return result


def row(nodes, clients, name, runs):
    middle = {key: statistics.median(run[key] for run in runs)
              for key in ("per_second", "first_p50_us", "first_p99_us", "second_p50_us", "cpu_us",
                          "load_cpu_us")}
    refused = sum(run["refused"] for run in runs)
    print(f"{nodes:5} {clients:7} {name:16} {middle['per_second']:10.0f} "
          f"{middle['first_p50_us'] / 1e3:9.2f} {middle['first_p99_us'] / 1e3:9.2f} "
          f"{middle['second_p50_us'] / 1e3:9.2f} {middle['cpu_us']:9.1f} "
          f"{middle['load_cpu_us']:9.1f} {refused:8}", flush=True)
    return middle


def header(*columns):
    print(f"{'nodes':>5} {'clients':>7} {'product':16} {'op/s':>10} "
          + " ".join(f"{column:>9}" for column in (*columns, "cpu us/op", "load us"))
          + f" {'refused':>8}")


def products(root, nodes):
    ours = Meridian if nodes == 1 else Region
    rows = [("meridian", ours, "us-east:"), ("etcd", Etcd, ""), ("etcd-txn", Etcd, "txn-")]
    servers = {}
    for kind in {row[1] for row in rows}:
        folder = os.path.join(root, kind.__name__)
        os.makedirs(folder)
        servers[kind] = kind(folder, nodes)
    return rows, servers


def ratios(ours, theirs):
    """Of each pair of neighbouring runs: the median, and what the least and the most were."""
    pairs = [mine["per_second"] / max(1, other["per_second"]) for mine, other in zip(ours, theirs)]
    return f"{statistics.median(pairs):.1f} times as many ({min(pairs):.1f} to {max(pairs):.1f})"


def measure(args, root, nodes):
    rows, servers = products(root, nodes)
    try:
        for clients in args.clients:
            runs = {name: [] for name, _, _ in rows}
            for turn in range(args.rounds):
                for name, kind, prefix in rows:
                    fresh = f"{prefix}{clients}-{turn}-"
                    runs[name].append(load(servers[kind], name, clients, args.seconds, fresh))
            middles = {name: row(nodes, clients, name, runs[name]) for name, _, _ in rows}
            ours = middles[rows[0][0]]
            if clients == 1:
                above_ms = (ours["first_p50_us"] - sync_us(root)) / 1e3
                print(f"{'':13} {rows[0][0]}: p50 is {above_ms:.2f} ms above the disk's sync (aim 1)")
            for name, _, _ in rows[1:]:
                print(f"{'':13} {rows[0][0]} beside {name}: "
                      f"{ratios(runs[rows[0][0]], runs[name])}, "
                      f"{middles[name]['cpu_us'] / max(1e-9, ours['cpu_us']):.1f} times less CPU")
    finally:
        for product in servers.values():
            product.stop()


def prepare():
    """Builds what is needed, or says what is missing."""
    if shutil.which("etcd") is None:
        sys.exit("bench: etcd is missing: apt-get install etcd-server")
    subprocess.run(["ninja", "-C", f"{ROOT}/build", "meridiand", "tests/meridiand/make_pki",
                    "bench/locks/bench-locks-load", "bench/locks/bench-locks-table"], check=True,
                   stdout=subprocess.DEVNULL)


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=numbers, default=[1, 10, 100, 1000])
    parser.add_argument("--nodes", type=numbers, default=[1, 3])
    args = parser.parse_args()
    prepare()
    root = tempfile.mkdtemp(prefix="bench-locks-", dir=os.environ.get("BENCH_DIR", ROOT + "/build"))
    try:
        print(f"appending 64 bytes and syncing them takes {sync_us(root):.0f} us (median)")
        header("acq p50", "acq p99", "rel p50")
        for nodes in args.nodes:
            measure(args, os.path.join(root, str(nodes)), nodes)
        for locks in (10000, 1000000):
            print(subprocess.run([f"{ROOT}/build/bench/locks/bench-locks-table", str(locks)], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout, end="")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
