#!/usr/bin/python3
"""The lock library against a real daemon: it keeps the lock, tells of a doubt before the end, and is
never sure of a lock that somebody else has: when the daemon is stopped or killed, when the program is
stopped, when the lock is taken away. Prints TAP.

All of it is a matter of time: what fails with short leases is tried again with long ones, which a slow
machine does not outlast either.

    test_holder.py MERIDIAND MAKE_PKI HOLDER_TOOL MERIDIAN
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../meridiand"))
import cluster  # noqa: E402
from cluster import REGIONS, check, wait_for  # noqa: E402

TTLS_MS = (1000, 6000)
TTL_MS = int(os.environ.get("HOLDER_TTL_MS", "0"))


class Program:
    """A run of holder_tool."""

    def __init__(self, tool, node, key, wait_ms=0, hold_ms=60000, nodes=None):
        doors = nodes or f"{node.host}:7402"
        self.process = subprocess.Popen([tool, doors, key, str(TTL_MS), str(wait_ms), str(hold_ms)],
                                        stdout=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text = b""

    def lines(self):
        while True:
            try:
                more = os.read(self.process.stdout.fileno(), 65536)
            except BlockingIOError:
                more = b""
            if not more:
                break
            self.text += more
        return [line.split() for line in self.text.decode().splitlines() if line.count(" ") >= 1]

    def said(self, word):
        return [line for line in self.lines() if line[1] == word]

    def sure(self):
        """When it was last sure, in microseconds."""
        return max([int(line[0]) for line in self.said("sure") if line[2] == "1"], default=0)

    def end(self):
        self.process.kill()
        self.process.wait()


def now_us():
    return time.monotonic_ns() // 1000


def acquire(node, key, wait_ms=0):
    words = ["LOCK.ACQUIRE", key, "other", "600000"] + (["WAIT", str(wait_ms)] if wait_ms else [])
    return cluster.token_of(node.command(*words))


def held(node, key):
    return "token" in node.command("LOCK.INFO", key)


def test_keeps(tool, node):
    program = Program(tool, node, "us-east:keeps", hold_ms=2 * TTL_MS)
    wait_for(lambda: program.said("got"), "the lock is got")
    while program.process.poll() is None:
        if acquire(node, "us-east:keeps") is not None and not program.said("released"):
            check(False, "nobody else gets it")
        time.sleep(0.1)
    lines = program.lines()
    check(all(line[2] == "1" for line in program.said("sure")), "it is sure for two leases")
    check(not [line for line in lines if line[1] in ("doubtful", "lost")], "and never in doubt")
    check(lines[-1][1:] == ["released", "1"], "it is released", str(lines[-1]))
    check(cluster.token_of(node.command("LOCK.ACQUIRE", "us-east:keeps", "other", "600000")) >
          int(program.said("got")[0][2]), "the next token is larger")


def test_daemon_stopped(tool, node):
    key = "us-east:daemon-stopped"
    program = Program(tool, node, key)
    wait_for(lambda: program.said("sure"), "the lock is held")
    node.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: program.said("doubtful"), "a daemon that does not answer makes it doubtful")
    wait_for(lambda: program.said("lost"), "and then it is lost")
    doubtful, lost = int(program.said("doubtful")[0][0]), int(program.said("lost")[0][0])
    check(TTL_MS * 150 < lost - doubtful, "the doubt comes before the end",
          f"{(lost - doubtful) / 1000} ms")
    check(program.sure() <= lost, "it is not sure when it is lost")
    node.process.send_signal(signal.SIGCONT)
    check(acquire(node, key, 40000) is not None, "then somebody else gets it")
    check(program.sure() <= lost, "and it is not sure again")
    program.end()


def test_daemon_killed(tool, node):
    """Shorter than the lease: it goes on."""
    program = Program(tool, node, "us-east:daemon-killed")
    wait_for(lambda: program.said("sure"), "the lock is held")
    time.sleep(0.3)
    node.stop(signal.SIGKILL)
    node.start()
    killed = now_us()
    wait_for(lambda: program.sure() > killed + TTL_MS * 1500 or program.said("lost"),
             "the daemon is killed and started: the lock is kept")
    check(not program.said("lost"), "it was not lost")
    check(acquire(node, "us-east:daemon-killed") is None, "nobody else gets it")
    program.end()


def test_program_stopped(tool, node):
    key = "us-east:program-stopped"
    program = Program(tool, node, key)
    wait_for(lambda: program.said("sure"), "the lock is held")
    program.process.send_signal(signal.SIGSTOP)
    granted = acquire(node, key, 40000)
    at = now_us()
    check(granted is not None, "the program is stopped: its lease ends, somebody else gets the lock")
    program.process.send_signal(signal.SIGCONT)
    wait_for(lambda: program.said("lost"), "when it goes on, it hears that the lock is lost")
    check(program.sure() < at, "and it was not sure of it for a moment",
          f"{program.sure() - at} us after the grant")
    program.end()


def test_taken_away(tool, node):
    key = "us-east:taken"
    program = Program(tool, node, key)
    wait_for(lambda: program.said("sure"), "the lock is held")
    node.command("LOCK.BREAK", key, "an operator")
    wait_for(lambda: program.said("lost"), "an operator takes it away: it is lost")
    program.end()


def test_waits(tool, node):
    key = "us-east:waits"
    check(acquire(node, key) is not None, "somebody has the lock")
    program = Program(tool, node, key, wait_ms=40000)
    time.sleep(1.5 * TTL_MS / 1000)
    token = cluster.resp(node.host, 7402, "LOCK.INFO", key).split("\r\n")
    node.command("LOCK.RELEASE", key, "other",
                 token[token.index("token") + 1].lstrip(":"))
    wait_for(lambda: program.said("sure"), "who waited longer than a lease gets it, and is sure")
    time.sleep(1.5 * TTL_MS / 1000)
    check(not program.said("lost") and all(line[2] == "1" for line in program.said("sure")),
          "and stays so")
    program.end()


def test_other_node(tool, node):
    program = Program(tool, node, "us-east:other", nodes=f"127.97.0.9:7402,{node.host}:7402",
                      hold_ms=100)
    wait_for(lambda: program.said("released"), "a node that does not answer is passed over")
    check(Program(tool, node, "nowhere", hold_ms=1).process.wait() == 1, "a wrong key is refused")
    check(Program(tool, node, "us-east:waits", hold_ms=1).process.wait() == 1,
          "a lock that is held is not got")


def lock_run(meridian, node, key, *words):
    return subprocess.Popen([meridian, "--node", f"{node.host}:7400", "lock", "run", key,
                             "--lease", f"{TTL_MS}ms", "--", *words], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def test_run(meridian, node):
    done = lock_run(meridian, node, "us-east:run", "sh", "-c", "echo $MERIDIAN_LOCK_TOKEN; exit 7")
    out, _ = done.communicate(timeout=60)
    check(done.returncode == 7 and int(out) > 0, "lock run: the command's status, and the token",
          f"{done.returncode} {out}")
    check(acquire(node, "us-east:run") is not None, "the lock is given back")
    busy = lock_run(meridian, node, "us-east:run", "true")
    busy.communicate(timeout=60)
    check(busy.returncode == 75, "it ends with 75 where the lock is held", str(busy.returncode))
    missing = lock_run(meridian, node, "us-east:run-2", "no-such-command-anywhere")
    missing.communicate(timeout=60)
    check(missing.returncode == 127, "127: no such command", str(missing.returncode))
    running = lock_run(meridian, node, "us-east:run-3", "sh", "-c",
                       "trap 'echo told; exit 3' TERM; while :; do sleep 0.01; done")
    wait_for(lambda: held(node, "us-east:run-3"), "a command runs under its lock")
    time.sleep(0.2)  # the shell sets its trap
    node.process.send_signal(signal.SIGSTOP)
    begin = now_us()
    out, _ = running.communicate(timeout=60)
    took_ms = (now_us() - begin) / 1000
    node.process.send_signal(signal.SIGCONT)
    check("told" in out and took_ms < TTL_MS, "it is ended before its lock may be lost",
          f"{took_ms} ms, {out}")
    check(running.returncode == 76, "and the status says so", str(running.returncode))
    stubborn = lock_run(meridian, node, "us-east:run-4", "sh", "-c",
                        "trap '' TERM; while :; do sleep 0.01; done")
    wait_for(lambda: held(node, "us-east:run-4"), "one that does not end when it is told")
    time.sleep(0.2)  # the shell sets its trap
    node.process.send_signal(signal.SIGSTOP)
    begin = now_us()
    stubborn.communicate(timeout=60)
    took_ms = (now_us() - begin) / 1000
    node.process.send_signal(signal.SIGCONT)
    check(stubborn.returncode == 76 and took_ms < TTL_MS, "is killed in time", f"{took_ms} ms")


def with_short_leases_or_long():
    for ttl_ms in TTLS_MS:
        done = subprocess.run([sys.executable, *sys.argv], stdout=subprocess.PIPE, text=True,
                              check=False, env=dict(os.environ, HOLDER_TTL_MS=str(ttl_ms)))
        if done.returncode == 0:
            break
        print("".join(f"# with leases of {ttl_ms} ms: {line}\n"
                      for line in done.stdout.splitlines() if line.startswith("not ok")), end="")
    print(done.stdout, end="")
    return done.returncode


def main():
    daemon, make_pki, tool, meridian = (os.path.abspath(a) for a in sys.argv[1:5])
    root = tempfile.mkdtemp(prefix="meridian-holder-")
    subprocess.run([make_pki, f"{root}/pki", "test"]
                   + [f"{region}/{i + 1}" for i, region in enumerate(REGIONS)], check=True)
    cluster.topology_write(root)
    node = cluster.Node(root, daemon, 0, False)
    try:
        node.start()
        wait_for(lambda: acquire(node, "us-east:ready") is not None, "a node grants its own locks")
        for test in (test_keeps, test_daemon_stopped, test_daemon_killed, test_program_stopped,
                     test_taken_away, test_waits, test_other_node):
            test(tool, node)
        test_run(meridian, node)
    finally:
        if node.process is not None:
            node.process.send_signal(signal.SIGCONT)
            node.process.kill()
            node.process.wait()
        shutil.rmtree(root)
    print(f"1..{cluster.count}")
    return 1 if cluster.failures else 0


if __name__ == "__main__":
    cluster.own_network.enter()
    sys.exit(main() if TTL_MS else with_short_leases_or_long())
