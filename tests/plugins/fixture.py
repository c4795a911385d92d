"""What the tests of the plugins that read the view share: a publisher of views, and waiting."""

import subprocess
import time


LIMIT_S = 60  # no promise of the product: so long a machine that does much else may take


def wait_for(condition, complaint):
    """Until `condition` holds; what it raises counts as not yet."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Exception:  # pylint: disable=broad-except
            pass
        time.sleep(0.05)
    raise AssertionError(complaint)


def equal(got, wanted, about=""):
    if got != wanted:
        raise AssertionError(f"{about}: got {got!r}, wanted {wanted!r}")


def end_process(server):
    """Ends a process, kindly at first; its exit status, or None where there is none."""
    if server is None:
        return None
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    return server.returncode


class Publisher:
    """view-tool as the daemon that publishes; it begins at the first view."""

    def __init__(self, tool, view, topology):
        self.command = [tool, "serve", view, topology]
        self.process = None

    def publish(self, *settings, own="us-east"):
        if self.process is None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(" ".join((own,) + settings) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip().isdigit()

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
