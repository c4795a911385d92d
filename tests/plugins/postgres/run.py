#!/usr/bin/python3
"""Write forwarding in real servers: a primary and a streaming standby of its own.

MERIDIAN_BUILD names the build folder (default: build beside the sources). As root it starts itself
anew as the user `nobody` (PostgreSQL refuses root). Prints `N passed, N failed`.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

SOURCE = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
MODULE = os.path.join(BUILD, "plugins/postgres/meridian.so")
STOCK = "/usr/lib/postgresql/15"
SHARE = "/usr/share/postgresql/15"

if not os.path.exists(f"{STOCK}/bin/initdb") or not os.path.exists(MODULE):
    print("postgresql-15 or the extension is missing: nothing is tested")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

import psycopg2  # noqa: E402
import psycopg2.extensions  # noqa: E402

sys.path.insert(0, os.path.join(SOURCE, "tests"))
from tally import Tally, as_nobody  # noqa: E402


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def link_all(source, target):
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(source):
        if not os.path.lexists(f"{target}/{name}"):
            os.symlink(f"{source}/{name}", f"{target}/{name}")


def relocate(folder):
    """A PostgreSQL of links with our extension in it: a server finds its files from its program."""
    home = f"{folder}/usr/lib/postgresql/15"
    share = f"{folder}/usr/share/postgresql/15"
    os.makedirs(f"{home}/bin")
    shutil.copy(f"{STOCK}/bin/postgres", f"{home}/bin/postgres")
    link_all(f"{STOCK}/lib", f"{home}/lib")
    shutil.copy(MODULE, f"{home}/lib/meridian.so")
    os.makedirs(share)
    link_all(f"{SHARE}/extension", f"{share}/extension")
    link_all(SHARE, share)
    for name in ("meridian.control", "meridian--1.0.sql"):
        shutil.copy(f"{SOURCE}/plugins/postgres/{name}", f"{share}/extension/{name}")
    return f"{home}/bin/postgres"


class Server:
    def __init__(self, folder, name, program):
        self.data, self.program = f"{folder}/{name}", program
        self.port = free_port()
        self.folder = folder
        self.process = None

    def configure(self, **more):
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "fsync": "off",
                    "unix_socket_directories": self.folder, "hot_standby": "on",
                    "shared_preload_libraries": "meridian", "max_connections": 40,
                    "wal_receiver_status_interval": "1s", "log_min_messages": "warning",
                    "hot_standby_feedback": "on", "shared_buffers": "16MB", **more}
        with open(f"{self.data}/postgresql.auto.conf", "a", encoding="utf-8") as file:
            for name, value in settings.items():
                file.write(f"{name} = '{value}'\n")

    def start(self):
        log = open(f"{self.data}.log", "ab")
        self.process = subprocess.Popen([self.program, "-D", self.data], stdout=log, stderr=log)
        wait_for(lambda: self.connect("postgres").close() or True, f"{self.data} to start")

    def stop(self, number=3):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait()

    def connect(self, user="app", password=None, options="", autocommit=True, database=None):
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=user, options=options, connect_timeout=60,
            dbname=database or ("app" if user != "postgres" else "postgres"),
            password=password or user)
        connection.autocommit = autocommit
        return connection


def wait_for(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except psycopg2.Error as error:
            last = error
            if time.monotonic() > end:
                raise AssertionError(f"waited for {what}: {last}") from error
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)


SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, at timestamptz, tags text[], b bytea);
CREATE SEQUENCE s;
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE ruled (id int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO t (id) VALUES (new.id);
CREATE FUNCTION writes(i int) RETURNS int LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO t (id, v) VALUES (i, 'f'); RETURN i; END$$;
CREATE FUNCTION hidden(i int) RETURNS int LANGUAGE plpgsql STABLE AS
  $$BEGIN RETURN i; END$$;
CREATE PROCEDURE proc(INOUT i int) LANGUAGE plpgsql AS
  $$BEGIN INSERT INTO t (id, v) VALUES (i, 'p'); i := i + 1; END$$;
CREATE TYPE pair AS (a int, b text);
"""


