#!/usr/bin/python3
"""PostgreSQL's door beside other ways to put something before a server, all on one server of its own.

    doors.py [--clients 1,8,32] [--rounds N] [--seconds S]

`pgbench` through each, in turn with a direct connection: what both share (a busy machine) cancels out,
so medians of the ratios are told (1: as fast as direct), with the CPU that whoever stands between used
for a transaction. `door` is Meridian's with the server's extension, which takes the client over;
`door, proxied` is the same without it. Those that are not installed are left out, with a line that
says so. Needs the network's loopback only; as root it starts itself anew as the user `nobody`.
"""
import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(TOP, "build")))
sys.path[:0] = [os.path.join(TOP, "bench"), os.path.join(TOP, "tests")]
from pairs import cpu_seconds  # noqa: E402
from tally import as_nobody  # noqa: E402

BIN = "/usr/lib/postgresql/15/bin"
TOOL = os.path.join(BUILD, "tests/road/road-tool")
EXTENSION = os.path.join(BUILD, "plugins/postgres/meridian.so")
KINDS = {"reading (-S)": ["-S"], "TPC-B": ["-b", "tpcb-like"]}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, what):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"bench/postgres/doors: {what} does not answer")


class Server:
    def __init__(self, folder):
        self.folder, self.port, self.data = folder, free_port(), f"{folder}/data"
        subprocess.run([f"{BIN}/initdb", "-D", self.data, "-U", "postgres", "-N", "-A", "trust"],
                       check=True, stdout=subprocess.DEVNULL)
        with open(f"{self.data}/postgresql.auto.conf", "a", encoding="utf-8") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nfsync = off\n"
                       f"unix_socket_directories = ''\nmax_connections = 200\n"
                       f"shared_preload_libraries = '{EXTENSION}'\nmeridian.doors = '{folder}/doors'\n")
        log = open(f"{folder}/server.log", "ab")
        self.process = subprocess.Popen([f"{BIN}/postgres", "-D", self.data], stdout=log, stderr=log)
        wait_for(self.port, "the server")
        subprocess.run([f"{BIN}/pgbench", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres",
                        "-i", "-q", "-s", "10", "postgres"], check=True, capture_output=True)

    def stop(self):
        self.process.send_signal(2)
        self.process.wait(30)


class Between:
    """Something that listens at `port` and leads to the server."""
    missing = None

    def __init__(self, folder, server):
        self.port, self.processes = free_port(), []
        self.begin(folder, server)
        wait_for(self.port, type(self).__name__)

    def spawn(self, *words, **more):
        self.processes.append(subprocess.Popen(words, stdout=subprocess.DEVNULL,
                                               stderr=subprocess.DEVNULL, **more))
        return self.processes[-1]

    def pids(self):
        children = subprocess.run(["pgrep", "-P", ",".join(str(p.pid) for p in self.processes)],
                                  capture_output=True, text=True, check=False).stdout.split()
        return [p.pid for p in self.processes] + [int(pid) for pid in children]

    def stop(self):
        for process in self.processes:
            process.terminate()
            process.wait(10)

    @staticmethod
    def write(path, text):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Door(Between):
    passes = True

    def begin(self, folder, server):
        others = f"{free_port()}:{free_port()}"
        environment = {**os.environ, "CONNECTIONS": "200"}
        if self.passes:
            environment["PASS"] = f"{folder}/doors"
        tool = self.spawn(TOOL, f"127.0.0.1:{server}:{self.port}:{others}", stdin=subprocess.PIPE,
                          env=environment)
        tool.stdin.write(b"roles 1 1 10 1 0 1 1\n")
        tool.stdin.flush()


class ProxiedDoor(Door):
    passes = False


class Pgbouncer(Between):
    def begin(self, folder, server):
        path = self.write(f"{folder}/pgbouncer.ini", f"""[databases]
postgres = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 200
default_pool_size = 100
""")
        self.spawn("/usr/sbin/pgbouncer", "-q", path)


class Haproxy(Between):
    def begin(self, folder, server):
        path = self.write(f"{folder}/haproxy.cfg", f"""defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen postgres
  bind 127.0.0.1:{self.port}
  server one 127.0.0.1:{server}
""")
        self.spawn("/usr/sbin/haproxy", "-db", "-f", path)


class Nginx(Between):
    def begin(self, folder, server):
        path = self.write(f"{folder}/nginx.conf", f"""load_module {NGINX_STREAM};
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{}}
stream {{ server {{ listen 127.0.0.1:{self.port}; proxy_pass 127.0.0.1:{server}; tcp_nodelay on; }} }}
""")
        self.spawn("/usr/sbin/nginx", "-p", folder, "-c", path)


NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
WAYS = {"door": (Door, TOOL), "door, proxied": (ProxiedDoor, TOOL),
        "pgbouncer (session)": (Pgbouncer, "/usr/sbin/pgbouncer"),
        "HAProxy (tcp)": (Haproxy, "/usr/sbin/haproxy"), "nginx (stream)": (Nginx, NGINX_STREAM)}


def pgbench(port, clients, seconds, more, pids=()):
    """(transactions a second, CPU microseconds of `pids` for each)"""
    before = cpu_seconds(*pids)
    done = subprocess.run(
        [f"{BIN}/pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-n", "-T",
         str(seconds), "-c", str(clients), "-j", str(min(clients, 2)), *more, "postgres"],
        capture_output=True, text=True, check=False)
    used = cpu_seconds(*pids) - before
    try:
        count = int(done.stdout.split("actually processed:")[1].split()[0].split("/")[0])
        return float(done.stdout.split("tps = ")[1].split()[0]), used * 1e6 / max(count, 1)
    except (IndexError, ValueError):
        sys.exit(f"bench/postgres/doors: pgbench failed: {done.stderr.strip()[-300:]}")


def measure(server, ways, args, clients, kind):
    ratios = {name: [] for name in ways}
    costs, rates = {name: [] for name in ways}, []
    for number in range(args.rounds):
        for name in list(ways)[::1 if number % 2 == 0 else -1]:
            direct, _ = pgbench(server.port, clients, args.seconds, KINDS[kind])
            rate, cost = pgbench(ways[name].port, clients, args.seconds, KINDS[kind],
                                 ways[name].pids())
            rates.append(direct)
            ratios[name].append(rate / direct)
            costs[name].append(cost)
    print(f"  {kind}, {clients} clients: direct {statistics.median(rates):.0f}/s")
    for name in ways:
        print(f"    {name:22} {statistics.median(ratios[name]):5.2f} of direct, "
              f"{statistics.median(costs[name]):6.1f} us of CPU a transaction", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="1,8,32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    args = parser.parse_args()
    as_nobody()
    for path in (f"{BIN}/initdb", TOOL, EXTENSION):
        if not os.path.exists(path):
            sys.exit(f"bench/postgres/doors: {path} is missing: nothing is measured")
    folder = tempfile.mkdtemp(prefix="mdoors-", dir="/tmp")
    ways, server = {}, None
    try:
        server = Server(folder)
        for name, (kind, needs) in WAYS.items():
            if os.path.exists(needs):
                ways[name] = kind(folder, server.port)
            else:
                print(f"  {name}: not measured: {needs} is not installed")
        for kind in KINDS:
            for clients in map(int, args.clients.split(",")):
                measure(server, ways, args, clients, kind)
    finally:
        for way in ways.values():
            way.stop()
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
