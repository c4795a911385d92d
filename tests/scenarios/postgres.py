"""PostgreSQL over three regions: a region dies, a daemon stands still, and what was committed stays."""
import glob
import os
import re
import signal
import threading
import time

import psycopg2

from lab import ADDRESSES, LIMIT_S, REGIONS, after, eventually, expect_true, promise

SERVER = 5434  # behind the doors: each region's own


def connect(region, port=SERVER, seconds=10):
    connection = psycopg2.connect(host=ADDRESSES[region], port=port, user="app", password="app",
                                  dbname="app", connect_timeout=seconds)
    connection.autocommit = True
    return connection


def ask(region, text, port=SERVER):
    connection = connect(region, port)
    try:
        with connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


def role(region):
    return "standby" if ask(region, "SELECT pg_is_in_recovery()")[0][0] else "primary"


def writes(region):
    """May this region's own server take writes now?"""
    try:
        ask(region, "INSERT INTO probe VALUES (1)")
        return True
    except psycopg2.Error:
        return False


def writer(regions=None):
    found = [region for region in regions or REGIONS if writes(region)]
    return found[0] if len(found) == 1 else None


def streams(region):
    return ask(region, "SELECT count(*) FROM pg_stat_wal_receiver") == [(1,)]


def prepared():
    """The primary, with the tables of these scenarios."""
    for region in REGIONS:
        if role(region) == "primary":
            ask(region, "CREATE TABLE IF NOT EXISTS numbers (i bigint); "
                        "CREATE TABLE IF NOT EXISTS probe (i int)")
            return region
    return None


def all_follow(primary):
    return all(region == primary or role(region) == "standby" for region in REGIONS)


def same_everywhere(text):
    return len({str(ask(region, text)) for region in REGIONS}) == 1


class Load(threading.Thread):
    """Inserts numbers at one region's server; `acknowledged` are those that were told to be in."""

    def __init__(self, region, first, setup=""):
        super().__init__(daemon=True)
        self.region, self.next, self.setup = region, first, setup
        self.acknowledged, self.ended = [], threading.Event()
        self.start()

    def run(self):
        try:
            connection = connect(self.region)
            with connection.cursor() as cursor:
                cursor.execute(self.setup or "SELECT 1")
                while not self.ended.is_set():
                    cursor.execute("INSERT INTO numbers VALUES (%s)", (self.next,))
                    self.acknowledged.append(self.next)
                    self.next += 1
        except psycopg2.Error:
            pass

    def stop(self):
        self.ended.set()
        self.join(LIMIT_S)
        return self.acknowledged


def kept_aside(lab, region):
    return set(glob.glob(os.path.join(lab.folder, region, "data/postgres/kept-aside/*")))


def sync_set(lab, count):
    """How many standbys a commit waits for, by the topology."""
    setting = f"        sync = {count}\n"

    def waiting(document):
        document = re.sub(r"(?m)^\s*sync = \d+;?\n", "", document)
        return re.sub(r"(?m)^postgres \{\n", "postgres {\n" + setting, document)
    lab.applied(lambda document: document if setting in document else waiting(document))


def scenario_there_is_one_primary_and_the_others_follow(lab):
    lab.wait_all_active()
    primary = eventually("one is the primary", prepared)
    eventually("the others follow", lambda: all_follow(primary))
    eventually("it writes", lambda: ask(primary, "DELETE FROM numbers; "
                                                 "INSERT INTO numbers VALUES (0) RETURNING i"))
    for region in REGIONS:
        eventually(f"{region} has it", lambda r=region: ask(r, "SELECT i FROM numbers") == [(0,)])
    eventually("it is the only one to take writes", lambda: writer() == primary)


