#!/usr/bin/python3
"""Three real daemons under clients that record all they ask and hear, while daemons are killed,
stopped, cut off, started with other clocks, while their wall clocks jump and their disks are slow, fail
and lose power (faults.py). The history is then judged: is it linearizable? And the same history with a
fault put into it: that must be found. Prints TAP.

`--planted lies` and `--planted rate` give daemons what nobody can bear, disks that tell of syncs that
they have not done and clocks that run much too fast: the history must not be linearizable then.

    histories.py MERIDIAND MAKE_PKI LINEAR_TOOL [--library FAULTS] [--seconds S] [--seed N]
                 [--only FAULT,...] [--planted lies|rate] [--keep]
"""
import argparse
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import cluster
import faults
from cluster import REGIONS, check, wait_for

CLIENTS = 8
VALUE_CLIENTS = 4
KEYS = ["global:a", "global:b", "eu-west:c", "us-east:d"]
SURE = 0.95  # of its lease: so long a client relies on its lock


def now_us():
    return time.monotonic_ns() // 1000


class History:
    def __init__(self):
        self.lines, self.lock = [], threading.Lock()

    def add(self, called, returned, *words):
        line = f"{called} {'-' if returned is None else returned} " + " ".join(map(str, words))
        with self.lock:
            self.lines.append(line)


class Door:
    """A connection to each node, made when it is needed."""

    def __init__(self, nodes):
        self.nodes, self.sockets = nodes, {}

    def ask(self, node, *words):
        """The answer as text; None: none came."""
        text = f"*{len(words)}\r\n" + "".join(f"${len(str(w))}\r\n{w}\r\n" for w in words)
        try:
            if node not in self.sockets:
                self.sockets[node] = socket.create_connection((node.host, 7402), timeout=3)
            self.sockets[node].settimeout(4)
            self.sockets[node].sendall(text.encode())
            answer = self.sockets[node].recv(4096)
            if answer:
                return answer.decode()
        except OSError:
            pass
        door = self.sockets.pop(node, None)
        if door is not None:
            door.close()
        return None


def unsure(answer):
    """It may have happened, or not."""
    return answer is None or answer.startswith("-TIMEOUT") or "may or may not" in answer


class LockClient(threading.Thread):
    def __init__(self, index, nodes, history, rng):
        super().__init__()
        self.owner, self.nodes, self.history, self.rng = f"client-{index}", nodes, history, rng
        self.door, self.ended, self.grants = Door(nodes), threading.Event(), 0

    def note(self, called, answered, key, *words):
        self.history.add(called, answered, "lock", key, self.owner, *words)

    def acquire(self, key, ttl_ms):
        """The token and until when the lock is sure, or None."""
        words = ["LOCK.ACQUIRE", key, self.owner, ttl_ms]
        if self.rng.random() < 0.3:
            words += ["WAIT", self.rng.randrange(50, 500)]
        called = now_us()
        answer = self.door.ask(self.rng.choice(self.nodes), *words)
        token = cluster.token_of(answer) if answer else None
        if token is not None:
            self.grants += 1
            self.note(called, now_us(), key, "granted", token)
            return token, called + int(ttl_ms * 1000 * SURE)
        if unsure(answer):
            self.note(called, None, key, "granted")
        elif answer[:3] in ("$-1", "_\r\n") and len(words) == 4:
            self.note(called, now_us(), key, "held")
        return None

    def use(self, key, token, until):
        at = now_us()
        if at < until and now_us() < until:
            self.note(at, at, key, "use", token)

    def renew(self, key, token, ttl_ms, until):
        called = now_us()
        answer = self.door.ask(self.rng.choice(self.nodes), "LOCK.RENEW", key, self.owner, token,
                               ttl_ms)
        if answer and answer.startswith(":"):
            self.note(called, now_us(), key, "use", token)
            return called + int(ttl_ms * 1000 * SURE)
        if answer and answer.startswith("-NOTOWNER"):
            self.note(called, now_us(), key, "not-owner", token)
        return until

    def look(self, key, token):
        called = now_us()
        answer = self.door.ask(self.rng.choice(self.nodes), "LOCK.CHECK", key, token)
        if answer in (":1\r\n", ":0\r\n"):
            self.note(called, now_us(), key, "use" if answer[1] == "1" else "not-owner", token)

    def release(self, key, token):
        called = now_us()
        answer = self.door.ask(self.rng.choice(self.nodes), "LOCK.RELEASE", key, self.owner, token)
        if answer == ":1\r\n":
            self.note(called, now_us(), key, "released", token)
        elif answer == ":0\r\n":
            self.note(called, now_us(), key, "not-owner", token)
        elif unsure(answer):
            self.note(called, None, key, "released", token)

    def turn(self):
        key, ttl_ms = self.rng.choice(KEYS), self.rng.randrange(300, 2500)
        got = self.acquire(key, ttl_ms)
        if got is None:
            return
        token, until = got
        for _ in range(self.rng.randrange(4)):
            time.sleep(self.rng.uniform(0, 0.1))
            self.use(key, token, until)
            if self.rng.random() < 0.3:
                until = self.renew(key, token, ttl_ms, until)
            if self.rng.random() < 0.3:
                self.look(key, token)
        if self.rng.random() < 0.85:
            self.release(key, token)  # else it dies holding

    def run(self):
        while not self.ended.is_set():
            self.turn()
            time.sleep(self.rng.uniform(0, 0.05))


