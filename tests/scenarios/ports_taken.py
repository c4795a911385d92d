"""Somebody else has a port of the lab's."""
import os
import shutil
import socket

from lab import BUILD, Lab, expect_true


def scenario_a_second_lab_is_told_where_the_first_one_is(lab):
    folder = os.path.join(BUILD, "second-lab")
    status, _, err = Lab(folder).run("lab", "up")
    shutil.rmtree(folder, ignore_errors=True)
    expect_true(status == 1, "the second lab is refused")
    expect_true("127.10.0.1:6379" in err and "in use" in err, f"address and port: {err!r}")
    expect_true(lab.folder in err, f"the first lab's folder is named: {err!r}")
    lab.wait_all_active()


def scenario_a_strangers_port_is_named(lab):
    lab.down()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.20.0.1", 8080))
        stranger.listen()
        status, _, err = lab.run("lab", "up")
    expect_true(status == 1, "refused")
    expect_true("127.20.0.1:8080" in err and f"pid {os.getpid()}" in err,
                f"the port and who has it are named: {err!r}")
    _, out, _ = lab.run("lab", "status")
    expect_true("(" not in out, f"nothing was started: {out}")
    lab.up()


def scenario_a_half_dead_lab_is_cleaned_up(lab):
    lab.kill_part("us-east", "redis")
    lab.kill_part("eu-west", "nginx")
    lab.kill_part("ap-southeast", "meridiand")
    out = lab.up()
    expect_true("only a part of it runs" in out, f"it says what it found: {out}")
    lab.wait_all_active()


def of_the_lab(lab, pid):
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(lab.folder + "/")
    except OSError:
        return False


def scenario_nothing_is_left_after_down(lab):
    lab.down()
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and of_the_lab(lab, pid)]
    expect_true(not left, f"no process of the lab is left: {left}")
    status, _, _ = lab.run("lab", "down")
    expect_true(status == 0, "a second `down` is fine")
    lab.up()
