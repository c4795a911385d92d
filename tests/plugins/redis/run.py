#!/usr/bin/python3
"""Tests of the Redis module against real servers.

    tests/plugins/redis/run.py [--seed N] [GROUP ...]

The seed is also taken from SEED.

Runs every group with redis-server (REDIS_SERVER or the PATH) and, where there is one, with
valkey-server (VALKEY_SERVER or the PATH). Prints `N passed, N failed` and ends non-zero on failure.
"""
import argparse
import os
import shutil
import sys
import time
import traceback

import access
import commands
import counters
import digests
import events
import feed
import flushed
import groups
import hyperloglog
import libraries
import lists
import lives
import policies
import replaced
import status
import streams
import waiting
import zsets
from harness import MODULE, Failed


def programs():
    for variable, name in (("REDIS_SERVER", "redis-server"), ("VALKEY_SERVER", "valkey-server")):
        program = shutil.which(os.environ.get(variable) or name)
        if program:
            yield program


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int,
                        default=int(os.environ.get("SEED") or time.time()))
    parser.add_argument("groups", nargs="*")
    arguments = parser.parse_args()
    if not os.path.exists(MODULE):
        sys.exit(f"{MODULE} is not built; run make")
    servers = list(programs())
    if not servers:
        sys.exit("there is no redis-server")
    passed = failed = 0
    print(f"seed {arguments.seed}")
    for program in servers:
        for group in (groups.ALL + replaced.ALL + access.ALL + commands.ALL + counters.ALL + lives.ALL +
                      policies.ALL + flushed.ALL + hyperloglog.ALL + libraries.ALL + lists.ALL + streams.ALL +
                      waiting.ALL + status.ALL + digests.ALL + events.ALL + feed.ALL + zsets.ALL):
            name = group.__name__
            if arguments.groups and name not in arguments.groups:
                continue
            place = groups.Place(program, arguments.seed)
            began = time.monotonic()
            try:
                group(place)
                passed += 1
                verdict = "ok"
            except Failed as error:
                failed += 1
                verdict = f"FAILED: {error}"
            except Exception:  # a test that breaks is a test that fails
                failed += 1
                verdict = "BROKE: " + traceback.format_exc()
            finally:
                place.close()
            print(f"{os.path.basename(program)} {name} {time.monotonic() - began:.1f}s {verdict}",
                  flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
