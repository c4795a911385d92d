#!/usr/bin/python3
"""mod-meridian in a real knotd: policies, client-subnet rules, damage and failure.

MERIDIAN_BUILD names the build folder (default: build beside the sources). MERIDIAN_ADDRESS is the
address to listen on. Prints `N passed, N failed`; ends non-zero when something failed.
"""

import ipaddress
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    import dns.edns
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype
except ImportError:
    if sys.executable != "/usr/bin/python3" and os.path.exists("/usr/bin/python3"):
        os.execv("/usr/bin/python3", ["/usr/bin/python3"] + sys.argv)
    sys.exit("python3-dnspython is missing")

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "../..")]
from fixture import Publisher, end_process, equal, wait_for  # noqa: E402
from tally import Tally  # noqa: E402

SOURCE = os.path.realpath(os.path.join(HERE, "../../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
ADDRESS = os.environ.get("MERIDIAN_ADDRESS", "127.96.0.1")
PORT = int(os.environ.get("MERIDIAN_PORT", "15353"))
SEED = int(os.environ.get("SEED", "7"))

US, EU, AP = "127.10.0.1", "127.20.0.1", "127.30.0.1"
US6, EU6 = "2001:db8::10", "2001:db8::20"

TOPOLOGY = """
cluster = test; epoch = 7;
region us-east { id = 1; latitude = 39.04; longitude = -77.49; a = ["127.10.0.1"]
  aaaa = ["2001:db8::10"]; node us-east-1 { id = 1; link = "127.10.0.1:7401" } }
region eu-west { id = 2; latitude = 53.35; longitude = -6.26; a = ["127.20.0.1", "127.20.0.2"]
  aaaa = ["2001:db8::20"]; node eu-west-1 { id = 2; link = "127.20.0.1:7401" } }
region ap-southeast { id = 3; latitude = 1.35; longitude = 103.82; a = ["127.30.0.1"]
  node ap-southeast-1 { id = 3; link = "127.30.0.1:7401" } }
region watch { id = 4; role = witness; node watch-1 { id = 4; link = "127.40.0.1:7401" } }
zone example.test { ttl = 30s
  name www { policy = nearest } name fallback { policy = nearest; ttl = 5s }
  name "@" { policy = nearest }
  name api-us { region = us-east } name api-ap { region = ap-southeast }
  name ha { order = [ap-southeast, eu-west] } }
"""

ZONE = """
$ORIGIN example.test.
$TTL 300
@ SOA ns.example.test. host.example.test. 1 3600 600 86400 60
@ NS ns.example.test.
@ MX 10 mail.example.test.
ns A 192.0.2.1
static A 192.0.2.7
fallback A 192.0.2.99
www TXT "from the zone file"
alias CNAME www.example.test.
"""

GEO = """
216.160.83.56/29,US,Milton,47.25,-122.31
214.78.120.0/22,US,San Diego,32.72,-117.16
81.2.69.142/31,GB,London,51.51,-0.09
81.2.69.160/27,GB,London,51.51,-0.09
89.160.20.112/28,SE,Link\u00f6ping,58.42,15.62
175.16.199.0/24,CN,Changchun,43.88,125.32
214.0.0.0/24,SG,Singapore,1.35,103.82
2001:218::/32,JP,Tokyo,35.69,139.69
"""


class Knot:
    """A folder, a view publisher and a knotd."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="meridian-knot-")
        self.view = os.path.join(self.folder, "view")
        self.geo = os.path.join(self.folder, "geo.mmdb")
        self.tool = os.path.join(BUILD, "tests/view/view-tool")
        self.publisher = Publisher(self.tool, self.view, f"{self.folder}/topology")
        self.publish = self.publisher.publish
        self.server = None
        self.write("topology", TOPOLOGY)
        self.write("example.test.zone", ZONE)
        self.geo_make(GEO)
        self.write("knot.conf", f"""
server:
    rundir: {self.folder}
    listen: {ADDRESS}@{PORT}
    udp-workers: 3
    tcp-workers: 2
    edns-client-subnet: on
    nsid: "meridian-test"
log:
  - target: {self.folder}/knot.log
    any: info
database:
    storage: {self.folder}
template:
  - id: default
    storage: {self.folder}
module:
  - id: mod-meridian
    file: {BUILD}/plugins/knot/mod-meridian.so
mod-meridian:
  - id: default
    view: {self.view}
    geo: {self.geo}
zone:
  - domain: example.test
    file: example.test.zone
    module: mod-meridian/default
""")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
            file.write(text)

    def geo_make(self, csv):
        self.write("geo.csv", csv)
        subprocess.run([self.tool, "geo", f"{self.folder}/geo.csv", self.geo], check=True)

    def start(self):
        self.server = subprocess.Popen(["/usr/sbin/knotd", "-c", f"{self.folder}/knot.conf"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: ask("static").answer, "knotd does not answer:\n" + self.log())

    def log(self):
        try:
            with open(f"{self.folder}/knot.log", encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def alive(self):
        return self.server.poll() is None

    def stop(self):
        self.publisher.kill()
        code = end_process(self.server)
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


def ecs(text):
    address, _, length = text.partition("/")
    return dns.edns.ECSOption(address, int(length))


def ask(name, kind="A", client=None, options=None, tcp=False, flags=0, **more):
    full = name if name.endswith(".") else name + ".example.test."
    if name == "@":
        full = "example.test."
    options = list(options or [])
    if client:
        options.append(ecs(client))
    edns = {"use_edns": 0, "options": options} if options else more
    query = dns.message.make_query(full, kind, flags=flags, **edns)
    send = dns.query.tcp if tcp else dns.query.udp
    return send(query, ADDRESS, port=PORT, timeout=20)


def addresses(answer):
    return sorted(item.address for rrset in answer.answer
                  if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA) for item in rrset)


def scope(answer):
    """The scope, or None when the answer has no client-subnet option."""
    for option in answer.options:
        if isinstance(option, dns.edns.ECSOption):
            return option.scopelen
    return None


def no_data(answer):
    equal(answer.rcode(), dns.rcode.NOERROR)
    equal(addresses(answer), [])
    soa = [rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA]
    equal(len(soa), 1, "SOA in the authority section")
    assert answer.flags & dns.flags.AA


# Tests, in order. Those of one server share it; each publishes what it needs.

def test_before_any_view(knot):
    equal(addresses(ask("fallback")), ["192.0.2.99"])
    equal(ask("api-us").rcode(), dns.rcode.NXDOMAIN)
    assert "nothing" not in knot.log() and "No such file" in knot.log(), knot.log()
    knot.publish()
    wait_for(lambda: addresses(ask("fallback")) == [US], "the new view is not seen")


def test_nearest(knot):
    knot.publish()
    cases = [
        ("216.160.83.56/29", [US], 29, "exactly the network"),
        ("216.160.83.57/32", [US], 29, "inside it"),
        ("81.2.69.142/32", [EU, "127.20.0.2"], 31, "London"),
        ("81.2.0.0/16", [US], 18, "not located: own region, leaf's depth"),
        ("89.160.20.112/28", [EU, "127.20.0.2"], 28, "Sweden"),
        ("175.16.199.1/32", [AP], 24, "China"),
        ("214.0.0.0/24", [AP], 24, "Singapore"),
        ("2001:218:1::/48", [AP], 32, "Japan"),
        ("::ffff:81.2.69.142/128", [EU, "127.20.0.2"], 127, "mapped"),
    ]
    for client, wanted, length, why in cases:
        answer = ask("www", client=client)
        equal(addresses(answer), wanted, why)
        equal(scope(answer), length, why)
        equal(answer.answer[0].ttl, 30, why)
        assert answer.flags & dns.flags.AA
        option = [o for o in answer.options if isinstance(o, dns.edns.ECSOption)][0]
        equal(f"{option.address}/{option.srclen}",
              f"{ecs(client).address}/{ecs(client).srclen}", "echo")


def test_region_names(knot):
    knot.publish("ap-southeast=down", "us-east=isolated")
    for name, wanted in (("api-us", [US]), ("api-ap", [AP])):
        answer = ask(name, client="81.2.69.142/32")
        equal(addresses(answer), wanted, "whatever its state")
        equal(scope(answer), 0)


def test_failover_order(knot):
    knot.publish()
    answer = ask("ha", client="216.160.83.56/29")
    equal(addresses(answer), [AP])
    equal(scope(answer), 0)
    knot.publish("ap-southeast=down")
    equal(addresses(ask("ha")), [EU, "127.20.0.2"])
    knot.publish("ap-southeast=down", "eu-west=down")
    equal(addresses(ask("ha")), [AP], "fail open")


def test_next_query_without_it(knot):
    knot.publish()
    equal(addresses(ask("www", client="81.2.69.142/32")), [EU, "127.20.0.2"])
    knot.publish("eu-west=down")
    equal(addresses(ask("www", client="81.2.69.142/32")), [US])
    knot.publish("eu-west=down", "us-east=draining")
    equal(addresses(ask("www", client="81.2.69.142/32")), [AP])
    knot.publish()
    equal(addresses(ask("www", client="81.2.69.142/32")), [EU, "127.20.0.2"])


def test_all_down(knot):
    knot.publish("eu-west=down", "us-east=down", "ap-southeast=down")
    equal(addresses(ask("www", client="81.2.69.142/32")), [EU, "127.20.0.2"], "fail open")
    equal(addresses(ask("www", "AAAA", client="81.2.69.142/32")), [EU6])


def test_ipv6_answers(knot):
    knot.publish()
    equal(addresses(ask("www", "AAAA", client="81.2.69.142/32")), [EU6])
    equal(addresses(ask("www", "AAAA", client="216.160.83.56/29")), [US6])
    answer = ask("www", "AAAA", client="214.0.0.1/32")
    equal(len(addresses(answer)), 1, "the nearest region that has one")
    no_data(ask("api-ap", "AAAA", client="214.0.0.1/32"))
    knot.publish("eu-west=down", "us-east=down")
    for client in ("81.2.69.142/32", "216.160.83.56/29", "214.0.0.1/32"):
        answer = ask("www", "AAAA", client=client)
        no_data(answer)
        equal(scope(answer), 0, "negative answers are for all")


def test_other_types(knot):
    knot.publish()
    for name, kind in (("api-us", "TXT"), ("api-us", "MX"), ("ha", "HTTPS"), ("www", "CAA"),
                       ("api-us", "NS"), ("api-us", "SOA")):
        answer = ask(name, kind, client="81.2.69.142/32")
        no_data(answer)
        equal(scope(answer), 0)
    equal(str(ask("www", "TXT").answer[0][0]), '"from the zone file"')
    equal(ask("@", "MX").answer[0].rdtype, dns.rdatatype.MX)
    equal(ask("@", "SOA").answer[0].rdtype, dns.rdatatype.SOA)
    equal(ask("@", "NS").answer[0].rdtype, dns.rdatatype.NS)
    equal(addresses(ask("@", client="214.0.0.1/32")), [AP], "the zone's own name")
    equal(addresses(ask("www", "ANY", client="214.0.0.1/32")), [AP])


def test_zone_file(knot):
    knot.publish()
    answer = ask("static", client="81.2.69.142/32")
    equal(addresses(answer), ["192.0.2.7"])
    equal(scope(answer), 0)
    answer = ask("nowhere", client="81.2.69.142/32")
    equal(answer.rcode(), dns.rcode.NXDOMAIN)
    equal(scope(answer), 0)
    equal(ask("x.www").rcode(), dns.rcode.NXDOMAIN)
    equal(addresses(ask("fallback", client="214.0.0.1/32")), [AP], "the view goes first")
    equal(ask("fallback").answer[0].ttl, 5)


def test_alias(knot):
    knot.publish()
    answer = ask("alias", client="81.2.69.142/32")
    equal(answer.rcode(), dns.rcode.NOERROR)
    equal([rrset.rdtype for rrset in answer.answer], [dns.rdatatype.CNAME, dns.rdatatype.A])
    equal(str(answer.answer[1].name), "www.example.test.")
    equal(addresses(answer), [EU, "127.20.0.2"])
    equal(scope(answer), 31)


def test_case_is_kept(knot):
    knot.publish()
    query = dns.message.make_query("wWw.ExAmPlE.TeSt.", "A")
    answer = dns.query.udp(query, ADDRESS, port=PORT, timeout=20)
    assert b"\x03wWw\x07ExAmPlE\x04TeSt\x00" in answer.question[0].name.to_wire()
    equal(addresses(answer), [US])
    equal(str(answer.answer[0].name), "wWw.ExAmPlE.TeSt.")


def test_subnet_only_if_asked(knot):
    knot.publish()
    answer = ask("www")
    equal(answer.edns, -1)
    answer = ask("www", use_edns=0)
    equal(answer.edns, 0)
    equal(scope(answer), None)
    answer = ask("www", client="0.0.0.0/0")
    equal(scope(answer), 0, "the client opted out")
    equal(addresses(answer), [US], "as for the resolver")
    answer = ask("www", client="::/0")
    equal(scope(answer), 0)


def test_tcp_and_nsid(knot):
    knot.publish()
    answer = ask("www", client="81.2.69.142/32", tcp=True)
    equal(addresses(answer), [EU, "127.20.0.2"])
    answer = ask("www", options=[dns.edns.GenericOption(dns.edns.NSID, b"")])
    assert any(o.otype == dns.edns.NSID and b"meridian-test" in o.data for o in answer.options)


MALFORMED = [
    ("family 3", struct.pack("!HBB", 3, 24, 0) + b"\x51\x02\x45"),
    ("family 0", struct.pack("!HBB", 0, 0, 0)),
    ("family 65535", struct.pack("!HBB", 65535, 8, 0) + b"\x51"),
    ("a scope in a query", struct.pack("!HBB", 1, 24, 24) + b"\x51\x02\x45"),
    ("a scope of 1", struct.pack("!HBB", 1, 24, 1) + b"\x51\x02\x45"),
    ("bits beyond the source", struct.pack("!HBB", 1, 20, 0) + b"\x51\x02\x4f"),
    ("bits beyond the source, IPv6", struct.pack("!HBB", 2, 33, 0) + b"\x20\x01\x02\x18\x7f"),
    ("too few octets", struct.pack("!HBB", 1, 24, 0) + b"\x51\x02"),
    ("too many octets", struct.pack("!HBB", 1, 24, 0) + b"\x51\x02\x45\x00"),
    ("octets with source 0", struct.pack("!HBB", 1, 0, 0) + b"\x51"),
    ("source 33", struct.pack("!HBB", 1, 33, 0) + b"\x51\x02\x45\x8e\x80"),
    ("source 129", struct.pack("!HBB", 2, 129, 0) + b"\x20\x01" + b"\x00" * 15),
    ("empty", b""),
    ("one octet", b"\x00"),
    ("no source", b"\x00\x01"),
    ("no scope", b"\x00\x01\x18"),
]


def test_malformed_subnet(knot):
    knot.publish()
    for name in ("www", "api-us", "static", "nowhere"):
        for why, data in MALFORMED:
            answer = ask(name, options=[dns.edns.GenericOption(dns.edns.ECS, data)])
            equal(answer.rcode(), dns.rcode.FORMERR, f"{name}: {why}")
            equal(addresses(answer), [], f"{name}: {why}")
    equal(addresses(ask("www")), [US])


def random_prefix(rng):
    """Near the networks of the database, or anywhere; of any length but 0."""
    networks = [line.split(",")[0] for line in GEO.split() if "/" in line]
    if rng.random() < 0.8:
        network = ipaddress.ip_network(rng.choice(networks))
        width = network.max_prefixlen
        value = int(network.network_address)
        value ^= rng.getrandbits(rng.randrange(1, width - network.prefixlen + 4))
    else:
        width = rng.choice((32, 128))
        value = rng.getrandbits(width)
        if width == 128 and rng.random() < 0.5:
            value = rng.choice((0xffff << 32, 0x64ff9b << 96, 0x2002 << 112)) | value >> 96
    length = rng.randrange(1, width + 1) if rng.random() < 0.5 else width
    value = value >> (width - length) << (width - length)
    value &= (1 << width) - 1
    return (ipaddress.IPv4Address if width == 32 else ipaddress.IPv6Address)(value), length


def test_scopes_never_overlap(knot):
    knot.publish()
    rng = random.Random(SEED)
    print(f"    seed {SEED}")
    seen = {}
    for _ in range(3000):
        address, length = random_prefix(rng)
        answer = ask("www", client=f"{address}/{length}")
        width = address.max_prefixlen
        bits = format(int(address), f"0{width}b")[:scope(answer)]
        key = (width, bits)
        rdata = tuple(addresses(answer))
        equal(seen.setdefault(key, rdata), rdata, f"{address}/{length}")
    nested = 0
    for (width, bits), rdata in seen.items():
        for cut in range(len(bits)):
            outer = seen.get((width, bits[:cut]))
            if outer is not None:
                nested += 1
                equal(outer, rdata, f"IPv{4 if width == 32 else 6} {bits[:cut]} covers {bits}")
    assert len(seen) > 50 and len(set(seen.values())) == 3, (len(seen), set(seen.values()))
    equal(nested, 0, "one prefix inside another")


def mutated(rng):
    query = bytearray(dns.message.make_query("www.example.test.", "A", use_edns=0,
                                             options=[ecs("81.2.69.142/32")]).to_wire())
    for _ in range(rng.randrange(1, 6)):
        query[rng.randrange(len(query))] = rng.randrange(256)
    if rng.random() < 0.3:
        del query[rng.randrange(1, len(query)):]
    return bytes(query)


def test_garbage(knot):
    knot.publish()
    rng = random.Random(SEED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect((ADDRESS, PORT))
        for number in range(6000):
            packet = rng.randbytes(rng.randrange(0, 600)) if number % 3 == 0 else mutated(rng)
            udp.send(packet)
            if number % 50 == 0:
                time.sleep(0.001)
    for _ in range(60):
        with socket.create_connection((ADDRESS, PORT), timeout=20) as tcp:
            packet = mutated(rng)
            tcp.sendall(struct.pack("!H", len(packet)) + packet)
    assert knot.alive()
    wait_for(lambda: addresses(ask("www")) == [US], "no answer after garbage")


def test_storm_of_views(knot):
    """Views come as fast as they can be written, several clients ask: every answer is whole."""
    knot.publisher.kill()
    storm = subprocess.Popen([knot.tool, "storm", knot.view, f"{knot.folder}/topology", "us-east",
                              "2000"], stdout=subprocess.PIPE, text=True)
    wrong = []

    def client():
        while storm.poll() is None:
            got = addresses(ask("www", client="81.2.69.142/32"))
            if got != [EU, "127.20.0.2"]:
                wrong.append(got)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [])
    assert int(storm.stdout.read()) > 1000


def test_view_goes_away(knot):
    knot.publish("eu-west=down")
    equal(addresses(ask("www", client="81.2.69.142/32")), [US])
    knot.publisher.kill()
    equal(addresses(ask("www", client="81.2.69.142/32")), [US], "the daemon is dead")
    os.unlink(knot.view)
    time.sleep(1.3)
    equal(addresses(ask("www", client="81.2.69.142/32")), [US], "the file is gone")
    with open(knot.view, "wb") as file:
        file.write(b"rubbish" * 1000)
    wait_for(lambda: "this is not a view" in knot.log(), "nothing is logged")
    equal(addresses(ask("www", client="81.2.69.142/32")), [US], "the file is rubbish")
    knot.publish()
    wait_for(lambda: addresses(ask("www", client="81.2.69.142/32")) == [EU, "127.20.0.2"],
             "the new file is not seen")


def test_stale_view_is_told(knot):
    knot.publish("view=old=100")
    wait_for(lambda: "older than 30 s" in knot.log(), "nothing is logged")
    equal(addresses(ask("www", client="81.2.69.142/32")), [EU, "127.20.0.2"])


def test_geo_replaced(knot):
    knot.publish()
    equal(addresses(ask("www", client="81.2.69.142/32")), [EU, "127.20.0.2"])
    knot.geo_make("81.2.69.0/24,SG,,1.35,103.82\n")
    wait_for(lambda: addresses(ask("www", client="81.2.69.142/32")) == [AP], "not seen")
    equal(scope(ask("www", client="81.2.69.142/32")), 24)
    told = knot.log().count("geo database")
    with open(knot.geo + ".bad", "wb") as file:
        file.write(b"rubbish")
    os.rename(knot.geo + ".bad", knot.geo)
    wait_for(lambda: knot.log().count("geo database") > told, "nothing is logged")
    equal(addresses(ask("www", client="81.2.69.142/32")), [AP], "a bad file changes nothing")
    os.unlink(knot.geo)
    knot.geo_make(GEO)
    wait_for(lambda: addresses(ask("www", client="81.2.69.142/32")) == [EU, "127.20.0.2"],
             "the good file is not seen")


def test_reload(knot):
    knot.publish()
    stop = threading.Event()
    wrong = []

    def client():
        while not stop.is_set():
            got = addresses(ask("www", client="81.2.69.142/32"))
            if got != [EU, "127.20.0.2"]:
                wrong.append(got)

    thread = threading.Thread(target=client)
    thread.start()
    for _ in range(3):
        subprocess.run(["/usr/sbin/knotc", "-s", f"{knot.folder}/knot.sock", "reload"], check=True,
                       stdout=subprocess.DEVNULL)
        time.sleep(0.3)
    stop.set()
    thread.join()
    equal(wrong, [])
    assert knot.alive()


def test_bad_configuration(knot):
    with open(f"{knot.folder}/knot.conf", encoding="utf-8") as file:
        text = file.read()
    knot.write("bad.conf", text.replace(f"    view: {knot.view}\n", ""))
    done = subprocess.run(["/usr/sbin/knotc", "-c", f"{knot.folder}/bad.conf", "conf-check"],
                          capture_output=True, text=True)
    assert done.returncode != 0 and "'view' is missing" in done.stderr + done.stdout, done


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    tally = Tally(sys.argv[1:])
    knot = Knot()
    try:
        if tally.wanted:
            knot.publish()
        knot.start()
        for test in tests:
            tally.run(test, knot)
            if not knot.alive():
                tally.fail("knotd died", knot.log()[-3000:])
                break
        if tally.failed and os.environ.get("VERBOSE"):
            print(knot.log()[-4000:])
    finally:
        code = knot.stop()
    if code not in (0, None):
        tally.fail(f"knotd ended with {code}")
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
