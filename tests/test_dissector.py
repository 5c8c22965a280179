"""The Wireshark dissector is current, is Lua, and shows the fields that the messages hold."""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from pcap_room import ip_frame, udp, write_pcap

from experiments.captures.wireshark import lua
from nodes.messages import KIND_REPLY, KIND_REQUEST, KIND_STATS_REPORT, LAYOUTS, DataMessage, StatsMessage
from topologies.addressing import CONTROL_PORT, DATA_PORT

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "e3.lua"
FIELDS = ("e3.kind", "e3.application", "e3.instance", "e3.request_id", "e3.client_ip", "e3.client_port", "e3.hops",
          "e3.query_id", "e3.length", "e3.payload")


def test_the_committed_dissector_is_what_the_table_gives() -> None:
    assert SCRIPT.read_text() == lua(), "run: python -m experiments.captures.wireshark > docs/e3.lua"


def test_every_field_of_every_layout_is_in_the_dissector() -> None:
    text = lua()
    for layout in LAYOUTS.values():
        start = text.index(f'[{layout.kind}] = {{ name = "{layout.name}"')
        body = text[start:text.index("  } },", start)]
        places = [body.index(f"{{ fields.{f.name}, ") for f in layout.fields]
        assert places == sorted(places)
        assert body.count("fields.") == len(layout.fields)


def test_the_dissector_is_lua() -> None:
    compiler = next((c for c in ("luac5.4", "luac5.3", "luac5.2", "luac") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no luac on this machine (apt-get install lua5.4)")
    subprocess.run([compiler, "-p", str(SCRIPT)], check=True, timeout=20)


@pytest.fixture(scope="module")
def tshark() -> str:
    path = shutil.which("tshark")
    if path is None:
        pytest.skip("no tshark on this machine (apt-get install tshark)")
    return path


def dissected(tshark: str, folder: Path, payloads: list[tuple[int, bytes]], *fields: str) -> list[list[str]]:
    """Return what tshark shows of UDP datagrams (port, payload): for each its fields, "" where it has none."""
    write_pcap(folder / "a.pcap", [
        (i, ip_frame("02:00:00:00:00:01", "02:00:00:00:00:02", "10.1.254.1", "10.1.1.11", udp(47_001, port, data)))
        for i, (port, data) in enumerate(payloads)])
    command = [tshark, "-X", f"lua_script:{SCRIPT}", "-r", str(folder / "a.pcap"), "-T", "fields", "-E", "separator=|"]
    done = subprocess.run(command + [a for f in fields for a in ("-e", f)], check=True, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)})
    assert "Lua" not in done.stderr.replace("lua_script", ""), done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def test_tshark_shows_the_fields_that_were_sent(tshark: str, tmp_path: Path) -> None:
    messages = [
        DataMessage(KIND_REQUEST, 7, 3, 5 << 32 | 9, bytes([10, 1, 254, 1]), 4000, 2, b"abc"),
        DataMessage(KIND_REPLY, 65535, 0, 2**64 - 1, bytes([10, 1, 254, 255]), 65535, 255, b""),
    ]
    report = StatsMessage(KIND_STATS_REPORT, 12, b"\x81\xa1x\x01")
    shown = dissected(tshark, tmp_path, [*((DATA_PORT, m.encode()) for m in messages),
                                         (CONTROL_PORT, report.encode())], *FIELDS)
    expected = [[str(m.kind), str(m.application), str(m.instance), f"0x{m.request_id:016x}",
                 str(IPv4Address(m.client_ip)), str(m.client_port), str(m.hops), "", str(len(m.payload)),
                 m.payload.hex()] for m in messages]
    assert shown == [*expected, ["17", "", "", "", "", "", "", "12", "4", "81a17801"]]


def test_tshark_marks_damaged_messages_and_leaves_strangers_alone(tshark: str, tmp_path: Path) -> None:
    whole = DataMessage(KIND_REQUEST, 7, 3, 9, bytes(4), 4000, 2, b"abc").encode()
    cases = [whole, whole[:-1], whole[:11], whole[:4], whole + b"!", whole[:3] + b"\x63" + whole[4:], b"\xe3",
             b"hello, this is no message"]
    shown = dissected(tshark, tmp_path, [(DATA_PORT, data) for data in cases],
                      "e3.kind", "e3.truncated", "e3.surplus", "_ws.malformed")
    assert [bool(broken) for *_, broken in shown] == [bool(cut) for _, cut, _, _ in shown]  # no other kind of malformed
    marked = [(kind, bool(cut), bool(more)) for kind, cut, more, _ in shown]
    assert marked == [("1", False, False), ("1", True, False), ("1", True, False), ("1", True, False),
                      ("1", False, True), ("99", False, False), ("", False, False), ("", False, False)]
