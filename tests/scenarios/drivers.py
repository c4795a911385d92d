"""Ordinary clients by the doors: psql, libpq from C, psycopg2, node's pg, and pgbouncer before a door.

What is not on this machine, and cannot be had, is passed over with a word.
"""
import os
import shutil
import subprocess
import tempfile
import time

import psycopg2

from bank import all_stream, connect, patiently, writer
from lab import ADDRESSES, LIMIT_S, REGIONS, after, eventually, expect, expect_true
from node_package import node_environment

ENVIRONMENT = dict(os.environ, PGPASSWORD="app", HOME="/nonexistent")

LIBPQ = r"""
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

/* Connects, writes by a prepared statement in a transaction, cancels a long one. */
int main(int count, char **args)
{
        PGconn *connection = PQconnectdb(count > 1 ? args[1] : "");
        const char *value[] = {"libpq"};
        char why[256];
        if (PQstatus(connection) != CONNECTION_OK) {
                fputs(PQerrorMessage(connection), stderr);
                return 1;
        }
        PQclear(PQexec(connection, "BEGIN"));
        PQclear(PQprepare(connection, "p", "INSERT INTO driver VALUES ($1) RETURNING name", 1, NULL));
        PGresult *result = PQexecPrepared(connection, "p", 1, value, NULL, NULL, 0);
        if (PQntuples(result) != 1 || strcmp(PQgetvalue(result, 0, 0), "libpq") != 0)
                return fputs(PQerrorMessage(connection), stderr), 1;
        PQclear(result);
        PQclear(PQexec(connection, "COMMIT"));
        if (PQsendQuery(connection, "SELECT pg_sleep(20)") != 1)
                return 1;
        PGcancel *cancel = PQgetCancel(connection);
        /* One that overtakes its query cancels nothing. */
        while (PQisBusy(connection)) {
                struct pollfd answer = {.fd = PQsocket(connection), .events = POLLIN};
                if (PQcancel(cancel, why, sizeof why) != 1)
                        return fputs(why, stderr), 1;
                if (poll(&answer, 1, 500) > 0 && PQconsumeInput(connection) != 1)
                        return fputs(PQerrorMessage(connection), stderr), 1;
        }
        PQfreeCancel(cancel);
        result = PQgetResult(connection);
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        printf("%s\n", state == NULL ? "it ran to its end" : state);
        PQclear(result);
        PQfinish(connection);
        return 0;
}
"""

NODE = r"""
const { Client } = require('pg');
(async () => {
  const client = new Client({ host: process.argv[2], port: 5432, user: 'app', password: 'app', database: 'app' });
  await client.connect();
  await client.query('BEGIN');
  const { rows } = await client.query('INSERT INTO driver VALUES ($1) RETURNING name', ['node']);
  await client.query('COMMIT');
  console.log(rows[0].name);
  await client.end();
})().catch((error) => { console.error(error); process.exit(1); });
"""


def count(name):
    return patiently("us-east", f"SELECT count(*) FROM driver WHERE name = '{name}'")


def scenario_the_drivers_table_is_there(lab):
    region = eventually("a writer that others follow", lambda: all_stream(lab))
    patiently(region, "CREATE TABLE IF NOT EXISTS driver (name text); TRUNCATE driver")


