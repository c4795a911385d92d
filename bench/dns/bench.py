#!/usr/bin/python3
"""DNS queries a second: knotd with mod-meridian (answers by client prefix) beside stock knotd with a
static answer for the same name. Both run with the same settings on this machine; the load alternates
between them, so that a busy machine troubles both alike. Shown: queries a second, the server's CPU
time a query, and the medians of the ratios of neighbouring rounds (1 is as fast as stock).

usage: bench.py [--seconds N] [--rounds N] [--json]
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import pairs  # noqa: E402

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
ADDRESS = os.environ.get("MERIDIAN_ADDRESS", "127.96.0.1")
PORTS = {"stock": 16353, "meridian": 16354}

TOPOLOGY = """
cluster = bench; epoch = 1;
region us-east { id = 1; latitude = 39.04; longitude = -77.49; a = ["127.10.0.1"]
  node us-east-1 { id = 1; link = "127.10.0.1:7401" } }
region eu-west { id = 2; latitude = 53.35; longitude = -6.26; a = ["127.20.0.1"]
  node eu-west-1 { id = 2; link = "127.20.0.1:7401" } }
region ap-southeast { id = 3; latitude = 1.35; longitude = 103.82; a = ["127.30.0.1"]
  node ap-southeast-1 { id = 3; link = "127.30.0.1:7401" } }
zone example.test { ttl = 30s; name www { policy = nearest } name api-us { region = us-east } }
"""
GEO = "81.2.69.142/31,GB,London,51.51,-0.09\n175.16.199.0/24,CN,Changchun,43.88,125.32\n"
ZONE = """$ORIGIN example.test.
$TTL 30
@ SOA ns host 1 3600 600 86400 60
@ NS ns
ns A 127.10.0.1
www A 127.20.0.1
api-us A 127.10.0.1
"""
# Client subnet 81.2.69.142/32, in the form that dnsperf takes: code:data.
MODES = {
    "client subnet": ("www.example.test A\n", ["-E", "8:000120005102458e"]),
    "resolver's address": ("www.example.test A\n", []),
    "region name": ("api-us.example.test A\n", []),
}


def configuration(folder, kind):
    text = f"""
server:
    rundir: {folder}/{kind}
    listen: {ADDRESS}@{PORTS[kind]}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: on
database:
    storage: {folder}/{kind}
log:
  - target: {folder}/{kind}.log
    any: warning
template:
  - id: default
    storage: {folder}
"""
    zone = "zone:\n  - domain: example.test\n    file: example.test.zone\n"
    if kind == "stock":
        return text + zone
    return text + f"""
module:
  - id: mod-meridian
    file: {BUILD}/plugins/knot/mod-meridian.so
mod-meridian:
  - id: default
    view: {folder}/view
    geo: {folder}/geo.mmdb
""" + zone + "    module: mod-meridian/default\n"


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def prepare(folder):
    tool = os.path.join(BUILD, "tests/view/view-tool")
    write(f"{folder}/topology", TOPOLOGY)
    write(f"{folder}/geo.csv", GEO)
    write(f"{folder}/example.test.zone", ZONE)
    subprocess.run([tool, "geo", f"{folder}/geo.csv", f"{folder}/geo.mmdb"], check=True)
    subprocess.run([tool, "publish", f"{folder}/view", f"{folder}/topology", "us-east"],
                   check=True, stdout=subprocess.DEVNULL)


def start(folder, kind):
    os.mkdir(f"{folder}/{kind}")
    write(f"{folder}/{kind}.conf", configuration(folder, kind))
    return subprocess.Popen(["/usr/sbin/knotd", "-c", f"{folder}/{kind}.conf"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def load(folder, kind, server, options, seconds):
    """One run of dnsperf: queries a second, and the server's CPU microseconds a query."""
    before = pairs.cpu_seconds(server.pid)
    done = subprocess.run(["dnsperf", "-s", ADDRESS, "-p", str(PORTS[kind]), "-d",
                           f"{folder}/queries", "-l", str(seconds), "-c", "8", "-q", "64", "-t",
                           "2", *options], capture_output=True, text=True, check=False)
    used = pairs.cpu_seconds(server.pid) - before
    good = re.search(r"NOERROR (\d+) \(100\.00%\)", done.stdout)
    rate = re.search(r"Queries per second:\s+([\d.]+)", done.stdout)
    if good is None or rate is None:
        sys.exit(f"bench/dns: {kind} did not answer all queries:\n{done.stdout}{done.stderr}")
    return float(rate.group(1)), used / int(good.group(1)) * 1e6


def wait_ready(folder, kind, server):
    for _ in range(100):
        done = subprocess.run(["dnsperf", "-s", ADDRESS, "-p", str(PORTS[kind]), "-d",
                               f"{folder}/queries", "-n", "1", "-t", "1"], capture_output=True,
                              text=True, check=False)
        if "NOERROR" in done.stdout:
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"bench/dns: {kind} knotd does not start: see {folder}/{kind}.log")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for program in ("dnsperf", "knotd"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            sys.exit(f"bench/dns: {program} is missing: apt-get install dnsperf knot")
    folder = tempfile.mkdtemp(prefix="meridian-bench-dns-")
    servers = {}
    results = {}
    try:
        prepare(folder)
        servers = {kind: start(folder, kind) for kind in PORTS}
        for mode, (queries, options) in MODES.items():
            write(f"{folder}/queries", queries)
            for kind in PORTS:
                wait_ready(folder, kind, servers[kind])
            results[mode] = pairs.compare(arguments.rounds, lambda kind, options=options: load(
                folder, kind, servers[kind], options, arguments.seconds))
    finally:
        for server in servers.values():
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(results))
        return
    pairs.show("DNS, knotd 1 UDP worker", "query", results)


if __name__ == "__main__":
    main()
