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

import scenarios
from harness import MODULE, TOOL, Failed

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../.."))
from tally import Tally  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--program", action="append")
    arguments = parser.parse_args()
    for path in (MODULE, TOOL):
        if not os.path.exists(path):
            sys.exit(f"{path} is not built; run make")
    programs = arguments.program or [os.environ.get("REDIS_SERVER") or "redis-server",
                                     os.environ.get("VALKEY_SERVER") or "valkey-server"]
    tally = Tally([name for name in arguments.only.split(",") if name], told=(Failed,))
    for program in filter(None, map(shutil.which, programs)):
        for scenario in scenarios.ALL:
            tally.run(scenario, program, within=os.path.basename(program))
    return tally.end()


sys.exit(main())
