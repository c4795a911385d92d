#!/usr/bin/python3
"""The warden with real servers: this program plays the node of each of three (warden_tool.c).

As root it starts itself anew as the user `nobody`, with a small disk of its own to fill. Prints
`N passed, N failed`.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from fixture import BIN, MODULE, SOURCE, TOOL, Node, World, expect, same, wait_for
import bad_input

import psycopg2

sys.path.insert(0, os.path.join(SOURCE, "tests"))
from tally import Tally  # noqa: E402

def rewound(node, upstream):
    """A rewind has to wait for the checkpoint of the new primary."""
    fail = node.ends(node.begin("rewind", upstream))
    if "no checkpoint" not in fail:
        expect(fail, "", f"rewind of n{node.number}")
    return fail == ""


def test_a_new_cluster_is_made_and_opens(world):
    first = world.nodes[0]
    expect(first.seen["seen"], "absent", "nothing is there")
    first.take("init", 5)
    expect((first.seen["timeline"], first.seen["epoch"]), (1, 5), "its first epoch")
    expect(first.seen["gate"], True, "the gate")
    first.ask("CREATE TABLE t (i int)")
    first.ask("INSERT INTO t SELECT generate_series(1, 100)")
    expect("there is data" in first.fails("init", 0, 6), True, "not twice")


def test_standbys_are_cloned_and_follow(world):
    first, second, third = world.nodes
    for node in (second, third):
        node.do("clone", 1)
        node.is_now("standby")
        node.do("follow", 1)
        node.follows(1)
        expect((node.seen["system"], node.seen["epoch"]), (first.seen["system"], 5), "same data")
    first.ask("INSERT INTO t VALUES (101)")
    wait_for("the same in all", lambda: same(world.nodes))
    wait_for("a slot for each", lambda: first.ask(
        "SELECT count(*) FROM pg_replication_slots WHERE active") == [(2,)])
    expect(second.refuses("INSERT INTO t VALUES (1)"), True, "a standby takes no writes")


def test_what_alter_system_says_of_meridians_settings_is_taken_back(world):
    first = world.nodes[0]
    for name, value in (("synchronous_standby_names", "nobody"),
                        ("shared_preload_libraries", "auto_explain")):
        first.rule(f"ALTER SYSTEM SET {name} = '{value}'")
        first.rule("SELECT pg_reload_conf()")
        wait_for(f"{name} to be told", lambda n=name: any(
            n in note["text"] and "taken back" in note["text"] for note in first.notes))
    first.rule("ALTER SYSTEM SET work_mem = '5MB'")
    wait_for("commits to wait for nobody", lambda: first.rule(
        "SHOW synchronous_standby_names") == [("",)])
    with open(f"{first.home}/data/postgresql.auto.conf", encoding="utf-8") as file:
        text = file.read()
    expect(("work_mem" in text, "synchronous" in text, "preload" in text), (True, False, False), text)


def test_a_server_without_the_library_is_not_left_running(world):
    third = world.nodes[2]
    path = f"{third.home}/data/postgresql.auto.conf"
    os.kill(third.postmaster(), signal.SIGKILL)
    third.is_now("asleep")
    with open(path, encoding="utf-8") as file:
        before = file.read()
    with open(path, "a", encoding="utf-8") as file:
        file.write("shared_preload_libraries = 'auto_explain' # not meridian\n")
    expect("without the library" in third.fails("start", 1), True, "why it is stopped")
    third.is_now("asleep")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
    third.do("start", 1)
    third.is_now("standby")


def test_a_daemon_that_starts_again_finds_what_is_there(world):
    first, second, _ = world.nodes
    for node in (first, second):
        node.process.stdin.close()
        node.process.wait(20)
        node.start()
    first.is_now("open")
    second.is_now("standby")
    first.ask("INSERT INTO t VALUES (102)")
    second.do("follow", 1)
    second.follows(1)


def test_a_gate_that_runs_out_fences_the_server_which_opens_again(world):
    first = world.nodes[0]
    first.gate(5, 300)
    first.is_now("fenced")
    expect(first.refuses(), True, "no writes")
    first.take("open", 5)
    first.ask("INSERT INTO t VALUES (103)")


def test_held_writes_are_let_go(world):
    first = world.nodes[0]
    first.do("hold")
    first.is_now("held")
    written = first.seen["written"]
    waiting = threading.Thread(target=first.ask, args=("INSERT INTO t VALUES (104)",), daemon=True)
    waiting.start()
    wait_for("it to wait", lambda: first.ask(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'Extension'") == [(1,)])
    expect(first.seen["seen"], "held", "still")
    first.take("open", 5)
    waiting.join(10)
    wait_for("it to go on", lambda: first.ask("SELECT i FROM t WHERE i = 104") == [(104,)])
    expect(first.seen["written"] >= written, True, "it goes on")


def test_commits_that_are_limited_wait_until_they_are_let_go_or_the_gate_closes(world):
    first = world.nodes[0]
    first.gate(5, limited=1)
    wait_for("the gate to be limited", lambda: first.seen["limited"])
    for lets_go in (True, False):
        answers = []

        def write():
            try:
                first.ask("INSERT INTO t VALUES (904)")
                answers.append("done")
            except psycopg2.Error as error:
                answers.append(error.pgcode)
        thread = threading.Thread(target=write)
        thread.start()
        wait_for("the commit to wait", lambda: first.rule(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension'") == [(1,)])
        expect(answers, [], "an answer to a commit that waits")
        expect(first.ask("SELECT count(*) FROM t WHERE i = 904"), [(0 if lets_go else 1,)], "rows")
        first.gate(5, *((60000, 0) if lets_go else (1, 1)))
        thread.join(20)
        expect(answers, ["done" if lets_go else "25006"], "its answer")
        if lets_go:
            first.gate(5, limited=1)
            wait_for("the gate to be limited", lambda: first.seen["limited"])
    first.take("open", 5)
    first.ask("DELETE FROM t WHERE i = 904")


def test_log_without_commits_moves_nothing_that_was_committed(world):
    first = world.nodes[0]
    first.ask("INSERT INTO t VALUES (905)")

    def log_only():
        """Ends when the last commit is long enough ago."""
        committed = first.seen["committed"]
        first.rule("SELECT pg_logical_emit_message(false, 'test', repeat('x', 20000))")
        wait_for("the log to grow", lambda: first.seen["written"] > committed + 100)
        return first.seen["committed"] == committed
    wait_for("the log to grow by nothing that counts", log_only)
    committed = first.seen["committed"]
    first.ask("DELETE FROM t WHERE i = 905")
    wait_for("it to be counted", lambda: first.seen["committed"] > committed)


def test_slots_and_a_paused_replay_are_told(world):
    first, second, _ = world.nodes
    wait_for("two slots that are read", lambda: sorted(
        slot[:2] for slot in first.seen["slots"]) == [["meridian_2", True], ["meridian_3", True]])
    expect(first.seen["slot_max"], 1 << 30, "what one may retain")
    second.rule("SELECT pg_wal_replay_pause()")
    wait_for("the pause", lambda: second.seen["paused"])
    second.rule("SELECT pg_wal_replay_resume()")
    wait_for("its end", lambda: not second.seen["paused"])


def test_a_standby_is_promoted_with_its_epoch_and_the_other_follows(world):
    first, second, third = world.nodes
    wait_for("the same in all", lambda: same(world.nodes))
    first.do("fence")
    first.is_now("closed")
    end = first.seen["written"]
    second.take("promote", 9)
    expect((second.seen["timeline"], second.seen["epoch"]), (2, 9), "the new line")
    expect(second.seen["lines"][0][:2], [1, 5], "the old one")
    third.do("follow", 2)
    third.follows(2)
    second.ask("INSERT INTO t VALUES (105)")
    wait_for("the third has it", lambda: same([second, third]))
    wait_for("and is on its line", lambda: third.seen["timeline"] == 2)
    expect((third.seen["epoch"], third.seen["lines"]), (9, second.seen["lines"]), "its history")
    expect(end <= second.seen["lines"][0][2], True, "the first was stopped before: nothing more")


def test_the_former_primary_joins_without_a_rewind_where_it_has_nothing_more(world):
    first, second, _ = world.nodes
    first.do("start", 2)
    first.is_now("standby")
    first.follows(2)
    wait_for("the same in all", lambda: same(world.nodes))
    expect(first.aside(), [], "nothing to keep")
    wait_for("no slots on a standby",
             lambda: first.ask("SELECT count(*) FROM pg_replication_slots") == [(0,)])


def test_a_diverged_one_is_rewound_and_what_only_it_had_is_kept(world):
    first, second, third = world.nodes
    third.take("promote", 12)
    third.ask("INSERT INTO t VALUES (106)")
    second.ask("INSERT INTO t VALUES (-1), (-2)")
    second.ask("INSERT INTO t VALUES (-3)")
    wait_for("the first to have it", lambda: same([first, second]))
    second.do("fence")
    for node in (second, first):
        wait_for("a rewind", lambda n=node: rewound(n, 3))
        node.follows(3)
    expect("commits    2" in second.report(), True, second.report())
    expect(len(glob.glob(second.aside()[-1] + "/0000*")) > 0, True, "the log itself")
    wait_for("the same in both", lambda: same([second, third]))
    expect(second.ask("SELECT count(*) FROM t WHERE i < 0"), [(0,)], "taken back")
    expect("commits    2" in first.report(), True, "it had received them")
    wait_for("the same in all", lambda: same(world.nodes))


def test_a_rewind_that_broke_off_leaves_no_data_and_is_made_anew(world):
    """Its keeper dies in the middle of it."""
    _, second, third = world.nodes
    programs = f"{world.folder}/programs"
    os.mkdir(programs)
    for name in os.listdir(BIN):
        if name != "pg_rewind":
            os.symlink(f"{BIN}/{name}", f"{programs}/{name}")
    with open(f"{programs}/pg_rewind", "w", encoding="utf-8") as file:
        file.write('#!/bin/sh\nrm -f "$2"/base/5/1*\ntouch began\nexec sleep 60\n')
    os.chmod(f"{programs}/pg_rewind", 0o755)
    second.process.stdin.close()
    second.process.wait(20)
    second.bin = programs
    second.start()
    second.begin("rewind", 3)
    wait_for("it to be in the middle", lambda: os.path.exists(f"{second.home}/began"))
    second.process.kill()
    second.process.wait(20)
    second.bin = BIN
    second.start()
    expect(second.seen["seen"], "absent", "what is half rewound is no data")
    second.do("clone", 3)
    second.follows(3)
    expect(os.path.exists(f"{second.home}/rewinding"), False, "the mark")
    wait_for("the same in both", lambda: same([second, third]))


def test_one_of_another_history_is_rebuilt_and_its_data_kept(world):
    first, second, third = world.nodes
    first.process.stdin.close()
    first.process.wait(20)
    for path in glob.glob(f"{first.home}/data/base/5/1*"):
        os.truncate(path, 0)
        break
    first.start()
    first.do("rebuild", 3)
    first.is_now("standby")
    first.follows(3)
    expect("whole data" in first.report(), True, first.report())
    expect(os.path.exists(first.aside()[-1] + "/data/PG_VERSION"), True, "it is there")
    wait_for("the same in all", lambda: same(world.nodes))


def test_after_a_crash_of_the_machine_a_primary_begins_a_new_timeline(world):
    third = world.nodes[2]
    third.ask("INSERT INTO t VALUES (107)")
    third.crash()
    third.start()
    third.is_now("closed")
    expect(third.seen["epoch"], 12, "known from its files")
    written = third.seen["written"]
    timeline = third.seen["timeline"]
    third.do("start")
    third.is_now("standby")
    third.take("promote", 13)
    expect((third.seen["timeline"], third.seen["epoch"]), (timeline + 1, 13), "the new line")
    expect(third.seen["written"] >= written, True, "nothing is lost")
    third.ask("INSERT INTO t VALUES (108)")


def test_a_standby_that_sleeps_tells_what_it_has(world):
    first, _, third = world.nodes
    first.follows(3)
    third.ask("INSERT INTO t VALUES (109)")
    wait_for("the same", lambda: same([first, third]))
    wait_for("it to be told", lambda: first.seen["written"] == third.seen["written"])
    told = first.seen
    first.crash()
    first.start()
    first.is_now("asleep")
    expect((first.seen["timeline"], first.seen["epoch"]), (told["timeline"], told["epoch"]), "line")
    expect(first.seen["written"] >= told["written"], True, "all that was received")
    first.do("start", 3)
    first.follows(3)


def test_a_fence_takes_the_place_of_what_is_under_way(world):
    second, third = world.nodes[1:]
    os.kill(third.postmaster(), signal.SIGSTOP)
    try:
        number = second.begin("rebuild", 3)
        time.sleep(0.3)
        begin = time.monotonic()
        fence = second.begin("fence")
        second.ends(fence)
        expect(time.monotonic() - begin < 60, True, "soon")
    finally:
        os.kill(third.postmaster(), signal.SIGCONT)
    expect(second.done.get(number, "") != "", True, "the other failed")
    if second.seen["seen"] == "absent":
        second.do("clone", 3)
    else:
        second.do("start", 3)
    second.follows(3)


def test_a_wrong_password_is_told(world):
    second = world.nodes[1]
    second.process.stdin.close()
    second.process.wait(20)
    with open(f"{world.folder}/password", "w", encoding="utf-8") as file:
        file.write("wrong-horse\n")
    second.start()
    fail = second.fails("rebuild", 3)
    expect("password authentication failed" in fail, True, fail)
    expect(second.seen["seen"], "standby", "and nothing was touched")
    second.do("follow", 3)  # by the wrong password from now on
    world.nodes[2].rule("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    wait_for("it to be told", lambda: any(
        "is not let in" in note["text"] and "the same on all nodes" in note["text"]
        for note in second.notes))
    second.process.stdin.close()
    second.process.wait(20)
    with open(f"{world.folder}/password", "w", encoding="utf-8") as file:
        file.write("correct-horse\n")
    second.start()


def configuration_as_debian_has_it(folder, data):
    """Outside of the data folder, and saying where that is."""
    etc = f"{folder}/etc"
    os.makedirs(f"{etc}/conf.d")
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        os.rename(f"{data}/{name}", f"{etc}/{name}")
    with open(f"{etc}/postgresql.conf", "a", encoding="utf-8") as file:
        file.write(f"data_directory = '/nowhere'\nhba_file = '{etc}/pg_hba.conf'\n"
                   f"ident_file = '{etc}/pg_ident.conf'\nexternal_pid_file = '/nowhere/15.pid'\n"
                   "include_dir = 'conf.d'\nwal_level = minimal # as it was\n")
    with open(f"{etc}/conf.d/own.conf", "w", encoding="utf-8") as file:
        file.write("maintenance_work_mem = '77MB'\n")
    with open(f"{etc}/pg_hba.conf", "w", encoding="utf-8") as file:
        file.write("host all postgres 127.0.0.0/8 trust\nhost all all all scram-sha-256\n")


def test_a_cluster_that_somebody_made_is_adopted(world):
    for node in world.nodes:
        node.stop()
    folder = f"{world.folder}/old"
    os.mkdir(folder)
    os.makedirs(f"{folder}/n1")
    data = f"{folder}/n1/data"
    subprocess.run([f"{BIN}/initdb", "-D", data, "-U", "postgres", "-N", "-A", "scram-sha-256",
                    "--auth-local=peer"], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    with open(f"{data}/postgresql.auto.conf", "a", encoding="utf-8") as file:
        file.write("port = '6000'\nwork_mem = '7MB'\nprimary_conninfo = 'host=elsewhere'\n")
    for name in ("topology", "password", "init.sql"):
        shutil.copy(f"{world.folder}/{name}", folder)
    subprocess.run([f"{BIN}/pg_ctl", "-D", data, "-w", "-s", "-l", f"{folder}/log", "-o",
                    f"-c listen_addresses= -c unix_socket_directories={folder}", "start"], check=True)
    first = Node(folder, 1, wait=False, adopt=f"{folder}/etc")
    world.nodes = [first]
    clear, plan = first.plan()
    expect((clear, "a server runs there" in plan), (False, True), plan)
    wait_for("it to be told", lambda: any("stop it" in note["text"] for note in first.notes))
    subprocess.run([f"{BIN}/pg_ctl", "-D", data, "-w", "-s", "-m", "fast", "stop"], check=True)
    first.is_now("closed")
    expect(first.seen["epoch"], 0, "none of ours")
    configuration_as_debian_has_it(folder, data)
    clear, plan = first.plan()
    expect(clear, True, plan)
    for line in ("+ postgresql.conf, conf.d and pg_hba.conf of", "~ port: 6000 becomes 5434",
                 "~ wal_level: minimal becomes replica", "~ primary_conninfo: host=elsewhere",
                 "+ the role meridian_replication"):
        expect(line in plan, True, plan)
    first.adopt = ""
    clear, plan = first.plan()
    expect((clear, "postgres adopt" in plan), (False, True), plan)
    first.do("start")
    first.is_now("standby")
    first.take("promote", 3)
    expect("already" in first.plan()[1], True, "it is ours now")
    first.rule("GRANT CREATE ON SCHEMA public TO PUBLIC")
    connection = psycopg2.connect(host="127.9.0.1", port=5434, user="postgres", dbname="postgres")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('work_mem'), current_setting('maintenance_work_mem'), "
                       "current_setting('data_directory')")
        expect(cursor.fetchone(), ("7MB", "77MB", data), "its own settings count, by its own rights")
    connection.close()
    with open(f"{data}/postgresql.auto.conf", encoding="utf-8") as file:
        text = file.read()
    expect(("work_mem" in text, "elsewhere" in text, "6000" in text), (True, False, False), text)
    second = Node(folder, 2)
    world.nodes.append(second)
    second.do("clone", 1)
    second.do("follow", 1)
    second.follows(1)
    expect((second.seen["epoch"], second.seen["system"]), (3, first.seen["system"]), "the same")
    first.do("fence")
    second.take("promote", 4)
    expect([line[:2] for line in second.seen["lines"]], [[2, 3], [1, 0]], "its lines before")


def test_a_standby_that_fell_behind_catches_up_from_the_archive(world):
    for node in world.nodes:
        node.stop()
    folder = f"{world.folder}/far"
    os.mkdir(folder)
    for name in ("topology", "password", "init.sql"):
        shutil.copy(f"{world.folder}/{name}", folder)
    first, second = world.nodes = [Node(folder, n, f"{folder}/archive") for n in (1, 2)]
    first.take("init", 2)
    first.ask("CREATE TABLE t (i int)")
    second.do("clone", 1)
    second.do("follow", 1)
    second.follows(1)
    for setting in ("max_slot_wal_keep_size = '16MB'", "wal_keep_size = 0"):
        first.rule(f"ALTER SYSTEM SET {setting}")
    first.rule("SELECT pg_reload_conf()")
    wait_for("a slot in use", lambda: first.ask(
        "SELECT count(*) FROM pg_replication_slots WHERE active") == [(1,)])
    second.crash()
    for i in range(6):
        first.ask(f"INSERT INTO t VALUES ({i})")
        first.rule("SELECT pg_switch_wal()")
    first.rule("CHECKPOINT")
    wait_for("the slot to let go, and another in its place", lambda: first.ask(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'meridian_2' "
        "AND restart_lsn IS NULL AND wal_status IS NULL") == [(1,)])
    wait_for("files in the archive", lambda: len(glob.glob(f"{folder}/archive/0*")) >= 6)
    second.start()
    second.do("start", 1)
    second.follows(1)
    wait_for("the same in both", lambda: same([first, second]))


def logged(node, text):
    with open(f"{node.home}/server.log", encoding="utf-8") as file:
        return text in file.read()


def knows_of_a_newer_timeline(node, lacks):
    """One that was promoted told so, and died: of the new timeline this one has nothing, of the
    first one `lacks` bytes less than that had."""
    end = node.seen["written"] + lacks
    with open(f"{node.home}/data/pg_wal/00000002.history", "w", encoding="utf-8") as file:
        file.write(f"# meridian: after timeline 1 epoch 8\n1\t{end >> 32:X}/{end & 0xffffffff:X}"
                   "\tno recovery target specified\n")
    wait_for("it to aim at that", lambda: logged(node, "new target timeline is 2"))


def test_one_that_knows_of_a_newer_timeline_goes_on_with_its_own(world):
    first, second = world.nodes
    first.do("fence")
    first.is_now("closed")
    knows_of_a_newer_timeline(second, 1 << 20)
    second.take("promote", 9)
    expect((second.seen["timeline"], second.seen["epoch"]), (3, 9), "a line of its own")
    expect([line[:2] for line in second.seen["lines"]], [[1, 2]], "begun where it was")
    second.ask("INSERT INTO t VALUES (107)")


def test_bad_configurations_are_refused(world):
    for arguments, says in ((("/nowhere", f"{world.folder}/password"), "postgresql-15"),
                            ((BIN, f"{world.folder}/topology"), "password"),
                            ((BIN, f"{world.folder}/none"), "cannot be read")):
        done = subprocess.run(
            [TOOL, f"{world.folder}/topology", "1", f"{world.folder}/other", arguments[0],
             arguments[1], MODULE, "", ""], capture_output=True, text=True, check=False, timeout=20,
            stdin=subprocess.DEVNULL)
        expect(done.returncode, 1, done.stderr)
        expect(says in done.stdout, True, done.stdout)


TESTS = [function for name, function in list(globals().items()) if name.startswith("test_")]
TESTS += bad_input.TESTS
if os.environ.get("MERIDIAN_WARDEN_ONLY"):  # while a test is being written
    TESTS = [function for function in TESTS
             if re.search(os.environ["MERIDIAN_WARDEN_ONLY"], function.__name__)]


def place():
    """In memory where there is room: PostgreSQL's programs sync what they make, file by file."""
    for folder in ("/dev/shm", "/tmp"):
        if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 2 << 30:
            return folder
    return "/tmp"


