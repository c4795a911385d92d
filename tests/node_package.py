"""Client libraries of Node.js, for the tests: Debian's or one that is there already, else from npm."""

import os
import shutil
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(os.environ.get("MERIDIAN_BUILD", os.path.join(TOP, "build")), "node-clients")


def found(name, environment):
    return subprocess.run(["node", "-e", f"require('{name}')"], capture_output=True, check=False,
                          env=environment).returncode == 0


def node_environment(name, version, environment=os.environ):
    """`environment` with which `require(name)` finds the package; None, and a word about it, where
    there is no Node.js or no way to install it."""
    if shutil.which("node") is None:
        print("        no Node.js: not tried")
        return None
    for path in (environment.get("NODE_PATH", "/usr/share/nodejs"), f"{FOLDER}/node_modules"):
        with_path = dict(environment, NODE_PATH=path)
        if found(name, with_path):
            return with_path
    os.makedirs(FOLDER, exist_ok=True)
    try:
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=0",
                        "--prefix", FOLDER, f"{name}@{version}"], capture_output=True, timeout=30,
                       check=True, env=dict(os.environ, HOME=FOLDER))
    except (OSError, subprocess.SubprocessError):
        print(f"        npm cannot install {name}@{version}: not tried")
        return None
    return with_path
