#!/usr/bin/python3
"""PostgreSQL: how long nobody can write when the writer dies or moves, and what the doors cost.

    bench.py [--only meridian,patroni,pg_auto_failover] [--rounds N] [--seconds S]

Meridian is measured in the lab (`make lab`): three regions with the wide area's round trips of 70, 179
and 220 ms. The rivals run on this machine without any delay, so each of their round trips is free;
each once with its defaults and once as tight as it takes. Their clients name all servers in the
connection string (target_session_attrs=read-write), as their manuals advise; Meridian's name the door
of a region that lives. Every client is the same: one connection, one INSERT after the other, a new
connection at once after an error. The pause is the longest time between two accepted writes.

A rival that is not installed is skipped with a line that says so; nothing is installed from here.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

os.environ["HOME"] = "/nonexistent"  # libpq looks for certificates there
try:
    import psycopg2
except ImportError:
    sys.exit("bench/postgres: python3-psycopg2 is missing: run scripts/install-deps")

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import rivals  # noqa: E402

TOP = os.path.realpath(os.path.join(HERE, "../.."))
MERIDIAN = os.path.join(TOP, "build/meridian")
PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"
ADDRESSES = {"us-east": "127.10.0.1", "eu-west": "127.20.0.1", "ap-southeast": "127.30.0.1"}
ONE_WAY_MS = {frozenset(("us-east", "eu-west")): 35, frozenset(("us-east", "ap-southeast")): 110,
              frozenset(("eu-west", "ap-southeast")): 89.5}


class Writer(threading.Thread):
    """Writes without a pause until `end`; `gap` is the longest time without an accepted write."""

    def __init__(self, **where):
        super().__init__(daemon=True)
        self.where, self.gap, self.count, self.last = where, 0.0, 0, None
        self.ending = threading.Event()
        self.start()

    def run(self):
        connection = None
        while not self.ending.is_set():
            try:
                if connection is None:
                    connection = psycopg2.connect(connect_timeout=3, **self.where)
                    connection.autocommit = True
                connection.cursor().execute("INSERT INTO pause VALUES (1)")
                now = time.monotonic()
                if self.last is not None:
                    self.gap = max(self.gap, now - self.last)
                self.last, self.count = now, self.count + 1
            except psycopg2.Error:
                connection = None
                time.sleep(0.01)

    def wait(self, count, seconds):
        """Until `count` more writes were accepted; False: time ran out."""
        goal, until = self.count + count, time.monotonic() + seconds
        while self.count < goal and time.monotonic() < until:
            time.sleep(0.01)
        return self.count >= goal

    def mark(self):
        self.gap = 0.0

    def end(self):
        self.ending.set()
        self.join(30)


def pause_of(where, act, seconds=120):
    """The pause that `act` makes, seen by a client; None: no write was accepted in time."""
    writer = Writer(**where)
    try:
        if not writer.wait(20, 30):
            return None
        writer.mark()
        act()
        settled = writer.wait(20, seconds)
        begun = time.monotonic()
        while settled and time.monotonic() < begun + 1.5:  # a second cut would count
            time.sleep(0.05)
        return writer.gap if settled else None
    finally:
        writer.end()


def told(name, values, unit="s"):
    good = [value for value in values if value is not None]
    if not good:
        print(f"  {name:58} never")
        return
    spread = f"  ({min(good):.2f} to {max(good):.2f}, {len(good)} of {len(values)})"
    print(f"  {name:58} {statistics.median(good):7.2f} {unit}{spread}", flush=True)


# ---- Meridian

def meridian(*words):
    return subprocess.run([MERIDIAN, *words], capture_output=True, text=True, check=False)


def postgres_status():
    answer = meridian("status", "--json")
    return json.loads(answer.stdout)["postgres"] if answer.returncode == 0 else None


def settled():
    """The writer's region, once both others follow it."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        status = postgres_status()
        if status and status["writer"] and sum(s["following"] for s in status["servers"]) == 2:
            return status["writer_region"]
        time.sleep(0.2)
    sys.exit("bench/postgres: the lab has no writer that two standbys follow; see meridian status")


def door(region, port=5432, **more):
    return {"host": ADDRESSES[region], "port": port, "user": "app", "password": "app",
            "dbname": "app", **more}


def median_ms(call, count):
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        call()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def meridian_pauses(rounds):
    moves, deaths = [], []
    for _ in range(rounds):
        region = settled()
        target = "eu-west" if region == "us-east" else "us-east"
        moves.append(pause_of(door(target), lambda t=target: meridian("switchover", "--to", t)))
    told("Meridian: switchover, pause at the new writer's door", moves)
    for _ in range(rounds):
        region = settled()
        witness = "eu-west" if region == "us-east" else "us-east"
        deaths.append(pause_of(door(witness), lambda r=region: meridian("lab", "kill", r)))
        meridian("lab", "start", region)
    told("Meridian: kill -9 of the writer's region to the next write", deaths)


def meridian_forwarding(region):
    for other in ADDRESSES:
        if other == region:
            continue
        trip = 2 * ONE_WAY_MS[frozenset((region, other))]
        connection = psycopg2.connect(options="-c meridian.write_forwarding=on",
                                      **door(other, 5433))
        connection.autocommit = True
        cursor = connection.cursor()
        for _ in range(3):
            cursor.execute("INSERT INTO pause VALUES (2)")
        ms = median_ms(lambda c=cursor: c.execute("INSERT INTO pause VALUES (2)"), 25)
        connection.close()
        print(f"  Meridian: INSERT at a standby of {other:14} {ms:7.1f} ms, "
              f"{ms - trip:+.1f} over the round trip of {trip:.0f}", flush=True)


