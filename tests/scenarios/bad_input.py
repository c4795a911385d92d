"""Wrong words, wrong files, garbage on every port: clear errors, and nobody falls over."""
import os
import random
import re
import socket
import subprocess
import tempfile

from lab import ADDRESSES, BUILD, REGIONS, eventually, expect, expect_true


def refused(lab, *words, says):
    status, out, err = lab.patiently(*words)
    expect_true(status in (1, 2), f"{' '.join(words)} is refused: status {status}, {out!r}")
    expect_true(says in err, f"{' '.join(words)} says {says!r}: {err!r}")


def scenario_wrong_words_are_refused_with_the_right_ones(lab):
    refused(lab, "nosuch", says="there is no command")
    refused(lab, "drain", says="usage: meridian drain REGION")
    refused(lab, "drain", "mars", says="there is no region \"mars\"; there are: us-east")
    refused(lab, "lab", "kill", "mars", says='no region is called "mars"')
    refused(lab, "lab", "slow", "us-east", "eu-west", "soon", says="is no time")
    refused(lab, "lab", "lose", "us-east", "eu-west", "5", says="is no share")
    refused(lab, "lab", "partition", "us-east", "us-east", says="name two regions")
    refused(lab, "lab", "dance", says='no command "lab dance"')
    refused(lab, "why-route", "nowhere", "www.example.test", says="not an IP address")
    refused(lab, "why-route", "192.0.2.1", "www.example.com", says="no policy answers that name")
    refused(lab, "lock", "acquire", "global:x", "me", "soon", says="is no time")
    refused(lab, "lock", "acquire", "mars:x", "me", "1s", says="NOREGION")
    refused(lab, "status", "--node", "nowhere", says="is no node")
    refused(lab, "status", "--node", "127.10.0.99:7400", says="answers")


def scenario_a_bad_topology_is_refused_with_its_place(lab):
    good = lab.meridian("topology")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "topology.conf")

        def refuse(text, says, command="plan"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            refused(lab, command, path, says=says)
        refuse("regions galore", "line 1")
        refuse(good.replace("cluster", "klaster", 1), "klaster")
        refuse(good + "\nregion us-east { id = 9 }\n", "us-east")
        refuse(good[:-40], "line", command="apply")
        refused(lab, "plan", path + ".nosuch", says="No such file")


def scenario_a_topology_is_planned_then_applied(lab):
    good = lab.meridian("topology")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "topology.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(good)
        expect(lab.meridian("plan", path).strip(), "no change", "the plan of the same document")

        def changed(text):
            text = re.sub(r"\n\s*capacity = [^\n]*", "", text)  # 100, the default, where it is
            return text.replace("continent = EU", "continent = EU;\n    capacity = 90", 1)
        expect_true(changed(good) != good, f"the document has a place for a capacity: {good}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(changed(good))
        expect_true("capacity" in lab.meridian("plan", path), "the plan shows the change")
        said = lab.applied(changed)
        expect_true("applied" in said, f"it is applied: {said}")
        for region in REGIONS:
            eventually(f"{region} has the new document", lambda r=region: "capacity = 90" in
                       lab.meridian("topology", "--node", ADDRESSES[r] + ":7400"))
    lab.wait_all_active()


def scenario_garbage_on_every_port_disturbs_nobody(lab):
    noise = random.Random(7402)
    for region, address in ADDRESSES.items():
        for port in [7400, 7401, 7402, 8080, 9000, 6379, 5353]:
            for size in [1, 100, 5000]:
                with socket.socket() as client:
                    client.settimeout(20)
                    client.connect((address, port))
                    client.settimeout(1)  # who waits for more is left alone
                    try:
                        client.sendall(noise.randbytes(size))
                        client.shutdown(socket.SHUT_WR)
                        client.recv(4096)
                    except OSError:
                        pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for size in [0, 1, 12, 100, 512]:
                client.sendto(noise.randbytes(size), (address, 5353))
        for part in ["redis", "knot", "nginx", "meridiand", "backend-1", "backend-2"]:
            os.kill(lab.pid(region, part), 0)
    lab.wait_all_active()


def scenario_bad_configurations_are_refused_by_the_daemon(lab):
    with open(os.path.join(lab.folder, "us-east", "meridiand.conf"), encoding="utf-8") as file:
        good = file.read()
    cases = [(good.replace("region", "regoin", 1), "regoin"),
             (good.replace("7400", "74000", 1), "74000"),
             (good + "\nregion us-east;\n", "region"),
             (good[:len(good) // 2], ""),
             (good.replace("us-east;", "mars;"), "mars"),
             ("\1\2", "")]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "meridiand.conf")
        for text, says in cases:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            done = subprocess.run([os.path.join(BUILD, "meridiand"), "-c", path, "--check"],
                                  capture_output=True, text=True, timeout=60, check=False)
            expect_true(done.returncode in (1, 2), f"refused: {text[:60]!r}...")
            expect_true(says in done.stderr, f"{says!r} is named in {done.stderr!r}")
