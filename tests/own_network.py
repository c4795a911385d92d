"""A network namespace of its own for a test: its addresses and ports are then nobody else's."""
import fcntl
import os
import subprocess
import sys
import tempfile

COMMAND = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
INSIDE = "MERIDIAN_OWN_NETWORK"  # set for a program that has one, and for all that it starts
turn = None  # held until the program ends


def allowed():
    """May this user have one?"""
    return subprocess.run([*COMMAND, "true"], check=False, capture_output=True).returncode == 0


def begin_again():
    """The program begins again in a network of its own."""
    os.execvpe(COMMAND[0], [*COMMAND, sys.executable, "-u", *sys.argv],
               dict(os.environ, **{INSIDE: "1"}))


def enter():
    """Begins again in a network of its own. Where this user may not have one, all that ask for one
    take turns in the network of this machine."""
    global turn
    if INSIDE in os.environ:
        return
    if allowed():
        begin_again()
    path = os.path.join(tempfile.gettempdir(), f"meridian-tests-{os.getuid()}.turn")
    turn = open(path, "w", encoding="ascii")
    fcntl.flock(turn, fcntl.LOCK_EX)
