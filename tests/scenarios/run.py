#!/usr/bin/python3
"""Drives three regions with their real servers on this machine, one file of scenarios a theme.

    tests/scenarios/run.py [--only NAME] [--keep] [--once]

`--only` takes a theme's name, or words of the names of scenarios, which run with those that they go
on from (`@after`); a name that fits nothing is answered by all that there are.

Functions called `scenario_...` are run in the order of the themes below and of their lines. Most of
their time is waiting, so there are two lanes beside each other, each with a lab in a network namespace
of its own, where this user may have such; else one comes after the other, in the network of this
machine, where no other lab may run. The labs lie under the build folder.

What came too late, but broke no promise, may be the fault of a machine that does much else: its theme
is run again, whole, with a fresh lab, and that is told (`--once`: it is not). A broken promise, and
what fails twice, has failed. The last line is `N passed, N failed`.
"""
import argparse
import importlib
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
import own_network  # noqa: E402
from lab import ADDRESSES, BUILD, MERIDIAN, Broken, Failure, Lab, free_network  # noqa: E402

FIRST = "first_minutes"  # starts the lab of each lane, and has more to say in the first one
LANES = [["traffic", "postgres", "bank", "orders", "drivers", "ports_taken", "restart", "in_region"],
         ["data", "verify", "policies", "together", "locks", "lock_clients", "leases",
          "values", "flags", "process_kills", "kill_region", "partition", "flapping", "bad_input",
          "removal", "nodes", "witness"]]
OWN_LABS = ["in_region", "nodes", "witness"]  # these have one each, in the place of the other
AGAIN_MAX = 2  # themes of a lane that may be run again


def scenarios(theme):
    module = importlib.import_module(theme)
    found = [(function.__code__.co_firstlineno, name, function)
             for name, function in inspect.getmembers(module, inspect.isfunction)
             if name.startswith("scenario_") and function.__module__ == theme]
    return [(f"{theme}: {name[len('scenario_'):].replace('_', ' ')}", function)
            for _, name, function in sorted(found)]


def all_themes():
    return [FIRST, *(theme for lane in LANES for theme in lane)]


def with_needed(chosen):
    """These scenarios, and those that they go on from."""
    found = set()
    more = list(chosen)
    while more:
        function = more.pop()
        if function not in found:
            found.add(function)
            more += getattr(function, "needed", ())
    return found


def wanted(theme, only):
    """[(name, scenario)] of a theme that `only` asks for, in their order."""
    every = scenarios(theme)
    if only in ("", theme):
        return every
    needed = set()
    if only not in all_themes():
        words = only.replace("_", " ")
        needed = with_needed(function for name, function in every
                             if words in name.replace("_", " "))
    found = [one for one in every if one[1] in needed]
    if needed and theme in OWN_LABS and every[-1] not in found:
        found.append(every[-1])  # ends the lab of this theme
    return found


def nothing_fits(only):
    names = "\n".join(f"    {name}" for theme in all_themes() for name, _ in scenarios(theme))
    return f"--only {only!r} is no theme, and in no scenario's name. There are:\n{names}"


def show_logs(lab):
    """The end of what the daemons said, for whoever reads a failed run."""
    for region in ADDRESSES:
        path = os.path.join(lab.folder, region, "log", "meridiand.log")
        if os.path.exists(path):
            print(f"--- the end of {path}")
            print(subprocess.run(["tail", "-n", "40", path], capture_output=True, text=True,
                                 check=False).stdout)


def recover(lab):
    """After a failure the next scenario finds the lab as it wants it: healed, and up."""
    try:
        lab.run("lab", "heal")
        for region in ADDRESSES:
            lab.run("undrain", region)
            lab.run("unisolate", region)
            lab.run("lab", "start", region)
        lab.wait_all_active()
    except Exception as error:  # pylint: disable=broad-except
        print(f"    (the lab is started anew: {error})")
        lab.run("lab", "down", "--wipe")
        lab.run("lab", "up")


def start_anew(lab):
    """A lab that has seen nothing."""
    for folder in (lab.folder, *(f"{lab.folder}-{theme.replace('_', '-')}" for theme in OWN_LABS)):
        Lab(folder).run("lab", "down", "--wipe")
    lab.run("lab", "up")


