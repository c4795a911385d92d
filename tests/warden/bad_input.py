"""What goes wrong at a server that nobody means ill: full disks, log that is gone, data of another
cluster, of another version, of another user, damaged copies. Each has to be told in a sentence that
says what, where and what to do; nothing is lost, and what can be mended goes on by itself."""

import glob
import os
import shutil
import socket
import subprocess

from fixture import BIN, Node, expect, same, wait_for

SMALL_MB = 120
DATA = ("topology", "password", "init.sql")


def small_disk(folder, make=True):
    path = f"{folder}/small"
    if make:
        os.mkdir(path)
    return path


def prepare_as_root(folder):
    """A data folder that is another user's."""
    data = f"{folder}/bad/n3/data"
    os.makedirs(f"{folder}/bad/n3", mode=0o755)
    os.makedirs(f"{data}/global")
    with open(f"{data}/global/pg_control", "wb"):
        pass
    os.chmod(data, 0o700)
    for path in (f"{folder}/bad", f"{folder}/bad/n3"):
        os.chown(path, 65534, 65534)


def says(text, *words):
    for word in words:
        if word not in text:
            raise AssertionError(f"'{word}' is not in: {text}")


def alarm(node, *words, name="postgres-alarm", seconds=60):
    return wait_for(f"an alarm of {words} at n{node.number}; there are {node.notes}", lambda: any(
        note["note"] == name and all(word in note["text"] for word in words)
        for note in list(node.notes)), seconds)


class Filler:
    """Takes the room of a disk, but for some."""

    def __init__(self, folder, leaves_mb=0):
        self.path = f"{folder}/filler"
        try:
            with open(self.path, "wb", buffering=0) as file:
                while file.write(bytes(1 << 20)) == 1 << 20:
                    pass
        except OSError:
            pass
        os.truncate(self.path, max(0, os.path.getsize(self.path) - (leaves_mb << 20)))

    def remove(self):
        os.unlink(self.path)


def folder_of(world, name):
    folder = f"{world.folder}/{name}"
    os.makedirs(folder, exist_ok=True)
    for file in DATA:
        shutil.copy(f"{world.folder}/{file}", folder)
    return folder


def restart(node, tool_bin=None):
    node.stop()
    node.bin = tool_bin or BIN
    node.start(False)


def test_another_users_data_is_refused(world):
    """As root prepared it; the server's user is not root."""
    for node in world.nodes:
        node.stop()
    folder = folder_of(world, "bad")
    first = Node(folder, 1)
    world.nodes = [first]
    first.take("init", 2)
    first.ask("CREATE TABLE t (i int)")
    first.ask("INSERT INTO t SELECT generate_series(1, 1000)")
    if not os.path.exists(f"{folder}/n3/data"):
        return
    third = Node(folder, 3, wait=False)
    world.nodes.append(third)
    says(third.fails("start"), "n3/data", "belongs to root", "nobody", "chown -R")
    third.stop()
    world.nodes.remove(third)
    os.rename(f"{folder}/n3", f"{folder}/n3-away")


def test_a_copy_of_a_damaged_page_is_refused_and_made_again(world):
    """The primary's own file is damaged on its disk; nothing is left of such a copy."""
    first = world.nodes[0]
    folder = f"{world.folder}/bad"
    path = first.home + "/data/" + first.ask("SELECT pg_relation_filepath('t')")[0][0]
    first.rule("CHECKPOINT")
    with open(path, "r+b") as file:
        file.seek(8192 + 4000)
        kept = file.read(8)
        file.seek(8192 + 4000)
        file.write(b"damaged!")
    second = Node(folder, 2)
    world.nodes.append(second)
    says(second.fails("clone", 1), "checksum", "files are damaged")
    expect(glob.glob(f"{folder}/n2/data*"), [], "nothing is left of it")
    with open(path, "r+b") as file:
        file.seek(8192 + 4000)
        file.write(kept)


