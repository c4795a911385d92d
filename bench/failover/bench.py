#!/usr/bin/python3
"""From the death of a region to the first correct DNS answer and the first good page elsewhere.

A client in the United States asks the DNS of eu-west and of ap-southeast (by EDNS Client Subnet) for
www.example.test and fetches the page from the address that it gets, over and over. All processes of
us-east are then killed at once. The rival in the same run is gdnsd with its own http_status health
check, once with its default interval and thresholds, once as tight as it can be set: it watches a
sample server, which is killed. Needs a running lab (`make lab`); the region is started again at the
end.
"""
import argparse
import http.server
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import dns.edns
import dns.exception
import dns.message
import dns.query

DEAD = "127.10.0.1"
SERVERS = {"eu-west": "127.20.0.1", "ap-southeast": "127.30.0.1"}
CLIENT = "216.160.83.56"
RIVAL_DNS, RIVAL_WEB, RIVAL_SPARE = "127.98.0.2", "127.98.0.3", "127.98.0.4"


def ask(server, port, name, client=None):
    options = [dns.edns.ECSOption(client, 29)] if client else []
    query = dns.message.make_query(name, "A", use_edns=0, options=options)
    try:
        answer = dns.query.udp(query, server, port=port, timeout=0.5)
    except (dns.exception.Timeout, OSError):
        return None
    for rrset in answer.answer:
        for item in rrset:
            return item.address
    return None


def fetch(address, port):
    request = urllib.request.Request(f"http://{address}:{port}/", headers={"Host": "www.example.test"})
    try:
        with urllib.request.urlopen(request, timeout=0.5) as page:
            return page.status == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_until(what, condition, seconds):
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            sys.exit(f"bench/failover: {what} did not come in {seconds} s")
        time.sleep(0.005)
    return time.monotonic() - start


def kill_region(meridian):
    """Seconds from the kill to the right answer and to a good page, at each other region."""
    for server in SERVERS.values():
        wait_until(f"the answer {DEAD} from {server}",
                   lambda s=server: ask(s, 5353, "www.example.test", CLIENT) == DEAD, 60)
    subprocess.run([meridian, "lab", "kill", "us-east"], check=True, capture_output=True)
    start = time.monotonic()
    dns_at, page_at = {}, {}
    while len(page_at) < len(SERVERS):
        if time.monotonic() - start > 60:
            sys.exit("bench/failover: no right answer 60 s after the kill")
        for name, server in SERVERS.items():
            address = ask(server, 5353, "www.example.test", CLIENT)
            if address not in (None, DEAD):
                dns_at.setdefault(name, time.monotonic() - start)
                if fetch(address, 8080):
                    page_at.setdefault(name, time.monotonic() - start)
        time.sleep(0.005)
    subprocess.run([meridian, "lab", "start", "us-east"], check=True, capture_output=True)
    return dns_at, page_at


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # gdnsd's check hangs up as soon as it has the status line


def serve(address):
    Server((address, 8080), Page).serve_forever()


GDNSD_CONFIG = """options => { listen => %s, dns_port => 5353, run_dir => %s, state_dir => %s }
service_types => { web => { plugin => http_status, port => 8080, %s } }
plugins => { simplefo => { www => { service_types => web, primary => %s, secondary => %s } } }
"""


def kill_behind_gdnsd(times):
    """Seconds from the death of a web server to gdnsd's answer without it."""
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    os.mkdir(os.path.join(folder, "zones"))
    with open(os.path.join(folder, "config"), "w") as out:
        out.write(GDNSD_CONFIG % (RIVAL_DNS, folder, folder, times, RIVAL_WEB, RIVAL_SPARE))
    with open(os.path.join(folder, "zones", "example.test"), "w") as out:
        out.write("@ SOA ns hostmaster 1 900 900 900 900\n@ NS ns\nns A 127.98.0.2\n"
                  "www 30 DYNA simplefo!www\n")
    webs = [multiprocessing.Process(target=serve, args=(a,), daemon=True)
            for a in (RIVAL_WEB, RIVAL_SPARE)]
    for web in webs:
        web.start()
    server = subprocess.Popen(["gdnsd", "-c", folder, "start"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        wait_until("gdnsd's first answer",
                   lambda: ask(RIVAL_DNS, 5353, "www.example.test") == RIVAL_WEB, 60)
        webs[0].kill()
        return wait_until("gdnsd's answer without the dead server",
                          lambda: ask(RIVAL_DNS, 5353, "www.example.test") == RIVAL_SPARE, 300)
    finally:
        server.terminate()
        server.wait()
        for web in webs:
            web.kill()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=os.path.join(os.path.dirname(__file__), "../../build"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    meridian = os.path.join(args.build, "meridian")
    answers, pages = [], []
    for _ in range(args.rounds):
        dns_at, page_at = kill_region(meridian)
        answers += dns_at.values()
        pages += page_at.values()
    print(f"kill -9 of a whole region, {args.rounds} rounds, seen from the two others")
    for label, values in (("first right DNS answer", answers), ("first good page", pages)):
        print(f"  meridian  {label:24} median {statistics.median(values):6.2f} s   "
              f"worst {max(values):6.2f} s")
    if shutil.which("gdnsd") is None:
        print("  gdnsd     not installed: no rival in this run (apt-get install gdnsd)")
        return
    tight = "interval => 2, timeout => 1, ok_thresh => 1, down_thresh => 1"
    for label, times in (("as tight as it goes", tight), ("defaults", "")):
        print(f"  gdnsd     {label:24} {kill_behind_gdnsd(times):13.2f} s")


if __name__ == "__main__":
    main()