class Pair:
    def __init__(self, folder):
        program = relocate(folder)
        self.primary, self.standby = (Server(folder, name, program)
                                      for name in ("primary", "standby"))
        subprocess.run([f"{STOCK}/bin/initdb", "-D", self.primary.data, "-U", "postgres", "-N",
                        "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust"],
                       check=True, stdout=subprocess.DEVNULL)
        self.primary.configure(wal_level="replica")
        self.primary.start()
        self.sql("postgres", "CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE ROLE low LOGIN "
                 "PASSWORD 'low'", "CREATE ROLE team", "GRANT team TO app",
                 "CREATE DATABASE app OWNER app")
        self.sql("app", "CREATE EXTENSION meridian",
                 "CREATE USER MAPPING FOR app SERVER meridian_writer OPTIONS (password 'app')",
                 "CREATE USER MAPPING FOR low SERVER meridian_writer OPTIONS (password 'wrong')",
                 "ALTER ROLE app SET meridian.write_forwarding = on",
                 "ALTER ROLE low SET meridian.write_forwarding = on")
        with open(f"{self.primary.data}/pg_hba.conf", "w", encoding="utf-8") as file:
            file.write("host all postgres 127.0.0.1/32 trust\n"
                       "host replication postgres 127.0.0.1/32 trust\n"
                       "host all all 127.0.0.1/32 scram-sha-256\n")
        self.primary.process.send_signal(1)
        with self.primary.connect() as connection:
            connection.cursor().execute(SCHEMA)
        connection.close()
        subprocess.run([f"{STOCK}/bin/pg_basebackup", "-h", "127.0.0.1", "-p",
                        str(self.primary.port), "-U", "postgres", "-D", self.standby.data, "-R",
                        "-c", "fast"], check=True)
        self.standby.configure(**{"meridian.writer":
                                  f"host=127.0.0.1 port={self.primary.port}"})
        self.standby.start()

    def sql(self, database, *statements):
        connection = self.primary.connect("postgres", database=database)
        for statement in statements:
            connection.cursor().execute(statement)
        connection.close()

    def one(self, text):
        connection = self.primary.connect("postgres", database="app")
        cursor = connection.cursor()
        cursor.execute(text)
        value = cursor.fetchone()[0]
        connection.close()
        return value


TESTS = []


def test(function):
    TESTS.append(function)
    return function


def run(connection, text, *params):
    """(tag, rows) or (SQLSTATE, message): what a client would see."""
    cursor = connection.cursor()
    try:
        cursor.execute(text, params or None)
        rows = cursor.fetchall() if cursor.description else None
        return cursor.statusmessage, rows
    except psycopg2.Error as error:
        return error.pgcode, error.diag.message_primary


def expect(got, wanted):
    assert got == wanted, f"got {got!r}, wanted {wanted!r}"


# Each is run on the primary, and in the same state through the standby: nothing may differ.
SAME = [
    "INSERT INTO t (id, v) VALUES (1, 'one')",
    "INSERT INTO t (id, v) VALUES (2, 'two'), (3, 'three') RETURNING id, v",
    "INSERT INTO t (id) VALUES (1)",
    "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET v = 'again' RETURNING *",
    "UPDATE t SET n = 1.50, at = '2024-01-02 03:04:05+02' WHERE id <= 2",
    "UPDATE t SET tags = '{a,\"b c\"}', b = '\\x00ff' WHERE id = 1 RETURNING *",
    "DELETE FROM t WHERE id = 99",
    "SELECT * FROM t WHERE id = 1 FOR UPDATE",
    "WITH moved AS (DELETE FROM t WHERE id = 3 RETURNING *) SELECT id, v FROM moved",
    "MERGE INTO t USING (VALUES (1, 'm'), (7, 'n')) AS x(id, v) ON t.id = x.id "
    "WHEN MATCHED THEN UPDATE SET v = x.v WHEN NOT MATCHED THEN INSERT (id, v) "
    "VALUES (x.id, x.v)",
    "SELECT nextval('s'), nextval('s')",
    "SELECT currval('s')",
    "SELECT writes(20)",
    "CALL proc(30)",
    "DO $$BEGIN INSERT INTO t (id) VALUES (40); END$$",
    "INSERT INTO t (id, v) VALUES (50, 1/0)",
    "INSERT INTO child VALUES (5)",
    "INSERT INTO nowhere VALUES (1)",
    "SELEC 1",
    "CREATE TABLE made (x int)",
    "INSERT INTO made VALUES (1) RETURNING x",
    "CREATE TABLE made2 AS SELECT 5 AS y",
    "DROP TABLE made, made2",
    "PREPARE p(int, text) AS INSERT INTO t (id, v) VALUES ($1, $2) RETURNING id, v",
    "EXECUTE p(60, 'prepared')",
    "EXECUTE p(60, 'prepared')",
    "DEALLOCATE p",
    "INSERT INTO t (id) VALUES (70); INSERT INTO t (id) VALUES (71)",
    "INSERT INTO t (id) VALUES (80); INSERT INTO t (id) VALUES (1)",
    "INSERT INTO t (id) VALUES (90); SELECT count(*) FROM t WHERE id IN (80, 90)",
    "NOTIFY here, 'x'",
    "VACUUM t",
    "GRANT SELECT ON t TO team",
    "LOCK TABLE t",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT id, v, n, at, tags, b FROM t ORDER BY id",
    "TRUNCATE t",
]