def test_a_copy_that_was_damaged_on_its_way_is_refused_and_made_again(world):
    """pg_basebackup's place is taken by one that damages what came, the first time."""
    second = world.nodes[1]
    fake = f"{world.folder}/bad/bin"
    os.mkdir(fake)
    for name in os.listdir(BIN):
        if name != "pg_basebackup":
            os.symlink(f"{BIN}/{name}", f"{fake}/{name}")
    with open(f"{fake}/pg_basebackup", "w", encoding="utf-8") as file:
        file.write(f'#!/bin/sh\n{BIN}/pg_basebackup "$@" || exit 1\n'
                   f'test -e {fake}/once && exit 0\ntouch {fake}/once\n'
                   'printf x | dd of="$2/base/1/1259" bs=1 seek=9000 conv=notrunc 2>/dev/null\n')
    os.chmod(f"{fake}/pg_basebackup", 0o755)
    restart(second, fake)
    says(second.fails("clone", 1), "pg_verifybackup", "base/1/1259")
    expect(glob.glob(f"{world.folder}/bad/n2/data*"), [], "nothing is left of it")
    second.do("clone", 1)
    second.do("follow", 1)
    second.follows(1)
    wait_for("the same in both", lambda: same(world.nodes))


def bound(taken, address):
    try:
        taken.bind(address)
        return True
    except OSError:
        return False


def test_a_port_in_use_is_named(world):
    second = world.nodes[1]
    second.crash()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for("what is left of the server to end", lambda: bound(taken, ("127.9.0.2", 5434)))
        taken.listen()
        restart(second)
        says(second.fails("start", 1), "127.9.0.2:5434", "in use", "postgres server")
    second.do("start", 1)
    second.follows(1)


def test_data_open_to_others_or_of_another_version_is_refused(world):
    second = world.nodes[1]
    data = f"{second.home}/data"
    second.crash()
    restart(second)
    os.chmod(data, 0o755)
    says(second.fails("start", 1), data, "open to other users", "chmod 700")
    os.chmod(data, 0o700)
    with open(f"{data}/PG_VERSION", "w", encoding="ascii") as file:
        file.write("14\n")
    says(second.fails("start", 1), data, "PostgreSQL 14", "pg_upgrade")
    with open(f"{data}/PG_VERSION", "w", encoding="ascii") as file:
        file.write("15\n")
    with open(f"{data}/postgresql.conf", encoding="utf-8") as file:
        settings = file.read()
    with open(f"{data}/postgresql.conf", "w", encoding="utf-8") as file:
        file.write("work_mem = 'nonsense'\n" + settings)
    says(second.fails("start", 1), "does not start", "work_mem", "nonsense")
    with open(f"{data}/postgresql.conf", "w", encoding="utf-8") as file:
        file.write(settings)
    second.do("start", 1)
    second.follows(1)


def test_log_that_is_gone_is_found_out_and_the_standby_is_rebuilt(world):
    """Meanwhile, at another: data that cannot be read is told."""
    first, second = world.nodes
    second.crash()
    for setting in ("max_slot_wal_keep_size = '16MB'", "wal_keep_size = 0"):
        first.rule(f"ALTER SYSTEM SET {setting}")
    first.rule("SELECT pg_reload_conf()")
    for i in range(5):
        first.ask(f"INSERT INTO t VALUES (-{i})")
        first.rule("SELECT pg_switch_wal()")
    first.rule("CHECKPOINT")
    third = damaged_control(world)
    restart(second)
    second.do("start", 1)
    wait_for("the gap to be found", lambda: second.seen.get("gap"))
    alarm(third, "cannot be seen", "pg_control")
    third.stop()
    second.do("rebuild", 1)
    second.do("follow", 1)
    second.follows(1)
    expect(second.seen["gap"], False, "none any more")
    wait_for("the same in both", lambda: same([first, second]))


def damaged_control(world):
    """A copy of the second one's data, with a control file that was cut."""
    folder = f"{world.folder}/bad"
    os.makedirs(f"{folder}/n3")
    shutil.copytree(f"{folder}/n2/data", f"{folder}/n3/data")
    os.truncate(f"{folder}/n3/data/global/pg_control", 20)
    return Node(folder, 3, wait=False)


