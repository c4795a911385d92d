#!/usr/bin/python3
"""Roads to real PostgreSQL servers: a primary, and a standby that streams by the follow door. Three
nodes run in one process (road-tool), joined by a link in memory.

MERIDIAN_BUILD names the build folder (default: build beside the sources). As root it starts itself
anew as the user `nobody`. Arguments name single tests. Prints `N passed, N failed`.
"""

import gc
import hashlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
TOOL = os.path.join(BUILD, "tests/road/road-tool")
STOCK = "/usr/lib/postgresql/15/bin"
EXTENSION = os.path.join(BUILD, "plugins/postgres/meridian.so")
PASSES = os.path.exists(EXTENSION)  # sanitized builds have none: clients stay on their way then
WRITE, READ, FOLLOW = range(3)

if not os.path.exists(f"{STOCK}/initdb") or not os.path.exists(TOOL):
    print("postgresql-15 or road-tool is missing: nothing is tested")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

os.environ["HOME"] = "/nonexistent"  # libpq looks for certificates there
import psycopg2  # noqa: E402

sys.path.insert(0, os.path.join(SOURCE, "tests"))
from tally import Tally, as_nobody  # noqa: E402


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except psycopg2.Error:
            pass
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)


class Server:
    def __init__(self, folder, name, port):
        self.data, self.folder, self.port, self.process = f"{folder}/{name}", folder, port, None

    def configure(self, **settings):
        with open(f"{self.data}/postgresql.auto.conf", "a", encoding="utf-8") as file:
            for name, value in settings.items():
                file.write(f"{name} = '{value}'\n")

    def start(self):
        def started():
            # after a kill it refuses while an old backend still has the shared memory
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen([f"{STOCK}/postgres", "-D", self.data], stdout=log,
                                                stderr=log)
            connect(self.port, user="postgres").close()
            return True
        log = open(f"{self.data}.log", "ab")
        wait_for(started, "a server to start")

    def stop(self, number=3):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()

    def one(self, text):
        connection = connect(self.port, user="postgres")
        try:
            return value(connection, text)
        finally:
            connection.close()


def connect(port, user="app", sslmode="prefer", timeout=60):
    connection = psycopg2.connect(host="127.0.0.1", port=port, user=user, password="secret",
                                  dbname="postgres", sslmode=sslmode, connect_timeout=timeout)
    connection.autocommit = True
    return connection


def value(connection, text):
    cursor = connection.cursor()
    cursor.execute(text)
    return cursor.fetchone()[0] if cursor.description else None


class Roads:
    """Node 1 has the primary, node 2 the standby, node 3 nothing that runs."""

    def __init__(self, servers, doors, wait_ms=1500, connections=60):
        ports = free_ports(9)
        self.ports = {node: ports[3 * node - 3:3 * node] for node in (1, 2, 3)}
        places = [":".join(["127.0.0.1", str(server), *map(str, self.ports[node])])
                  for node, server in zip((1, 2, 3), servers)]
        self.process = subprocess.Popen(
            [TOOL, *places], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "WAIT_MS": str(wait_ms), "CONNECTIONS": str(connections),
                 "PASS": doors})
        assert self.process.stdout.readline() == "ready\n"
        self.usual()

    def say(self, text, wanted="ok\n"):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert wanted is None or answer == wanted, answer
        return answer

    def usual(self, epoch=10):
        self.say("heal")
        self.say("delay 0")
        self.say(f"roles 1 1 {epoch} 1 0 1 1")
        self.say(f"roles 2 1 {epoch} 0 0 1 2 1")
        self.say(f"roles 3 1 {epoch} 0 0 0 2 1")
        for node, target in ((1, 0), (2, 1), (3, 1)):
            self.say(f"follow {node} {target}")

    def counts(self, node):
        words = self.say(f"count {node}", None).split()
        return {"opened": [int(word) for word in words[1:4]],
                "refused": [int(word) for word in words[5:8]],
                "cut": [int(word) for word in words[9:12]],
                "open": [int(word) for word in words[13:16]], "in": int(words[17]),
                "passed": int(words[19]), "bytes": int(words[21])}

    def sessions(self, node, door):
        """[state, client, port, server, bytes in, bytes out] of each by that door."""
        rows = [row.split() for row in self.say(f"list {node}", None).split(", ")[:-1]]
        return [row[1:] for row in rows if row[0] == str(door)]

    def idle(self):
        gc.collect()  # an error's traceback keeps its connection open
        return all(sum(self.counts(node)["open"][:2]) == 0 for node in (1, 2, 3))

    def stop(self):
        self.process.stdin.close()
        status = self.process.wait(timeout=60)
        assert status == 0, f"the roads ended with {status}"


