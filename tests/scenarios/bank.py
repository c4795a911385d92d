"""A bank in PostgreSQL: transfers by the write doors of all regions, audits by their read doors, while
the writer's region dies, its processes are stopped, its links are cut, and the writer moves.

Commits wait for one standby. Whatever happens: no reader ever sees money appear or vanish, and every
transfer that a client was told of is found again.
"""
import os
import random
import re
import signal
import threading
import time
import uuid

import psycopg2

from lab import ADDRESSES, LIMIT_S, REGIONS, after, eventually, expect_true, promise

ACCOUNTS = 20
MONEY = 1000
WRITE, READ = 5432, 5433


def connect(region, port=WRITE, timeout=30, **more):
    connection = psycopg2.connect(host=ADDRESSES[region], port=port, user="app", password="app",
                                  dbname="app", connect_timeout=timeout, **more)
    connection.autocommit = port == READ
    return connection


def one(region, text, port=WRITE):
    connection = connect(region, port)
    try:
        cursor = connection.cursor()
        cursor.execute(text)
        return cursor.fetchone()[0] if cursor.description else connection.commit()
    finally:
        connection.close()


def patiently(region, text, port=WRITE):
    """The same as soon as a server can be asked; what it does it may do twice."""
    return eventually(f"{region} does {text!r}", lambda: (one(region, text, port),))[0]


def writer(lab):
    """The region whose server takes writes, by what most nodes know; or None."""
    for node in REGIONS:
        try:
            status = lab.status(node)
        except Exception:  # pylint: disable=broad-except
            continue
        if status["majority"] and status["postgres"]["writer"]:
            return status["postgres"]["writer_region"]
    return None


def all_stream(lab):
    """All regions know one writer, and all others follow it."""
    for node in REGIONS:
        postgres = lab.status(node)["postgres"]
        servers = postgres["servers"]
        if postgres["writer"] is None or sum(server["following"] for server in servers) < 2:
            return None
    return writer(lab)


TOLD, TRIED = set(), set()  # since the bank was opened


class Bank:
    """Clients in every region; `told` are all transfers that were ever acknowledged."""

    def __init__(self, clients=2):
        self.told, self.tried, self.errors = TOLD, TRIED, []
        self.audits, self.wrong = 0, []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.last_told = {region: 0.0 for region in REGIONS}
        self.gap = 0.0
        self.threads = [threading.Thread(target=self.client, args=(region, seed), daemon=True)
                        for region in REGIONS for seed in range(clients)]
        self.threads += [threading.Thread(target=self.auditor, args=(region,), daemon=True)
                         for region in REGIONS]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join(3 * LIMIT_S)
        promise(not any(thread.is_alive() for thread in self.threads), "no client hangs")

    def transfer(self, connection, name, rng):
        source, target = rng.sample(range(ACCOUNTS), 2)
        amount = rng.randint(1, 100)
        cursor = connection.cursor()
        for account in sorted((source, target)):
            cursor.execute("UPDATE account SET money = money + %s WHERE id = %s",
                           (amount if account == target else -amount, account))
        cursor.execute("INSERT INTO transfer VALUES (%s, %s, %s, %s)",
                       (name, source, target, amount))
        connection.commit()

    def client(self, region, seed):
        rng = random.Random(f"{region}{seed}")
        connection = None
        while not self.ending.is_set():
            name = str(uuid.uuid4())
            try:
                if connection is None:
                    connection = connect(region)
                with self.lock:
                    self.tried.add(name)
                self.transfer(connection, name, rng)
                now = time.monotonic()
                with self.lock:
                    self.told.add(name)
                    newest = max(self.last_told.values())
                    if newest:
                        self.gap = max(self.gap, now - newest)
                    self.last_told[region] = now
            except psycopg2.Error as error:
                with self.lock:
                    self.errors.append((region, str(error).strip()))
                connection = self.again(connection)
        if connection is not None:
            connection.close()

    @staticmethod
    def again(connection):
        try:
            if connection is not None and not connection.closed:
                connection.rollback()
                return connection
        except psycopg2.Error:
            pass
        time.sleep(0.05)
        return None

    def auditor(self, region):
        connection = None
        while not self.ending.is_set():
            try:
                if connection is None:
                    connection = connect(region, READ)
                cursor = connection.cursor()
                cursor.execute("SELECT sum(money), count(*) FROM account")
                seen = cursor.fetchone()
                with self.lock:
                    self.audits += 1
                    if seen != (ACCOUNTS * MONEY, ACCOUNTS):
                        self.wrong.append((region, seen))
            except psycopg2.Error:
                connection = None
            self.ending.wait(0.05)

    def mark(self):
        """From here on `gap` is measured anew."""
        with self.lock:
            self.gap = 0.0
            return len(self.told)

    def goes_on(self, regions, seconds=2 * LIMIT_S):
        """Each of the regions has had a transfer acknowledged after now."""
        since = time.monotonic()
        eventually(f"transfers from {regions}", lambda: all(
            self.last_told[region] > since for region in regions), seconds)


def open_bank(lab):
    """Commits wait for one standby from here on; the accounts are made."""
    def waiting(document):
        document = re.sub(r"(?m)^(\s*)sync = \d+;?$", "", document)
        return re.sub(r"(?m)^postgres \{$", "postgres {\n        sync = 1", document)
    lab.applied(lambda document: document if "sync = 1" in document else waiting(document))
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    eventually("commits wait for a standby", lambda: "ANY 1" in one(
        region, "SHOW synchronous_standby_names"))
    patiently(region, "CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, money bigint)")
    patiently(region, "CREATE TABLE IF NOT EXISTS transfer (name uuid PRIMARY KEY, source int, "
                      "target int, amount int)")
    TOLD.clear()
    TRIED.clear()
    patiently(region, "TRUNCATE account, transfer; INSERT INTO account "
                      f"SELECT i, {MONEY} FROM generate_series(0, {ACCOUNTS - 1}) i")
    for other in REGIONS:
        eventually(f"{other} has the accounts", lambda r=other: one(
            r, "SELECT count(*) FROM account", READ) == ACCOUNTS)


