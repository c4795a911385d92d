#!/usr/bin/python3
"""The command line for people: manual pages that name everything, pictures that fit the terminal,
words that are wrong. The node that it asks is a small one of our own, which answers as a real one.

    run.py MERIDIAN MERIDIAND [TEST...]
"""
import fcntl
import http.server
import json
import os
import pty
import re
import select
import socketserver
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests"))
from tally import Tally  # pylint: disable=wrong-import-position

LIMIT_S = 60
DOOR = "127.77.0.1"  # `--node` has locks at 7402 of its address; nobody else is at this one
REGIONS = ["us-east", "eu-west", "ap-southeast"]
WHY_DOWN = ("us-east is down (down: not heard by 2 of 2 regions needed: eu-west for 1.6 s, "
            "ap-southeast for 1.5 s): it gets no traffic")


def expect(found, wanted, what):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")


def expect_in(part, whole, what=""):
    if part not in whole:
        raise AssertionError(f"{what} {part!r} is not in {whole!r}")


# ---- a node


def region(number, name, **differs):
    others = {other: 70.0 + number for other in REGIONS if other != name}
    server = {"keys": 1234567, "tombstones": 89, "backlog_bytes": 1234567,
              "backlog_bytes_max": 67108864, "merge_rate": 12345, "conflicts": 12, "peers": []}
    return {"id": number, "name": name, "state": "active", "why": "", "routable": True,
            "witness": False, "leader": False, "rtt_ms": others,
            "redis": {"up": True, "lag_ms": others, "transfers": {}, "servers": [server]},
            "parts": {"redis": "healthy", "dns": "healthy", "edge": "unhealthy"},
            "backends": {"count": 2, "healthy": 2}, **differs}


STATUS = {
    "epoch": 7, "leader": "eu-west", "majority": True, "region": "ap-southeast", "nodes": [],
    "regions": [region(1, "us-east", state="down", why=WHY_DOWN, routable=False),
                region(2, "eu-west", leader=True),
                region(3, "ap-southeast", routable=False, witness=True)],
    "postgres": {"writer": "eu-west-1", "lease": {"epoch": 106}, "sync": 1, "exposed": {},
                 "why": None, "failed": "no room is left at /var/lib/meridian/postgres: make room",
                 "slots": [], "servers": [
                     {"node": "us-east-1", "role": None, "server": "unknown"},
                     {"node": "eu-west-1", "role": "primary", "server": "open", "timeline": 2,
                      "written": "0/40450C8"},
                     {"node": "ap-southeast-1", "role": "standby", "server": "standby",
                      "following": True, "eligible": True, "timeline": 2, "written": "0/40450C8",
                      "lag_bytes": 123456789, "lag_ms": 12345.6}]}}
DOCUMENT = "cluster = shop\nepoch = 7\n" + "".join(
    f"""region {name} {{
        id = {number}
        latitude = {number}.5
        longitude = 1.5
        a = [127.0.0.{number}]
        node {name}-1 {{
                id = {number}
                link = "127.0.0.{number}:7401"
                admin = "127.0.0.{number}:7400"
                locks = "127.0.0.{number}:7402"
        }}
}}
""" for number, name in enumerate(REGIONS, 1))
EVENTS = {"next": 1, "events": [{"time": 1795284740.9, "name": "region", "text": WHY_DOWN}]}


