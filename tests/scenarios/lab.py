"""The lab as scenarios see it: regions with ordinary clients of Redis, DNS, HTTP and locks.

Nothing here sleeps for a guess, and nothing depends on which region leads a group: `eventually` asks
again until a condition holds, and clients of what is agreed ask again while a group has no leader, as
the contract wants it of every client. `Lab.once` and `Lab.run` are for those who test a refusal.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid

import dns.edns
import dns.exception
import dns.message
import dns.query
import dns.rdatatype
import redis
import requests

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(TOP, "tests"))
import own_network  # noqa: E402

BUILD = os.environ.get("MERIDIAN_BUILD", os.path.join(TOP, "build"))
MERIDIAN = os.path.join(BUILD, "meridian")
# Clients of the lab's geo database.
AMERICAN = "216.160.83.56/29"
BRITISH = "81.2.69.160/27"
SINGAPOREAN = "214.0.0.0/24"

ADDRESSES = {"us-east": "127.10.0.1", "eu-west": "127.20.0.1", "ap-southeast": "127.30.0.1"}
REGION_AT = {address: region for region, address in ADDRESSES.items()}
REGIONS = list(ADDRESSES)


# No promise of the product: so long a machine that does much else may take for anything.
LIMIT_S = 60
# Words of a refusal that means: ask again. After the second group it may have happened, too.
NOT_NOW = ("NOMAJORITY", "NOTLEADER", "UNREACHABLE")
UNSURE = ("TIMEOUT",)
# What a repeat is answered where the first time has done it, by the command.
DONE_BEFORE = {"LOCK.RELEASE": 1, "SESSION.CLOSE": 1}
IDENTIFIED = ("KV.PUT", "KV.CAS", "KV.DEL", "KV.TXN")


class Failure(Exception):
    """A condition that did not come true."""


class Broken(Failure):
    """A promise that no slow machine excuses: something is lost, is there twice, or has two owners."""


def eventually(what, condition, seconds=LIMIT_S):
    """The first true value of `condition()`; exceptions count as not yet."""
    until = time.monotonic() + seconds
    while True:
        try:
            seen = condition()
            if seen:
                return seen
        except Broken:
            raise
        except Exception as error:  # pylint: disable=broad-except
            seen = f"{type(error).__name__}: {error}"
        if time.monotonic() > until:
            raise Failure(f"not within {seconds} s: {what}; seen last: {seen!r}")
        time.sleep(0.05)


def always(what, condition, seconds):
    """`condition()` stays true for so long; exceptions tell nothing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            seen = condition()
        except Broken:
            raise
        except Exception:  # pylint: disable=broad-except
            seen = True
        if not seen:
            raise Failure(f"did not stay so: {what}; seen: {seen!r}")
        time.sleep(0.05)


def keeps(what, condition, seconds, turns=3):
    """The same of what a machine that stands still for a second may disturb: in one of some turns."""
    for turn in range(turns):
        eventually(what, condition)
        try:
            always(what, condition, seconds)
            return
        except Failure as error:
            print(f"        (turn {turn + 1} of {turns}: {error})", flush=True)
    raise Failure(f"did not stay so in any of {turns} turns: {what}")


def after(*needed):
    """A scenario that goes on from what those of its theme before it have left."""
    def mark(scenario):
        scenario.needed = needed
        return scenario
    return mark


def expect(seen, wanted, what):
    if seen != wanted:
        raise Failure(f"{what}: wanted {wanted!r}, seen {seen!r}")


def expect_true(seen, what):
    if not seen:
        raise Failure(f"not so: {what}")


def promise(good, what):
    if not good:
        raise Broken(f"broken: {what}")


