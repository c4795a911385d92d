"""What the tests of the warden share: three nodes that the tests play (warden_tool.c), and waiting."""

import glob
import json
import os
import signal
import subprocess
import sys
import threading
import time

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
TOOL = os.path.join(BUILD, "tests/warden/warden-tool")
MODULE = os.path.join(BUILD, "plugins/postgres/meridian.so")
BIN = "/usr/lib/postgresql/15/bin"

if not all(os.path.exists(path) for path in (f"{BIN}/initdb", TOOL, MODULE)):
    print("postgresql-15, the extension or warden-tool is missing: nothing is tested")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

import psycopg2  # noqa: E402

REFUSED = "25006"
TOPOLOGY = """
cluster = test
epoch = 1
region r {{
        id = 1
        node n1 {{ id = 1; link = "127.9.0.1:7401"; admin = "127.9.0.1:7400" }}
        node n2 {{ id = 2; link = "127.9.0.2:7401"; admin = "127.9.0.2:7400" }}
        node n3 {{ id = 3; link = "127.9.0.3:7401"; admin = "127.9.0.3:7400" }}
}}
postgres {{ nodes = [n1, n2, n3]; sync = {sync}; automatic = on }}
"""
LOCAL = "CREATE ROLE app LOGIN PASSWORD 'app';\nCREATE DATABASE app OWNER app;\n"


def expect(seen, wanted, what):
    if seen != wanted:
        raise AssertionError(f"{what}: wanted {wanted!r}, seen {seen!r}")


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            seen = condition()
            if seen:
                return seen
        except psycopg2.Error as error:
            seen = error
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}; seen last: {seen}")
        time.sleep(0.02)


def run_and_close(connection, text):
    """Its rows; None, where it has none."""
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall() if cursor.description else None
    finally:
        connection.close()


class Node:
    """One warden and its server."""

    def __init__(self, folder, number, archive="", wait=True, adopt=""):
        self.folder, self.number, self.archive, self.adopt = folder, number, archive, adopt
        self.home = f"{folder}/n{number}"
        self.process, self.bin = None, BIN
        self.seen, self.done, self.notes, self.count = {}, {}, [], 0
        self.start(wait)

    def command(self):
        return [TOOL, f"{self.folder}/topology", str(self.number), self.home, self.bin,
                f"{self.folder}/password", MODULE, f"{self.folder}/init.sql", self.archive,
                self.adopt]

    def plan(self):
        """(is nothing in the way, what would be made of the data)."""
        done = subprocess.run([*self.command(), "plan"], capture_output=True, text=True, timeout=60,
                              check=False, stdin=subprocess.DEVNULL)
        return done.returncode == 0, done.stdout

    def start(self, wait=True):
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen, self.done, self.count = {}, {}, 0
        threading.Thread(target=self.read, args=(self.process,), daemon=True).start()
        if wait:
            wait_for("a first look", lambda: self.seen)

    def read(self, process):
        for line in process.stdout:
            told = json.loads(line)
            if "seen" in told:
                self.seen = told
            elif "done" in told:
                self.done[told["done"]] = told["fail"]
            else:
                self.notes.append(told)

    def say(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def begin(self, action, upstream=0, epoch=0):
        self.say(f"do {action} {upstream} {epoch}")
        self.count += 1
        return self.count

    def ends(self, number, seconds=120):
        wait_for(f"the end of action {number}", lambda: number in self.done, seconds)
        return self.done[number]

    def do(self, action, upstream=0, epoch=0):
        """Must succeed."""
        expect(self.ends(self.begin(action, upstream, epoch)), "", f"{action} of n{self.number}")

    def fails(self, action, upstream=0, epoch=0):
        fail = self.ends(self.begin(action, upstream, epoch))
        if fail == "":
            raise AssertionError(f"{action} did not fail")
        return fail

    def gate(self, epoch, ms=60000, limited=0):
        self.say(f"gate {epoch} {ms} {limited}")

    def take(self, action, epoch):
        """An action that ends with an open gate."""
        number = self.begin(action, 0, epoch)
        self.gate(epoch)
        expect(self.ends(number), "", f"{action} of n{self.number}")
        self.is_now("open")

    def is_now(self, what, seconds=60):
        wait_for(f"n{self.number} to be {what}, it is {self.seen}",
                 lambda: self.seen.get("seen") == what, seconds)

    def follows(self, upstream):
        wait_for(f"n{self.number} to stream from {upstream}",
                 lambda: self.seen.get("upstream") == upstream)

    def ask(self, text, user="app"):
        connection = psycopg2.connect(host=f"127.9.0.{self.number}", port=5434, user=user,
                                      password=user, dbname=user, connect_timeout=60)
        return run_and_close(connection, text)

    def rule(self, text):
        """By the superuser, on the server's own socket."""
        connection = psycopg2.connect(host=f"{self.home}/socket", port=5434, user="postgres",
                                      dbname="postgres", connect_timeout=60)
        return run_and_close(connection, text)

    def refuses(self, text="INSERT INTO t VALUES (0)"):
        try:
            self.ask(text)
        except psycopg2.Error as error:
            return error.pgcode == REFUSED
        return False

    def postmaster(self):
        with open(f"{self.home}/data/postmaster.pid", encoding="ascii") as file:
            return int(file.readline())

    def crash(self):
        """As if the machine had died: the daemon first, so that it does nothing about it."""
        self.process.kill()
        self.process.wait()
        os.kill(self.postmaster(), signal.SIGKILL)

    def aside(self):
        return sorted(glob.glob(f"{self.home}/kept-aside/*"))

    def report(self):
        with open(f"{self.aside()[-1]}/report.txt", encoding="utf-8") as file:
            return file.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(20)
        if os.path.exists(f"{self.home}/data/postmaster.pid"):
            try:
                os.kill(self.postmaster(), signal.SIGQUIT)
            except ProcessLookupError:
                pass


class World:
    def __init__(self, folder, sync=0):
        self.folder = folder
        with open(f"{folder}/topology", "w", encoding="utf-8") as file:
            file.write(TOPOLOGY.format(sync=sync))
        with open(f"{folder}/password", "w", encoding="utf-8") as file:
            file.write("correct-horse\n")
        with open(f"{folder}/init.sql", "w", encoding="utf-8") as file:
            file.write(LOCAL)
        self.nodes = [Node(folder, number) for number in (1, 2, 3)]


def same(nodes, text="SELECT count(*), sum(i) FROM t"):
    answers = [str(node.ask(text)) for node in nodes]
    return len(set(answers)) == 1