class Node(http.server.BaseHTTPRequestHandler):
    silent = threading.Event()  # it takes questions and answers none

    def do_GET(self):
        if Node.silent.is_set():
            time.sleep(30)
        found = {"/status": STATUS, "/events": EVENTS,
                 "/topology": {"epoch": 7, "document": DOCUMENT}}.get(self.path.split("?")[0])
        body = json.dumps(found or {"code": "NOTFOUND", "error": "there is no such key"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        # What is applied is in force at once: /status has epoch 7.
        self.path = "/topology" if self.path.startswith("/topology?epoch=7") else "/nothing"
        self.do_GET()

    def log_message(self, *_):
        pass


class LockDoor(socketserver.StreamRequestHandler):
    """The door for locks of a node: answers that are always the same."""

    held = ("*10\r\n$3\r\nkey\r\n$8\r\nglobal:x\r\n$5\r\nowner\r\n$2\r\nme\r\n"
            "$5\r\ntoken\r\n:7\r\n$6\r\nttl_ms\r\n:900\r\n$7\r\nwaiters\r\n:0\r\n")
    answers = {"LOCK.ACQUIRE global:x": "*2\r\n:7\r\n:1000\r\n", "LOCK.ACQUIRE global:y": "$-1\r\n",
               "LOCK.RENEW global:x": ":900\r\n", "LOCK.RELEASE global:x": ":1\r\n",
               "LOCK.BREAK global:x": ":7\r\n", "LOCK.INFO global:x": held,
               "LOCK.INFO global:y": "$-1\r\n", "LOCK.LIST global:": "*1\r\n" + held,
               "SESSION.OPEN global:": "*2\r\n:8\r\n:5000\r\n", "SESSION.KEEP global:": ":4000\r\n",
               "SESSION.CLOSE global:": ":1\r\n"}

    def handle(self):
        while head := self.rfile.readline():
            words = []
            for _ in range(int(head[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2].decode())
            answer = LockDoor.answers.get(" ".join(words[:2]), f"-BADREQUEST {words}\r\n")
            self.wfile.write(answer.encode())


class Programs:
    def __init__(self, meridian, meridiand, folder):
        self.meridian, self.meridiand, self.folder = meridian, meridiand, folder
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Node)
        self.server.daemon_threads = True
        self.node = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "LANG": "C.UTF-8",
                            "MERIDIAN_NODE": self.node}

    def run(self, *words, **environment):
        """(exit status, stdout, stderr)"""
        done = subprocess.run([self.meridian, *words], capture_output=True, text=True, check=False,
                              env=dict(self.environment, **environment), timeout=LIMIT_S, cwd="/")
        return done.returncode, done.stdout, done.stderr

    def path(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, programs, columns, rows, *words, **environment):
        self.fd, own = pty.openpty()
        fcntl.ioctl(own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(own)
        self.own = own
        self.seen = b""
        self.process = subprocess.Popen([programs.meridian, *words], stdin=own, stdout=own,
                                        stderr=own, env=dict(programs.environment, **environment),
                                        start_new_session=True, cwd="/")

    def read(self, seconds=0.2):
        if select.select([self.fd], [], [], seconds)[0]:
            self.seen += os.read(self.fd, 65536)

    def wait_for(self, text):
        until = time.monotonic() + LIMIT_S
        while text.encode() not in self.seen:
            if time.monotonic() > until:
                raise AssertionError(f"{text!r} does not come: {self.seen[-2000:]!r}")
            self.read()

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def end(self):
        """Its exit status; `seen` is all that it has written."""
        until = time.monotonic() + LIMIT_S
        while self.process.poll() is None and time.monotonic() < until:
            self.read()
        self.read(0)
        status = self.process.poll()
        if status is None:
            self.process.kill()
            self.process.wait()
        self.after = termios.tcgetattr(self.own)
        os.close(self.own)
        os.close(self.fd)
        return status


def plain(seen):
    """Lines without colours. Where the next picture begins, a line ends."""
    seen = seen.replace(b"\x1b[H", b"\n")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "").split("\n")


# ---- manual pages


def items_of(page):
    """The paragraphs of a manual page, as text: from a .TP to the next; .TQ belongs to them."""
    with open(os.path.join(TOP, "docs", "man", page), encoding="utf-8") as file:
        text = file.read()
    items, section = [], ""
    for line in text.split("\n"):
        if line.startswith(".SH"):
            section = line[4:].strip('"')
            items.append((section, ""))
        elif line.startswith((".TP", ".PP")):
            items.append((section, ""))
        else:
            line = re.sub(r"^\.(BR|BI|IR|RB|TQ|B|I)( |$)", "", line).replace('"', "")
            line = re.sub(r"\\f.", "", line).replace("\\-", "-").replace("\\(dq", '"')
            before = items.pop() if items else (section, "")
            items.append((before[0], f"{before[1]} {line}"))
    return [(name, " ".join(body.split())) for name, body in items]


def usages(programs):
    """{command with its action: usage with all options}, from the program itself."""
    status, out, _ = programs.run("help")
    expect(status, 0, "help")
    names = dict.fromkeys(re.findall(r"^  meridian ([a-z-]+)", out, re.M))
    found = {}
    for name in names:
        for usage in re.findall(r"^  meridian (.*)$", programs.run("help", name)[1], re.M):
            words = usage.split()
            action = words[1] if len(words) > 1 and words[1].islower() and words[1].isalpha() else ""
            found[f"{name} {action}".strip()] = usage
    return found


def every_command_and_option_is_in_the_manual(programs):
    items = items_of("meridian.1")
    commands = usages(programs)
    if len(commands) < 50:
        raise AssertionError(f"too few commands: {sorted(commands)}")
    for command, usage in commands.items():
        told = [text for _, text in items if re.search(rf"(^| ){re.escape(command)}( |$|\[)", text)]
        if not told:
            raise AssertionError(f"docs/man/meridian.1 does not have `{command}`")
        for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", usage):
            if not any(option in text for text in told):
                raise AssertionError(f"docs/man/meridian.1 does not have {option} of `{command}`")


def the_manual_has_no_other_commands(programs):
    names = {command.split()[0] for command in usages(programs)}
    sections = {"LOOKING", "REGIONS", "TOPOLOGY", "POSTGRESQL", "LOCKS", "OTHER COMMANDS",
                "VALUES, FLAGS, CONFIGURATION, SERVICES", "BACKUP AND CERTIFICATES"}
    seen = 0
    for section, text in items_of("meridian.1"):
        if section in sections and text and text[0].islower():
            seen += 1
            expect_in(text.split()[0].replace("[", ""), names, "in docs/man/meridian.1")
    if seen < 40:
        raise AssertionError(f"only {seen} commands are found in the page")


def directives(programs):
    """{section: keys}, as the daemon itself says them."""
    found = {}
    for section in ("", "pki", "listen", "redis", "postgres", "lab"):
        text = f"{section} {{\n nonsense 1;\n}}\n" if section else "nonsense 1;\n"
        done = subprocess.run([programs.meridiand, "-c", programs.path("keys.conf", text)],
                              capture_output=True, text=True, check=False, timeout=LIMIT_S)
        expect(done.returncode, 2, done.stderr)
        found[section] = re.search(r"there are: (.*)", done.stderr).group(1).split(", ")
    return found


def every_directive_is_in_the_manual(programs):
    places = {"": {"THE NODE", "dns, edge", "redis"}, "pki": {"pki { }"}, "listen": {"listen { }"},
              "redis": {"redis"}, "postgres": {"postgres { }"}, "lab": {"lab { }"}}
    items = items_of("meridiand.conf.5")
    keys = directives(programs)
    for section, names in keys.items():
        for name in names:
            if not any(place in places[section] and text.split()[:1] == [name]
                       for place, text in items):
                raise AssertionError(f"meridiand.conf.5 does not have `{section} {name}`")
    known = {name for names in keys.values() for name in names}
    for place, text in items:
        if place in set().union(*places.values()) and text and text[0].islower():
            expect_in(text.split()[0], known, "in meridiand.conf.5")


def the_manual_can_be_set(_):
    for page in ("meridian.1", "meridiand.8", "meridiand.conf.5"):
        try:
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww",
                                   os.path.join(TOP, "docs", "man", page)], capture_output=True,
                                  text=True, check=False, timeout=LIMIT_S)
        except FileNotFoundError:
            return
        expect((done.returncode, done.stderr), (0, ""), page)