@after(scenario_there_is_one_primary_and_the_others_follow)
def scenario_a_region_dies_another_takes_over_and_nothing_is_lost(lab):
    """Commits wait for one standby: whatever was acknowledged is in the next primary."""
    first = eventually("a primary", writer)
    sync_set(lab, 1)
    eventually("commits wait for a standby",
               lambda: "ANY 1" in ask(first, "SHOW synchronous_standby_names")[0][0])
    load = Load(first, 1)
    eventually("writes flow", lambda: len(load.acknowledged) > 20)
    lab.kill(first)
    begin = time.monotonic()
    others = [region for region in REGIONS if region != first]
    primary = eventually("another takes writes", lambda: writer(others))
    print(f"        {time.monotonic() - begin:.2f} s from the kill to the first write elsewhere")
    acknowledged = load.stop()
    found = {row[0] for row in eventually("they are read",
                                          lambda: ask(primary, "SELECT i FROM numbers"))}
    lost = [number for number in acknowledged if number not in found]
    promise(not lost, f"of {len(acknowledged)} commits these are lost: {lost}")
    other = next(region for region in others if region != primary)
    eventually("it writes", lambda: ask(primary, "INSERT INTO numbers VALUES (-1) RETURNING i"))
    eventually("the third follows it",
               lambda: ask(other, "SELECT i FROM numbers WHERE i = -1"))
    lab.start(first)
    eventually("the first one comes back and follows", lambda: role(first) == "standby")
    eventually("all have the same",
               lambda: same_everywhere("SELECT count(*), sum(i) FROM numbers"))
    sync_set(lab, 0)
    lab.wait_all_active()
    primary = eventually("a primary", writer)
    eventually("commits wait for nobody",
               lambda: ask(primary, "SHOW synchronous_standby_names") == [("",)])


@after(scenario_there_is_one_primary_and_the_others_follow)
def scenario_a_former_primary_that_has_more_is_rewound(lab):
    """What was committed in a region that is cut off from the others is kept aside."""
    primary = eventually("a primary", writer)
    before = kept_aside(lab, primary)
    load = Load(primary, 1000000, "SET synchronous_commit = local")
    eventually("writes flow", lambda: len(load.acknowledged) > 20)
    lab.cut_off(primary)
    cut = len(load.acknowledged)
    others = [region for region in REGIONS if region != primary]
    eventually("it stops taking writes by itself", lambda: not writes(primary))
    second = eventually("another takes writes", lambda: writer(others))
    acknowledged = load.stop()
    expect_true(len(acknowledged) > cut, "it took some after the cut")
    lab.heal()
    eventually("it follows", lambda: role(primary) == "standby")
    eventually("all have the same",
               lambda: same_everywhere("SELECT count(*), sum(i) FROM numbers"))
    folders = eventually("it kept aside what only it had",
                         lambda: kept_aside(lab, primary) - before)
    with open(os.path.join(sorted(folders)[-1], "report.txt"), encoding="utf-8") as file:
        report = file.read()
    commits = int(report.split("commits")[1].split()[0])
    lost = len(acknowledged) - ask(second, "SELECT count(*) FROM numbers WHERE i >= 1000000")[0][0]
    print(f"        {lost} commits were nowhere else, {commits} are kept aside")
    expect_true(lost <= commits and lost > 0, f"all of them: {report}")
    lab.wait_all_active()


@after(scenario_there_is_one_primary_and_the_others_follow)
def scenario_a_primary_whose_daemon_stands_still_fences_itself(lab):
    primary = eventually("a primary", writer)
    others = [region for region in REGIONS if region != primary]
    load = Load(primary, 2000000)
    eventually("writes flow", lambda: len(load.acknowledged) > 20)
    daemon = lab.pid(primary, "meridiand")
    os.kill(daemon, signal.SIGSTOP)
    try:
        both = [0]

        def second():
            mine = writes(primary)
            theirs = writer(others)
            if theirs and mine and writes(primary):
                both[0] += 1
            return theirs
        eventually("another takes writes", second)
        promise(both[0] == 0, "never two at once")
        promise(not writes(primary), "the first one refuses them")
        eventually("and can be read", lambda: ask(primary, "SELECT 1") == [(1,)])
    finally:
        os.kill(daemon, signal.SIGCONT)
    load.stop()
    eventually("it follows", lambda: role(primary) == "standby")
    lab.wait_all_active()
