#!/usr/bin/python3
"""Drives three regions with their real servers on this machine, one file of scenarios a theme.

    tests/scenarios/run.py [--only WORD] [--keep]

Functions called `scenario_...` are run in the order of the themes below and of their lines. The lab
lies in a folder of its own under the build folder. The addresses are the lab's: where one runs
already, it is left alone, and the scenarios run in a network namespace of their own, or, where that
is not allowed, not at all. The last line is `N passed, N failed`.
"""
import argparse
import importlib
import inspect
import os
import shutil
import subprocess
import sys
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]
from lab import ADDRESSES, BUILD, MERIDIAN, Failure, Lab, own_network  # noqa: E402

THEMES = ["first_minutes", "traffic", "data", "verify", "policies", "postgres", "together",
          "locks", "lock_clients", "leases", "values", "flags", "process_kills", "bank", "orders",
          "drivers", "kill_region",
          "partition", "flapping", "bad_input", "ports_taken", "restart", "removal"]
OWN_LABS = ["in_region", "nodes", "witness"]  # these have one each, in the place of the other


def scenarios(theme):
    module = importlib.import_module(theme)
    found = [(function.__code__.co_firstlineno, name, function)
             for name, function in inspect.getmembers(module, inspect.isfunction)
             if name.startswith("scenario_") and function.__module__ == theme]
    return [(f"{theme}: {name[len('scenario_'):].replace('_', ' ')}", function)
            for _, name, function in sorted(found)]


def show_logs(lab):
    """The end of what the daemons said, for whoever reads a failed run."""
    for region in ADDRESSES:
        path = os.path.join(lab.folder, region, "log", "meridiand.log")
        if os.path.exists(path):
            print(f"--- the end of {path}")
            print(subprocess.run(["tail", "-n", "20", path], capture_output=True, text=True,
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


def run_one(lab, name, function):
    begin = time.monotonic()
    try:
        function(lab)
    except Exception as error:  # pylint: disable=broad-except
        print(f"not ok  {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        if isinstance(error, Failure):
            lines = [f"{os.path.basename(frame.filename)}:{frame.lineno}"
                     for frame in traceback.extract_tb(error.__traceback__)
                     if os.path.dirname(frame.filename) == HERE]
            print(f"    {error}\n    at {' > '.join(lines[1:])}")
        else:
            traceback.print_exc(file=sys.stdout)
        return False
    print(f"ok      {name} ({time.monotonic() - begin:.1f} s)", flush=True)
    return True


def settle(lab):
    """What the theme before had begun comes to its end."""
    try:
        lab.wait_all_active(90)
    except Failure as error:
        print(f"    ({error})")
        recover(lab)


def wanted(theme, only):
    return [(name, function) for name, function in scenarios(theme)
            if only in name or "the lab starts" in name]


def run_all(lab, only):
    passed = failed = 0
    for theme in THEMES + OWN_LABS:
        found = wanted(theme, only)
        if found and theme not in THEMES[:1] + OWN_LABS:
            settle(lab)
        for name, function in found:
            if run_one(lab, name, function):
                passed += 1
                continue
            failed += 1
            show_logs(lab)
            if "the lab starts" in name:
                print("the lab does not start: nothing else can be tried")
                return passed, failed
            recover(lab)
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="scenarios whose name holds this")
    parser.add_argument("--keep", action="store_true", help="leave the lab running at the end")
    args = parser.parse_args()
    own_network("scenarios")
    folder = os.path.join(BUILD, "scenario-lab")
    shutil.rmtree(folder, ignore_errors=True)
    lab = Lab(folder)
    passed, failed = 0, 1
    try:
        passed, failed = run_all(lab, args.only)
    finally:
        if not args.keep:
            subprocess.run([MERIDIAN, "lab", "down"], env=lab.environment, check=False,
                           stdout=subprocess.DEVNULL)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
