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
                      "following": True, "timeline": 2, "written": "0/40450C8",
                      "lag_bytes": 123456789, "lag_ms": 12345.6}]}}
EVENTS = {"next": 1, "events": [{"time": 1795284740.9, "name": "region", "text": WHY_DOWN}]}


class Node(http.server.BaseHTTPRequestHandler):
    silent = threading.Event()  # it takes questions and answers none

    def do_GET(self):
        if Node.silent.is_set():
            time.sleep(30)
        found = {"/status": STATUS, "/events": EVENTS}.get(self.path.split("?")[0])
        body = json.dumps(found or {"code": "NOTFOUND", "error": "there is no such key"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.path = "/nothing"
        self.do_GET()

    def log_message(self, *_):
        pass


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
    """Lines without colours."""
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
    cases = [(["nosuch"], 2, "there is no command"), (["lock", "aquire"], 2, "acquire"),
             (["lock"], 2, "wants one of"), (["drain"], 2, "usage: meridian drain REGION"),
             (["status", "--jsn"], 2, "has no option --jsn"),
             (["drain", "us-east", "--why"], 2, "has no option --why"),
             (["plan", "x", "--json"], 2, "has no option --json"), (["events", "-x"], 2, "-x"),
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
         json_is_json, a_picture_has_no_colours_in_a_pipe, a_picture_fits_the_terminal,
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
