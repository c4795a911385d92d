"""A Redis of a benchmark's own, with the module or without it, on an address of its own."""
import os
import re
import socket
import struct
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import pairs  # noqa: E402

MODULE = os.path.join(ROOT, "build/plugins/redis/meridian.so")
ADDRESS = "127.92.0.9"
HOLE = re.compile(rb"\$18\r\n..(.{16})\r\n", re.DOTALL)  # of MERIDIAN.POSITIONS, where there is one


class Server:
    """`fsync`: everysec, always, or None for a server without an append-only file. `tool`: the words
    of a command that runs the server."""

    def __init__(self, folder, server, port, module, fsync="everysec", origin=1, options=(),
                 tool=()):
        self.port = port
        self.folder = os.path.join(folder, str(port))
        os.mkdir(self.folder)
        command = [*tool, server, "--bind", ADDRESS, "--port", str(port), "--dir", self.folder,
                   "--appendonly", "yes" if fsync else "no", "--appendfsync", fsync or "no",
                   "--save", "", "--auto-aof-rewrite-percentage", "0",
                   "--logfile", self.folder + "/log"]
        if module:
            command += ["--loadmodule", module, "origin", str(origin), *options]
        self.process = subprocess.Popen(command)
        self.wait(tool)
        if module:
            self.close_hole(origin)

    def close_hole(self, origin):
        """As the daemon does it once the other regions have told what they hold: no crash has taken
        anything from this one, so what is removed need not be remembered."""
        with socket.create_connection((ADDRESS, self.port), 60) as connection:
            connection.sendall(b"MERIDIAN.POSITIONS\r\n")
            answer = b""
            while HOLE.search(answer) is None:
                answer += connection.recv(4096)
            low, high = struct.unpack("<QQ", HOLE.search(answer).group(1))
            connection.sendall(b"MERIDIAN.CLOSE %d %d\r\n" % (low, high))
            if connection.recv(64)[:1] == b"-":
                sys.exit(f"region {origin} does not close its hole")

    def wait(self, tool=()):
        deadline = time.monotonic() + (300 if tool else 10)
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((ADDRESS, self.port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"the server does not start: {open(self.folder + '/log').read()}")

    def cpu_seconds(self):
        return pairs.cpu_seconds(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait()