class World:
    def __init__(self, folder):
        self.ports = free_ports(3)
        self.primary = Server(folder, "primary", self.ports[0])
        self.standby = Server(folder, "standby", self.ports[1])
        self.folder = folder
        self.doors = f"{folder}/doors"
        self.roads = None
        subprocess.run([f"{STOCK}/initdb", "-D", self.primary.data, "-U", "postgres", "-N", "-E",
                        "UTF8", "--locale=C.UTF-8", "-A", "trust"], check=True,
                       stdout=subprocess.DEVNULL)
        subprocess.run(["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj",
                        "/CN=localhost", "-out", f"{self.primary.data}/server.crt", "-keyout",
                        f"{self.primary.data}/server.key"], check=True, capture_output=True)
        os.chmod(f"{self.primary.data}/server.key", 0o600)
        self.primary.configure(port=self.primary.port, listen_addresses="127.0.0.1", fsync="off",
                               unix_socket_directories="", ssl="on", max_connections=100,
                               shared_buffers="16MB", wal_receiver_status_interval="1s",
                               wal_retrieve_retry_interval="100ms", max_standby_streaming_delay="1s",
                               shared_preload_libraries=EXTENSION if PASSES else "")
        self.primary.start()
        connection = connect(self.primary.port, user="postgres")
        cursor = connection.cursor()
        cursor.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        cursor.execute("CREATE TABLE t (id int PRIMARY KEY, v text); GRANT ALL ON t TO app;"
                       "GRANT CREATE ON SCHEMA public TO app")
        connection.close()
        with open(f"{self.primary.data}/pg_hba.conf", "w", encoding="utf-8") as file:
            file.write("host all postgres 127.0.0.1/32 trust\n"
                       "host replication postgres 127.0.0.1/32 trust\n"
                       "host all all 127.0.0.1/32 scram-sha-256\n")
        self.primary.process.send_signal(1)
        self.roads = Roads(self.ports, self.doors)
        self.passing(True)
        door = self.roads.ports[2][FOLLOW]
        subprocess.run([f"{STOCK}/pg_basebackup", "-h", "127.0.0.1", "-p", str(door), "-U",
                        "postgres", "-D", self.standby.data, "-R", "-c", "fast"], check=True)
        self.standby.configure(port=self.standby.port,
                               primary_conninfo=f"host=127.0.0.1 port={door} user=postgres")
        self.standby.start()

    def door(self, node, which):
        return self.roads.ports[node][which]

    def passing(self, wanted):
        """Whether the primary takes clients over from the doors of its node."""
        if not PASSES:
            return
        path = self.doors if wanted else ""
        self.primary.configure(**{"meridian.doors": path})
        self.primary.process.send_signal(1)
        wait_for(lambda: self.primary.one("SHOW meridian.doors") == path, "the setting")

    def usual(self):
        self.roads.usual()

    def stop(self):
        self.standby.stop()
        self.primary.stop()
        if self.roads is not None:
            self.roads.stop()


TESTS = []


def test(function):
    TESTS.append(function)
    return function


def failure(call):
    try:
        call()
    except psycopg2.Error as error:
        return error
    raise AssertionError("nothing failed")


def has_ended(connection):
    try:
        value(connection, "SELECT 1")
        return False
    except psycopg2.Error:
        return connection.closed != 0


def is_cut(connection):
    error = failure(lambda: value(connection, "SELECT 1"))
    assert connection.closed, f"not cut: {error}"
    return True


