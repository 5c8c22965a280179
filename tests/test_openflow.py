import importlib.util
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller import openflow, openflow_library
from controller.errors import OpenFlowLibraryError, ProgramError
from controller.tor_program import TorProgram, programs_of, to_json
from controller.tor_rules import Changes, Installed, Output, Rule, SetField, difference, rules_of
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = [name for name in openflow_library.KNOWN if importlib.util.find_spec(name)]
MULTIPART_REPLY, RULE_DESCRIPTIONS, GROUP_DESCRIPTIONS = 19, 1, 7


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> openflow_library.OpenFlowLibrary:
    return openflow_library.load(request.param)


def tor(cluster: str = "type2x2") -> TorProgram:
    return programs_of(inventory_of(cluster_named(cluster)))["tor1"]


def written(library: openflow_library.OpenFlowLibrary, changes: Changes) -> list[bytes]:
    messages = openflow.change_messages(library.protocol(), changes)
    for message in messages:
        message.set_xid(1)
        message.serialize()
    return [bytes(m.buf) for m in messages]


def kinds(messages: list[Any]) -> list[str]:
    return [type(m).__name__.removeprefix("OFP") for m in messages]


@pytest.mark.skipif(len(LIBRARIES) < 2, reason="needs both OpenFlow libraries")
@pytest.mark.parametrize("cluster", ["type2x2", "beefyx1+type1x1/4"])
def test_both_libraries_write_the_same_bytes(cluster: str) -> None:
    for program in programs_of(inventory_of(cluster_named(cluster))).values():
        there, back = difference(Installed(), program), Changes(rules_deleted=((2, 5),), groups_deleted=(1,))
        for changes in (there, back):
            one, other = (written(openflow_library.load(name), changes) for name in LIBRARIES)
            assert one == other


def test_groups_come_first_and_deletions_last_each_behind_a_barrier(library: openflow_library.OpenFlowLibrary) -> None:
    program = tor()
    rule = rules_of(program)[0]
    changes = Changes((program.group(1),), (program.group(2),), (rule,), ((0, 5), (1, 6)), (9,))
    messages = openflow.change_messages(library.protocol(), changes)
    assert kinds(messages) == ["GroupMod", "GroupMod", "BarrierRequest", "FlowMod", "BarrierRequest",
                               "FlowMod", "FlowMod", "BarrierRequest", "GroupMod", "BarrierRequest"]
    assert [(m.table_id, m.cookie, m.cookie_mask) for m in messages[5:7]] == [
        (0, 5, 0xFFFFFFFFFFFFFFFF), (1, 6, 0xFFFFFFFFFFFFFFFF)]


def test_no_changes_are_no_messages(library: openflow_library.OpenFlowLibrary) -> None:
    assert openflow.change_messages(library.protocol(), Changes()) == []


@pytest.mark.parametrize("wrong", [
    Rule("odd", 0, 1, (("no_such_field", 1),)), Rule("odd", 0, 1, (("in_port", "first"),)),
    Rule("odd", 0, 70000, ()), Rule("odd", 0, 1, (), (SetField("eth_dst", "nonsense"),)),
    Rule("odd", 0, 1, (), (Output(-1),))])
def test_what_does_not_fit_openflow_is_refused_with_the_rules_name(
        library: openflow_library.OpenFlowLibrary, wrong: Rule) -> None:
    with pytest.raises(ProgramError, match="'odd' does not go into OpenFlow"):
        openflow.change_messages(library.protocol(), Changes(rules_added=(wrong,)))


def test_a_group_names_the_hash_its_parameter_and_its_fields_as_netronome_wrote_them(
        library: openflow_library.OpenFlowLibrary) -> None:
    (message, _) = written(library, Changes(groups_added=(tor().group(1),)))
    field = struct.Struct("!HBB")
    fields = b"".join([field.pack(0x8000, 11 << 1, 4) + b"\xff" * 4, field.pack(0x8000, 12 << 1, 4) + b"\xff" * 4,
                       *(field.pack(0x8000, n << 1, 2) + b"\xff" * 2 for n in (13, 14, 15, 16))])
    body = struct.pack("!II4x16sQ", 0x154D, 1, b"hash", 0x10001) + fields
    assert message.endswith(struct.pack("!HH", 0xFFFF, 4 + len(body)) + body)


def reply(kind: int, body: bytes) -> bytes:
    return struct.pack("!BBHIHH4x", 6, MULTIPART_REPLY, 16 + len(body), 7, kind, 0) + body


def described(group_mod: bytes) -> bytes:
    """Return the group description that a switch gives of a group that it was told to write by `group_mod`."""
    kind, group_id, bucket_bytes = struct.unpack_from("!2xBxIH", group_mod, 8)
    content = group_mod[24:]
    return struct.pack("!HBxIH6x", 16 + len(content), kind, group_id, bucket_bytes) + content


