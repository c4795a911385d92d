#!/usr/bin/python3
"""The nginx module in a real nginx: choice, failure, reload, and backends of every kind.

MERIDIAN_BUILD names the build folder (default: build beside the sources). MERIDIAN_ADDRESS is the
address to listen on. Prints `N passed, N failed`; ends non-zero when something failed.
"""

import base64
import collections
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "../..")]
from fixture import Publisher, end_process, equal, wait_for  # noqa: E402
from tally import Tally  # noqa: E402

SOURCE = os.path.realpath(os.path.join(HERE, "../../.."))
BUILD = os.path.realpath(os.environ.get("MERIDIAN_BUILD", os.path.join(SOURCE, "build")))
ADDRESS = os.environ.get("MERIDIAN_ADDRESS", "127.96.0.1")
PORT = int(os.environ.get("MERIDIAN_PORT", "18080"))
BASE = PORT + 1000  # backends: BASE + 10 * region + index

REGIONS = ("us-east", "eu-west", "ap-southeast")


def endpoint(region, index):
    return f"{ADDRESS}:{BASE + 10 * region + index}"


def topology(epoch=1, us_backends=None):
    us = us_backends or [endpoint(0, 0), endpoint(0, 1)]
    lists = [us, [endpoint(1, 0), endpoint(1, 1)], [endpoint(2, 0)]]
    text = f"cluster = test; epoch = {epoch};\n"
    for number, name in enumerate(REGIONS):
        backends = ", ".join(f'"{item}"' for item in lists[number])
        text += f"""region {name} {{ id = {number + 1}; latitude = {number * 10}; longitude = 1;
            node {name}-1 {{ id = {number + 1}; link = "127.0.0.{number + 1}:7401" }}
            backends = [{backends}] }}\n"""
    return text


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.backend.connections += 1
        self.server.backend.sockets.add(self.connection)

    def finish(self):
        self.server.backend.sockets.discard(self.connection)
        super().finish()

    def do_GET(self):
        backend = self.server.backend
        backend.requests += 1
        if self.headers.get("Upgrade") == "websocket":
            self.upgrade()
            return
        length = int(self.headers.get("Content-Length", "0"))
        got = self.rfile.read(length).decode()
        body = json.dumps({"region": REGIONS[backend.region], "index": backend.index,
                           "body": got}).encode()
        self.send_response(backend.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def upgrade(self):
        """Answers what it gets, in capitals, until the other side ends."""
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         b"Connection: Upgrade\r\n\r\n")
        while True:
            data = self.connection.recv(1000)
            if not data:
                break
            self.connection.sendall(data.upper())
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


class Server6(Server):
    address_family = socket.AF_INET6