@test
def sessions_reach_the_writer_from_everywhere(world):
    for node in (1, 2, 3):
        for mode in ("disable", "prefer", "require"):
            connection = connect(world.door(node, WRITE), sslmode=mode)
            assert value(connection, "SELECT pg_is_in_recovery()") is False
            assert connection.info.ssl_in_use is (mode != "disable"), (node, mode)
            connection.close()
    error = failure(lambda: psycopg2.connect(host="127.0.0.1", port=world.door(2, WRITE),
                                             user="app", password="wrong", dbname="postgres"))
    assert "password authentication failed" in str(error), error


def needs_passing(world):
    if not PASSES:
        return False
    wait_for(lambda: world.roads.counts(1)["passed"] == 0, "old sessions to end")
    return True


def taken_over(roads, sslmode="prefer"):
    """A session whose client the server has; a machine that is busy may need more than one try."""
    connections = []

    def one_is():
        while connections:
            connections.pop().close()
        wait_for(lambda: roads.counts(1)["open"][WRITE] == 0, "old sessions to end")
        connections.append(connect(roads.ports[1][WRITE], sslmode=sslmode))
        return roads.counts(1)["passed"] == 1
    wait_for(one_is, "the server to take a client over", 60)
    return connections[0]


@test
def the_server_takes_clients_over(world):
    if not needs_passing(world):
        return
    for mode in ("disable", "require"):
        connection = taken_over(world.roads, mode)
        counts = world.roads.counts(1)
        assert counts["passed"] == 1 and counts["open"][WRITE] == 1, counts
        ours = socket.socket(fileno=os.dup(connection.fileno()))
        cursor = connection.cursor()
        cursor.execute("SELECT host(client_addr), client_port, inet_server_port() FROM "
                       "pg_stat_activity WHERE pid = pg_backend_pid()")
        assert cursor.fetchone() == (*ours.getsockname(), world.door(1, WRITE))
        assert len(value(connection, "SELECT repeat('x', 1000000)")) == 1000000
        assert world.roads.counts(1)["bytes"] >= counts["bytes"] + 1000000
        ours.close()
        connection.close()
        wait_for(lambda: world.roads.counts(1)["open"][WRITE] == 0, "its end")
    stranger = connect(world.primary.port)  # came by no door
    assert value(stranger, "SELECT 1") == 1 and world.roads.counts(1)["passed"] == 0
    stranger.close()


@test
def one_that_was_taken_over_ends_with_its_server_process(world):
    if not needs_passing(world):
        return
    connection = taken_over(world.roads)
    pid = value(connection, "SELECT pg_backend_pid()")
    world.primary.one(f"SELECT pg_terminate_backend({pid})")
    wait_for(lambda: has_ended(connection), "the session to end")
    wait_for(lambda: world.roads.counts(1)["open"][WRITE] == 0, "the way to end")


@test
def a_client_that_says_more_than_was_asked_stays_on_its_way(world):
    if not needs_passing(world):
        return
    query = b"SELECT 42\0"
    client = socket.create_connection(("127.0.0.1", world.door(1, WRITE)), timeout=20)
    client.sendall(startup("postgres") + b"Q" + struct.pack("!I", len(query) + 4) + query)
    text = b""
    while b"D\0" not in text or not text.endswith(b"I"):
        text += client.recv(1000)
    assert b"\x0242" in text
    client.close()
    wait_for(world.roads.idle, "its end")


@test
def the_road_that_dies_ends_what_it_passed(world):
    if not PASSES:
        return
    roads = Roads((world.ports[0],) * 3, f"{world.folder}/other")
    world.primary.configure(**{"meridian.doors": f"{world.folder}/other"})
    world.primary.process.send_signal(1)
    wait_for(lambda: world.primary.one("SHOW meridian.doors").endswith("other"), "the setting")
    connection = taken_over(roads)
    roads.process.kill()
    roads.process.wait()
    wait_for(lambda: has_ended(connection), "the session to end")
    connect(world.primary.port).close()  # nobody answers at the socket that is left
    world.passing(True)


