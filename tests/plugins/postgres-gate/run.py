#!/usr/bin/python3
"""The gate of a primary in a real server: a commit begins, and its answer leaves, only while the
daemon's file (src/warden/gate.h) says so. This program plays the daemon.

As root it starts itself anew as the user `nobody`. Prints `N passed, N failed`.
"""

import importlib.util
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.realpath(__file__))
SPEC = importlib.util.spec_from_file_location(
    "harness", os.path.join(HERE, "..", "postgres", "run.py"))
harness = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(harness)
psycopg2 = harness.psycopg2
Tally, as_nobody = harness.Tally, harness.as_nobody

REFUSED = "25006"
MAGIC, BOOT, OPENED, EPOCH, UNTIL, HELD, BEGUN, ENDED = range(8)


class Gate:
    def __init__(self, path):
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", 0x316574616764726D).ljust(4096, b"\0"))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 4096)

    def get(self, word):
        return struct.unpack_from("<Q", self.memory, word * 8)[0]

    def set(self, word, value):
        struct.pack_into("<Q", self.memory, word * 8, value)

    def open(self, seconds=60.0):
        self.set(OPENED, self.get(BOOT))
        self.set(UNTIL, int((time.monotonic() + seconds) * 1e6))

    def close(self):
        self.set(UNTIL, 0)
        self.set(HELD, 0)


class World:
    def __init__(self, folder):
        program = harness.relocate(folder)
        self.gate = Gate(f"{folder}/gate")
        self.server = harness.Server(folder, "primary", program)
        subprocess.run([f"{harness.STOCK}/bin/initdb", "-D", self.server.data, "-U", "postgres",
                        "-N", "-A", "trust"], check=True, stdout=subprocess.DEVNULL)
        self.server.configure(max_prepared_transactions=5, synchronous_commit="local")
        self.server.start()
        self.run("CREATE TABLE t (i int)")
        self.server.stop(signal.SIGINT)
        self.server.configure(**{"meridian.gate": f"{folder}/gate"})
        self.server.start()

    def connect(self, autocommit=True):
        return self.server.connect(user="postgres", autocommit=autocommit)

    def run(self, text):
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else None
        finally:
            connection.close()

    def count(self):
        return self.run("SELECT count(*) FROM t")[0][0]

    def refused(self, text="INSERT INTO t VALUES (0)"):
        before = self.count()
        try:
            self.run(text)
        except psycopg2.Error as error:
            expect(error.pgcode, REFUSED, str(error))
            expect(self.count(), before, "nothing was kept")
            return
        raise AssertionError(f"accepted: {text}")


def expect(seen, wanted, what):
    if seen != wanted:
        raise AssertionError(f"{what}: wanted {wanted!r}, seen {seen!r}")


class Background(threading.Thread):
    """A statement of its own session; `error` is what it ended with, None is success."""

    def __init__(self, world, text, setup="SET synchronous_commit = on"):
        super().__init__(daemon=True)
        self.connection = world.connect()
        self.text, self.setup, self.error, self.notices = text, setup, None, []
        self.start()

    def run(self):
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(self.setup)
                cursor.execute(self.text)
        except psycopg2.Error as error:
            self.error = error
        self.notices = self.connection.notices

    def ends(self):
        self.join(20)
        if self.is_alive():
            raise AssertionError(f"does not end: {self.text}")
        self.connection.close()
        return self.error


def test_a_server_begins_with_a_closed_gate(world):
    world.gate.set(UNTIL, int((time.monotonic() + 60) * 1e6))
    world.refused()
    expect(world.count(), 0, "it can be read")


def test_it_takes_writes_while_the_gate_is_open_and_not_when_it_has_run_out(world):
    world.gate.open(1.0)
    world.run("INSERT INTO t VALUES (1)")
    harness.wait_for(lambda: time.monotonic() * 1e6 > world.gate.get(UNTIL), "the end of it")
    world.refused()
    world.refused("CREATE TABLE other ()")
    world.gate.open()
    world.run("INSERT INTO t VALUES (2)")


def test_a_transaction_that_began_before_is_refused_at_its_end(world):
    world.gate.open()
    before = world.count()
    connection = world.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (3)")
        world.gate.close()
        try:
            connection.commit()
            raise AssertionError("committed")
        except psycopg2.Error as error:
            expect(error.pgcode, REFUSED, "commit")
            expect("endpoint" in error.diag.message_hint, True, "it says what to do")
    connection.close()
    expect(world.count(), before, "nothing was kept")


def test_a_server_that_somebody_restarts_is_closed_whatever_stands_in_the_file(world):
    world.gate.open()
    boot = world.gate.get(BOOT)
    world.server.stop(signal.SIGINT)
    world.server.start()
    expect(world.gate.get(BOOT) == boot, False, "another number")
    world.refused()
    world.gate.open()
    world.run("INSERT INTO t VALUES (4)")