@test
def same_on_both(pair):
    answers = []
    for server in (pair.primary, pair.standby):
        pair.sql("app", "TRUNCATE t, parent, child", "ALTER SEQUENCE s RESTART")
        connection = server.connect()
        expect(run(connection, "SELECT count(*) FROM meridian.status()")[0], "SELECT 1")
        wait_for(lambda: caught_up(pair), "the standby")
        answers.append([run(connection, text) for text in SAME])
        connection.close()
    for text, wanted, got in zip(SAME, *answers):
        assert got == wanted, f"{text}: through the standby {got!r}, on the primary {wanted!r}"


def caught_up(pair):
    connection = pair.standby.connect("postgres")
    behind = run(connection, "SELECT %s <= pg_last_wal_replay_lsn()",
                 pair.one("SELECT pg_current_wal_insert_lsn()"))[1][0][0]
    connection.close()
    return behind


@test
def transactions(pair):
    connection = pair.standby.connect()
    for level in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        pair.sql("app", "TRUNCATE t")
        for text, wanted in (
                (f"BEGIN ISOLATION LEVEL {level} READ WRITE", ("BEGIN", None)),
                ("SELECT count(*) FROM t WHERE id = 5", ("SELECT 1", [(0,)])),
                ("SAVEPOINT a", ("SAVEPOINT", None)),
                ("INSERT INTO t (id) VALUES (5)", ("INSERT 0 1", None)),
                ("SELECT count(*) FROM t", ("SELECT 1", [(1,)])),
                ("SAVEPOINT b", ("SAVEPOINT", None)),
                ("INSERT INTO t (id) VALUES (6)", ("INSERT 0 1", None)),
                ("ROLLBACK TO b", ("ROLLBACK", None)),
                ("INSERT INTO t (id) VALUES (5)", ("23505", "duplicate key value violates unique "
                                                   "constraint \"t_pkey\"")),
                ("SELECT 1", ("25P02", "current transaction is aborted, commands ignored until "
                              "end of transaction block")),
                ("ROLLBACK TO b", ("ROLLBACK", None)),
                ("SELECT count(*) FROM t", ("SELECT 1", [(1,)])),
                ("COMMIT", ("COMMIT", None)),
                ("SELECT count(*) FROM t", ("SELECT 1", [(1,)]))):
            got = run(connection, text)
            assert got == wanted, f"{level}: {text}: {got!r}"
    expect(run(connection, "BEGIN; INSERT INTO t (id) VALUES (8); ROLLBACK")[0], "ROLLBACK")
    expect(run(connection, "BEGIN READ ONLY")[0], "BEGIN")
    expect(run(connection, "INSERT INTO t (id) VALUES (9)")[0], "25006")
    expect(run(connection, "ROLLBACK")[0], "ROLLBACK")
    expect(run(connection, "BEGIN; INSERT INTO child VALUES (77)")[0], "INSERT 0 1")
    expect(run(connection, "COMMIT")[0], "23503")
    expect(pair.one("SELECT count(*) FROM t"), 1)
    connection.close()


@test
def cursors_and_explain(pair):
    pair.sql("app", "TRUNCATE t")
    connection = pair.standby.connect()
    run(connection, "BEGIN; INSERT INTO t (id) SELECT generate_series(1, 100)")
    for text, rows in (("DECLARE c SCROLL CURSOR FOR SELECT id FROM t ORDER BY id", None),
                       ("FETCH 2 FROM c", [(1,), (2,)]),
                       ("FETCH LAST FROM c", [(100,)]),
                       ("FETCH BACKWARD 2 FROM c", [(99,), (98,)]),
                       ("DECLARE h CURSOR WITH HOLD FOR SELECT max(id) FROM t", None),
                       ("COMMIT", None),
                       ("FETCH h", [(100,)]),
                       ("SELECT pg_is_in_recovery()", [(True,)])):
        expect(run(connection, text)[1], rows)
    plan = run(connection, "EXPLAIN ANALYZE INSERT INTO t (id) VALUES (101)")[1]
    assert "Insert on t" in plan[0][0], plan
    expect(pair.one("SELECT count(*) FROM t"), 101)
    run(connection, "EXPLAIN INSERT INTO t (id) VALUES (102)")
    expect(run(connection, "WITH x AS (DELETE FROM t RETURNING id) SELECT ROW(1, id) FROM x")[0],
           "0A000")
    expect(pair.one("SELECT count(*) FROM t"), 101)
    connection.close()
    pair.sql("app", "TRUNCATE t")