@after(scenario_the_drivers_table_is_there)
def scenario_psql_by_every_door(lab):
    for region in REGIONS:
        done = subprocess.run(
            ["psql", "-h", ADDRESSES[region], "-p", "5432", "-U", "app", "-d", "app", "-AtX", "-c",
             "INSERT INTO driver VALUES ('psql') RETURNING pg_is_in_recovery()"],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        expect(done.stdout.splitlines()[:1], ["f"], f"psql by the write door of {region}")
        done = subprocess.run(
            ["psql", "-h", ADDRESSES[region], "-p", "5433", "-U", "app", "-d", "app", "-AtX", "-c",
             "SELECT pg_is_in_recovery()"],
            env=ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        expect_true(done.stdout.strip() in "ft", f"psql by the read door of {region}")
    expect(count("psql"), 3, "rows by psql")


@after(scenario_the_drivers_table_is_there)
def scenario_libpq_from_c(lab):
    if shutil.which("cc") is None or not os.path.exists("/usr/include/postgresql/libpq-fe.h"):
        print("        cc or libpq-dev is missing: not tried")
        return
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/driver.c", "w", encoding="utf-8") as file:
            file.write(LIBPQ)
        subprocess.run(["cc", "-I/usr/include/postgresql", "-o", f"{folder}/driver",
                        f"{folder}/driver.c", "-lpq"], check=True)
        for region in REGIONS:
            done = subprocess.run([f"{folder}/driver", f"host={ADDRESSES[region]} user=app "
                                   "dbname=app"], env=ENVIRONMENT, capture_output=True, text=True,
                                  timeout=LIMIT_S, check=False)
            expect(done.stdout.strip(), "57014", f"a cancel at {region}: {done.stderr}")
    expect(count("libpq"), 3, "rows by libpq")


@after(scenario_the_drivers_table_is_there)
def scenario_nodes_pg(lab):
    environment = node_environment("pg", 8, ENVIRONMENT)
    if environment is None:
        return
    for region in REGIONS:
        done = subprocess.run(["node", "-e", NODE, "x", ADDRESSES[region]], env=environment,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        expect(done.stdout.strip(), "node", f"node at {region}: {done.stderr}")
    expect(count("node"), 3, "rows by node")


@after(scenario_the_drivers_table_is_there)
def scenario_a_session_at_a_standby_writes_and_reads_its_own(lab):
    home = writer(lab)
    for region in REGIONS:
        if region == home:
            continue
        connection = connect(region, 5433, options="-c meridian.write_forwarding=on "
                                                   "-c meridian.read_consistency=session")
        cursor = connection.cursor()
        cursor.execute("SELECT pg_is_in_recovery()")
        expect(cursor.fetchone()[0], True, f"the session at {region} is on a standby")
        for number in range(3):
            cursor.execute("INSERT INTO driver VALUES ('forward') RETURNING name")
            expect(cursor.fetchone()[0], "forward", "RETURNING")
            cursor.execute("SELECT count(*) FROM driver WHERE name = 'forward'")
            expect_true(cursor.fetchone()[0] > number, "its own write is read")
        connection.close()
    expect(count("forward"), 6, "rows by forwarding")


class Bouncer:
    """pgbouncer before the write door of eu-west."""

    def __init__(self, mode):
        self.folder = tempfile.mkdtemp(prefix="mbouncer-", dir="/tmp")
        os.chmod(self.folder, 0o777)
        with open(f"{self.folder}/users.txt", "w", encoding="utf-8") as file:
            file.write('"app" "app"\n')
        with open(f"{self.folder}/pgbouncer.ini", "w", encoding="utf-8") as file:
            file.write(f"[databases]\napp = host={ADDRESSES['eu-west']} port=5432\n[pgbouncer]\n"
                       f"listen_addr = 127.20.0.1\nlisten_port = 6432\nauth_type = plain\n"
                       f"auth_file = {self.folder}/users.txt\npool_mode = {mode}\n"
                       f"unix_socket_dir =\nserver_login_retry = 1\n")
        user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] \
            if os.getuid() == 0 else []
        self.process = subprocess.Popen(
            [*user, shutil.which("pgbouncer"), f"{self.folder}/pgbouncer.ini"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(LIMIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def write():
        connection = psycopg2.connect(host="127.20.0.1", port=6432, user="app", password="app",
                                      dbname="app", connect_timeout=LIMIT_S)
        connection.cursor().execute("INSERT INTO driver VALUES ('bouncer')")
        connection.commit()
        connection.close()
        return True


@after(scenario_the_drivers_table_is_there)
def scenario_pgbouncer_follows_the_writer(lab):
    if shutil.which("pgbouncer") is None:
        print("        pgbouncer is missing: not tried")
        return
    with Bouncer("transaction") as bouncer:
        eventually("a write through pgbouncer", bouncer.write)
        target = "us-east" if writer(lab) == "eu-west" else "eu-west"
        lab.meridian("switchover", "--to", target)
        begun = time.monotonic()
        eventually("a write through pgbouncer after the writer moved", bouncer.write)
        print(f"        {time.monotonic() - begun:.2f} s after the switchover")
    expect_true(count("bouncer") >= 2, "rows by pgbouncer")