def run_one(lab, name, function):
    """"ok", "late" for what failed but broke no promise, or "broken"."""
    begin = time.monotonic()
    try:
        function(lab)
    except Exception as error:  # pylint: disable=broad-except
        print(f"not ok  {name} ({time.monotonic() - begin:.1f} s; load {os.getloadavg()[0]:.1f})",
              flush=True)
        if isinstance(error, Failure):
            lines = [f"{os.path.basename(frame.filename)}:{frame.lineno}"
                     for frame in traceback.extract_tb(error.__traceback__)
                     if os.path.dirname(frame.filename) == HERE]
            print(f"    {error}\n    at {' > '.join(lines[1:])}")
        else:
            traceback.print_exc(file=sys.stdout)
        return "broken" if isinstance(error, Broken) else "late"
    print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
    return "ok"


def settle(lab):
    """What the theme before had begun comes to its end."""
    try:
        lab.wait_all_active()
    except Failure as error:
        print(f"    ({error})")
        recover(lab)


def run_theme(lab, theme, found, last_turn):
    """(passed, failed, may it be run again); it ends early where it may."""
    passed = failed = 0
    for at, (name, function) in enumerate(found):
        result = run_one(lab, name, function)
        if result == "ok":
            passed += 1
            continue
        failed += 1
        show_logs(lab)
        if result == "late" and not last_turn:
            if theme in OWN_LABS and at + 1 < len(found):
                run_one(lab, *found[-1])
            return 0, 0, True
        if "the lab starts" in name:
            break
        recover(lab)
    return passed, failed, False


def run_lane(lab, lane, only, again_max):
    passed = failed = 0
    for theme in [FIRST, *LANES[lane]]:
        found = wanted(theme, only)
        if theme == FIRST:
            starts, *others = scenarios(FIRST)
            found = [starts] + [one for one in others if lane == 0 and one in found]
        elif found and theme not in OWN_LABS:
            settle(lab)
        more = run_theme(lab, theme, found, again_max == 0)
        if more[2]:
            again_max -= 1
            print(f"again   {theme}: all of it, with a fresh lab", flush=True)
            start_anew(lab)
            more = run_theme(lab, theme, found, True)
        passed, failed = passed + more[0], failed + more[1]
        if theme == FIRST and passed == 0:
            print("the lab does not start: nothing else can be tried")
            break
    return passed, failed


def run_here(args, lane):
    """One lane in this network."""
    folder = os.path.join(BUILD, f"scenario-lab{lane or ''}")
    shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(folder)
    passed, failed = 0, 1
    try:
        passed, failed = run_lane(lab, lane, args.only, 0 if args.once else AGAIN_MAX)
    finally:
        if not args.keep:
            subprocess.run([MERIDIAN, "lab", "down"], env=lab.environment, check=False,
                           stdout=subprocess.DEVNULL)
    return passed, failed


class Lane(threading.Thread):
    """One lane in a network of its own; its lines are shown as they come."""

    def __init__(self, lane, words):
        super().__init__(daemon=True)
        self.lane, self.passed, self.failed = lane, 0, 1
        self.process = subprocess.Popen(
            [*own_network.COMMAND, sys.executable, "-u", sys.argv[0], "--lane", str(lane), *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        self.start()

    def run(self):
        for line in self.process.stdout:
            found = re.match(r"(\d+) passed, (\d+) failed$", line)
            if found:
                self.passed, self.failed = int(found[1]), int(found[2])
            else:
                print(f"{self.lane + 1} {line}", end="", flush=True)
        if self.process.wait() != 0 and self.failed == 0:
            self.failed = 1


def run_lanes(words):
    """All lanes beside each other; they end with this program."""
    lanes = [Lane(lane, words) for lane in range(len(LANES))]
    try:
        for lane in lanes:
            lane.join()
    finally:
        for lane in lanes:
            if lane.process.poll() is None:
                lane.process.terminate()
                lane.process.wait()
    return sum(lane.passed for lane in lanes), sum(lane.failed for lane in lanes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="NAME",
                        help="a theme, or scenarios whose names hold this, with what they need")
    parser.add_argument("--keep", action="store_true", help="leave the lab running at the end")
    parser.add_argument("--once", action="store_true", help="run no theme again")
    parser.add_argument("--lane", type=int, choices=range(len(LANES)), help="this one, here")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the labs end, too
    if args.lane is not None:
        passed, failed = run_here(args, args.lane)
    elif not args.only and not args.keep and own_network.allowed():
        passed, failed = run_lanes(["--once"] if args.once else [])
    else:
        lanes = [lane for lane, themes in enumerate(LANES)
                 if any(wanted(theme, args.only) for theme in [FIRST][lane:] + themes)]
        if not lanes:
            parser.error(nothing_fits(args.only))
        free_network("scenarios")
        passed = failed = 0
        for lane in lanes:
            more = run_here(args, lane)
            passed, failed = passed + more[0], failed + more[1]
            if args.keep:
                break
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
