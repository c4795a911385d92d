#!/usr/bin/python3
"""Values beside etcd: puts with gets, and reads alone, linearizable and stale; one node and three, in
turn A B A B as in bench.py, whose table this prints. A stale read is answered by the node that is asked
from what it knows (etcd: serializable).

    values.py [--seconds S] [--rounds N] [--clients 1,100] [--nodes 1,3]
"""
import argparse
import os
import shutil
import tempfile

import bench

PAIRS = [("meridian-values", "etcd-values"), ("meridian-reads", "etcd-reads"),
         ("meridian-stale", "etcd-stale")]


def measure(args, root, nodes):
    folders = {kind: os.path.join(root, kind) for kind in ("ours", "etcd")}
    for folder in folders.values():
        os.makedirs(folder)
    ours = (bench.Meridian if nodes == 1 else bench.Region)(folders["ours"], nodes)
    etcd = bench.Etcd(folders["etcd"], nodes)
    try:
        for clients in args.clients:
            for pair in PAIRS:
                runs = {name: [] for name in pair}
                for turn in range(args.rounds):
                    for name, servers in zip(pair, (ours, etcd)):
                        prefix = "us-east:" if servers is ours else ""
                        runs[name].append(bench.load(servers, name, clients, args.seconds,
                                                     f"{prefix}{clients}-{turn}-"))
                middle, other = (bench.row(nodes, clients, name, runs[name]) for name in pair)
                print(f"{'':13} {pair[0]} beside {pair[1]}: {bench.ratios(runs[pair[0]], runs[pair[1]])},"
                      f" {other['cpu_us'] / max(1e-9, middle['cpu_us']):.1f} times less CPU")
    finally:
        ours.stop()
        etcd.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=bench.numbers, default=[1, 100])
    parser.add_argument("--nodes", type=bench.numbers, default=[1, 3])
    args = parser.parse_args()
    bench.prepare()
    root = tempfile.mkdtemp(prefix="bench-values-",
                            dir=os.environ.get("BENCH_DIR", bench.ROOT + "/build"))
    try:
        print(f"appending 64 bytes and syncing them takes {bench.sync_us(root):.0f} us (median)")
        bench.header("put p50", "put p99", "get p50")
        for nodes in args.nodes:
            measure(args, os.path.join(root, str(nodes)), nodes)
        print("(of reads alone the put's column tells the get)")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