# ---- words


def help_fits_a_terminal(programs):
    for line in programs.run("help")[1].splitlines():
        if len(line) > 80:
            raise AssertionError(f"longer than a terminal is wide: {line}")
    for words in (["status", "--help"], ["help", "status"], ["-h", "status"]):
        status, out, _ = programs.run(*words)
        expect(status, 0, f"{words}")
        expect_in("meridian status [--json]", out)
    expect_in("-- COMMAND", programs.run("help", "lock")[1])


def wrong_words_are_refused(programs):
    cases = [(["nosuch"], 2, "there is no command \"nosuch\"; `m"),
             (["sttaus"], 2, "is \"status\" meant?"), (["lock", "aquire"], 2, "acquire"),
             (["lock"], 2, "wants one of"), (["drain"], 2, "usage: meridian drain REGION"),
             (["status", "--jsn"], 2, "has no option --jsn"),
             (["drain", "us-east", "--why"], 2, "has no option --why"),
             (["top", "--json"], 2, "has no option --json"), (["events", "-x"], 2, "-x"),
             (["kv", "put", "global:x"], 2, "usage: meridian kv put KEY VALUE"),
             (["kv", "put", "global:x", "1", "--revision", "z"], 2, "no revision"),
             (["lock", "run", "global:x"], 2, "-- COMMAND"), (["completion", "zsh"], 2, "bash"),
             (["help", "nosuch"], 2, "there is no command"), (["--node"], 2, "wants HOST:PORT"),
             (["--node", "x", "status"], 2, "is no node"), ([], 2, ""),
             (["verify", "--region", "mars"], 2, "there is no region \"mars\"; there are: us-east"),
             (["conflicts", "--region", "mars"], 1, "there is no region \"mars\""),
             (["kv", "get", "global:x"], 1, "NOTFOUND: there is no such key")]
    for words, wanted, says in cases:
        status, _, err = programs.run(*words)
        expect(status, wanted, f"exit status of {words}: {err}")
        expect_in(says, err, f"{words}")


