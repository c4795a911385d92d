#!/usr/bin/python3
"""Tests of the Redis module against real servers.

    tests/plugins/redis/run.py [--seed N] [--program SERVER] [GROUP ...]

The seed is also taken from SEED.

Runs every group with redis-server (REDIS_SERVER or the PATH) and, where there is one, with
valkey-server (VALKEY_SERVER or the PATH). Prints `N passed, N failed` and ends non-zero on failure.
"""
import argparse
import os
import shutil
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
import access
import commands
import counters
import digests
import events
import feed
import flushed
import groups
import handover
import hyperloglog
import libraries
import limits
import lists
import lives
import notifications
import policies
import records
import replaced
import setups
import status
import streams
import transfers
import waiting
import zsets
from harness import MODULE, Failed
from tally import Tally

THEMES = (groups, replaced, access, commands, counters, lives, limits, policies, flushed, hyperloglog,
          libraries, lists, streams, waiting, status, digests, events, feed, zsets, transfers,
          records, handover, setups, notifications)


def programs():
    for variable, name in (("REDIS_SERVER", "redis-server"), ("VALKEY_SERVER", "valkey-server")):
        program = shutil.which(os.environ.get(variable) or name)
        if program:
            yield program


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int,
                        default=int(os.environ.get("SEED") or time.time()))
    parser.add_argument("--program", help="this one alone: redis-server or valkey-server")
    parser.add_argument("groups", nargs="*")
    arguments = parser.parse_args()
    if not os.path.exists(MODULE):
        sys.exit(f"{MODULE} is not built; run make")
    servers = list(programs() if arguments.program is None else
                   filter(None, [shutil.which(arguments.program)]))
    if not servers:
        sys.exit("there is no redis-server")
    tally = Tally(arguments.groups, told=(Failed,))
    print(f"seed {arguments.seed}")

    for program in servers:
        for module in THEMES:
            for group in module.ALL:
                place = groups.Place(program, arguments.seed)
                tally.run(group, place, within=os.path.basename(program))
                place.close()
    return tally.end()


sys.exit(main())