@test
def refused_by_name(pair):
    connection = pair.standby.connect()
    for text in ("CREATE TEMP TABLE x (i int)", "LISTEN here", "PREPARE TRANSACTION 'x'",
                 "INSERT INTO ruled VALUES (1)", "COPY t FROM '/etc/passwd'",
                 "BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; UPDATE t SET v = 'x' "
                 "WHERE CURRENT OF c"):
        state, message = run(connection, text)
        run(connection, "ROLLBACK")
        assert state == "0A000", f"{text}: {state} {message}"
    expect(pair.one("SELECT count(*) FROM ruled"), 0)
    connection.close()


@test
def settings_travel(pair):
    connection = pair.standby.connect()
    run(connection, "SET TimeZone = 'Asia/Tokyo'")
    run(connection, "SET my.thing = 'mine'")
    run(connection, "SET ROLE team")
    text = ("SELECT current_setting('TimeZone'), current_setting('my.thing', true), "
            "current_user::text, session_user::text, pg_is_in_recovery(), pg_current_xact_id() "
            "IS NOT NULL")
    expect(run(connection, text)[1],
           [("Asia/Tokyo", "mine", "team", "app", False, True)])
    run(connection, "RESET ROLE")
    run(connection, "RESET TimeZone")
    expect(run(connection, text)[1][0][2], "app")
    run(connection, "BEGIN; SET LOCAL my.thing = 'inner'")
    expect(run(connection, text)[1][0][1], "inner")
    run(connection, "ROLLBACK")
    expect(run(connection, text)[1][0][1], "mine")
    connection.close()


@test
def copy_both_ways(pair):
    import io
    pair.sql("app", "TRUNCATE t")
    connection = pair.standby.connect(autocommit=False)
    cursor = connection.cursor()
    cursor.copy_expert("COPY t (id, v) FROM STDIN",
                       io.StringIO("".join(f"{i}\tgrüße {i}\n" for i in range(5000))))
    expect(cursor.rowcount, 5000)
    out = io.StringIO()
    cursor.copy_expert("COPY (SELECT id, v FROM t WHERE id = 7) TO STDOUT", out)
    expect(out.getvalue(), "7\tgrüße 7\n")
    connection.commit()
    connection.autocommit = True
    expect(run(connection, "SELECT count(*) FROM t")[1], [(5000,)])
    try:
        cursor.copy_expert("COPY t (id) FROM STDIN", io.StringIO("9000\nx\n"))
        assert False, "a bad row was taken"
    except psycopg2.Error as error:
        expect(error.pgcode, "22P02")
    expect(run(connection, "SELECT count(*) FROM t WHERE id = 9000")[1], [(0,)])
    connection.close()
    pair.sql("app", "TRUNCATE t")


@test
def rights_stay(pair):
    connection = pair.standby.connect("low", database="app")
    state, message = run(connection, "INSERT INTO t (id) VALUES (1)")
    assert state == "08001" and "low" in message, (state, message)
    connection.close()
    pair.sql("app", "ALTER USER MAPPING FOR low SERVER meridian_writer OPTIONS "
             "(SET password 'low')")
    wait_for(lambda: caught_up(pair), "the standby")
    connection = pair.standby.connect("low", database="app")
    for text in ("INSERT INTO t (id) VALUES (1)", "RESET SESSION AUTHORIZATION; DELETE FROM t",
                 "DO $$BEGIN RESET SESSION AUTHORIZATION; DELETE FROM t; END$$",
                 "DO $$BEGIN SET ROLE postgres; END$$", "ALTER ROLE low SUPERUSER",
                 "SET ROLE app", "SET SESSION AUTHORIZATION app", "SET meridian.writer = 'host=x'",
                 "SHOW meridian.writer"):
        expect(run(connection, text)[0], "42501")
    connection.close()