def what_follows_two_dashes_is_no_option(programs):
    status, _, err = programs.run("kv", "put", "--", "global:x", "--json")
    expect(status, 1, err)
    expect_in("NOTFOUND", err, "the node was asked:")


def a_node_that_is_not_there_is_told_once(programs):
    status, out, err = programs.run("topology", "--node", "127.0.0.1:1")
    expect((status, out), (1, ""), "a dead node")
    expect_in("127.0.0.1:1 does not answer (", err)
    expect_in("no node answers; asked: what --node names", err)


def a_broken_configuration_stands_in_nobodys_way(programs):
    path = programs.path("broken.conf", "cluster shop\nregoin us-east\n")
    own = {"MERIDIAN_NODE": "", "MERIDIAN_CONFIG": path, "MERIDIAN_LAB": "/nonexistent"}
    status, _, err = programs.run("status", **own)
    expect(status, 2, err)
    expect_in(f"{path}, line 2: unknown key 'regoin'", err)
    expect(programs.run("help", **own)[0], 0, "help")
    status, out, _ = programs.run("doctor", "--json", **own)
    expect(status, 1, out)
    expect([check["good"] for check in json.loads(out) if check["what"] == "configuration"],
           [False], out)


# ---- pictures


def json_is_json(programs):
    status, out, err = programs.run("status", "--json")
    expect((status, err), (0, ""), "status --json")
    expect(json.loads(out), STATUS, "it is the node's answer")
    expect(out[-2:], "}\n", "it ends with a new line")


def nearly_every_command_speaks_to_programs(programs):
    without = {"top", "lock run", "lab", "completion bash", "help"}  # pictures, and what others print
    for command, usage in usages(programs).items():
        expect("[--json]" in usage, command not in without, usage)


def steps_of(out):
    """The objects of `step.h`, a line each, whose form is checked; the last is the end."""
    steps = [json.loads(line) for line in out.splitlines()]
    for step in steps:
        expect([type(step[name]) for name in ("step", "state", "text")], [str] * 3, f"{step}")
        expect_in(step["state"], ("done", "warning", "failed"))
    expect([step["step"] for step in steps].index("end"), len(steps) - 1, out)
    return steps


def a_plan_is_an_object(programs):
    same = programs.path("same.conf", DOCUMENT)
    other = programs.path("other.conf", DOCUMENT.replace("latitude = 1.5", "latitude = 2.5"))
    status, out, err = programs.run("plan", same, "--json")
    expect((status, err), (0, ""), "plan")
    expect(json.loads(out), {"epoch": 7, "next_epoch": 7, "changes": [], "follows": []}, "no change")
    plan = json.loads(programs.run("plan", other, "--json")[1])
    expect((plan["next_epoch"], len(plan["changes"])), (8, 2), f"{plan}")
    expect_in("us-east", plan["changes"][1])
    status, out, err = programs.run("apply", other, "--json")
    expect((status, err), (0, ""), out)
    steps = steps_of(out)
    expect([step["step"] for step in steps], ["plan", "apply", "done", "end"], out)
    expect(steps[0]["changes"], plan["changes"], "the plan is the first step")
    expect([step["epoch"] for step in steps[:2]], [7, 7], out)
    status, out, err = programs.run("apply", "/nonexistent", "--json")
    expect((status, steps_of(out)[-1]["state"]), (1, "failed"), out)
    expect_in("/nonexistent: No such file", err)