def parse(text):
    """One RESP answer, as Python has it; errors are ValueError."""
    def at(index):
        end = text.index("\r\n", index)
        mark, rest, index = text[index], text[index + 1:end], end + 2
        if mark == "-":
            raise ValueError(rest)
        if mark == ":":
            return int(rest), index
        if mark in "_" or rest == "-1":
            return None, index
        if mark == "$":
            return text[index:index + int(rest)], index + int(rest) + 2
        items = []
        for _ in range(int(rest)):
            item, index = at(index)
            items.append(item)
        return items, index
    return at(0)[0]


class ValueClient(threading.Thread):
    """Reads, writes, and moves what is in two keys by transactions; each value is written once."""

    EVERY_S = 8  # other keys, or what had no answer would make a long history too hard to judge

    def __init__(self, index, nodes, history, rng):
        super().__init__()
        self.index, self.nodes, self.history, self.rng = index, nodes, history, rng
        self.door, self.ended, self.grants, self.last = Door(nodes), threading.Event(), 0, 0

    def fresh(self):
        self.last += 1
        return f"v{self.index}-{self.last}"

    def ask(self, words, sent, heard):
        """Notes what was sent, and by `heard` what came back; where it is not known, only if it may
        have changed something."""
        called = now_us()
        answer = self.door.ask(self.rng.choice(self.nodes), *words)
        if unsure(answer):
            if any(word.startswith(("then:", "else:")) for word in sent):
                self.history.add(called, None, "txn", *sent)
            return
        try:
            told = heard(parse(answer))
        except ValueError:
            return
        self.grants += 1
        self.history.add(called, now_us(), "txn", *sent, *told)

    @staticmethod
    def shown(value):
        return "-" if value is None else value

    def get(self, key):
        seen = {}

        def heard(answer):
            seen["value"] = self.shown(answer[0] if answer else None)
            return [f"saw:{key}={seen['value']}"]
        self.ask(["KV.GET", key], [], heard)
        return seen.get("value")

    def put(self, key):
        value = self.fresh()
        self.ask(["KV.PUT", key, value], [f"then:{key}={value}"], lambda _: [])

    def swap(self, key, other):
        """Where a key is as it was seen: another value into it and a second key, which is read."""
        seen = self.get(key)
        if seen is None:
            return
        value = self.fresh()
        words = ["KV.TXN", "IF", key, *(["VERSION", "=", "0"] if seen == "-" else ["VALUE", "=", seen]),
                 "THEN", "GET", other, "PUT", key, value, "PUT", other, value, "ELSE", "GET", key]
        sent = [f"if:{key}={seen}", f"then:{key}={value}", f"then:{other}={value}"]

        def heard(answer):
            value = self.shown(answer[2][0][0] if answer[2][0] else None)
            return [f"saw:{other}={value}"] if answer[0] == 1 else ["no", f"saw:{key}={value}"]
        self.ask(words, sent, heard)

    def run(self):
        while not self.ended.is_set():
            age = int(time.monotonic() / self.EVERY_S)
            key, other = (f"global:v{age}/{name}" for name in self.rng.sample("abc", 2))
            self.rng.choice([lambda: self.get(key), lambda: self.put(key),
                             lambda: self.swap(key, other)])()
            time.sleep(self.rng.uniform(0, 0.1))


