"""The programs that a world runs, and the Debian packages that have them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from nodes.errors import WorldError

NEEDED = {"ovsdb-server": "openvswitch-switch", "ovs-vswitchd": "openvswitch-switch",
          "ovs-vsctl": "openvswitch-switch", "ovsdb-tool": "openvswitch-switch",
          "ovs-appctl": "openvswitch-switch", "ovs-ofctl": "openvswitch-switch", "ip": "iproute2"}
SYSTEM_DIRS = "/usr/local/sbin:/usr/sbin:/sbin"  # not on every user's PATH
SCHEMA_NAME = "vswitch.ovsschema"
SCHEMA_DIRS = ("/usr/share/openvswitch", "/usr/local/share/openvswitch")


def find_binary(name: str) -> str:
    """Return the path of the program `name`; raises WorldError with the package that has it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRS}")
    if path is None:
        raise WorldError(f"{name} is missing: apt-get install {NEEDED.get(name, name)}")
    return path


def find_schema() -> Path:
    """Return the database schema of the installed Open vSwitch; raises WorldError with the package that has it."""
    for place in filter(None, (os.environ.get("OVS_PKGDATADIR", ""), *SCHEMA_DIRS)):
        if (Path(place) / SCHEMA_NAME).exists():
            return Path(place) / SCHEMA_NAME
    raise WorldError(f"{SCHEMA_NAME} is in none of {', '.join(SCHEMA_DIRS)}: apt-get install openvswitch-switch")


def run(argv: list[str], **environment: str) -> str:
    """Run a program to its end and return what it prints; raises WorldError with its complaint if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environment})
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise WorldError(f"{' '.join([Path(argv[0]).name, *argv[1:]])}: {said}")
    return done.stdout