def steps_are_lines_of_objects(programs):
    words = ["switchover", "--to", "ap-southeast-1", "--dry-run"]
    status, out, err = programs.run(*words, "--json")
    expect((status, err), (0, ""), out)
    expect([(step["step"], step["state"]) for step in steps_of(out)],
           [("check", "done"), ("check", "done"), ("dry run", "done"), ("end", "done")], out)
    told = programs.run(*words)[1]  # the same for people
    for step in steps_of(out)[:-1]:
        expect_in(step["text"], told)
    status, out, _ = programs.run("switchover", "--to", "mars", "--json")
    expect((status, [step["state"] for step in steps_of(out)]),
           (1, ["done", "failed", "failed"]), out)
    status, out, _ = programs.run("failover", "--json")
    expect((status, steps_of(out)[0]["state"]), (1, "failed"), out)


def an_evacuation_is_checked_before_it_begins(programs):
    status, out, _ = programs.run("evacuate", "eu-west", "--json")
    expect((status, steps_of(out)[0]["state"]), (1, "failed"), out)
    expect_in("no other region serves", steps_of(out)[0]["text"])
    status, out, err = programs.run("evacuate", "us-east", "--dry-run", "--json")
    expect((status, err), (0, ""), out)
    expect([step["step"] for step in steps_of(out)], ["check"] + 4 * ["plan"] + ["dry run", "end"], out)
    status, out, err = programs.run("evacuate", "us-east", "--json")  # the node takes no orders
    expect((status, [step["step"] for step in steps_of(out)][-2:]), (1, ["writer", "end"]), out)
    expect_in("NOTFOUND", err)
    expect_in("traffic: what is done stays; the same command goes on from here", err)
    status, out, _ = programs.run("unevacuate", "us-east", "--writer", "--dry-run", "--json")
    expect((status, [step["step"] for step in steps_of(out)]),
           (0, ["plan", "plan", "dry run", "end"]), out)
    for words in (["evacuate"], ["evacuate", "us-east", "why", "more"], ["unevacuate", "--writer"]):
        expect(programs.run(*words)[0], 2, f"{words}")
    expect_in("there is no region \"mars\"", programs.run("evacuate", "mars")[2])


def locks_are_objects(programs):
    lock = {"key": "global:x", "owner": "me", "token": 7}
    cases = [(["acquire", "global:x", "me", "1s"], {**lock, "ttl_ms": 1000}),
             (["renew", "global:x", "me", "7", "1s"], {**lock, "ttl_ms": 900}),
             (["release", "global:x", "me", "7"], lock), (["break", "global:x"],
                                                          {"key": "global:x", "token": 7}),
             (["info", "global:x"], {**lock, "ttl_ms": 900, "waiters": 0}),
             (["info", "global:y"], {"key": "global:y", "owner": None}),
             (["list", "global:"], {"locks": [{**lock, "ttl_ms": 900, "waiters": 0}]}),
             (["session", "open", "global:", "me", "5s"], {"session": 8, "ttl_ms": 5000}),
             (["session", "keep", "global:", "me", "8"], {"session": 8, "ttl_ms": 4000}),
             (["session", "close", "global:", "me", "8"], {"session": 8})]
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer((DOOR, 7402), LockDoor) as door:
        door.daemon_threads = True
        threading.Thread(target=door.serve_forever, args=[0.05], daemon=True).start()
        node = {"MERIDIAN_NODE": f"{DOOR}:7400"}
        for words, wanted in cases:
            status, out, err = programs.run("lock", *words, "--json", **node)
            expect((status, err), (0, ""), f"{words}")
            expect(json.loads(out), wanted, f"{words}")
        status, out, err = programs.run("lock", "acquire", "global:y", "me", "1s", "--json", **node)
        expect((status, out), (1, ""), "a lock of somebody else's")
        expect_in("is held by somebody else", err)
        door.shutdown()


