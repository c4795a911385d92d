"""What people ask of the PostgreSQL cluster by hand: it is shown first, refused where it must be, given up
where it is asked to, and written down."""
import re
import signal
import threading

import psycopg2
import requests

from bank import all_stream, one, patiently, processes, signal_all
from lab import ADDRESSES, LIMIT_S, REGIONS, eventually, expect, expect_true
from postgres import kept_aside


def settled(lab):
    return eventually("one writer, and two that follow", lambda: all_stream(lab))


def postgres(lab, node):
    return lab.status(node)["postgres"]


def written_down(nodes, text):
    """It stands in the events of the node that carried it out."""
    return any(text in requests.get(f"http://{ADDRESSES[node]}:7400/events", timeout=20).text
               for node in nodes)


def scenario_what_would_happen_is_shown_and_what_must_not_is_refused(lab):
    lab.wait_all_active()
    region = settled(lab)
    other = next(name for name in ("eu-west", "us-east") if name != region)
    out = lab.meridian("switchover", "--to", other, "--dry-run")
    expect_true("nothing is done" in out and f"{other}-1 follows it" in out, out)
    status, out, _ = lab.patiently("failover", "--to", other)
    expect(status, 1, "a failover beside a writer")
    expect_true("nobody may take over before its lease has ended" in out, out)
    status, _, err = lab.patiently("switchover", "--abort")
    expect(status, 1, "an abort of nothing")
    expect_true("Nothing is under way" in err, err)
    expect(settled(lab), region, "the writer's region")


def given_up(lab, region, target):
    """Asks for a switchover, then for its end; True where that came before it gave up by itself."""
    said = []
    thread = threading.Thread(target=lambda: said.append(lab.run("switchover", "--to", target)))
    thread.start()
    eventually("it is under way", lambda: said or
               postgres(lab, region)["order"]["state"] == "waits")
    lab.run("switchover", "--abort")
    thread.join(2 * LIMIT_S)
    status, out, _ = said[0]
    expect(status, 1, "a switchover that was given up")
    return "goes on, nothing has happened: it was aborted" in out


def scenario_a_switchover_that_cannot_finish_is_given_up(lab):
    region = settled(lab)
    target = next(name for name in ("eu-west", "us-east") if name != region)
    patiently(region, "CREATE TABLE IF NOT EXISTS ordered (id int)")
    pids = processes(lab, target, "postgres")
    signal_all(pids, signal.SIGSTOP)
    try:
        patiently(region, "DELETE FROM ordered; INSERT INTO ordered VALUES (1)")
        eventually("it is given up", lambda: given_up(lab, region, target))
    finally:
        signal_all(pids, signal.SIGCONT)
    order = postgres(lab, region)["order"]
    expect((order["state"], order["why"]), ("off", "it was aborted"), "what became of it")
    expect(patiently(region, "SELECT count(*) FROM ordered"), 1, "rows")
    expect(settled(lab), region, "the writer's region")
    expect_true(written_down([region], "asks for a switchover"), "who asked stands in the events")


def receivers(lab, regions):
    """The processes that take the writer's log."""
    found = []
    for region in regions:
        for pid in processes(lab, region, "postgres"):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"walreceiver" in file.read():
                    found.append(pid)
    return found


class Writer(threading.Thread):
    """Commits one row after the other until it is told to end, and waits for no standby: where `sync`
    does, the first commit that no standby has is in the way of the next."""

    def __init__(self, region):
        super().__init__(daemon=True)
        self.region, self.ends = region, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(0.02):
            try:
                one(self.region, "SET LOCAL synchronous_commit = local; "
                                 "INSERT INTO ordered VALUES (3)")
            except psycopg2.Error:
                pass


def limit(lab, lines):
    """Sets, or takes out, the limit of what other regions may lack."""
    def changed(document):
        document = re.sub(r"(?m)^\s*rpo[a-z_]* = [^\n]*\n", "", document)
        return re.sub(r"(?m)^postgres \{$", f"postgres {{\n{lines}", document)
    lab.applied(changed)


def scenario_commits_wait_while_no_other_region_keeps_up(lab):
    region = settled(lab)
    patiently(region, "CREATE TABLE IF NOT EXISTS ordered (id int)")
    limit(lab, "        rpo = 1s\n        rpo_hold = on\n")
    pids = receivers(lab, [name for name in REGIONS if name != region])
    signal_all(pids, signal.SIGSTOP)
    writes = Writer(region)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension'"
    try:
        eventually("commits are held", lambda: postgres(lab, region)["exposed"]["held"])
        eventually("one waits", lambda: one(region, waiting) > 0)
        expect_true(written_down([region], "commits wait until one has caught up"), "an alarm")
    finally:
        signal_all(pids, signal.SIGCONT)
        writes.ends.set()
    writes.join(2 * LIMIT_S)
    expect_true(not writes.is_alive(), "who waited goes on")
    limit(lab, "")
    settled(lab)


def takeovers(lab, lines):
    """When a standby takes over; commits wait for nobody."""
    def changed(document):
        document = re.sub(r"(?m)^\s*(sync|automatic|loss_max) = [^\n]*\n", "", document)
        return re.sub(r"(?m)^postgres \{$", "postgres {\n" + lines, document)
    lab.applied(changed)


def cut_short(lab, region, others):
    """Writes rows that no other region gets: who takes the writer's log stands still, and is killed
    when `region` is isolated, so it stops taking writes."""
    pids = receivers(lab, others)
    signal_all(pids, signal.SIGSTOP)
    try:
        patiently(region, "SET LOCAL synchronous_commit = local; INSERT INTO ordered VALUES (7)")
        lab.meridian("isolate", region, "trial")
        eventually("no lease stands", lambda: postgres(lab, others[0])["lease"]["hold"] == "free"
                   and postgres(lab, others[1])["lease"]["hold"] == "free")
    finally:
        signal_all(pids, signal.SIGKILL)
    eventually("both standbys are back", lambda: all(
        server["role"] == "standby" for other in others for server in postgres(lab, other)["servers"]
        if server["node"] == f"{other}-1"))


def scenario_a_loss_waits_for_a_person_who_takes_it_by_force(lab):
    """Where takeovers are not automatic a standby waits; what it would cost is shown before; the writer
    of an isolated region has stopped by then, and what only it had is kept aside when it is back."""
    region = settled(lab)
    patiently(region, "CREATE TABLE IF NOT EXISTS ordered (id int)")
    takeovers(lab, "        automatic = off\n        loss_max = 0\n")
    others = [name for name in REGIONS if name != region]
    before = kept_aside(lab, region)
    try:
        eventually("commits wait for nobody", lambda: one(
            region, "SHOW synchronous_standby_names") == "")
        cut_short(lab, region, others)
        out = eventually("it may take over", lambda: lab.meridian("failover", "--dry-run"))
        expect_true("no lease stands" in out and "bytes that are known" in out and
                    "nothing is done" in out, out)
        status, _, err = lab.patiently("failover")
        expect_true(status == 1 and "--force takes" in err, f"the loss is refused: {err}")
        out = eventually("it takes over", lambda: lab.meridian("failover", "--force"))
        expect_true("take over" in out and "kept aside" in out, out)
        eventually("who asked stands in the events",
                   lambda: written_down(others, "asks for a failover by force"))
        expect(patiently(others[0], "SELECT count(*) FROM ordered WHERE id = 7"), 0, "rows")
    finally:
        lab.meridian("unisolate", region)
        takeovers(lab, "")
    eventually("what only it had is kept aside", lambda: kept_aside(lab, region) - before)
    settled(lab)
