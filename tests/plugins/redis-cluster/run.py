#!/usr/bin/python3
"""Regions that are a Redis Cluster, with real servers.

    tests/plugins/redis-cluster/run.py [--only NAME,...] [--program redis-server]

Every scenario runs with redis-server and, where there is one, with valkey-server. Prints
`N passed, N failed` and ends non-zero on failure.
"""
import argparse
import os
import shutil
import sys
import time
import traceback

import scenarios
from harness import MODULE, TOOL, Failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--program", action="append")
    arguments = parser.parse_args()
    for path in (MODULE, TOOL):
        if not os.path.exists(path):
            sys.exit(f"{path} is not built; run make")
    wanted = [name for name in arguments.only.split(",") if name]
    programs = arguments.program or [os.environ.get("REDIS_SERVER") or "redis-server",
                                     os.environ.get("VALKEY_SERVER") or "valkey-server"]
    programs = [path for path in map(shutil.which, programs) if path]
    passed = failed = 0
    for program in programs:
        for scenario in scenarios.ALL:
            name = scenario.__name__
            if wanted and name not in wanted:
                continue
            began = time.monotonic()
            try:
                scenario(program)
                passed += 1
                verdict = "ok"
            except Failed as error:
                failed += 1
                verdict = f"FAILED: {error}"
            except Exception:  # a test that breaks is a test that fails
                failed += 1
                verdict = "BROKE: " + traceback.format_exc()
            print(f"{os.path.basename(program)} {name} {time.monotonic() - began:.1f}s {verdict}",
                  flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or passed == 0 else 0)


main()