def books(region):
    """The names of all transfers, and the accounts that are not the sum of them."""
    connection = connect(region)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT name::text FROM transfer")
        found = {row[0] for row in cursor.fetchall()}
        cursor.execute(
            f"SELECT a.id FROM account a WHERE money <> {MONEY}"
            " + (SELECT coalesce(sum(amount), 0) FROM transfer WHERE target = a.id)"
            " - (SELECT coalesce(sum(amount), 0) FROM transfer WHERE source = a.id)")
        return found, cursor.fetchall()
    finally:
        connection.close()


def balance(lab, bank):
    """Nothing is lost, nothing is twice, nothing was ever seen half done."""
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    found, wrong = eventually("the books are read", lambda: books(region))
    promise(not bank.told - found, f"of {len(bank.told)} acknowledged transfers "
                                   f"{len(bank.told - found)} are missing")
    promise(not found - bank.tried, "there are transfers that nobody made")
    promise(wrong == [], f"accounts that are not the sum of their transfers: {wrong}")
    promise(bank.wrong == [], f"audits that saw money appear or vanish: {bank.wrong}")
    expect_true(bank.audits > 0, f"audits were made: {bank.audits}")
    print(f"        {len(bank.told)} transfers acknowledged, {len(bank.errors)} errors, "
          f"{bank.audits} audits")


def processes(lab, region, part):
    """Of a region's PostgreSQL: all that live in its folder; else what its pid file names."""
    if part != "postgres":
        return [lab.pid(region, part)]
    home = os.path.realpath(os.path.join(lab.folder, region, "data/postgres"))
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            cwd = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        if cwd == home or cwd.startswith(home + "/"):
            found.append(int(pid))
    return found


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def scenario_the_bank_opens(lab):
    lab.wait_all_active()
    open_bank(lab)
    with Bank() as bank:
        bank.goes_on(REGIONS)
    balance(lab, bank)


@after(scenario_the_bank_opens)
def scenario_the_writer_moves_and_nothing_is_lost(lab):
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    target = next(other for other in ("eu-west", "us-east") if other != region)
    with Bank() as bank:
        bank.goes_on(REGIONS)
        bank.mark()
        out = lab.meridian("switchover", "--to", target)
        bank.goes_on(REGIONS)
        pause = bank.gap
    for word in ("check", "ask", "take over", "follow"):
        expect_true(word in out, f"the plan names {word!r}:\n{out}")
    eventually("the writer's region is the other", lambda: writer(lab) == target)
    balance(lab, bank)
    print(f"        no transfer was acknowledged for {pause * 1000:.0f} ms")


@after(scenario_the_bank_opens)
def scenario_the_writers_region_dies(lab):
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    others = [other for other in REGIONS if other != region]
    with Bank() as bank:
        bank.goes_on(REGIONS)
        bank.mark()
        lab.kill(region)
        bank.goes_on(others)
        pause = bank.gap
        lab.start(region)
        bank.goes_on(REGIONS)
    balance(lab, bank)
    print(f"        {pause:.2f} s from the kill to the next acknowledged transfer")


def stopped(lab, part, seconds):
    """The writer's `part` stands still for a while: another takes over, and nothing is lost."""
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    others = [other for other in REGIONS if other != region]
    with Bank() as bank:
        bank.goes_on(REGIONS)
        pids = processes(lab, region, part)
        expect_true(pids, f"{part} of {region} runs")
        signal_all(pids, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            bank.goes_on(others)
            print(f"        {time.monotonic() - begun:.2f} s until all others wrote again")
            time.sleep(max(0.0, begun + seconds - time.monotonic()))
        finally:
            signal_all(pids, signal.SIGCONT)
        bank.goes_on(REGIONS)
    balance(lab, bank)


@after(scenario_the_bank_opens)
def scenario_the_writers_daemon_stands_still(lab):
    stopped(lab, "meridiand", 6)


@after(scenario_the_bank_opens)
def scenario_the_writers_server_stands_still(lab):
    stopped(lab, "postgres", 6)


@after(scenario_the_bank_opens)
def scenario_the_writer_is_cut_off(lab):
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    others = [other for other in REGIONS if other != region]
    with Bank() as bank:
        bank.goes_on(REGIONS)
        lab.cut_off(region)
        bank.goes_on(others)
        promise(writer_says(lab, region) is False, f"{region} knows that it may not write")
        lab.heal()
        bank.goes_on(REGIONS)
    balance(lab, bank)


def writer_says(lab, region):
    return lab.status(region)["postgres"]["lease"]["may_write"]


@after(scenario_the_bank_opens)
def scenario_half_a_partition(lab):
    """The writer and one region do not hear each other; the third hears both."""
    region = eventually("one writer, and two that follow", lambda: all_stream(lab))
    other = next(one for one in ("ap-southeast", "eu-west") if one != region)
    third = next(one for one in REGIONS if one not in (region, other))
    with Bank() as bank:
        bank.goes_on(REGIONS)
        lab.meridian("lab", "partition", region, other)
        bank.goes_on([third])
        lab.heal()
        bank.goes_on(REGIONS)
    balance(lab, bank)