def ended(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def lab_in_the_way():
    """Whoever answers at the lab's addresses already, as a text, or None."""
    for region, address in ADDRESSES.items():
        for port in (7400, 6379, 8080):
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    return f"{address}:{port} ({region})"
    return None


def free_network(name):
    """Where a lab runs already, the program begins again in a network namespace of its own; where this
    user may not have one, it ends."""
    who = lab_in_the_way()
    if who is None:
        return
    if not own_network.allowed():
        print(f"{name}: {who} answers already: a lab runs. Stop it first: make lab-down")
        print("0 passed, 1 failed")
        sys.exit(1)
    print(f"{name}: a lab runs already; this one runs in a network of its own", flush=True)
    own_network.begin_again()


class Asker(redis.Redis):
    """A client of port 7402 that goes on asking while nobody can decide. Writes of values have an
    identity, so that a repeat changes nothing; locks are asked for again by the same owner."""

    def execute_command(self, *words, **options):
        name, until, unsure = str(words[0]).upper(), time.monotonic() + LIMIT_S, False
        if name in IDENTIFIED and "ID" not in words:
            words += ("ID", str(uuid.uuid4()))
        while True:
            try:
                answer = super().execute_command(*words, **options)
                return (answer or DONE_BEFORE.get(name, answer)) if unsure else answer
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                sure = isinstance(error, redis.ResponseError)
                if sure and unsure and name in DONE_BEFORE and str(error).startswith("NOSESSION"):
                    return DONE_BEFORE[name]
                if sure and not str(error).startswith(NOT_NOW + UNSURE):
                    raise
                unsure = unsure or not str(error).startswith(NOT_NOW)
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, MERIDIAN_LAB=folder, NO_COLOR="1")
        self.environment.pop("MERIDIAN_NODE", None)

    # ---- the command line

    def run(self, *words, seconds=200):
        """Runs `meridian WORDS`; (exit status, stdout, stderr)."""
        done = subprocess.run([MERIDIAN, *words], env=self.environment, capture_output=True,
                              text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def patiently(self, *words):
        """The same, again while nobody can decide."""
        until = time.monotonic() + LIMIT_S
        while True:
            status, out, err = self.run(*words)
            undecided = any(f"{word}:" in err for word in NOT_NOW + UNSURE)
            if status == 0 or not undecided or time.monotonic() > until:
                return status, out, err
            time.sleep(0.1)

    def meridian(self, *words):
        """The same, which must succeed; stdout."""
        status, out, err = self.patiently(*words)
        if status != 0:
            raise Failure(f"meridian {' '.join(words)} ended with {status}:\n{out}{err}")
        return out

    def apply(self, change):
        """Applies what `change` makes of the document in force; (status, all that was said). Begins
        anew where the document was an old one, or nobody could decide."""
        path = os.path.join(self.folder, f"applied-{uuid.uuid4()}.conf")
        until, said = time.monotonic() + LIMIT_S, ""
        while True:
            with open(path, "w", encoding="utf-8") as file:
                file.write(change(self.meridian("topology")))
            status, out, err = self.run("apply", path)
            said += out + err
            overtaken = "CONFLICT:" in err or " is of epoch " in err
            undecided = any(f"{word}:" in err for word in NOT_NOW + UNSURE)
            if not (overtaken or undecided) or time.monotonic() > until:
                os.unlink(path)
                return status, said
            time.sleep(0.1)

    def applied(self, change):
        """The same, which must succeed; what was said."""
        status, said = self.apply(change)
        if status != 0:
            raise Failure(f"meridian apply ended with {status}:\n{said}")
        return said

    def up(self):
        return self.meridian("lab", "up")

    def down(self):
        return self.meridian("lab", "down")

    def kill(self, region):
        self.meridian("lab", "kill", region)

    def start(self, region):
        self.meridian("lab", "start", region)

    def cut_off(self, region):
        """Nothing passes between a region and the others."""
        for other in REGIONS:
            if other != region:
                self.meridian("lab", "partition", region, other)

    def heal(self):
        self.meridian("lab", "heal")

    def pid(self, region, part):
        with open(os.path.join(self.folder, region, "run", part + ".pid"), encoding="ascii") as file:
            return int(file.read().split()[0])

    def kill_part(self, region, part):
        """kill -9, and its end is waited for."""
        pid = self.pid(region, part)
        os.kill(pid, signal.SIGKILL)
        eventually(f"{part} of {region} has ended", lambda: ended(pid))

    # ---- what a node knows

    def status(self, node=None):
        """`meridian status --json`, or what one region's own node says."""
        if node is None:
            return json.loads(self.meridian("status", "--json"))
        answer = requests.get(f"http://{ADDRESSES[node]}:7400/status", timeout=5)
        answer.raise_for_status()
        return answer.json()

    def region(self, name, node=None):
        return next(region for region in self.status(node)["regions"] if region["name"] == name)

    def state(self, name, node=None):
        return self.region(name, node)["state"]

    def all_active(self, node=None):
        status = self.status(node)
        return status["majority"] and all(
            region["state"] == "active" and region["routable"] for region in status["regions"])

    def wait_all_active(self, seconds=2 * LIMIT_S):
        """Every node agrees that every region is active, and its own Redis is up."""
        for node in REGIONS:
            eventually(f"{node} sees three active regions", lambda n=node: self.all_active(n),
                       seconds)
            eventually(f"{node} knows its Redis to be up",
                       lambda n=node: self.region(n, n)["redis"]["up"], seconds)

    # ---- ordinary clients

    def redis(self, region):
        return redis.Redis(host=ADDRESSES[region], port=6379, socket_timeout=LIMIT_S,
                           decode_responses=True)

    def locks(self, region, node=1):
        """Locks and values, of a node of the region; asks again while nobody can decide."""
        return Asker(host=ADDRESSES[region][:-1] + str(node), port=7402, socket_timeout=LIMIT_S,
                     decode_responses=True)

    def once(self, region, *words):
        """The one answer to what is asked on port 7402, be it a refusal."""
        client = redis.Redis(host=ADDRESSES[region], port=7402, socket_timeout=LIMIT_S,
                             decode_responses=True)
        return client.execute_command(*words)

    def no_majority(self, region, *words):
        """Is this refused for want of a majority? It must not be granted."""
        try:
            answer = self.once(region, *words)
        except redis.ResponseError as error:
            return str(error).startswith("NOMAJORITY")
        raise Broken(f"{region} has decided alone: {words} was answered {answer!r}")

    def ask_dns(self, server, name, client=None, kind="A", tcp=False):
        options = []
        if client is not None:
            address, bits = client.split("/")
            options.append(dns.edns.ECSOption(address, int(bits)))
        query = dns.message.make_query(name, kind, use_edns=0, options=options)
        ask = dns.query.tcp if tcp else dns.query.udp
        try:
            return ask(query, ADDRESSES[server], port=5353, timeout=4)
        except dns.exception.Timeout:  # a datagram may be lost
            return ask(query, ADDRESSES[server], port=5353, timeout=16)

    def dns(self, server, name, client=None):
        """The regions whose addresses DNS answers with."""
        answer = self.ask_dns(server, name, client)
        return [REGION_AT[item.address] for rrset in answer.answer for item in rrset
                if rrset.rdtype == dns.rdatatype.A]

    def sent(self, server, name, client, regions):
        """DNS of `server` sends this client to these regions, as soon as its view says so."""
        eventually(f"{client} is sent to {regions} by DNS of {server}",
                   lambda: self.dns(server, name, client) == regions)

    def http(self, region, path, body=None):
        """Asks a node's port 7400, a POST where there is a body; again while nobody can decide."""
        url, until = f"http://{ADDRESSES[region]}:7400{path}", time.monotonic() + LIMIT_S
        while True:
            try:
                answer = requests.request("GET" if body is None else "POST", url, json=body,
                                          timeout=LIMIT_S)
                if answer.status_code not in (503, 504) or time.monotonic() > until:
                    return answer
            except requests.ConnectionError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def get(self, region, path="/"):
        """(region that answered by the edge's header, JSON of the backend)."""
        answer = requests.get(f"http://{ADDRESSES[region]}:8080{path}", timeout=LIMIT_S)
        expect(answer.status_code, 200, f"the edge of {region}")
        return answer.headers.get("Meridian-Region"), answer.json()