def run(folder):
    tally = Tally()
    world = None
    try:
        world = World(folder)
        for function in TESTS:  # each builds on the one before
            if not tally.run(function, world):
                for node in world.nodes:
                    print(node.number, node.seen, node.notes[-2:])
                break
    except Exception:
        tally.fail("the servers", traceback.format_exc())
    finally:
        for node in world.nodes if world else ():
            node.stop()
        if tally.failed and world:
            logs = glob.glob(f"{folder}/n*/server.log") + glob.glob(f"{folder}/*/n*/server.log")
            subprocess.run(["tail", "-n", "12", *logs], check=False)
        time.sleep(0.5)
    return tally.end()


def begin_as_nobody(folder):
    """The same as another user, in a mount namespace with a small disk in it."""
    os.chown(folder, 65534, 65534)
    bad_input.prepare_as_root(folder)
    again = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/bin/python3",
             "-u", os.path.realpath(__file__), *sys.argv[1:]]
    script = 'mount -t tmpfs -o "size=$1m,mode=777" warden "$0" && shift && exec "$@"'
    if subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        bad_input.small_disk(folder, False)
    else:
        again = ["unshare", "-m", "--propagation", "private", "sh", "-c", script,
                 bad_input.small_disk(folder), str(bad_input.SMALL_MB), *again]
    environment = {**os.environ, "MERIDIAN_WARDEN_FOLDER": folder}
    return subprocess.run(again, env=environment, check=False).returncode


def main():
    given = os.environ.get("MERIDIAN_WARDEN_FOLDER")
    if given:
        return run(given)
    folder = tempfile.mkdtemp(prefix="mwarden-", dir=place())
    status = 1
    try:
        status = begin_as_nobody(folder) if os.getuid() == 0 else run(folder)
    finally:
        if not status or "--keep" not in sys.argv:
            shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
