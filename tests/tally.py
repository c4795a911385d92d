"""What the test programs share: one test after another, and the sum that scripts/test reads."""

import os
import sys
import time
import traceback


def as_nobody():
    """PostgreSQL refuses root: a program that root started starts itself anew as `nobody`."""
    if os.getuid() == 0:
        os.execvp("setpriv", ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                              "/usr/bin/python3", "-u", os.path.realpath(sys.argv[0]), *sys.argv[1:]])


class Tally:
    """Counts tests. `wanted` names those that run (none: all); of the exceptions in `told` the
    message is enough, of others the trace is printed."""

    def __init__(self, wanted=(), told=()):
        self.wanted, self.told = set(wanted), tuple(told)
        self.passed = self.failed = 0

    def run(self, function, *arguments, within="", before=None):
        """Runs one test, of the group `within`, and `before` before it; true: it passed, or is not
        wanted."""
        if self.wanted and function.__name__ not in self.wanted:
            return True
        name = f"{within} {function.__name__}".strip()
        began = time.monotonic()
        try:
            if before is not None:
                before()
            function(*arguments)
        except Exception as error:  # a test may fail in any way; the others still run
            self.fail(f"{name} ({time.monotonic() - began:.1f} s)",
                      error if isinstance(error, self.told) else traceback.format_exc())
            return False
        self.passed += 1
        print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True

    def fail(self, what, why=""):
        self.failed += 1
        print(f"not ok {what}\n{why}".rstrip(), flush=True)

    def end(self):
        """Prints the sum; the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0
