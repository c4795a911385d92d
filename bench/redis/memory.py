#!/usr/bin/python3
"""What a key costs in memory, with the module and without it, for each type.

Fills a fresh server with keys of one kind and divides the growth of its used memory (INFO, which
counts the module's too) by their number; then the same with the module, whose ring of deltas is kept
small, as it is no cost of a key. A busy machine does not disturb these figures.

    bench/redis/memory.py [--keys 200000]
"""
import argparse
import socket
import shutil
import tempfile

from server import ADDRESS, MODULE, Server

# name, command for the i-th key (its name is 14 bytes, values 10), elements to a key
KINDS = [
    ("string", lambda i: ["SET", f"key:{i:010d}", "0123456789"], 1),
    ("string, EX", lambda i: ["SET", f"key:{i:010d}", "0123456789", "EX", "9000"], 1),
    ("string, then EXPIRE", lambda i: (["SET", f"key:{i // 2:010d}", "0123456789"] if i % 2 == 0
                                       else ["EXPIRE", f"key:{i // 2:010d}", "9000"]), 2),
    ("counter", lambda i: ["INCR", f"key:{i:010d}"], 1),
    ("hash, 1 field", lambda i: ["HSET", f"key:{i:010d}", "field", "0123456789"], 1),
    ("hash, 10 fields", lambda i: ["HSET", f"key:{i // 10:010d}", f"field{i % 10}", "01234"], 10),
    ("set, 10 members", lambda i: ["SADD", f"key:{i // 10:010d}", f"member{i % 10}"], 10),
    ("sorted set, 10 members", lambda i: ["ZADD", f"key:{i // 10:010d}", str(i), f"m{i % 10}"], 10),
    ("list, 10 elements", lambda i: ["RPUSH", f"key:{i // 10:010d}", f"element{i % 10}"], 10),
]


def encode(words):
    return b"".join([b"*%d\r\n" % len(words)] +
                    [b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words])


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection((ADDRESS, port))
        self.file = self.socket.makefile("rb")

    def answer(self):
        """The answer's bytes: a line, or what a length announces."""
        line = self.file.readline()
        if line[:1] == b"-":
            raise RuntimeError(line.decode().strip())
        return self.file.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" else line[1:-2]

    def pipeline(self, commands):
        self.socket.sendall(b"".join(map(encode, commands)))
        for _ in commands:
            self.answer()

    def used(self):
        self.socket.sendall(encode(["INFO", "memory"]))
        for line in self.answer().splitlines():
            if line.startswith(b"used_memory:"):
                return int(line.split(b":")[1])
        raise RuntimeError("INFO tells no used_memory")


def per_key(arguments, folder, port, module, kind, elements):
    server = Server(folder, arguments.server, port, module, fsync=None,
                    options=["ring", "65536"])
    try:
        client = Client(port)
        before = client.used()
        for first in range(0, arguments.keys, 1000):
            client.pipeline([kind(i) for i in range(first, first + 1000)])
        return (client.used() - before) * elements / arguments.keys
    finally:
        server.stop()
        shutil.rmtree(server.folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keys", type=int, default=200000, help="elements written, of each kind")
    parser.add_argument("--module", default=MODULE)
    parser.add_argument("--server", default="redis-server")
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="meridian-bench-")
    try:
        print("bytes a key               plain   module     more")
        for name, kind, elements in KINDS:
            plain = per_key(arguments, folder, 7903, None, kind, elements)
            try:
                module = per_key(arguments, folder, 7904, arguments.module, kind, elements)
            except RuntimeError as error:
                print(f"{name:24} {plain:6.0f}   {error}")
                continue
            print(f"{name:24} {plain:6.0f}   {module:6.0f}   {module - plain:6.0f}", flush=True)
    finally:
        shutil.rmtree(folder)


main()