class Backend:
    def __init__(self, region, index, address=ADDRESS):
        self.region, self.index, self.address = region, index, address
        self.server = None
        self.sockets = set()
        self.start()

    def start(self):
        self.connections = self.requests = 0
        self.status = 200
        if self.server is not None:
            return
        kind = Server6 if ":" in self.address else Server
        self.server = kind((self.address, BASE + 10 * self.region + self.index), Handler)
        self.server.backend = self
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        if self.server is None:
            return
        self.server.shutdown()
        self.server.server_close()
        self.server = None
        for connection in list(self.sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Nginx:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="meridian-nginx-")
        os.chmod(self.folder, 0o755)
        self.view = f"{self.folder}/view"
        self.tool = os.path.join(BUILD, "tests/view/view-tool")
        self.publisher = Publisher(self.tool, self.view, f"{self.folder}/topology")
        self.publish = self.publisher.publish
        self.server = None
        self.backends = {(region, index): Backend(region, index)
                         for region, index in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))}
        self.write("topology", topology())
        self.write("nginx.conf", self.configuration())

    def configuration(self, inside="", workers=2):
        user = "user root;" if os.getuid() == 0 else ""
        temp = "\n".join(f"    {kind}_temp_path {self.folder}/{kind};" for kind in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return f"""
load_module {BUILD}/plugins/nginx/ngx_http_meridian_module.so;
{user}
worker_processes {workers};
daemon off;
pid {self.folder}/pid;
error_log {self.folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    access_log {self.folder}/access.log;
{temp}
    upstream app {{
        meridian {self.view};
        {inside}
        keepalive 16;
    }}
    upstream spare {{
        meridian {self.folder}/never-published;
        server {endpoint(2, 0)};
    }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen {ADDRESS}:{PORT};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_connect_timeout 1s;
        proxy_read_timeout 3s;
        proxy_next_upstream error timeout http_502 http_503;
        add_header Meridian-Region $meridian_region always;
        add_header Meridian-Route $meridian_route always;
        add_header Upstream $upstream_addr always;
        location / {{ proxy_pass http://app; }}
        location /spare {{ proxy_pass http://spare; }}
    }}
}}
"""

    def write(self, name, text):
        with open(f"{self.folder}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def run(self, *arguments):
        return subprocess.run(["/usr/sbin/nginx", "-p", self.folder, "-e",
                               f"{self.folder}/error.log", *arguments],
                              capture_output=True, text=True, timeout=60)

    def start(self):
        self.server = subprocess.Popen(["/usr/sbin/nginx", "-p", self.folder, "-e",
                                        f"{self.folder}/error.log", "-c",
                                        f"{self.folder}/nginx.conf"])
        wait_for(lambda: get() is not None, "nginx does not answer")

    def restart(self):
        """New workers, which have no marks of failed backends."""
        end_process(self.server)
        self.start()

    def reload(self):
        os.kill(self.server.pid, signal.SIGHUP)

    def log(self):
        with open(f"{self.folder}/error.log", encoding="utf-8") as file:
            return file.read()

    def stop(self):
        self.publisher.kill()
        code = end_process(self.server)
        for backend in self.backends.values():
            backend.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return code


Answer = collections.namedtuple("Answer", "status headers body")


def get(path="/", method="GET", body=None, connection=None):
    own = connection is None
    if own:
        connection = http.client.HTTPConnection(ADDRESS, PORT, timeout=60)
    try:
        connection.request(method, path, body=body)
        response = connection.getresponse()
        data = response.read()
        try:
            data = json.loads(data)
        except ValueError:
            pass
        return Answer(response.status, response.headers, data)
    finally:
        if own:
            connection.close()


def tally(count, path="/"):
    """How often which (region, index) answered; each answer is checked."""
    result = collections.Counter()
    for _ in range(count):
        answer = get(path)
        equal(answer.status, 200, str(answer.headers))
        equal(answer.headers["Meridian-Region"], answer.body["region"])
        result[answer.body["region"], answer.body["index"]] += 1
    return dict(result)


def only(tallied):
    return {region for region, _ in tallied}


# Tests, in order.

def test_before_any_view(nginx):
    answer = get()
    equal(answer.status, 502)
    equal(answer.headers["Meridian-Region"], None)
    equal(answer.headers["Meridian-Route"], "no-backend")
    assert "has never been published" in nginx.log()
    nginx.publish()
    wait_for(lambda: get().status == 200, "the new view is not seen")


def test_server_lines_without_view(_):
    answer = get("/spare")
    equal(answer.status, 200)
    equal(answer.body["region"], "ap-southeast")
    equal(answer.headers["Meridian-Route"], "server-lines")
    equal(answer.headers["Meridian-Region"], None)


def test_own_region_in_turn(nginx):
    nginx.publish()
    tallied = tally(40)
    equal(only(tallied), {"us-east"})
    assert min(tallied.values()) >= 15 and len(tallied) == 2, tallied
    equal(get().headers["Meridian-Route"], "own-region")


def test_sick_backend(nginx):
    nginx.publish("us-east=sick=1")
    equal(tally(20), {("us-east", 1): 20})
    nginx.publish("us-east=sick=2")
    equal(tally(20), {("us-east", 0): 20})


def test_own_region_sick(nginx):
    nginx.publish("us-east=sick=3", "eu-west=rtt=70", "ap-southeast=rtt=220")
    equal(only(tally(20)), {"eu-west"})
    equal(get().headers["Meridian-Route"], "nearest-region")
    nginx.publish("us-east=sick=3", "eu-west=rtt=300", "ap-southeast=rtt=220")
    equal(only(tally(10)), {"ap-southeast"})
    nginx.publish("us-east=sick=3", "eu-west=rtt=300", "ap-southeast=rtt=220,down")
    equal(only(tally(10)), {"eu-west"})


def test_own_region_unroutable(nginx):
    nginx.publish("us-east=draining", "eu-west=rtt=70", "ap-southeast=rtt=220")
    equal(only(tally(20)), {"eu-west"})


def test_own_region_of_the_view(nginx):
    nginx.publish(own="ap-southeast")
    equal(only(tally(10)), {"ap-southeast"})


def test_fail_open(nginx):
    nginx.publish("us-east=sick=3", "eu-west=sick=3", "ap-southeast=sick=1")
    answer = get()
    equal((answer.status, answer.headers["Meridian-Route"]), (200, "fail-open"))
    equal(only(tally(6)), {"us-east"})
    nginx.publish("us-east=down", "eu-west=down", "ap-southeast=down")
    answer = get()
    equal((answer.status, answer.headers["Meridian-Route"]), (200, "fail-open"))
    nginx.publish("us-east=isolated", "eu-west=down", "ap-southeast=down")
    assert "us-east" not in only(tally(10)), "an isolated region is never used"
    nginx.publish("us-east=isolated", "eu-west=isolated", "ap-southeast=isolated")
    equal(get().status, 502)


def test_backend_refuses(nginx):
    """The view does not know yet: every request is answered, and the dead one soon passed over."""
    nginx.publish()
    nginx.backends[0, 0].stop()
    equal(tally(40), {("us-east", 1): 40})
    refused = nginx.log().count("Connection refused")
    equal(tally(40), {("us-east", 1): 40})
    equal(nginx.log().count("Connection refused"), refused, "it is passed over")
    nginx.backends[0, 0].start()


def test_own_region_refuses(nginx):
    nginx.restart()
    nginx.publish("eu-west=rtt=70", "ap-southeast=rtt=220")
    nginx.backends[0, 0].stop()
    nginx.backends[0, 1].stop()
    equal(only(tally(30)), {"eu-west"})
    answer = get(method="POST", body="x" * 1000)
    equal((answer.status, answer.body["body"]), (200, "x" * 1000))
    nginx.backends[0, 0].start()
    nginx.backends[0, 1].start()


def test_all_refuse(nginx):
    nginx.restart()
    nginx.publish()
    for backend in nginx.backends.values():
        backend.stop()
    for _ in range(5):
        answer = get()
        equal(answer.status, 502)
        equal(answer.headers["Meridian-Region"], None)
    for backend in nginx.backends.values():
        backend.start()
    equal(tally(10) is not None, True, "all are tried again although all are marked")
    nginx.restart()


def test_backend_says_503(nginx):
    nginx.publish()
    nginx.backends[0, 0].status = 503
    equal(tally(20), {("us-east", 1): 20})
    nginx.backends[0, 0].status = 200
    nginx.restart()


def test_keepalive(nginx):
    nginx.publish()
    for backend in nginx.backends.values():
        backend.start()
    tally(4)
    before = sum(backend.connections for backend in nginx.backends.values())
    client = http.client.HTTPConnection(ADDRESS, PORT, timeout=60)
    for _ in range(100):
        equal(get(connection=client).status, 200)
    client.close()
    opened = sum(backend.connections for backend in nginx.backends.values()) - before
    assert opened <= 4, f"{opened} connections for 100 requests"


def test_websocket(nginx):
    nginx.publish()
    with socket.create_connection((ADDRESS, PORT), timeout=60) as client:
        key = base64.b64encode(b"0123456789abcdef").decode()
        client.sendall((f"GET /chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1000)
        assert head.startswith(b"HTTP/1.1 101"), head
        assert b"Meridian-Region: us-east" in head, head
        for word in (b"hello", b"again"):
            client.sendall(word)
            equal(client.recv(1000), word.upper())
            nginx.publish("us-east=down")  # an open connection is left alone
    nginx.publish()


def test_new_backends_without_reload(nginx):
    six = Backend(0, 5, "::1")
    third = Backend(0, 2)
    nginx.publisher.kill()
    nginx.write("topology", topology(2, [endpoint(0, 2), f"[::1]:{BASE + 5}"]))
    nginx.publish()
    tallied = tally(20)
    equal(set(tallied), {("us-east", 2), ("us-east", 5)})
    assert f"[::1]:{BASE + 5}" in {get().headers["Upstream"] for _ in range(10)}
    nginx.publisher.kill()
    nginx.write("topology", topology(3))
    nginx.publish()
    equal(set(tally(20)), {("us-east", 0), ("us-east", 1)})
    six.stop()
    third.stop()


def hammer(nginx, seconds, meanwhile, cut_allowed=0):
    """Requests from several threads. All must be a 200, but for those whose backend died between the
    head and the body of its answer: of them `cut_allowed`."""
    wrong, counts, cut = [], [], []
    end = time.monotonic() + seconds

    def client():
        count = 0
        while time.monotonic() < end:
            try:
                answer = get()
                if answer.status != 200:
                    wrong.append(answer)
            except http.client.IncompleteRead as error:
                cut.append(error)
            except (OSError, http.client.HTTPException) as error:
                wrong.append(error)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    meanwhile(nginx)
    for thread in threads:
        thread.join()
    equal(wrong[:3], [], f"{len(wrong)} of {sum(counts)}")
    assert len(cut) <= cut_allowed, cut[:3]
    equal(len(counts), 4, "every client came to its end")


def test_region_goes_away_under_load(nginx):
    def kill_and_tell(nginx):
        time.sleep(0.5)
        nginx.backends[0, 0].stop()
        nginx.backends[0, 1].stop()
        time.sleep(0.5)
        nginx.publish("us-east=down")
        time.sleep(0.3)
        equal(only(tally(5)), {"eu-west"})
        nginx.backends[0, 0].start()
        nginx.backends[0, 1].start()
        nginx.publish()

    nginx.publish()
    hammer(nginx, 2.5, kill_and_tell, cut_allowed=4)
    nginx.restart()


def test_reload_under_load(nginx):
    def reload(nginx):
        for _ in range(3):
            time.sleep(0.4)
            nginx.reload()

    nginx.publish()
    hammer(nginx, 2, reload)


def test_worker_dies(nginx):
    nginx.publish()
    time.sleep(0.5)
    master = nginx.server.pid
    with open(f"/proc/{master}/task/{master}/children", encoding="ascii") as children:
        workers = children.read().split()
    assert workers
    for worker in workers:
        os.kill(int(worker), signal.SIGKILL)
    wait_for(lambda: get().status == 200, "no new worker")
    equal(only(tally(10)), {"us-east"})


def test_storm_of_views(nginx):
    def storm(nginx):
        done = subprocess.run([nginx.tool, "storm", nginx.view, f"{nginx.folder}/topology",
                               "us-east", "1500"], capture_output=True, text=True)
        assert int(done.stdout) > 1000, done

    nginx.publisher.kill()
    hammer(nginx, 1.5, storm)


def test_view_goes_away(nginx):
    nginx.publish("us-east=down", "eu-west=rtt=70", "ap-southeast=rtt=220")
    equal(only(tally(5)), {"eu-west"})
    nginx.publisher.kill()
    os.unlink(nginx.view)
    time.sleep(1.3)
    equal(only(tally(5)), {"eu-west"})
    with open(nginx.view, "wb") as file:
        file.write(b"rubbish" * 1000)
    wait_for(lambda: "this is not a view" in nginx.log(), "nothing is logged")
    equal(only(tally(5)), {"eu-west"})
    nginx.publish()
    wait_for(lambda: only(tally(1)) == {"us-east"} and only(tally(4)) == {"us-east"},
             "the new file is not seen")


def test_configuration(nginx):
    cases = [
        (f"meridian {nginx.view};", "is duplicate"),
        ("zone z 64k;", "needs server lines"),
    ]
    for inside, complaint in cases:
        nginx.write("bad.conf", nginx.configuration(inside))
        done = nginx.run("-t", "-c", f"{nginx.folder}/bad.conf")
        assert done.returncode != 0 and complaint in done.stderr, done
    nginx.write("bad.conf", nginx.configuration().replace(f"meridian {nginx.view};", "meridian;"))
    done = nginx.run("-t", "-c", f"{nginx.folder}/bad.conf")
    assert done.returncode != 0 and "invalid number of arguments" in done.stderr, done
    text = nginx.configuration().replace(f"meridian {nginx.view};\n        \n        keepalive 16;",
                                         f"keepalive 16;\n meridian {nginx.view};")
    nginx.write("bad.conf", text)
    done = nginx.run("-t", "-c", f"{nginx.folder}/bad.conf")
    assert '"meridian" must come first' in done.stderr, done
    done = nginx.run("-t", "-c", f"{nginx.folder}/nginx.conf")
    equal(done.returncode, 0, done.stderr)


def main():
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    tally = Tally(sys.argv[1:])
    nginx = Nginx()
    code = None
    try:
        if tally.wanted:
            nginx.publish()
        nginx.start()
        for test in tests:
            if not tally.run(test, nginx):
                for backend in nginx.backends.values():
                    backend.start()
                nginx.restart()
        for word in ("segfault", "exited on signal 11", "exited on signal 6", "[alert]"):
            lines = [line for line in nginx.log().splitlines()
                     if word in line and "signal 9" not in line]
            if lines:
                tally.fail("the log", "\n".join(lines[:10]))
        if tally.failed and os.environ.get("VERBOSE"):
            print(nginx.log()[-4000:])
    finally:
        code = nginx.stop()
    if code not in (0, None):
        tally.fail(f"nginx ended with {code}")
    return tally.end()


if __name__ == "__main__":
    sys.exit(main())
