"""The command line's manners: bad input gets one line that names the value and the limit, and exit status 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.reference import commands

ROOT = Path(__file__).resolve().parent.parent


def e3(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "experiments.cli", *arguments], cwd=ROOT, capture_output=True,
                          text=True, check=False, timeout=60)


@pytest.mark.parametrize(("arguments", "words"), [
    (["demo", "nonesuch"], ["nonesuch", "MODEL"]),
    (["demo", "type2:9x1"], ["9 SmartNICs", "0 to 8"]),
    (["demo", "type1x999"], ["999", "240"]),
    (["cli", "bogusx3"], ["bogus", "type1"]),
    (["demo", "--requests", "0"], ["0", "1"]),
    (["demo", "--size", "9000"], ["9000", "8000"]),
    (["demo", "--clients", "65"], ["65", "64"]),
    (["demo", "--where", "moon"], ["moon", "smartnic"]),
    (["demo", "--speed", "ludicrous"], ["ludicrous", "quota"]),
    (["demo", "--datapath", "dpdk"], ["dpdk", "netdev"]),
    (["run", "fig99"], ["fig99", "ecmp"]),
    (["run", "all", "--seed", "3"], ["--seed", "failover"]),
    (["run", "all", "--file", "mine.yaml"], ["--file", "scenario"]),
    (["run", "all", "--sensitivity"], ["--sensitivity", "table5"]),
    (["pcap", "/nonexistent/x.pcap"], ["/nonexistent/x.pcap"]),
    (["frobnicate"], ["frobnicate"]),
    (["bench", "nothing"], ["nothing"]),
])
def test_bad_input_is_one_line_and_exit_status_2(arguments: list[str], words: list[str]) -> None:
    done = e3(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize("content", [b"", b"not a capture at all, just text", bytes(range(256)),
                                     b"\xd4\xc3\xb2\xa1" + bytes(20), b"\x0a\x0d\x0d\x0a" + bytes(40)])
def test_a_malformed_capture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    capture = tmp_path / "tor1-c1.pcap"
    capture.write_bytes(content)
    done = e3("pcap", str(capture))
    assert done.returncode == 2 and "tor1-c1.pcap" in done.stderr and "Traceback" not in done.stderr


def test_lists_are_json_on_demand() -> None:
    listed = json.loads(e3("list", "--json").stdout)
    assert "ecmp" in listed["experiments"] and "type1x3" in listed["clusters"]


def test_every_command_explains_itself() -> None:
    found = commands()
    assert {"demo", "cli", "run", "top", "bench placement"} <= found.keys()
    for name, command in found.items():
        shown = CliRunner().invoke(app, [*name.split(), "--help"])
        lines = shown.stdout.splitlines()
        assert shown.exit_code == 0 and len(lines) > 3, name
        assert command.help and command.help.split("\n")[0][:50] in " ".join(" ".join(lines).split()), name