def test_the_groups_of_a_reply_are_read_as_they_were_written(library: openflow_library.OpenFlowLibrary) -> None:
    program = tor("type2x3")
    mods = written(library, Changes(groups_added=program.groups))[:-1]
    message = library.parse(library.protocol(), reply(GROUP_DESCRIPTIONS, b"".join(map(described, mods))))
    found = openflow.installed([], message.body)
    assert found == Installed(frozenset(), tuple((g.group_id, g) for g in program.groups))
    assert len(program.groups) == 3


def test_a_foreign_group_keeps_its_id_and_spoils_no_other(library: openflow_library.OpenFlowLibrary) -> None:
    program = tor()
    first, second = map(described, written(library, Changes(groups_added=program.groups))[:-1])
    other_method = bytearray(first)
    position = first.index(b"hash")
    other_method[position:position + 4] = b"dp_h"
    unreadable = struct.pack("!HBxIH6x", 24, 0, 77, 8) + b"\xff" * 8
    body = bytes(other_method) + unreadable + second
    found = openflow.installed([], library.parse(library.protocol(), reply(GROUP_DESCRIPTIONS, body)).body)
    assert found.groups == ((1, None), (77, None), (2, program.group(2)))


def test_a_rule_with_an_unknown_action_is_still_seen(library: openflow_library.OpenFlowLibrary) -> None:
    match = struct.pack("!HH4x", 1, 4)
    counters = struct.pack("!HH4x", 0, 4)
    action = struct.pack("!HHIH6x", 0xFFFF, 16, 0x2320, 9999)
    instruction = struct.pack("!HH4x", 4, 8 + len(action)) + action
    rest = match + counters + instruction

    def rule(table: int, cookie: int) -> bytes:
        return struct.pack("!H2xBxHHHHHQ", 24 + len(rest), table, 100, 0, 0, 0, 0, cookie) + rest
    body = rule(0, 5) + rule(2, 0xFFEEDDCCBBAA9988)
    found = openflow.installed(library.parse(library.protocol(), reply(RULE_DESCRIPTIONS, body)).body, [])
    assert found.rules == {(0, 5), (2, 0xFFEEDDCCBBAA9988)}


def test_an_unknown_library_is_refused() -> None:
    with pytest.raises(OpenFlowLibraryError, match="unknown OpenFlow library 'pox'; known: ryu, os_ken"):
        openflow_library.load("pox")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org", ""])
def test_the_app_listens_on_loopback_only(library: openflow_library.OpenFlowLibrary, host: str) -> None:
    with pytest.raises(OpenFlowLibraryError, match="only loopback"):
        library.serve(object, host, 6653)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_out_of_range_is_refused(library: openflow_library.OpenFlowLibrary, port: int) -> None:
    with pytest.raises(OpenFlowLibraryError, match=f"port {port}; it can be 1 to 65535"):
        library.serve(object, "127.0.0.1", port)


def app_says(tmp_path: Path, library: str, listen: str, programs: Path) -> str:
    """Run the app, which must refuse to start, and return the one line that it says."""
    environment = {**os.environ, openflow_library.FORCE_VARIABLE: library, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-m", "controller.tor_app", "--listen", listen, "--programs", str(programs),
                           "--status", str(tmp_path / "status")], cwd=ROOT, env=environment, capture_output=True,
                          text=True, check=False, timeout=30)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "status").exists()
    return done.stderr.strip()


@pytest.mark.parametrize(("listen", "why"), [
    ("0.0.0.0:6653", "tor_app: refusing to listen on '0.0.0.0': only loopback addresses are allowed"),
    ("6653", "tor_app: refusing to listen on '': only loopback"),
    ("127.0.0.1:http", "tor_app: --listen '127.0.0.1:http' is not ADDRESS:PORT"),
    ("127.0.0.1:65536", "tor_app: refusing to listen on port 65536; it can be 1 to 65535")])
def test_the_app_says_in_one_line_why_it_will_not_listen(tmp_path: Path, listen: str, why: str) -> None:
    programs = tmp_path / "programs.json"
    programs.write_bytes(to_json({"tor1": tor()}))
    assert app_says(tmp_path, LIBRARIES[0], listen, programs).startswith(why)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_app_does_not_start_where_another_listens(tmp_path: Path, library: str) -> None:
    programs = tmp_path / "programs.json"
    programs.write_bytes(to_json({"tor1": tor()}))
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        assert app_says(tmp_path, library, where, programs).startswith(f"tor_app: cannot listen on {where}: ")


@pytest.mark.parametrize(("content", "why"), [(None, "No such file"), (b"{", "not a set of switch programs")])
def test_the_app_does_not_start_without_programs(tmp_path: Path, content: bytes | None, why: str) -> None:
    programs = tmp_path / "programs.json"
    if content is not None:
        programs.write_bytes(content)
    said = app_says(tmp_path, LIBRARIES[0], "127.0.0.1:6653", programs)
    assert said.startswith(f"tor_app: {programs}: ") and why in said
