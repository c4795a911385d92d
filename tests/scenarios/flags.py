"""Flags, configuration and services: changed at one place, read everywhere, also by a region alone."""
import ctypes
import os
import signal
import subprocess

from lab import ADDRESSES, BUILD, MERIDIAN, REGIONS, after, always, eventually, expect, expect_true

LIBRARY = os.path.join(BUILD, "src", "reader", "libmeridian_flags.so")
ALONE = "eu-west"


class Program:
    """What a program of a region does: it links the library and reads the view of its node."""

    def __init__(self, lab, region):
        self.library = ctypes.CDLL(LIBRARY)
        self.library.meridian_flags_open.restype = ctypes.c_void_p
        self.library.meridian_flag.restype = ctypes.c_bool
        path = os.path.join(lab.folder, region, "run", "view").encode()
        self.flags = ctypes.c_void_p(self.library.meridian_flags_open(path))
        expect_true(self.flags.value, "the library opens")

    def on(self, name, user, otherwise=False):
        return self.library.meridian_flag(self.flags, name.encode(), user.encode(), None,
                                          ctypes.c_size_t(0), ctypes.c_bool(otherwise))

    def config(self, name):
        room = ctypes.create_string_buffer(256)
        self.library.meridian_config.restype = ctypes.c_long
        found = self.library.meridian_config(self.flags, name.encode(), room, ctypes.c_size_t(256))
        return None if found < 0 else room.value.decode()


def scenario_a_flag_is_on_in_one_region_and_for_a_share(lab):
    lab.meridian("flag", "set", "checkout", "when region is eu-west on; otherwise 10%")
    programs = {region: Program(lab, region) for region in REGIONS}
    eventually("on for everybody in eu-west",
               lambda: all(programs["eu-west"].on("checkout", f"u{i}") for i in range(50)))
    for region in ("us-east", "ap-southeast"):
        eventually(f"for a tenth in {region}", lambda r=region: 60 <= sum(
            programs[r].on("checkout", f"u{i}") for i in range(1000)) <= 140)
    eventually("the same users everywhere", lambda: len({tuple(
        programs[region].on("checkout", f"u{i}") for i in range(200))
        for region in ("us-east", "ap-southeast")}) == 1)
    expect_true("rule 1" in lab.meridian("flag", "eval", "checkout", "ann", "--region", "eu-west"),
                "why is told")
    status, _, err = lab.patiently("flag", "set", "checkout", "otherwise maybe")
    expect_true(status == 2 and "percentage" in err, f"a mistake is refused: {err}")


@after(scenario_a_flag_is_on_in_one_region_and_for_a_share)
def scenario_the_kill_switch_and_the_way_back(lab):
    programs = [Program(lab, region) for region in REGIONS]
    lab.meridian("flag", "kill", "checkout")
    eventually("off everywhere", lambda: not any(
        program.on("checkout", f"u{i}", True) for program in programs for i in range(50)))
    lab.meridian("flag", "revert", "checkout")
    eventually("back in eu-west", lambda: programs[1].on("checkout", "u1"))
    history = lab.meridian("flag", "history", "checkout").splitlines()
    expect(len([line for line in history if "when region" in line]), 3, "all versions are there")
    lab.meridian("config", "set", "limit", "10")
    lab.meridian("config", "set", "limit", "20")
    eventually("configured", lambda: programs[2].config("limit") == "20")
    lab.meridian("config", "revert", "limit")
    eventually("reverted", lambda: programs[0].config("limit") == "10")


def register(lab, name, instance, address, region):
    return subprocess.Popen([MERIDIAN, "service", "register", name, instance, address, "--region",
                             region, "--ttl", "2s", "--node", f"{ADDRESSES[region]}:7400"],
                            env=lab.environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def listed(lab, region, name):
    """The ids of a service's instances in the order in which a region lists them."""
    status, out, _ = lab.run("service", "list", name, "--node", f"{ADDRESSES[region]}:7400")
    return [line.split()[0] for line in out.splitlines()] if status == 0 else []


def srv(lab, server, name):
    """(priority, port, target) of SRV records, the best first."""
    answer = lab.ask_dns(server, name, kind="SRV")
    return sorted((item.priority, item.port, str(item.target)) for rrset in answer.answer
                  for item in rrset)


def scenario_services_come_and_go_with_those_who_keep_them(lab):
    programs = [register(lab, "pay", region, f"{ADDRESSES[region]}:8443", region)
                for region in REGIONS]
    try:
        for region in REGIONS:
            eventually(f"{region} lists all, its own first", lambda r=region: (
                lambda ids: len(ids) == 3 and ids[0] == r)(listed(lab, r, "pay")))
            eventually("and so does its DNS", lambda r=region: (
                lambda found: len(found) == 3 and found[0][1:] == (
                    8443, f"{r}.pay.service.example.test."))(
                        srv(lab, r, "_pay._tcp.example.test")))
        eventually("a target's address", lambda: [item.address for rrset in lab.ask_dns(
            "us-east", "eu-west.pay.service.example.test").answer for item in rrset] ==
                   [ADDRESSES["eu-west"]])
        programs[0].send_signal(signal.SIGTERM)
        eventually("who says good-bye is out", lambda: "us-east" not in listed(lab, ALONE, "pay"))
        programs[1].kill()
        eventually("who is silent is out", lambda: listed(lab, "us-east", "pay") == ["ap-southeast"])
        eventually("in DNS, too", lambda: len(srv(lab, ALONE, "_pay._tcp.example.test")) == 1)
    finally:
        for program in programs:
            program.kill()
            program.wait()


@after(scenario_the_kill_switch_and_the_way_back)
def scenario_cut_off_a_region_reads_what_it_knew(lab):
    program = Program(lab, ALONE)
    lab.cut_off(ALONE)
    try:
        eventually("it has no majority", lambda: lab.status(ALONE)["majority"] is False)
        lab.meridian("flag", "set", "checkout", "otherwise off", "--node",
                     f"{ADDRESSES['us-east']}:7400")
        expect(program.on("checkout", "u1"), True, "its flags are read as they were")
        expect(program.config("limit"), "10", "and its configuration")
        lab.kill_part(ALONE, "meridiand")
        lab.start(ALONE)
        eventually("its daemon is back", lambda: lab.status(ALONE)["majority"] is False)
        program = Program(lab, ALONE)
        always("started anew without a majority, it knows what it knew",
               lambda: program.on("checkout", "u1") and program.config("limit") == "10", 3)
        eventually("a change is refused", lambda: "NOMAJORITY" in lab.run(
            "flag", "kill", "checkout", "--node", f"{ADDRESSES[ALONE]}:7400")[2])
    finally:
        lab.heal()
    eventually("healed, it follows", lambda: not program.on("checkout", "u1"))
    lab.wait_all_active()
