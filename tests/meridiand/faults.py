"""Faults of real daemons: what a test does to them while clients ask. A node here has faults.c
preloaded where there is such a library, so its wall clock can jump and its disk can fail."""
import errno
import mmap
import os
import signal
import struct
import subprocess
import time

import cluster

# struct faults of faults.c, in its order.
WORDS = ["wall_us", "steady_us", "sync_delay_us", "sync_errno", "write_errno", "write_room", "power",
         "lies", "seed", "keeps", "jumped", "delayed", "sync_failed", "write_failed", "undone",
         "kept"]


class Page:
    """The page of words that a daemon reads while it runs."""

    def __init__(self, path):
        with open(path, "wb") as file:
            file.write(bytes(4096))
        self.file = open(path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 4096)

    def set(self, **words):
        for word, value in words.items():
            struct.pack_into("q", self.map, 8 * WORDS.index(word), value)

    def get(self, word):
        return struct.unpack_from("q", self.map, 8 * WORDS.index(word))[0]


class Node(cluster.Node):
    """A node whose clocks and disk can be hurt. Its library may be None."""

    def __init__(self, root, daemon, index, library):
        super().__init__(root, daemon, index, False)
        self.page = Page(os.path.join(self.dir, "faults"))
        self.environment = dict(os.environ, MERIDIAN_FAULTS=os.path.join(self.dir, "faults"))
        if library is not None:
            self.environment["LD_PRELOAD"] = library
            # The sanitizer wants to be the first library; it need not be.
            self.environment["ASAN_OPTIONS"] = "verify_asan_link_order=0:" + os.environ.get(
                "ASAN_OPTIONS", "")

    def start(self, *prefix):
        with open(os.path.join(self.dir, "log"), "ab") as log:
            self.process = subprocess.Popen([*prefix, self.daemon, "-c", self.conf], stderr=log,
                                            env=self.environment)

    def start_at(self, offset_s):
        """With another boot time: its steady clocks begin elsewhere."""
        self.start("unshare", "-T", "--fork", "--kill-child", "--boottime", str(offset_s),
                   "--monotonic", str(offset_s))

    def kill(self):
        self.process.kill()
        self.ended()

    def ended(self):
        """Waits for its end, whoever brings it."""
        self.process.wait(timeout=60)
        self.process = None


def kill(node, _, rng):
    node.kill()
    time.sleep(rng.uniform(0.1, 1.2))
    node.start()


def clock(node, _, rng):
    node.kill()
    node.start_at(rng.randrange(1, 1000000))
    time.sleep(rng.uniform(0.8, 1.5))
    node.kill()
    time.sleep(rng.uniform(0.1, 0.5))
    node.start()


def stop(node, _, rng):
    node.process.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.3, 2))
    node.process.send_signal(signal.SIGCONT)


def link(node, other, cut_off):
    try:
        node.post("/lab/link", {"region": other.region, **({"cut": True} if cut_off else {})})
    except OSError:
        pass


def cut(node, nodes, rng):
    others = [other for other in nodes if other is not node]
    for other in rng.choice([others, others[:1]]):
        link(node, other, True)
    time.sleep(rng.uniform(0.5, 2.5))
    for other in others:
        link(node, other, False)


def jump(node, nodes, rng):
    """Wall clocks jump, of one node or of all, by seconds or years, forth and back, and stay there."""
    for other in rng.choice([[node], nodes]):
        size = 10 ** rng.uniform(0, 8.7) * 1e6  # up to 16 years
        other.page.set(wall_us=int(rng.choice([size, -size])))
    time.sleep(rng.uniform(0.1, 0.5))


def struck_by(node, counted, seconds, **words):
    """A word to the node, until a fault that it brings has struck and some time has gone by."""
    before, end = node.page.get(counted), time.monotonic() + 30
    node.page.set(**words)
    while node.page.get(counted) == before and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(seconds)


def slow(node, _, rng):
    """Each sync takes long, as on a disk that is about to die."""
    struck_by(node, "delayed", rng.uniform(0.8, 2), sync_delay_us=int(rng.uniform(0.05, 0.9) * 1e6))
    node.page.set(sync_delay_us=0)


def disk_fails(node, rng, counted, mended, **words):
    """A daemon whose disk failed takes no part in agreement until a person has started it again."""
    struck_by(node, counted, rng.uniform(0.1, 0.8), **words)
    node.page.set(**mended)
    kill(node, None, rng)


def sync_fails(node, _, rng):
    """What it was for is lost at once, or it is read until power is lost: what a daemon that was
    started meanwhile has told must be there then."""
    keeps = rng.randrange(2)
    node.page.set(keeps=keeps)
    disk_fails(node, rng, "sync_failed", {"sync_errno": 0},
               sync_errno=rng.choice([errno.EIO, errno.ENOSPC]))
    if keeps:
        time.sleep(rng.uniform(0.2, 1.5))
        power(node, None, rng)
    node.page.set(keeps=0)


def write_fails(node, _, rng):
    """In the middle of a write, too."""
    disk_fails(node, rng, "write_failed", {"write_errno": 0}, write_room=rng.randrange(200),
               write_errno=rng.choice([errno.EIO, errno.ENOSPC]))


def power(node, _, rng):
    """It goes while something is written, and what was not synced is torn."""
    node.page.set(seed=rng.randrange(1 << 40), power=1)
    node.ended()
    time.sleep(rng.uniform(0.1, 0.6))
    node.start()


ALWAYS = [kill, stop, cut]
ROOT = [clock]
PRELOADED = [jump, slow, sync_fails, write_fails, power]


def known(library):
    return ALWAYS + (ROOT if os.geteuid() == 0 else []) + (PRELOADED if library else [])


def struck(nodes, word):
    return sum(node.page.get(word) for node in nodes)