def meridian_lag(region):
    """From the answer to a commit to its row at the standby's own server, less the one way delay."""
    writer = psycopg2.connect(**door(region))
    writer.autocommit = True
    cursor = writer.cursor()
    cursor.execute("SELECT greatest(max(i), 1000) FROM pause")
    number = cursor.fetchone()[0]
    for other in ADDRESSES:
        if other == region:
            continue
        reader = psycopg2.connect(**door(other, 5433))
        reader.autocommit = True
        look, lags = reader.cursor(), []
        for number in range(number + 1, number + 31):
            cursor.execute("INSERT INTO pause VALUES (%s)", (number,))
            begun = time.perf_counter()
            found = 0
            while not found and time.perf_counter() < begun + 5:
                look.execute("SELECT count(*) FROM pause WHERE i = %s", (number,))
                found = look.fetchone()[0]
            lags.append((time.perf_counter() - begun) * 1000)
        reader.close()
        one_way = ONE_WAY_MS[frozenset((region, other))]
        print(f"  Meridian: a commit's row at {other:23} {statistics.median(lags):7.1f} ms, "
              f"{statistics.median(lags) - one_way:+.1f} over one way of {one_way:g}", flush=True)
    writer.close()


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def daemon_pid(region):
    """Of the daemon that listens on the region's door."""
    lab = os.environ.get("MERIDIAN_LAB", os.path.join(TOP, ".lab"))
    with open(os.path.join(lab, region, "run/meridiand.pid"), encoding="ascii") as file:
        return int(file.read().split()[0])


def pgbench(region, port, seconds, *more):
    """(transactions a second, daemon's CPU in microseconds for each)"""
    pid = daemon_pid(region)
    before = cpu_ticks(pid)
    done = subprocess.run(
        [PGBENCH, "-h", ADDRESSES[region], "-p", str(port), "-U", "app", "-n", "-T", str(seconds),
         "-c", "8", "-j", "2", *more, "app"], capture_output=True, text=True, check=False,
        env={**os.environ, "PGPASSWORD": "app"})
    ticks = cpu_ticks(pid) - before
    try:
        count = int(done.stdout.split("actually processed:")[1].split()[0].split("/")[0])
        rate = float(done.stdout.split("tps = ")[1].split()[0])
    except (IndexError, ValueError):
        sys.exit(f"bench/postgres: pgbench failed: {done.stderr.strip()}")
    return rate, ticks * 1e6 / os.sysconf("SC_CLK_TCK") / max(count, 1)


def meridian_door(region, rounds, seconds):
    """Direct and by the door, in turns: what both share (the disk, a busy machine) cancels out."""
    subprocess.run([PGBENCH, "-h", ADDRESSES[region], "-p", "5432", "-U", "app", "-i", "-q", "-s",
                    "5", "app"], capture_output=True, check=False,
                   env={**os.environ, "PGPASSWORD": "app"})
    for name, more in (("read and write", ()), ("read only", ("-S",))):
        ratios, costs, rates = [], [], []
        for _ in range(rounds):
            direct, idle = pgbench(region, 5434, seconds, *more)
            through, cost = pgbench(region, 5432, seconds, *more)
            ratios.append(through / direct)
            rates.append(direct)
            costs.append(cost - idle)
        print(f"  Meridian: pgbench by the door, {name:26} {statistics.median(ratios):7.2f} of "
              f"direct ({statistics.median(rates):.0f}/s); the daemon's CPU "
              f"{statistics.median(costs):.0f} us a transaction", flush=True)


def run_meridian(rounds, seconds):
    region = settled()
    connection = psycopg2.connect(**door(region))
    connection.autocommit = True
    connection.cursor().execute("CREATE TABLE IF NOT EXISTS pause (i int)")
    connection.close()
    time.sleep(1)
    meridian_door(region, rounds, seconds)
    meridian_forwarding(region)
    meridian_lag(region)
    meridian_pauses(rounds)


# ---- the rivals

def run_rival(name, kind, rounds):
    missing = kind.missing()
    if missing:
        print(f"  {name}: not measured: {missing}")
        return
    for setting in ("defaults", "tight"):
        folder = tempfile.mkdtemp(prefix="mbench-", dir="/tmp")
        os.chmod(folder, 0o755)
        rival = kind(folder, setting)
        try:
            rival.up()
            # one death is enough where each takes half a minute
            count = rounds if setting == "tight" else 1
            where = rival.where()
            told(f"{name}, {setting}: switchover",
                 [pause_of(where, rival.switchover) for _ in range(rounds)])
            deaths = []
            for _ in range(count):
                rival.settled()
                deaths.append(pause_of(where, rival.kill))
                rival.heal()
            told(f"{name}, {setting}: kill -9 of the primary to the next write", deaths)
            print(f"      ({rival.says})")
        except rivals.Trouble as trouble:
            print(f"  {name}, {setting}: not measured: {trouble}")
        finally:
            rival.down()
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="meridian,patroni,pg_auto_failover")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    args = parser.parse_args()
    chosen = args.only.split(",")
    if "meridian" in chosen:
        run_meridian(args.rounds, args.seconds)
    if "patroni" in chosen:
        run_rival("Patroni", rivals.Patroni, args.rounds)
    if "pg_auto_failover" in chosen:
        run_rival("pg_auto_failover", rivals.AutoFailover, args.rounds)


if __name__ == "__main__":
    main()