def certificates_are_objects(programs):
    ca, own = os.path.join(programs.folder, "ca"), os.path.join(programs.folder, "own")
    status, out, err = programs.run("pki", "init", ca, "shop", "--json")
    expect((status, json.loads(out)), (0, {"dir": ca, "cluster": "shop"}), err)
    status, out, err = programs.run("pki", "node", ca, "us-east", "1", own, "--json")
    expect((status, json.loads(out)), (0, {"folder": own, "cluster": "shop", "region": "us-east",
                                           "node": 1}), err)
    status, out, err = programs.run("pki", "list", ca, "--json")
    expect((status, [row["region"] for row in json.loads(out)]), (0, ["us-east"]), err)


def a_picture_has_no_colours_in_a_pipe(programs):
    for environment in ({}, {"NO_COLOR": "1"}):
        out = programs.run("status", **environment)[1]
        expect_in(WHY_DOWN, out)  # in one line, for those who search
        expect("\033" in out, False, "escape sequences")


def a_picture_fits_the_terminal(programs):
    for columns in (80, 120):
        terminal = Terminal(programs, columns, 60, "status")
        terminal.wait_for("recent events")
        expect(terminal.end(), 0, "status")
        lines = plain(terminal.seen)
        for line in lines:
            if len(line) > columns:
                raise AssertionError(f"wider than {columns}: {line!r}")
        witness = next(line for line in lines if line.startswith("  ● ap-southeast"))
        expect(witness.split()[2:4], ["active", "witness"], "a witness gets no traffic")
        head = next(line for line in lines if "Redis: keeps" in line)
        expect(any("ap-southeast" in line for line in lines[lines.index(head):][1:3]), False,
               "a witness has no Redis")
    terminal = Terminal(programs, 80, 60, "status", NO_COLOR="1")
    expect(terminal.end(), 0, "status")
    expect(b"\033" in terminal.seen, False, "NO_COLOR")


def top_draws_until_q(programs):
    terminal = Terminal(programs, 60, 12, "top")
    terminal.wait_for("us-east")
    terminal.type("jj")
    terminal.wait_for("round trip, ms")  # line 10 of the picture: scrolled into sight
    terminal.seen = b""
    terminal.wait_for("UTC")  # the next picture
    terminal.type("q")
    expect(terminal.end(), 0, "exit status")
    expect(terminal.after, terminal.before, "the terminal is as it was")
    expect_in(b"\033[?1049l", terminal.seen)
    for line in plain(terminal.seen):
        if len(line) > 60:
            raise AssertionError(f"wider than the terminal: {line!r}")


def top_ends_though_a_node_hangs(programs):
    Node.silent.set()
    try:
        terminal = Terminal(programs, 80, 24, "top")
        terminal.wait_for("q: end")
        terminal.type("q")
        expect(terminal.end(), 0, "exit status")
    finally:
        Node.silent.clear()


def top_in_a_pipe_is_one_picture(programs):
    status, out, _ = programs.run("top")
    expect(status, 0, "exit status")
    expect_in("recent events", out)
    expect("\033" in out, False, "escape sequences")


TESTS = [every_command_and_option_is_in_the_manual, the_manual_has_no_other_commands,
         every_directive_is_in_the_manual, the_manual_can_be_set, help_fits_a_terminal,
         wrong_words_are_refused, what_follows_two_dashes_is_no_option,
         a_node_that_is_not_there_is_told_once, a_broken_configuration_stands_in_nobodys_way,
         json_is_json, nearly_every_command_speaks_to_programs, a_plan_is_an_object,
         steps_are_lines_of_objects,
         an_evacuation_is_checked_before_it_begins, locks_are_objects, certificates_are_objects, a_picture_has_no_colours_in_a_pipe, a_picture_fits_the_terminal,
         top_draws_until_q, top_ends_though_a_node_hangs, top_in_a_pipe_is_one_picture]


def main():
    tally = Tally(wanted=sys.argv[3:], told=[AssertionError])
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), folder)
        for test in TESTS:
            tally.run(test, programs)
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
