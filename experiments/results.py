"""Where results go: results/NAME/RUN-ID/, its manifest written last and at once.

A directory without manifest.json is a run that did not finish.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
LIBRARIES = ("mininet", "ryu", "os-ken", "scapy", "dpkt", "numpy", "scipy", "simpy", "cryptography",
             "msgspec")


class Run:
    """One run's directory. `finish` makes it a result."""

    def __init__(self, name: str, parent: Path = RESULTS) -> None:
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
        self.name = name
        self.directory = parent / name / run_id
        self._began = time.time()
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise ExperimentError(f"cannot make {self.directory}: {error.strerror}") from error

    def finish(self, content: dict[str, Any]) -> Path:
        """Write the manifest: `content`, and what machine and code made it. Returns its path."""
        manifest = {"name": self.name, "began_unix_s": self._began, "took_s": time.time() - self._began,
                    **environment(), **content}
        path = self.directory / "manifest.json"
        draft = path.with_suffix(".part")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        draft.rename(path)
        self._give_to_owner()
        return path

    def _give_to_owner(self) -> None:
        """Under sudo, leave results to whoever owns the checkout, as far as the directories above go."""
        owner = ROOT.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            for path in (self.directory.parent.parent, self.directory.parent, self.directory,
                         *self.directory.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def environment() -> dict[str, Any]:
    """Return what a reader needs to make sense of a result: code, kernel, switch, libraries, cores."""
    return {"git_commit": _said("git", "-C", str(ROOT), "rev-parse", "HEAD"),
            "git_changed": bool(_said("git", "-C", str(ROOT), "status", "--porcelain")),
            "kernel": platform.release(), "python": platform.python_version(), "cores": os.cpu_count(),
            "open_vswitch": (_said("ovs-vswitchd", "--version").splitlines() or ["unknown"])[0],
            "libraries": {name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except OSError:
        return ""
