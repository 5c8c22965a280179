"""The doctor says what a machine lacks and what follows, and leaves the machine as it found it."""

import os
import subprocess
from pathlib import Path

import pytest

from experiments.commands import doctor as doctor_module
from experiments.commands.doctor import Row, doctor, is_fit
from experiments.emulation.clean import CleanReport, clean
from nodes.errors import WorldError
from nodes.remains import Removed

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: use sudo")


def row(rows: list[Row], what: str) -> Row:
    return next(r for r in rows if r.what == what)


def test_every_lack_says_what_follows_and_every_fatal_one_how_to_mend_it() -> None:
    rows = doctor()
    assert len({r.what for r in rows}) == len(rows)
    assert all(r.follows and r.mend for r in rows if r.fatal)
    assert all(r.follows for r in rows if r.found in ("no", "missing", "not loaded"))
    for what in ("kernel", "cores", "memory", "root", "Open vSwitch", "datapath kernel", "control groups", "Mininet",
                 "OpenFlow controller", "tcpdump", "iperf3", "worlds alive", "worlds dead"):
        assert row(rows, what).found


def test_without_root_the_one_fatal_right_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = row(doctor(), "root")
    assert (found.fatal, found.mend) == (True, "run it with sudo")
    with pytest.raises(WorldError, match="clean needs root: run it with sudo"):
        clean()


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name in ("ethtool", "tcpdump", "ovs-vswitchd"):
            raise WorldError(f"{name} is missing")
        return f"/usr/bin/{name}"

    monkeypatch.setattr(doctor_module, "find_binary", find)
    rows = doctor()
    assert (row(rows, "ethtool").fatal, row(rows, "ethtool").mend) == (True, "apt-get install ethtool")
    assert (row(rows, "tcpdump").fatal, row(rows, "tcpdump").follows) == (False, "no captures, so no routing proof")
    assert row(rows, "Open vSwitch").mend == "apt-get install openvswitch-switch"
    assert not is_fit(rows)


def test_a_python_without_a_controller_library_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "_package_version", lambda module, name: "2.3" if module == "mininet" else "")
    rows = list(doctor_module._python_packages())
    assert [(r.what, r.fatal) for r in rows] == [("Mininet", False), ("OpenFlow controller", True)]


def test_a_machine_is_fit_until_something_fatal_is_missing() -> None:
    assert is_fit([Row("netem", "no", "no delay")])
    assert not is_fit([Row("netem", "no", "no delay"), Row("root", "no", "nothing", True, "sudo")])


@as_root
def test_probes_leave_no_link_and_no_world() -> None:
    def links() -> set[str]:
        return set(os.listdir("/sys/class/net"))

    before = links()
    rows = doctor()
    assert row(rows, "datapath netdev").found.startswith("yes")
    assert not {name for name in links() - before if name.startswith("e3probe")}
    said = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert "e3probe" not in said
    assert "E3_WORLD" not in os.environ


@as_root
def test_probes_see_a_qdisc_that_is_there_and_one_that_is_not() -> None:
    veth = doctor_module.PROBE_VETH
    assert doctor_module._trouble_in_throwaway(f"{veth} && tc qdisc add dev e3probe0 root tbf rate 1mbit burst 10kb "
                                               "latency 50ms") == ""
    assert "unknown" in doctor_module._trouble_in_throwaway(f"{veth} && tc qdisc add dev e3probe0 root nosuchqdisc")


@as_root
def test_cleaning_a_room_without_worlds_makes_nothing(tmp_path: Path) -> None:
    report = clean(tmp_path / "e3")
    assert report == CleanReport((), ())
    assert report.lines() == ["no dead world"]
    assert not (tmp_path / "e3").exists()


@as_root
def test_cleaning_removes_an_empty_run_dir_and_spares_what_is_not_a_world(tmp_path: Path) -> None:
    room = tmp_path / "e3"
    (room / "w00000a").mkdir(parents=True)
    (room / "w00000a" / "deep").mkdir()
    (room / "w00000a" / "deep" / "file").write_text("x")
    (room / "notes").mkdir()
    report = clean(room)
    assert report.lines() == ["w00000a (no label): removed 0 processes, 0 control groups, 2 files"]
    assert [path.name for path in room.iterdir()] == ["notes"]


def test_a_report_says_what_could_not_be_removed() -> None:
    report = CleanReport((Removed("w00000a", "demo", 1, 2, 0, ("processes [7]",)),), ("w00000b",))
    assert not report.complete
    assert report.lines() == ["w00000a (demo): could not remove processes [7]", "w00000b: alive, left alone"]