@test
def tokens_and_waits(pair):
    connection = pair.standby.connect()
    pair.sql("postgres", "SELECT 1")
    run(connection, "INSERT INTO t (id) VALUES (100001)")
    token = run(connection, "SELECT meridian.commit_token()")[1][0][0]
    other = pair.standby.connect()
    run(other, f"SET meridian.read_after = '{token}'")
    expect(run(other, "SELECT count(*) FROM t WHERE id = 100001")[1], [(1,)])
    expect(run(other, "SET meridian.read_after = 'nonsense'")[0], "22023")
    pause = pair.standby.connect("postgres")
    run(pause, "SELECT pg_wal_replay_pause()")
    try:
        run(connection, "SET meridian.read_timeout = '200ms'")
        run(connection, "INSERT INTO t (id) VALUES (100002)")
        expect(run(connection, "SELECT count(*) FROM t")[0], "57014")
        run(connection, "SET meridian.read_consistency = eventual")
        expect(run(connection, "SELECT count(*) FROM t WHERE id = 100002")[1], [(0,)])
        run(other, "SET meridian.read_after = ''")
        run(other, "SET meridian.read_consistency = global")
        run(other, "SET meridian.read_timeout = '200ms'")
        expect(run(other, "SELECT 1")[0], "57014")
    finally:
        run(pause, "SELECT pg_wal_replay_resume()")
    run(other, "SET meridian.read_timeout = '60s'")
    expect(run(other, "SELECT count(*) FROM t WHERE id = 100002")[1], [(1,)])
    for each in (connection, other, pause):
        each.close()


@test
def cancel_and_timeout(pair):
    connection = pair.standby.connect()
    run(connection, "SET statement_timeout = '200ms'")
    expect(run(connection, "WITH x AS (INSERT INTO t (id) VALUES (200) RETURNING id) "
               "SELECT pg_sleep(20) FROM x")[0], "57014")
    run(connection, "SET statement_timeout = 0")
    ended = threading.Event()

    def cancel():  # one that comes before the statement has no effect
        while not ended.wait(0.3):
            connection.cancel()
    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        expect(run(connection, "WITH x AS (INSERT INTO t (id) VALUES (200) RETURNING id) "
                   "SELECT pg_sleep(100) FROM x")[0], "57014")
    finally:
        ended.set()
        thread.join()
    expect(run(connection, "SELECT count(*) FROM t WHERE id = 200")[1], [(0,)])
    connection.close()


@test
def lost_connection(pair):
    connection = pair.standby.connect()
    run(connection, "BEGIN; INSERT INTO t (id) VALUES (300)")
    pair.sql("app", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
             "WHERE usename = 'app' AND pid <> pg_backend_pid()")
    state = run(connection, "INSERT INTO t (id) VALUES (301)")[0]
    assert state in ("08006", "57P01"), state
    run(connection, "ROLLBACK")
    expect(run(connection, "INSERT INTO t (id) VALUES (302)")[0], "INSERT 0 1")
    expect(run(connection, "SELECT id FROM t WHERE id BETWEEN 300 AND 302")[1], [(302,)])
    connection.close()