@test
def strangers_at_the_socket_of_the_doors_get_nothing(world):
    for text in (b"", b"x", b"\0" * 48, struct.pack("<QQQHH20s", 0x317373617064726d, 0, 0, 2, 1, b""),
                 struct.pack("<QQQHH20s", 0x317373617064726d, 0, 0, 99, 1, b""), b"y" * 5000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.settimeout(20)
            stranger.connect(world.doors)
            if text:
                stranger.send(text)
                answer = stranger.recv(100)
                assert answer in (b"", struct.pack("<QQ", 0x317373617064726d, 0)), answer
                assert not answer or len(text) == 48
    connect(world.door(1, WRITE)).close()


@test
def the_list_has_everybody(world):
    wait_for(world.roads.idle, "old connections to end")
    near = taken_over(world.roads) if PASSES else connect(world.door(1, WRITE))
    far = connect(world.door(2, WRITE))
    ports = []
    for connection in (near, far):
        value(connection, "SELECT repeat('x', 10000)")
        ours = socket.socket(fileno=os.dup(connection.fileno()))
        ports.append(str(ours.getsockname()[1]))
        ours.close()
    rows = sorted(world.roads.sessions(1, WRITE), reverse=True)
    assert [row[:4] for row in rows] == [
        ["passed" if PASSES else "open", "127.0.0.1", ports[0], "1"], ["open", "-", "0", "1"]], rows
    other = world.roads.sessions(2, WRITE)
    assert [row[:4] for row in other] == [["open", "127.0.0.1", ports[1], "1"]], other
    for row in rows + other:
        assert int(row[4]) > 100 and int(row[5]) > 10000, row
    near.close()
    far.close()
    wait_for(lambda: not world.roads.sessions(1, WRITE), "the list to be empty")


@test
def readers_are_near_and_the_next_one_serves_when_the_first_is_gone(world):
    connection = connect(world.door(2, READ))
    assert value(connection, "SELECT pg_is_in_recovery()") is True
    connection.close()
    world.roads.say("roles 3 1 10 0 0 0 3 2 1")  # its own server does not run
    connection = connect(world.door(3, READ))
    assert value(connection, "SELECT pg_is_in_recovery()") is True
    world.roads.say("roles 2 1 10 0 0 0")  # the far end's server is not to be read any more
    assert is_cut(connection)
    connection = connect(world.door(3, READ))
    assert value(connection, "SELECT pg_is_in_recovery()") is False
    connection.close()


@test
def the_standby_streams_by_the_follow_door_and_comes_back(world):
    def caught_up(number):
        return world.standby.one(f"SELECT count(*) FROM t WHERE id = {number}") == 1
    world.primary.one("INSERT INTO t VALUES (1000, 'a') RETURNING id")
    wait_for(lambda: caught_up(1000), "the standby")
    world.roads.say("follow 2 0")
    world.primary.one("INSERT INTO t VALUES (1001, 'b') RETURNING id")
    time.sleep(0.3)
    assert not caught_up(1001)
    world.roads.say("follow 2 1")
    wait_for(lambda: caught_up(1001), "the standby after a pause")
    world.roads.say("cut")
    world.roads.say("heal")
    world.primary.one("INSERT INTO t VALUES (1002, 'c') RETURNING id")
    wait_for(lambda: caught_up(1002), "the standby after a broken link")


@test
def a_change_of_the_writer_cuts_at_both_ends(world):
    local, remote = connect(world.door(1, WRITE)), connect(world.door(2, WRITE))
    world.passing(False)
    proxied = connect(world.door(1, WRITE))
    world.passing(True)
    for connection in (local, proxied, remote):
        value(connection, "SELECT 1")
    before = world.roads.counts(1)["cut"][WRITE]
    world.roads.say("roles 1 2 11 0 0 1 1")  # the old writer hears of it first
    assert world.roads.counts(1)["cut"][WRITE] == before + 3
    assert is_cut(local) and is_cut(proxied) and is_cut(remote)
    world.roads.usual(11)
    remote = connect(world.door(2, WRITE))
    world.roads.say("roles 2 3 12 0 0 1 2 1")  # the near end hears of it first
    assert is_cut(remote)
    world.roads.usual(10)


@test
def held_writes_keep_their_sessions_and_new_ones_wait(world):
    local, remote = connect(world.door(1, WRITE)), connect(world.door(3, WRITE))
    world.roads.say("roles 1 0 10 0 1 1 1")
    world.roads.say("roles 3 0 10 0 0 0 2 1")
    assert value(local, "SELECT 1") == 1 and value(remote, "SELECT 1") == 1
    got = []
    waiter = threading.Thread(target=lambda: got.append(connect(world.door(3, WRITE))))
    waiter.start()
    time.sleep(0.3)
    assert not got
    world.roads.usual(10)
    waiter.join(60)
    assert value(got[0], "SELECT 1") == 1 and value(remote, "SELECT 1") == 1


@test
def one_that_leaves_while_it_waits_is_noticed(world):
    world.roads.say("roles 2 0 10 0 0 1 2 1")
    with socket.create_connection(("127.0.0.1", world.door(2, WRITE))) as client:
        client.sendall(startup())
        wait_for(lambda: world.roads.counts(2)["open"][WRITE] == 1, "it to wait")
    wait_for(lambda: world.roads.counts(2)["open"][WRITE] == 0, "its end")
    assert world.roads.counts(2)["refused"][WRITE] == 0


@test
def an_old_epoch_reaches_nobody(world):
    world.roads.say("roles 2 1 9 0 0 1 2 1")
    begun = time.monotonic()
    error = failure(lambda: connect(world.door(2, WRITE)))
    assert time.monotonic() - begun > 1.4
    assert "no server takes writes now" in str(error) and "meridian status" in str(error), error
    for mode in ("disable", "prefer"):
        assert "no server" in str(failure(lambda: connect(world.door(2, WRITE), sslmode=mode)))
    assert world.roads.counts(2)["refused"][WRITE] == 3
    world.roads.usual(10)


def raw_error(port, packet):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(packet)
        text = b""
        while chunk := client.recv(1000):
            text += chunk
    return text


def startup(user="app"):
    body = struct.pack("!I", 196608) + f"user\0{user}\0database\0postgres\0\0".encode()
    return struct.pack("!I", len(body) + 4) + body


@test
def refusals_are_in_the_protocol(world):
    world.roads.say("roles 2 0 10 0 0 1 2 1")
    text = raw_error(world.door(2, WRITE), startup())
    assert text[:1] == b"E" and struct.unpack("!I", text[1:5])[0] == len(text) - 1, text
    assert b"\0C57P03\0" in text and b"SFATAL\0" in text and text.endswith(b"\0\0"), text
    world.roads.usual(10)


@test
def bad_first_packets_open_nothing(world):
    before = world.roads.counts(1)["opened"][WRITE]
    for packet in (b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\x07\0\0\0\0", b"\xff" * 100, b"\0\0\0\x08",
                   struct.pack("!II", 12, 80877102) + b"\0" * 4, b"\0" * 20,
                   struct.pack("!II", 16, 80877102) + b"\0" * 8):
        with socket.create_connection(("127.0.0.1", world.door(1, WRITE)), timeout=60) as client:
            client.sendall(packet)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b"", packet
    assert world.roads.counts(1)["opened"][WRITE] == before
    slow = socket.create_connection(("127.0.0.1", world.door(2, WRITE)), timeout=60)
    for byte in startup("postgres"):
        slow.sendall(bytes([byte]))
    assert slow.recv(1) == b"R"
    slow.close()


def cancelled(connection):
    """What becomes of a long statement that is cancelled; one that comes before it has no effect."""
    ended = threading.Event()

    def cancel():
        while not ended.wait(0.2):
            connection.cancel()
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        return failure(lambda: value(connection, "SELECT pg_sleep(100)"))
    finally:
        ended.set()
        thread.join()


@test
def a_cancel_finds_its_server(world):
    world.roads.say("roles 3 1 10 0 0 0 2 1")
    extra = connect(world.door(3, READ))  # on the standby; those below are on the primary
    world.roads.say("roles 3 1 10 0 0 0 1")
    more = [connect(world.door(3, READ)) for _ in range(2)]
    for node, which in ((1, WRITE), (2, WRITE), (3, READ)):
        connection = connect(world.door(node, which))
        assert cancelled(connection).pgcode == "57014"
    assert cancelled(extra).pgcode == "57014"
    del more
    world.roads.usual(10)


@test
def too_many_are_told_so(world):
    wait_for(world.roads.idle, "old connections to end")
    held = [connect(world.door(1, WRITE), user="postgres") for _ in range(60)]
    error = failure(lambda: connect(world.door(1, WRITE)))
    assert "too many connections" in str(error), error
    assert b"\0C53300\0" in raw_error(world.door(1, WRITE), startup())
    for connection in held:
        connection.close()
    del error
    wait_for(world.roads.idle, "connections to end")
    connect(world.door(1, WRITE)).close()


def memory_kib(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
        return int([line for line in file if line.startswith("VmRSS")][0].split()[1])


@test
def a_slow_reader_holds_up_nobody(world):
    before = memory_kib(world.roads.process)
    world.passing(False)
    slow = [socket.create_connection(("127.0.0.1", world.door(node, WRITE))) for node in (1, 2)]
    for client in slow:
        client.sendall(startup("postgres"))
        query = b"COPY (SELECT repeat('x', 1000) FROM generate_series(1, 200000)) TO STDOUT\0"
        client.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
    time.sleep(1)
    for node in (1, 2):
        connection = connect(world.door(node, WRITE))
        begun = time.monotonic()
        for _ in range(50):
            value(connection, "SELECT 1")
        assert time.monotonic() - begun < 40
    assert memory_kib(world.roads.process) - before < 8000
    for client in slow:
        client.close()
    wait_for(lambda: world.roads.counts(1)["in"] <= 2, "the slow ones to end")
    world.passing(True)


@test
def much_data_is_the_same_in_both_directions(world):
    lines = "".join(f"{i}\t{hashlib.sha256(str(i).encode()).hexdigest()}\n" for i in range(200000))
    for node, delay, passing in ((1, 0, True), (1, 0, False), (2, 0, False), (2, 5, False)):
        world.roads.say(f"delay {delay}")
        world.passing(passing)
        connection = connect(world.door(node, WRITE), sslmode="disable")
        cursor = connection.cursor()
        cursor.execute("CREATE TEMP TABLE much (i int, v text)")
        cursor.copy_expert("COPY much FROM STDIN", io.StringIO(lines))
        out = io.StringIO()
        cursor.copy_expert("COPY much TO STDOUT", out)
        assert out.getvalue() == lines
        connection.close()
    world.roads.say("delay 0")
    world.passing(True)


@test
def a_server_that_dies_ends_its_sessions(world):
    near, far = connect(world.door(1, WRITE)), connect(world.door(3, WRITE))
    world.primary.stop(9)
    for connection in (near, far):  # a server process may answer once more before it notices
        wait_for(lambda c=connection: has_ended(c), "the session to end")
    got = []

    def wait_for_it(node):  # what refuses it meanwhile is the server, not the road
        while len(got) < 2:
            try:
                got.append(connect(world.door(node, WRITE)))
                return
            except psycopg2.OperationalError as error:
                assert "starting up" in str(error) or "not yet accepting" in str(error), error
    waiters = [threading.Thread(target=wait_for_it, args=(node,)) for node in (1, 3)]
    for waiter in waiters:
        waiter.start()
    world.primary.start()
    for waiter in waiters:
        waiter.join(10)
    assert len(got) == 2 and all(value(connection, "SELECT 1") == 1 for connection in got)


@test
def nothing_is_left_open(world):
    wait_for(world.roads.idle, "all connections to end")
    wait_for(lambda: world.roads.counts(1)["in"] == 1, "all tunnels but the standby's to end")


def main():
    as_nobody()
    folder = tempfile.mkdtemp(prefix="mroad-", dir="/tmp")
    tally = Tally(sys.argv[1:])
    world = None
    try:
        world = World(folder)
        for function in TESTS:
            tally.run(function, world, before=world.roads.usual)
    except Exception:
        tally.fail("the servers", traceback.format_exc())
    finally:
        try:
            if world is not None:
                world.stop()
        except Exception:
            tally.fail("the end", traceback.format_exc())
        shutil.rmtree(folder, ignore_errors=True)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
