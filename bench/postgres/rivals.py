"""The rivals of bench.py: three servers each on this machine, without any delay between them. As root
they run as the user postgres.

Patroni waits for its key in etcd to run out (ttl; the least it takes is 20 s), then holds an election.
pg_auto_failover's monitor asks each server in turn, and promotes when one did not answer for some time
and its own node has not reported either.
"""
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import psycopg2

BIN = "/usr/lib/postgresql/15/bin"


class Trouble(Exception):
    """The rival cannot be measured here."""


def wait_for(condition, what, seconds=90):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if condition():
                return
        except (OSError, ValueError, psycopg2.Error, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise Trouble(f"not within {seconds} s: {what}")


class Rival:
    def __init__(self, folder, setting):
        self.folder, self.tight = folder, setting == "tight"
        self.processes = {}
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user is not None:
            ids = pwd.getpwnam(self.user)
            os.chown(folder, ids.pw_uid, ids.pw_gid)

    def run(self, *words, **more):
        return subprocess.run(words, user=self.user, cwd=self.folder, capture_output=True,
                              text=True, check=False, env=self.environment(), **more)

    def environment(self):
        return {**os.environ, "HOME": self.folder, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def spawn(self, name, *words):
        log = open(os.path.join(self.folder, f"{name}.log"), "ab")
        self.processes[name] = subprocess.Popen(
            words, user=self.user, cwd=self.folder, stdout=log, stderr=log, env=self.environment(),
            start_new_session=True)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def where(self):
        names = ",".join(self.hosts())
        ports = ",".join(map(str, self.ports()))
        return {"host": names, "port": ports, "user": "postgres", "password": "secret",
                "dbname": "postgres", "target_session_attrs": "read-write"}

    def ports(self):
        return [5432] * len(self.hosts())

    def table(self):
        connection = psycopg2.connect(connect_timeout=3, **self.where())
        connection.autocommit = True
        connection.cursor().execute("CREATE TABLE IF NOT EXISTS pause (i int)")
        connection.close()
        return True

    def kill_folder(self, folder):
        """kill -9 of whatever lives in a folder: a server with all its processes."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/cwd").startswith(folder + "/"):
                    os.kill(int(pid), signal.SIGKILL)
            except OSError:
                pass

    def kill_node(self, name):
        process = self.processes.pop(name, None)
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.kill_folder(os.path.join(self.folder, name))

    def down(self):
        for name in list(self.processes):
            self.kill_node(name)
        self.kill_folder(self.folder)


class Patroni(Rival):
    HOSTS = {"node1": "127.41.0.1", "node2": "127.41.0.2", "node3": "127.41.0.3"}
    ETCD = "127.41.0.9"

    @staticmethod
    def missing():
        for program in ("patroni", "etcd"):
            if shutil.which(program) is None:
                return f"{program} is not installed (Debian packages patroni, etcd-server)"
        return None

    def __init__(self, folder, setting):
        super().__init__(folder, setting)
        self.ttl, self.loop, self.retry = (20, 1, 3) if self.tight else (30, 10, 10)
        self.says = f"ttl {self.ttl}, loop_wait {self.loop}, retry_timeout {self.retry}"

    def hosts(self):
        return list(self.HOSTS.values())

    def config(self, name):
        host = self.HOSTS[name]
        return json.dumps({
            "scope": "bench", "name": name,
            "restapi": {"listen": f"{host}:8008", "connect_address": f"{host}:8008"},
            "etcd3": {"host": f"{self.ETCD}:2379"},
            "bootstrap": {
                "dcs": {"ttl": self.ttl, "loop_wait": self.loop, "retry_timeout": self.retry,
                        "maximum_lag_on_failover": 1048576,
                        "postgresql": {"use_pg_rewind": True,
                                       "parameters": {"max_connections": 50,
                                                      "shared_buffers": "16MB"}}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["host all all 127.0.0.0/8 trust",
                           "host replication all 127.0.0.0/8 trust"]},
            "postgresql": {
                "listen": f"{host}:5432", "connect_address": f"{host}:5432", "bin_dir": BIN,
                "data_dir": f"{self.folder}/{name}/data", "pgpass": f"{self.folder}/{name}.pgpass",
                "authentication": {"superuser": {"username": "postgres", "password": "secret"},
                                   "replication": {"username": "replica", "password": "secret"}},
                "parameters": {"unix_socket_directories": ""}}})

    def start(self, name):
        folder = os.path.join(self.folder, name)
        self.run("mkdir", "-p", folder)
        self.spawn(name, "patroni", self.write(f"{name}.yml", self.config(name)))

    def up(self):
        url = f"http://{self.ETCD}"
        self.spawn("etcd", "etcd", "--data-dir", f"{self.folder}/etcd", "--listen-client-urls",
                   f"{url}:2379", "--advertise-client-urls", f"{url}:2379", "--listen-peer-urls",
                   f"{url}:2380", "--initial-advertise-peer-urls", f"{url}:2380",
                   "--initial-cluster", f"default={url}:2380")
        for name in self.HOSTS:
            self.start(name)
        wait_for(self.table, "a primary")
        self.settled()

    def cluster(self):
        for host in self.HOSTS.values():
            try:
                with urllib.request.urlopen(f"http://{host}:8008/cluster", timeout=2) as answer:
                    return {member["name"]: member for member in json.load(answer)["members"]}
            except (urllib.error.URLError, OSError, ValueError):
                continue
        return {}

    def settled(self):
        def is_settled():
            members = self.cluster().values()
            roles = sorted(member["role"] for member in members
                           if member["state"] in ("running", "streaming"))
            return len(roles) == 3 and "leader" in roles
        wait_for(is_settled, "a leader and two replicas")

    def leader(self):
        return next(name for name, member in self.cluster().items() if member["role"] == "leader")

    def switchover(self):
        self.settled()
        leader = self.leader()
        body = json.dumps({"leader": leader,
                           "candidate": next(name for name in self.HOSTS if name != leader)})
        request = urllib.request.Request(f"http://{self.HOSTS[leader]}:8008/switchover",
                                         data=body.encode())
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.read()
            except urllib.error.HTTPError as error:  # "no good candidates": it settles later than told
                if error.code != 503 or time.monotonic() > until:
                    raise
            time.sleep(0.2)

    def kill(self):
        self.killed = self.leader()
        self.kill_node(self.killed)

    def heal(self):
        self.start(self.killed)


class AutoFailover(Rival):
    HOSTS = {"node1": "127.42.0.1", "node2": "127.42.0.2", "node3": "127.42.0.3"}
    MONITOR = "127.42.0.9"
    PORTS = {"monitor": 5500, "node1": 5501, "node2": 5502, "node3": 5503}  # of Unix sockets, too
    TIGHT = {"health_check_period": 500, "health_check_timeout": 500, "health_check_max_retries": 1,
             "health_check_retry_delay": 200, "node_considered_unhealthy_timeout": 2000,
             "primary_demote_timeout": 3000, "startup_grace_period": 1000}

    @staticmethod
    def missing():
        if shutil.which("pg_autoctl") is None:
            return ("pg_autoctl is not installed (Debian packages pg-auto-failover-cli, "
                    "postgresql-15-auto-failover)")
        return None

    def __init__(self, folder, setting):
        super().__init__(folder, setting)
        self.says = ", ".join(f"{name} {value} ms" if name.endswith(("period", "timeout", "delay"))
                              else f"{name} {value}" for name, value in self.TIGHT.items()) \
            if self.tight else ("health_check_period 5 s, node_considered_unhealthy_timeout 20 s, "
                                "primary_demote_timeout 30 s")

    def environment(self):
        return {**super().environment(), "XDG_CONFIG_HOME": f"{self.folder}/config",
                "XDG_DATA_HOME": f"{self.folder}/share", "XDG_RUNTIME_DIR": f"{self.folder}/run",
                "PG_CONFIG": f"{BIN}/pg_config", "PGPASSWORD": "secret"}

    def hosts(self):
        return list(self.HOSTS.values())

    def ports(self):
        return [self.PORTS[name] for name in self.HOSTS]

    def answers(self, name, host):
        return socket.create_connection((host, self.PORTS[name]), 1).close() is None

    def monitor(self):
        return f"postgres://autoctl_node@{self.MONITOR}:{self.PORTS['monitor']}/pg_auto_failover"

    def create(self, name, *words):
        done = self.run("pg_autoctl", "create", *words, "--pgdata", f"{self.folder}/{name}/data",
                        "--skip-pg-hba", "--no-ssl", "--pgport", str(self.PORTS[name]),
                        "--pgctl", f"{BIN}/pg_ctl")
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if "ERROR" in line or "FATAL" in line]
            raise Trouble(f"pg_autoctl create {words[0]}: {said[:3]}")

    def start(self, name):
        self.spawn(name, "pg_autoctl", "run", "--pgdata", f"{self.folder}/{name}/data")

    def open_hba(self, name):
        with open(f"{self.folder}/{name}/data/pg_hba.conf", "a", encoding="utf-8") as file:
            file.write("host all all 127.0.0.0/8 trust\nhost replication all 127.0.0.0/8 trust\n")
        self.run(f"{BIN}/pg_ctl", "reload", "-D", f"{self.folder}/{name}/data")

    def up(self):
        self.run("mkdir", "-p", f"{self.folder}/run", *(f"{self.folder}/{name}" for name in
                                                       ("monitor", *self.HOSTS)))
        self.create("monitor", "monitor", "--hostname", self.MONITOR, "--listen", self.MONITOR)
        self.start("monitor")
        wait_for(lambda: self.answers("monitor", self.MONITOR), "the monitor")
        time.sleep(2)
        self.open_hba("monitor")
        if self.tight:
            self.tighten()
        for name, host in self.HOSTS.items():
            self.create(name, "postgres", "--hostname", host, "--listen", host, "--name", name,
                        "--monitor", self.monitor())
            self.start(name)
            wait_for(lambda n=name, h=host: self.answers(n, h), name)
            self.open_hba(name)
        wait_for(self.table, "a primary")
        self.settled()

    def tighten(self):
        data = f"{self.folder}/monitor/data"
        with open(f"{data}/postgresql.auto.conf", "a", encoding="utf-8") as file:
            for name, value in self.TIGHT.items():
                file.write(f"pgautofailover.{name} = {value}\n")
        self.run(f"{BIN}/pg_ctl", "reload", "-D", data)

    def states(self):
        done = self.run("pg_autoctl", "show", "state", "--json", "--monitor", self.monitor())
        return json.loads(done.stdout)

    def settled(self):
        def is_settled():
            states = [(node["current_group_state"], node["assigned_group_state"])
                      for node in self.states()]
            return len(states) == 3 and all(a == b for a, b in states) and \
                sorted(a for a, _ in states) == ["primary", "secondary", "secondary"]
        wait_for(is_settled, "a primary and two secondaries")

    def primary(self):
        return next(node["nodename"] for node in self.states()
                    if node["current_group_state"] == "primary")

    def switchover(self):
        self.settled()
        done = self.run("pg_autoctl", "perform", "switchover", "--monitor", self.monitor())
        if done.returncode != 0:
            raise Trouble(f"switchover: {done.stderr.strip().splitlines()[-1:]}")

    def kill(self):
        self.killed = self.primary()
        self.kill_node(self.killed)

    def heal(self):
        self.start(self.killed)