class Cutter:
    """Between standby and primary: passes all on, and once, when asked, loses a COMMIT's answer."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.target = self.listener.getsockname()[1], port
        self.cut = False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            for ends in ((client, server, True), (server, client, False)):
                threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source, target, upward):
        try:
            while data := source.recv(65536):
                cut = self.cut and upward and b"COMMIT" in data
                if cut:
                    self.cut = False
                    source.shutdown(socket.SHUT_RDWR)
                target.sendall(data)
        except OSError:
            pass
        target.close()


def writer_is(pair, port):
    connection = pair.standby.connect("postgres")
    run(connection, f"ALTER SYSTEM SET meridian.writer = 'host=127.0.0.1 port={port}'")
    run(connection, "SELECT pg_reload_conf()")
    wait_for(lambda: str(port) in run(connection, "SHOW meridian.writer")[1][0][0], "the reload")
    connection.close()


@test
def lost_answer_of_commit(pair):
    cutter = Cutter(pair.primary.port)
    writer_is(pair, cutter.port)
    connection = pair.standby.connect()
    expect(run(connection, "BEGIN; INSERT INTO t (id) VALUES (350)")[0], "INSERT 0 1")
    cutter.cut = True
    expect(run(connection, "COMMIT")[0], "COMMIT")
    expect(cutter.cut, False)
    expect(run(connection, "SELECT id FROM t WHERE id = 350")[1], [(350,)])
    connection.close()
    writer_is(pair, pair.primary.port)


@test
def hidden_writes(pair):
    pair.sql("app", "CREATE OR REPLACE FUNCTION hidden(i int) RETURNS int LANGUAGE plpgsql STABLE "
             "AS $$BEGIN PERFORM writes(i); RETURN i; END$$")
    wait_for(lambda: caught_up(pair), "the standby")
    connection = pair.standby.connect()
    expect(run(connection, "SELECT hidden(360)")[0], "0A000")
    run(connection, "SET meridian.forward_functions = off")
    expect(run(connection, "SELECT writes(361)")[0], "0A000")
    run(connection, "SET meridian.write_forwarding = off")
    expect(run(connection, "INSERT INTO t (id) VALUES (362)")[0], "25006")
    expect(pair.one("SELECT count(*) FROM t WHERE id BETWEEN 360 AND 369"), 0)
    connection.close()


@test
def pgbench(pair):
    pair.sql("app", "GRANT ALL ON SCHEMA public TO app")
    environment = dict(os.environ, PGPASSWORD="app")
    where = ["-h", "127.0.0.1", "-U", "app"]
    subprocess.run([f"{STOCK}/bin/pgbench", *where, "-p", str(pair.primary.port), "-i", "-q", "app"],
                   check=True, capture_output=True, env=environment)
    wait_for(lambda: caught_up(pair), "the standby")
    for protocol in ("simple", "extended", "prepared"):
        done = subprocess.run([f"{STOCK}/bin/pgbench", *where, "-p", str(pair.standby.port), "-n",
                               "-M", protocol, "-c", "2", "-t", "40", "app"], check=False,
                              capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and "80/80" in done.stdout, done.stdout + done.stderr
    expect(pair.one("SELECT count(*) FROM pgbench_history"), 240)
    expect(pair.one("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = "
                    "(SELECT sum(delta) FROM pgbench_history)"), True)


@test
def pipeline_is_one_transaction(pair):
    """Several statements before one Sync: all or nothing, as on the primary."""
    environment = dict(os.environ, PGPASSWORD="app")
    for last, count in ((371, 2), (350, 0)):
        pair.sql("app", "DELETE FROM t WHERE id BETWEEN 370 AND 379",
                 "INSERT INTO t (id) VALUES (350) ON CONFLICT DO NOTHING")
        script = f"{pair.standby.folder}/pipeline.sql"
        with open(script, "w", encoding="utf-8") as file:
            file.write("\\startpipeline\nINSERT INTO t (id) VALUES (370);\n"
                       f"INSERT INTO t (id) VALUES ({last});\n\\endpipeline\n")
        subprocess.run([f"{STOCK}/bin/pgbench", "-h", "127.0.0.1", "-U", "app", "-p",
                        str(pair.standby.port), "-n", "-M", "extended", "-t", "1", "-f", script,
                        "app"], check=False, capture_output=True, env=environment)
        expect(pair.one("SELECT count(*) FROM t WHERE id BETWEEN 370 AND 379"), count)


@test
def primary_gone_then_promoted(pair):
    connection = pair.standby.connect()
    expect(run(connection, "INSERT INTO t (id) VALUES (400)")[0], "INSERT 0 1")
    wait_for(lambda: caught_up(pair), "the standby")
    pair.primary.stop()
    expect(run(connection, "INSERT INTO t (id) VALUES (401)")[0], "08001")
    run(connection, "SET meridian.read_consistency = eventual")
    expect(run(connection, "SELECT count(*) FROM t WHERE id = 400")[1], [(1,)])
    expect(run(connection, "PREPARE q AS INSERT INTO t (id) VALUES (402)")[0], "PREPARE")
    admin = pair.standby.connect("postgres")
    expect(run(admin, "SELECT pg_promote()")[1], [(True,)])
    expect(run(connection, "EXECUTE q")[0], "INSERT 0 1")
    expect(run(connection, "SELECT count(*) FROM t WHERE id IN (401, 402)")[1], [(1,)])
    admin.close()
    connection.close()


def main():
    as_nobody()
    folder = tempfile.mkdtemp(prefix="mpg-", dir="/tmp")
    tally = Tally(sys.argv[1:])
    pair = None
    try:
        pair = Pair(folder)
        for function in TESTS:
            tally.run(function, pair)
    except Exception:
        tally.fail("the servers", traceback.format_exc())
    finally:
        for server in (pair.standby, pair.primary) if pair else ():
            server.stop()
        if tally.failed and pair:
            subprocess.run(["tail", "-n", "30", f"{pair.standby.data}.log"], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
