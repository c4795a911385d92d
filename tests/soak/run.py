#!/usr/bin/python3
"""Three regions are written to by many clients while everything fails, for as long as you like.

    tests/soak/run.py [--seconds N] [--seed N]

At the end all faults are mended, and: the regions agree again; `meridian verify` finds no key that
differs; counters are exact and nothing acknowledged is lost (but for the answers that were lost, which
are counted); of the transfers of a bank in PostgreSQL none is lost, done twice, or was ever seen half
done; no two owners held the lock at once, and its tokens only grew. The seed draws the faults
and the commands; their moments are the machine's. The lab lies in the build folder, and in a network
namespace of its own where another one runs. The last line is `N passed, N failed`.
"""
import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "scenarios"))
sys.path.insert(0, HERE)
import bank  # noqa: E402
from faults import Faults  # noqa: E402
from lab import BUILD, MERIDIAN, REGIONS, Failure, Lab, eventually, free_network  # noqa: E402
from load import Locker, Resource, Writer, problems  # noqa: E402

WRITERS = 2  # of each region


def soak(lab, seconds, seed):
    """The load and the faults; gives (writers, resource, transfers)."""
    bank.open_bank(lab)
    ended = threading.Event()
    resource = Resource()
    writers = [Writer(region, number, seed, ended) for region in REGIONS
               for number in range(WRITERS)]
    threads = writers + [Locker(region, resource, ended) for region in REGIONS]

    @contextlib.contextmanager
    def killed(region):
        kill = [time.monotonic(), float("inf")]
        for writer in writers:
            if writer.region == region:
                writer.kills.append(kill)
        yield
        kill[1] = time.monotonic()

    faults = Faults(lab, random.Random(seed), killed)
    for thread in threads:
        thread.start()
    try:
        with bank.Bank(1) as transfers:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                faults.one()
            faults.mend()
            transfers.goes_on(REGIONS)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    done = sum(writer.acknowledged for writer in writers)
    lost = sum(writer.unknown for writer in writers)
    refused = sum(writer.refused for writer in writers)
    print(f"  {done} writes acknowledged, {lost} answers lost, {refused} refused; the lock was taken "
          f"{resource.entered} times; faults: {faults.counts}", flush=True)
    return writers, resource, transfers


def check(lab, writers, resource, transfers):
    """Each promise: its name, and what speaks against it."""
    lab.wait_all_active()

    def verified():
        status, out, err = lab.run("verify")
        return status == 0 or (_ for _ in ()).throw(Failure(out + err))

    def attempt(function):
        try:
            function()
            return []
        except Failure as error:
            return [str(error)]

    yield "the regions hold the same", attempt(lambda: eventually("verify", verified))
    yield "counters are exact, nothing acknowledged is lost", list(problems(writers))
    yield "the bank's books balance", attempt(lambda: bank.balance(lab, transfers))
    odd = {text: words for writer in writers for text, words in writer.errors.items()
           if not text.startswith(("no such key", "LOADING"))}
    yield "no command failed but for a key that was not there", [f"{text}: {words}" for text, words
                                                                in odd.items()]
    yield "the lock had one owner at a time", resource.problems
    yield "the load was a load", [] if resource.entered and all(
        writer.acknowledged for writer in writers) else ["a writer never wrote, or no lock was taken"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", time.time())))
    args = parser.parse_args()
    free_network("soak")
    folder = os.path.join(BUILD, "soak-lab")
    shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(folder)
    passed = failed = 0
    print(f"soak: seed {args.seed}", flush=True)
    try:
        lab.up()
        for name, against in check(lab, *soak(lab, args.seconds, args.seed)):
            print(f"{'not ok ' if against else 'ok     '} {name}")
            for line in against[:10]:
                print(f"    {line}")
            passed, failed = passed + (not against), failed + bool(against)
    except Failure as error:
        print(f"not ok  {error}")
        failed += 1
    finally:
        subprocess.run([MERIDIAN, "lab", "down"], env=lab.environment, check=False,
                       stdout=subprocess.DEVNULL)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
