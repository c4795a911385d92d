"""What happens to the regions while they are used. Each fault ends by itself; `mend` ends them all."""
import contextlib
import signal
import time

from bank import processes, signal_all
from lab import REGIONS, Failure, eventually

PARTS = ("redis", "meridiand", "postgres")


class Faults:
    def __init__(self, lab, rng, killed):
        """`killed(region)` is a context in which a region's Redis is killed."""
        self.lab, self.rng, self.wait, self.killed = lab, rng, time.sleep, killed
        self.counts = {}
        self.began = time.monotonic()

    def note(self, text):
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def region(self):
        return self.rng.choice(REGIONS)

    def pair(self):
        return self.rng.sample(REGIONS, 2)

    def kill_region(self):
        region, seconds = self.region(), self.rng.uniform(0.5, 6)
        self.note(f"kill {region} for {seconds:.1f} s")
        with self.killed(region):
            self.lab.kill(region)
        self.wait(seconds)
        self.lab.start(region)

    def kill_part(self):
        region, part = self.region(), self.rng.choice(PARTS)
        seconds = self.rng.uniform(0, 3)
        self.note(f"kill -9 of {part} in {region} for {seconds:.1f} s")
        pids = processes(self.lab, region, part)
        with self.killed(region) if part == "redis" else contextlib.nullcontext():
            signal_all(pids, signal.SIGKILL)
        self.wait(seconds)
        self.lab.start(region)

    def stop_part(self):
        region, part = self.region(), self.rng.choice(PARTS)
        seconds = self.rng.uniform(0.2, 5)
        self.note(f"stop {part} in {region} for {seconds:.1f} s")
        pids = processes(self.lab, region, part)
        signal_all(pids, signal.SIGSTOP)
        try:
            self.wait(seconds)
        finally:
            signal_all(pids, signal.SIGCONT)

    def partition(self):
        one, other = self.pair()
        seconds = self.rng.uniform(0.5, 8)
        self.note(f"partition {one} {other} for {seconds:.1f} s")
        self.lab.meridian("lab", "partition", one, other)
        self.wait(seconds)
        self.lab.meridian("lab", "heal", one, other)

    def cut_off(self):
        region, seconds = self.region(), self.rng.uniform(0.5, 8)
        self.note(f"cut {region} off for {seconds:.1f} s")
        self.lab.cut_off(region)
        self.wait(seconds)
        self.lab.heal()

    def slow(self):
        one, other = self.pair()
        self.note(f"slow {one} {other}, and lose packets")
        self.lab.meridian("lab", "slow", one, other, f"{self.rng.randrange(50, 600)}ms")
        self.lab.meridian("lab", "lose", one, other, f"{self.rng.randrange(1, 10)}%")
        self.wait(self.rng.uniform(1, 5))
        self.lab.heal()

    KINDS = (kill_region, kill_part, kill_part, stop_part, partition, cut_off, slow)

    def one(self):
        kind = self.rng.choice(self.KINDS)
        self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
        try:
            kind(self)
        except (Failure, FileNotFoundError, ProcessLookupError) as error:
            # A part that is not up yet after the fault before.
            self.note(f"not done: {str(error).splitlines()[0]}")

    def mend(self):
        eventually("all links are whole", lambda: self.lab.run("lab", "heal")[0] == 0)
        for region in REGIONS:
            eventually(f"{region} starts", lambda r=region: self.lab.run("lab", "start", r)[0] == 0)
