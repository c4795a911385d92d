"""Several servers of PostgreSQL in a region: when only the writer's node dies, its neighbour takes over.

These scenarios have a lab of their own, which takes the place of the other one.
"""
import time

import psycopg2
import requests

from lab import LIMIT_S, Failure, Lab, after, eventually, expect

OWN = "127.10.0.2"  # the second node of the writer's region
state = {}


def connect(host=OWN, port=5432):
    return psycopg2.connect(host=host, port=port, user="app", password="app", dbname="app",
                            connect_timeout=LIMIT_S)


def cluster(host=OWN):
    return requests.get(f"http://{host}:7400/status", timeout=5).json()["postgres"]


def followers(host=OWN):
    return sorted(server["node"] for server in cluster(host)["servers"] if server["following"])


def scenario_a_lab_of_two_servers_a_region(lab):
    lab.down()
    own = state["lab"] = Lab(lab.folder + "-in-region")
    own.run("lab", "down", "--wipe")
    own.meridian("lab", "up", "--nodes", "2", "--servers", "2")
    eventually("the writer is known", lambda: cluster()["writer"] == "us-east-1")
    eventually("all others follow", lambda: len(followers()) == 5)
    with connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (i int primary key)")
        cursor.execute("INSERT INTO t VALUES (1)")


@after(scenario_a_lab_of_two_servers_a_region)
def scenario_a_reader_is_the_nodes_own_standby(_):
    def served():
        with connect(port=5433) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT host(inet_server_addr()), pg_is_in_recovery() FROM t")
            return cursor.fetchall() == [(OWN, True)]
    eventually("us-east-2 reads from its own standby", served)


@after(scenario_a_reader_is_the_nodes_own_standby)
def scenario_the_writers_neighbour_takes_over(_):
    begin = time.monotonic()
    state["lab"].kill("us-east/1")
    last = None
    while True:
        try:
            with connect() as connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO t VALUES (2) ON CONFLICT (i) DO UPDATE SET i = 2 "
                               "RETURNING host(inet_server_addr())")
                expect(cursor.fetchone()[0], OWN, "the writer")
                break
        except psycopg2.Error as error:
            last = error
        if time.monotonic() > begin + 2 * LIMIT_S:
            raise Failure(f"no write for {2 * LIMIT_S} s: {last}")
        time.sleep(0.05)
    print(f"        (the first write after {time.monotonic() - begin:.1f} s)")
    eventually("the others follow it", lambda: followers() == [
        "ap-southeast-1", "ap-southeast-2", "eu-west-1", "eu-west-2"])
    eventually("the region keeps its writer",
               lambda: cluster("127.20.0.1")["writer_region"] == "us-east")


@after(scenario_the_writers_neighbour_takes_over)
def scenario_the_old_writer_comes_back_as_a_standby(_):
    state["lab"].start("us-east/1")
    eventually("it follows", lambda: "us-east-1" in followers())

    def by_its_door():
        with connect("127.10.0.1") as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), host(inet_server_addr()) FROM t GROUP BY 2")
            return cursor.fetchall() == [(2, OWN)]
    eventually("through the door of the node that came back", by_its_door)


@after(scenario_the_old_writer_comes_back_as_a_standby)
def scenario_the_lab_of_two_servers_ends(_):
    state.pop("lab").meridian("lab", "down", "--wipe")