def leader_of(nodes, rng):
    """The leader, as one that can be asked says; half of the time anybody."""
    node = rng.choice(nodes)
    try:
        name = node.status().get("leader")
        found = [other for other in nodes if other.region == name]
        return found[0] if found and rng.random() < 0.5 else node
    except (OSError, ValueError):
        return node


def judge(tool, lines):
    """0 linearizable, 1 not, 3 too hard; and what the judge says."""
    try:
        done = subprocess.run([tool], input="\n".join(lines) + "\n", text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    except subprocess.TimeoutExpired:
        return 3, "no verdict in a minute"
    return done.returncode, done.stdout.strip()


def plant_token(lines, rng):
    """The token of a lock's grant is one that it gave before."""
    seen = {}
    for at in sorted(range(len(lines)), key=lambda i: int(lines[i].split()[0])):
        words = lines[at].split()
        if words[2] != "lock" or words[5] != "granted" or words[1] == "-":
            continue
        before = [(owner, token) for owner, token in seen.get(words[3], []) if owner != words[4]]
        if before and rng.random() < 0.2:
            return lines[:at] + [" ".join(words[:6] + [before[-1][1]])] + lines[at + 1:]
        seen.setdefault(words[3], []).append((words[4], words[6]))
    return None


def plant_owner(lines, rng):
    """A client goes on to use its lock when somebody else has had it granted."""
    for at in sorted(range(len(lines)), key=lambda i: int(lines[i].split()[0])):
        words = lines[at].split()
        if words[2] != "lock" or words[5] != "granted" or words[1] == "-":
            continue
        begin = int(words[1])
        for line in lines:
            other = line.split()
            if (other[2:4] == words[2:4] and other[4] != words[4] and other[5] == "use"
                    and int(other[0]) > begin and rng.random() < 0.5):
                late = int(other[1]) + 1
                return lines + [f"{late} {late} lock {words[3]} {words[4]} use {words[6]}"]
    return None


def plant_stale(lines, rng):
    """A read tells a value that had been overwritten before it was asked for."""
    writes = []
    for line in sorted(lines, key=lambda line: int(line.split()[0])):
        words = line.split()
        if words[2:] and words[2] == "txn" and words[1] != "-" and words[3].startswith("then:"):
            writes.append((int(words[0]), int(words[1]), words[3][5:]))
    for at, line in enumerate(lines):
        words = line.split()
        if words[2] != "txn" or len(words) != 4 or not words[3].startswith("saw:"):
            continue
        key = words[3][4:].split("=")[0] + "="
        before = [write for write in writes if write[1] < int(words[0]) and write[2].startswith(key)]
        if len(before) > 2 and before[-2][1] < before[-1][0] and rng.random() < 0.2:
            return lines[:at] + [" ".join(words[:3] + ["saw:" + before[-2][2]])] + lines[at + 1:]
    return None


def plant_late(lines):
    """At the end somebody writes twice and reads what was first."""
    last = max(int(line.split()[0]) for line in lines) + 10**9
    return lines + [f"{last + 2 * i} {last + 2 * i + 1} txn {what}:global:v/late={value}"
                    for i, (what, value) in enumerate((("then", "one"), ("then", "two"),
                                                       ("saw", "one")))]


def start_clients(args, nodes, history):
    clients = [LockClient(i, nodes, history, random.Random(args.seed * 1000 + i))
               for i in range(CLIENTS)]
    clients += [ValueClient(i, nodes, history, random.Random(args.seed * 2000 + i))
                for i in range(VALUE_CLIENTS)]
    for client in clients:
        client.start()
    return clients


def hurt(args, nodes, rng):
    """Each fault once in turn, in an order by chance, until the time is over; their names. Wall
    clocks jump first, so they are apart during all that follows."""
    end, done, left = time.monotonic() + args.seconds, [], []
    while time.monotonic() < end:
        if not left:
            left = args.faults[:]
            rng.shuffle(left)
            left.sort(key=lambda fault: fault is faults.jump)
        fault = left.pop()
        fault(leader_of(nodes, rng), nodes, rng)
        done.append(fault.__name__)
        time.sleep(rng.uniform(0.1, 0.8))
    return done


def planted_lies(args, nodes, _):
    """What was told to clients is lost at all nodes at once."""
    time.sleep(args.seconds / 2)
    for node in nodes:
        node.page.set(power=1)
    for node in nodes:
        node.ended()
    for node in nodes:
        node.start()
    time.sleep(args.seconds / 2)
    return ["power of all"]


def planted_rate(args, nodes, _):
    """Clocks run much too fast, so leases end before their time. (A jump alone is taken for a pause.)"""
    begin = time.monotonic()
    while time.monotonic() < begin + args.seconds:
        time.sleep(0.005)
        for node in nodes:
            node.page.set(steady_us=int((time.monotonic() - begin) * 8e6))
    return ["fast clocks"]


PLANTED = {"lies": planted_lies, "rate": planted_rate}


def struck(args, nodes, done):
    """Did the faults of the disk and the clock reach the daemons?"""
    for fault, word in (("jump", "jumped"), ("slow", "delayed"), ("sync_fails", "sync_failed"),
                        ("write_fails", "write_failed")):
        if fault in done:
            check(faults.struck(nodes, word) > 0, f"{fault} has struck")
    if args.library:
        print(f"# {faults.struck(nodes, 'undone')} sectors were lost, {faults.struck(nodes, 'kept')} "
              "writes were read from memory alone")


def record(args, nodes):
    """The lines of a history, and what was done meanwhile."""
    rng = random.Random(args.seed)
    for node in nodes:
        node.page.set(lies=args.planted == "lies")
        node.start()
    wait_for(lambda: cluster.agreed(nodes), "all three know the same leader")
    history = History()
    clients = start_clients(args, nodes, history)
    done = PLANTED.get(args.planted, hurt)(args, nodes, rng)
    wait_for(lambda: cluster.agreed(nodes), f"after {len(done)} faults all agree again", 60)
    for client in clients:
        client.ended.set()
    for client in clients:
        client.join()
    grants = sum(client.grants for client in clients)
    lost = sum(line.split()[1] == "-" for line in history.lines)
    print(f"# {len(history.lines)} operations, {grants} grants and values, {lost} without an answer; "
          f"{' '.join(done)}")
    check(grants > 20, "locks were granted and values told", str(grants))
    struck(args, nodes, done)
    return history.lines


def run(args, nodes, root):
    lines = record(args, nodes)
    with open(os.path.join(root, "history"), "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    status, text = judge(args.tool, lines)
    print("# " + text.replace("\n", "\n# "))
    if args.planted:
        check(status == 1, f"what {args.planted} brings about is found", text)
        return
    check(status in (0, 3), "the history is linearizable, or too hard to judge",
          re.sub(r"\n", "; ", text))
    rng = random.Random(args.seed)
    for name, plant in (("a token that is given again", plant_token),
                        ("a lock that two hold", plant_owner),
                        ("a read of what was overwritten", plant_stale)):
        planted = next(filter(None, (plant(lines, rng) for _ in range(20))), None)
        if planted is None:
            print(f"# too little was heard for {name}")
            continue
        status = judge(args.tool, planted)[0]
        check(status == 1, f"{name} would be found", str(status))
    planted = plant_late(lines)
    check(judge(args.tool, planted)[0] == 1, "what is lost at the end would be found")


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("daemon", type=os.path.abspath)
    parser.add_argument("make_pki", type=os.path.abspath)
    parser.add_argument("tool", type=os.path.abspath)
    parser.add_argument("--library", type=os.path.abspath)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only")
    parser.add_argument("--planted", choices=PLANTED)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    args.faults = faults.known(args.library)
    if args.only:
        args.faults = [fault for fault in args.faults if fault.__name__ in args.only.split(",")]
    return args


def main():
    args = arguments()
    print(f"# seed {args.seed}")
    root = tempfile.mkdtemp(prefix="meridian-histories-")
    subprocess.run([args.make_pki, "--long", f"{root}/pki", "test"]
                   + [f"{region}/{i + 1}" for i, region in enumerate(REGIONS)], check=True)
    cluster.topology_write(root)
    nodes = [faults.Node(root, args.daemon, index, args.library) for index in range(3)]
    try:
        run(args, nodes, root)
    finally:
        for node in nodes:
            if node.process is not None:
                node.process.send_signal(signal.SIGCONT)
                node.kill()
        if args.keep or cluster.failures:
            print(f"# kept: {root}")
        else:
            shutil.rmtree(root)
    print(f"1..{cluster.count}")
    return 1 if cluster.failures else 0


if __name__ == "__main__":
    cluster.own_network.enter()
    sys.exit(main())