def test_an_answer_does_not_leave_after_the_end(world):
    """The commit waits for a standby that never comes; meanwhile the gate runs out."""
    world.gate.open()
    before = world.count()
    world.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    world.run("SELECT pg_reload_conf()")
    harness.wait_for(lambda: world.run("SHOW synchronous_standby_names")[0][0] == "nobody", "it")
    session = Background(world, "INSERT INTO t VALUES (5)")
    psql = subprocess.Popen(
        ["psql", "-X", "-v", "VERBOSITY=verbose", "-h", "127.0.0.1", "-p", str(world.server.port),
         "-U", "postgres", "-c", "SET synchronous_commit = on", "-c", "INSERT INTO t VALUES (5)"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    harness.wait_for(lambda: world.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")[0][0] == 2, "the wait")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED) + 2, "two commits are under way")
    world.gate.close()
    world.run("ALTER SYSTEM RESET synchronous_standby_names")
    world.run("SELECT pg_reload_conf()")
    error = session.ends()
    expect(error is not None, True, "no success is told")
    expect(any("stopped taking writes" in notice for notice in session.notices), True,
           f"it says why: {session.notices}")
    told = psql.communicate(timeout=60)[0]
    expect("FATAL:  08007" in told and "INSERT" not in told, True, f"an error says so: {told}")
    expect(world.count(), before + 2, "though it is committed here")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED), "and over")


def test_held_writes_wait_and_go_on(world):
    world.gate.open()
    world.gate.set(HELD, 1)
    session = Background(world, "INSERT INTO t VALUES (6)")
    harness.wait_for(lambda: world.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension'")[0][0] == 1, "it")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED), "no commit is under way")
    world.gate.set(HELD, 0)
    expect(session.ends(), None, "it went on")


def test_held_writes_are_refused_when_the_gate_closes(world):
    world.gate.open()
    world.gate.set(HELD, 1)
    session = Background(world, "INSERT INTO t VALUES (7)")
    harness.wait_for(lambda: world.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension'")[0][0] == 1, "it")
    world.gate.set(UNTIL, 0)
    world.gate.set(OPENED, 0)
    expect(session.ends().pgcode, REFUSED, "the waiting commit")
    world.gate.set(HELD, 0)


def test_prepared_transactions_ask_too(world):
    world.gate.open()
    world.run("BEGIN; INSERT INTO t VALUES (8); PREPARE TRANSACTION 'x'")
    before = world.count()
    world.gate.close()
    world.refused("COMMIT PREPARED 'x'")
    world.gate.open()
    world.run("COMMIT PREPARED 'x'")
    expect(world.count(), before + 1, "committed")


def test_the_end_of_a_prepared_transaction_is_a_commit_like_others(world):
    """It waits while writes are held, counts, and is not told after the end."""
    world.gate.open()
    for name in ("held", "late"):
        world.run(f"BEGIN; INSERT INTO t VALUES (88); PREPARE TRANSACTION '{name}'")
    before = world.count()
    world.gate.set(HELD, 1)
    session = Background(world, "COMMIT PREPARED 'held'")
    harness.wait_for(lambda: world.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension'")[0][0] == 1, "it")
    expect((world.gate.get(BEGUN), world.count()), (world.gate.get(ENDED), before), "it waits")
    world.gate.set(HELD, 0)
    expect(session.ends(), None, "it went on")
    world.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    world.run("SELECT pg_reload_conf()")
    harness.wait_for(lambda: world.run("SHOW synchronous_standby_names")[0][0] == "nobody", "it")
    session = Background(world, "COMMIT PREPARED 'late'")
    harness.wait_for(lambda: world.run(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")[0][0] == 1, "the wait")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED) + 1, "one commit is under way")
    world.gate.close()
    world.run("ALTER SYSTEM RESET synchronous_standby_names")
    world.run("SELECT pg_reload_conf()")
    expect(session.ends() is not None, True, "no success is told")
    expect(world.count(), before + 2, "though it is committed here")
    world.gate.open()
    session = Background(world, "COMMIT PREPARED 'none'")
    expect(session.ends().pgcode, "42704", "there is none of that name")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED), "and over")


def test_after_a_crash_of_a_session_the_same_postmaster_goes_on(world):
    world.gate.open()
    connection = world.connect()
    os.kill(connection.get_backend_pid(), signal.SIGKILL)
    harness.wait_for(lambda: world.run("INSERT INTO t VALUES (9)") is None, "it to come back")
    expect(world.gate.get(BEGUN), world.gate.get(ENDED), "counted anew")
    connection.close()


def test_without_its_file_the_server_does_not_start(world):
    world.server.stop(signal.SIGINT)
    path = f"{world.server.folder}/gate"
    os.rename(path, path + ".away")
    with open(path, "wb") as file:
        file.write(b"x" * 4096)
    for damage in (lambda: None, lambda: os.truncate(path, 10), lambda: os.unlink(path)):
        damage()
        done = subprocess.run([world.server.program, "-D", world.server.data], check=False,
                              capture_output=True, text=True, timeout=30)
        expect(done.returncode != 0 and "the gate" in done.stderr, True, done.stderr)
    os.rename(path + ".away", path)
    world.server.start()


TESTS = [function for name, function in list(globals().items()) if name.startswith("test_")]


def main():
    as_nobody()
    folder = tempfile.mkdtemp(prefix="mgate-", dir="/tmp")
    tally = Tally(sys.argv[1:])
    world = None
    try:
        world = World(folder)
        for function in TESTS:
            tally.run(function, world)
    except Exception:
        tally.fail("the server", traceback.format_exc())
    finally:
        if world is not None:
            world.server.stop()
            if tally.failed:
                subprocess.run(["tail", "-n", "30", f"{world.server.data}.log"], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