def test_data_of_another_cluster_is_left_alone(world):
    first = world.nodes[0]
    folder = f"{world.folder}/bad"
    shutil.rmtree(f"{folder}/n3", ignore_errors=True)
    os.makedirs(f"{folder}/n3")
    shutil.copytree(f"{world.folder}/far/n1/data", f"{folder}/n3/data", ignore=lambda _, names: [
        name for name in names if name == "postmaster.pid"])
    third = Node(folder, 3, wait=False)
    world.nodes.append(third)
    wait_for("a first look", lambda: third.seen)
    expect(third.seen["system"] != first.seen["system"], True, "another one")
    for action in ("rebuild", "rewind"):
        says(third.fails(action, 1), "another cluster", str(third.seen["system"]),
             str(first.seen["system"]), "move it away")
    expect((third.seen["seen"], third.aside()), ("closed", []), "it is as it was")
    third.stop()
    world.nodes.remove(third)


def test_a_full_archive_is_told_and_writes_go_on(world):
    small = f"{world.folder}/small"
    if not os.path.ismount(small):
        return
    for node in world.nodes:
        node.stop()
    folder = folder_of(world, "archived")
    os.makedirs(f"{folder}/n1")
    subprocess.run([f"{BIN}/initdb", "-D", f"{folder}/n1/data", "-U", "postgres", "-N", "-A",
                    "scram-sha-256", "--auth-local=peer", "--wal-segsize=1"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = Node(folder, 1, f"{small}/archive")
    world.nodes = [first]
    first.do("start")
    first.take("promote", 3)
    first.rule("CREATE TABLE t (i int)")
    filler = Filler(small)
    waits = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    for _ in range(70):
        first.rule("INSERT INTO t VALUES (1); SELECT pg_switch_wal()")
    alarm(first, "MB are left", "small/archive")
    alarm(first, "cannot be copied", "small/archive", "postgres archive")
    wait_for("no more to wait than the archive keeps", lambda: first.rule(waits)[0][0] <= 65)
    filler.remove()
    first.rule("INSERT INTO t VALUES (2); SELECT pg_switch_wal()")
    wait_for("the archive to be filled", lambda: len(glob.glob(f"{small}/archive/0*")) > 60)
    alarm(first, "cannot be copied", "over", name="postgres")
    first.stop()
    wait_for("the room to be there again", lambda: not os.path.exists(f"{small}/archive")
             or shutil.rmtree(f"{small}/archive", ignore_errors=True))


def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(world):
    small = f"{world.folder}/small"
    if not os.path.ismount(small):
        return
    for file in DATA:
        shutil.copy(f"{world.folder}/{file}", small)
    first = Node(small, 1)
    world.nodes = [first]
    first.take("init", 2)
    first.ask("CREATE TABLE t (i int)")
    filler = Filler(small, 4)
    acknowledged = 0
    try:
        for i in range(1000):
            first.ask(f"INSERT INTO t SELECT {i} FROM generate_series(1, 20000)")
            acknowledged = i + 1
    except Exception as error:  # the disk is full: refused, or the server has ended
        print(f"  {acknowledged} acknowledged, then: {str(error).strip().splitlines()[0]}")
    alarm(first, "MB are left", "make room")
    try:
        first.rule("SELECT pg_logical_emit_message(false, 'x', repeat('x', 20000000))")
    except Exception as error:
        print(f"  log without room: {str(error).strip().splitlines()[0]}")
    first.do("fence")
    first.is_now("closed")
    fail = first.ends(first.begin("start"))
    if fail:
        says(fail, "No space left", "make room")
    filler.remove()
    first.do("start")
    first.is_now("standby")
    first.take("promote", 3)
    expect(acknowledged > 0, True, "some were acknowledged")
    expect(first.ask(f"SELECT count(DISTINCT i) >= {acknowledged} FROM t"), [(True,)], "all")
    alarm(first, "MB are left", "over", name="postgres")


TESTS = [function for name, function in list(globals().items()) if name.startswith("test_")]
