"""The lab as scenarios see it: regions with ordinary clients of Redis, DNS, HTTP and locks.

Nothing here sleeps for a guess: `eventually` asks again until a condition holds or its time is over,
and then tells what was seen last.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time

import dns.edns
import dns.message
import dns.query
import dns.rdatatype
import redis
import requests

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MERIDIAN_BUILD", os.path.join(TOP, "build"))
MERIDIAN = os.path.join(BUILD, "meridian")
# Clients of the lab's geo database.
AMERICAN = "216.160.83.56/29"
BRITISH = "81.2.69.160/27"
SINGAPOREAN = "214.0.0.0/24"

ADDRESSES = {"us-east": "127.10.0.1", "eu-west": "127.20.0.1", "ap-southeast": "127.30.0.1"}
REGION_AT = {address: region for region, address in ADDRESSES.items()}
REGIONS = list(ADDRESSES)


class Failure(Exception):
    """A condition that did not come true."""


def eventually(what, condition, seconds=20):
    """The first true value of `condition()`; exceptions count as not yet."""
    until = time.monotonic() + seconds
    while True:
        try:
            seen = condition()
            if seen:
                return seen
        except Exception as error:  # pylint: disable=broad-except
            seen = f"{type(error).__name__}: {error}"
        if time.monotonic() > until:
            raise Failure(f"not within {seconds} s: {what}; seen last: {seen!r}")
        time.sleep(0.05)


def always(what, condition, seconds):
    """`condition()` stays true for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seen = condition()
        if not seen:
            raise Failure(f"did not stay so: {what}; seen: {seen!r}")
        time.sleep(0.05)


def expect(seen, wanted, what):
    if seen != wanted:
        raise Failure(f"{what}: wanted {wanted!r}, seen {seen!r}")


def expect_true(seen, what):
    if not seen:
        raise Failure(f"not so: {what}")


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


def own_network(name):
    """Where a lab runs already, the program begins again in a network namespace of its own, in which
    the addresses are free; where this user may not have one, it ends."""
    who = lab_in_the_way()
    if who is None:
        return
    allowed = subprocess.run(["unshare", "--net", "ip", "link", "set", "lo", "up"], check=False,
                             capture_output=True).returncode == 0
    if not allowed:
        print(f"{name}: {who} answers already: a lab runs. Stop it first: make lab-down")
        print("0 passed, 1 failed")
        sys.exit(1)
    print(f"{name}: a lab runs already; this one runs in a network of its own", flush=True)
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
                          sys.executable, "-u", *sys.argv])


class Lab:
    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ, MERIDIAN_LAB=folder, NO_COLOR="1")
        self.environment.pop("MERIDIAN_NODE", None)

    # ---- the command line

    def run(self, *words, seconds=120):
        """Runs `meridian WORDS`; (exit status, stdout, stderr)."""
        done = subprocess.run([MERIDIAN, *words], env=self.environment, capture_output=True,
                              text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def meridian(self, *words, seconds=120):
        """The same, which must succeed; stdout."""
        status, out, err = self.run(*words, seconds=seconds)
        if status != 0:
            raise Failure(f"meridian {' '.join(words)} ended with {status}:\n{out}{err}")
        return out

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
        eventually(f"{part} of {region} has ended", lambda: ended(pid), 10)

    # ---- what a node knows

    def status(self, node=None):
        """`meridian status --json`, or what one region's own node says."""
        if node is None:
            return json.loads(self.meridian("status", "--json"))
        answer = requests.get(f"http://{ADDRESSES[node]}:7400/status", timeout=3)
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

    def wait_all_active(self, seconds=45):
        """Every node agrees that every region is active, and its own Redis is up."""
        for node in REGIONS:
            eventually(f"{node} sees three active regions", lambda n=node: self.all_active(n),
                       seconds)
            eventually(f"{node} knows its Redis to be up",
                       lambda n=node: self.region(n, n)["redis"]["up"], seconds)

    # ---- ordinary clients

    def redis(self, region):
        return redis.Redis(host=ADDRESSES[region], port=6379, socket_timeout=5,
                           decode_responses=True)

    def locks(self, region):
        return redis.Redis(host=ADDRESSES[region], port=7402, socket_timeout=10,
                           decode_responses=True)

    def ask_dns(self, server, name, client=None, kind="A", tcp=False):
        options = []
        if client is not None:
            address, bits = client.split("/")
            options.append(dns.edns.ECSOption(address, int(bits)))
        query = dns.message.make_query(name, kind, use_edns=0, options=options)
        ask = dns.query.tcp if tcp else dns.query.udp
        return ask(query, ADDRESSES[server], port=5353, timeout=2)

    def dns(self, server, name, client=None):
        """The regions whose addresses DNS answers with."""
        answer = self.ask_dns(server, name, client)
        return [REGION_AT[item.address] for rrset in answer.answer for item in rrset
                if rrset.rdtype == dns.rdatatype.A]

    def get(self, region, path="/"):
        """(region that answered by the edge's header, JSON of the backend)."""
        answer = requests.get(f"http://{ADDRESSES[region]}:8080{path}", timeout=5)
        expect(answer.status_code, 200, f"the edge of {region}")
        return answer.headers.get("Meridian-Region"), answer.json()
