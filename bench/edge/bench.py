#!/usr/bin/python3
"""HTTP requests a second: nginx with the meridian balancer beside stock nginx with the same backends
in server lines and the same keepalive. Both run on this machine before the same backend (a third
nginx); the load alternates between them, so that a busy machine troubles both alike. Shown: requests
a second, the workers' CPU time a request, and the medians of the ratios of neighbouring rounds (1 is
as fast as stock).

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
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import pairs  # noqa: E402

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
ADDRESS = os.environ.get("MERIDIAN_ADDRESS", "127.96.0.1")
PORTS = {"stock": 16080, "meridian": 16081}
BACKENDS = (16090, 16091)
CONNECTIONS = 32

TOPOLOGY = f"""
cluster = bench; epoch = 1;
region us-east {{ id = 1; node us-east-1 {{ id = 1; link = "127.10.0.1:7401" }}
  backends = ["{ADDRESS}:{BACKENDS[0]}", "{ADDRESS}:{BACKENDS[1]}"] }}
region eu-west {{ id = 2; node eu-west-1 {{ id = 2; link = "127.20.0.1:7401" }}
  backends = ["{ADDRESS}:{BACKENDS[0]}"] }}
region ap-southeast {{ id = 3; node ap-southeast-1 {{ id = 3; link = "127.30.0.1:7401" }} }}
"""


def head(folder, name):
    user = "user root;" if os.getuid() == 0 else ""
    temp = "".join(f"{kind}_temp_path {folder}/{name}-{kind};" for kind in
                   ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""{user}
daemon off; worker_processes 1; pid {folder}/{name}.pid; error_log {folder}/{name}.log warn;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_requests 1000000000; {temp}
"""


def configuration(folder, kind):
    if kind == "backend":
        listens = "".join(f"listen {ADDRESS}:{port};" for port in BACKENDS)
        return head(folder, kind) + f"""server {{ {listens}
            location / {{ default_type application/json; return 200 '{{"region":"us-east"}}'; }} }} }}"""
    load, choice = "", "".join(f"server {ADDRESS}:{port};" for port in BACKENDS)
    if kind == "meridian":
        load = f"load_module {BUILD}/plugins/nginx/ngx_http_meridian_module.so;\n"
        choice = f"meridian {folder}/view;"
    return load + head(folder, kind) + f"""
    upstream app {{ {choice} keepalive {CONNECTIONS}; keepalive_requests 1000000000; }}
    server {{
        listen {ADDRESS}:{PORTS[kind]};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            add_header Meridian-Region {"$meridian_region" if kind == "meridian" else "us-east"} always;
        }}
    }} }}"""


def start(folder, kind):
    path = f"{folder}/{kind}.conf"
    with open(path, "w", encoding="utf-8") as file:
        file.write(configuration(folder, kind))
    return subprocess.Popen(["/usr/sbin/nginx", "-p", folder, "-e", f"{folder}/{kind}.log", "-c",
                             path])


def workers_of(server):
    path = f"/proc/{server.pid}/task/{server.pid}/children"
    with open(path, encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def load(kind, server, seconds):
    """One run of wrk: requests a second, and the workers' CPU microseconds a request."""
    before = pairs.cpu_seconds(*workers_of(server))
    done = subprocess.run(["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s",
                           f"http://{ADDRESS}:{PORTS[kind]}/"], capture_output=True, text=True,
                          check=False)
    used = pairs.cpu_seconds(*workers_of(server)) - before
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if count is None or rate is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        sys.exit(f"bench/edge: {kind} did not answer all requests:\n{done.stdout}{done.stderr}")
    return float(rate.group(1)), used / int(count.group(1)) * 1e6


def wait_ready(port, kind):
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{port}/", timeout=2) as answer:
                if kind == "backend" or answer.headers["Meridian-Region"] == "us-east":
                    return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"bench/edge: {kind} nginx does not answer")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for program in ("wrk", "nginx"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin") is None:
            sys.exit(f"bench/edge: {program} is missing: apt-get install wrk nginx")
    folder = tempfile.mkdtemp(prefix="meridian-bench-edge-")
    servers = {}
    try:
        tool = os.path.join(BUILD, "tests/view/view-tool")
        with open(f"{folder}/topology", "w", encoding="utf-8") as file:
            file.write(TOPOLOGY)
        subprocess.run([tool, "publish", f"{folder}/view", f"{folder}/topology", "us-east"],
                       check=True, stdout=subprocess.DEVNULL)
        servers["backend"] = start(folder, "backend")
        wait_ready(BACKENDS[0], "backend")
        for kind, port in PORTS.items():
            servers[kind] = start(folder, kind)
            wait_ready(port, kind)
            load(kind, servers[kind], 1)
        row = pairs.compare(arguments.rounds,
                            lambda kind: load(kind, servers[kind], arguments.seconds))
    finally:
        for server in servers.values():
            server.terminate()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        print(json.dumps(row))
        return
    pairs.show("Edge, nginx 1 worker", "request", {"keepalive both sides": row})


if __name__ == "__main__":
    main()
