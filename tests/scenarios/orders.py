"""What people ask of the PostgreSQL cluster by hand: it is shown first, refused where it must be, given up
where it is asked to, and written down."""
import os
import re
import signal
import threading

import requests

from bank import all_stream, connect, one, processes, signal_all
from lab import ADDRESSES, REGIONS, eventually, expect, expect_true


def rules(lab, setting, value):
    """Sets a line of the topology's postgres section."""
    document = lab.meridian("topology")
    document = re.sub(rf"(?m)^\s*{setting} = [^\n]*\n", "", document)
    document = re.sub(r"(?m)^postgres \{$", f"postgres {{\n        {setting} = {value}", document)
    path = os.path.join(lab.folder, "orders.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(document)
    lab.meridian("apply", path)


def settled(lab):
    return eventually("one writer, and two that follow", lambda: all_stream(lab), 60)


def postgres(lab, node):
    return lab.status(node)["postgres"]


def written_down(nodes, text):
    """It stands in the events of the node that carried it out."""
    return any(text in requests.get(f"http://{ADDRESSES[node]}:7400/events", timeout=3).text
               for node in nodes)


def scenario_what_would_happen_is_shown_and_what_must_not_is_refused(lab):
    lab.wait_all_active()
    region = settled(lab)
    other = next(name for name in ("eu-west", "us-east") if name != region)
    out = lab.meridian("switchover", "--to", other, "--dry-run")
    expect_true("nothing is done" in out and f"{other}-1 follows it" in out, out)
    status, out, _ = lab.run("failover", "--to", other)
    expect(status, 1, "a failover beside a writer")
    expect_true("nobody may take over before its lease has ended" in out, out)
    status, _, err = lab.run("switchover", "--abort")
    expect(status, 1, "an abort of nothing")
    expect_true("Nothing is under way" in err, err)
    expect(settled(lab), region, "the writer's region")


def scenario_a_switchover_that_cannot_finish_is_given_up(lab):
    region = settled(lab)
    target = next(name for name in ("eu-west", "us-east") if name != region)
    one(region, "DROP TABLE IF EXISTS ordered")
    one(region, "CREATE TABLE ordered (id int)")
    said = []
    pids = processes(lab, target, "postgres")
    signal_all(pids, signal.SIGSTOP)
    try:
        one(region, "INSERT INTO ordered VALUES (1)")
        thread = threading.Thread(target=lambda: said.append(lab.run("switchover", "--to", target)))
        thread.start()
        eventually("it is under way", lambda: postgres(lab, region)["order"]["state"] == "waits", 8)
        lab.meridian("switchover", "--abort")
        thread.join(20)
    finally:
        signal_all(pids, signal.SIGCONT)
    status, out, _ = said[0]
    expect(status, 1, "a switchover that was given up")
    expect_true("goes on, nothing has happened: it was aborted" in out, out)
    order = postgres(lab, region)["order"]
    expect((order["state"], order["why"]), ("off", "it was aborted"), "what became of it")
    one(region, "INSERT INTO ordered VALUES (2)")
    expect(one(region, "SELECT count(*) FROM ordered"), 2, "rows")
    expect(settled(lab), region, "the writer's region")
    expect_true(written_down([region], "asks for a switchover"), "who asked stands in the events")


def scenario_a_failover_waits_for_a_person(lab):
    """Where takeovers are not automatic a standby waits; its takeover loses nothing, and is shown."""
    region = settled(lab)
    rules(lab, "automatic", "off")
    others = [name for name in REGIONS if name != region]
    try:
        lab.kill_part(region, "meridiand")
        eventually("no lease stands", lambda: postgres(lab, others[0])["lease"]["holder"] is None
                   and postgres(lab, others[0])["row"] in ("wait-person", None)
                   and postgres(lab, others[0])["lease"]["hold"] == "free", 20)
        out = eventually("it may take over", lambda: lab.meridian("failover", "--dry-run"), 10)
        expect_true("no lease stands" in out and "lost" in out and "nothing is done" in out, out)
        out = eventually("it takes over", lambda: lab.meridian("failover"), 20)
        expect_true("take over" in out, out)
        connect(others[0]).close()
        expect_true(written_down(others, "asks for a failover"), "who asked stands in the events")
    finally:
        lab.start(region)
        rules(lab, "automatic", "on")
    settled(lab)
