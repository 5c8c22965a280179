"""Control groups of both versions, written into a tree of plain files that stands in for the kernel's.

Version 1 is also tried on the real thing, in tests/root; version 2 is tried only here, so what these tests
know of it is the kernel's documentation (cgroup-v2.rst).
"""

from pathlib import Path

import pytest

from nodes import cgroups
from nodes.cgroups import Cgroup, Hierarchy, Subtree, detect
from nodes.errors import WorldError

V1_SPLIT = """tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0
cgroup /sys/fs/cgroup/cpuacct cgroup rw,relatime,cpuacct 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
V1_JOINED = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n"


@pytest.fixture
def v1(tmp_path: Path) -> Hierarchy:
    for name in ("cpu", "cpuacct"):
        (tmp_path / name).mkdir()
    return Hierarchy(1, tmp_path / "cpu", tmp_path / "cpuacct")


@pytest.fixture
def v2(tmp_path: Path) -> Hierarchy:
    return Hierarchy(2, tmp_path, tmp_path)


def test_a_version_1_cpu_hierarchy_wins_over_an_empty_version_2_mount() -> None:
    assert detect(V1_SPLIT) == Hierarchy(1, Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpuacct"))


def test_jointly_mounted_controllers_are_one_hierarchy() -> None:
    found = detect(V1_JOINED)
    assert found is not None
    assert found.roots == (Path("/sys/fs/cgroup/cpu,cpuacct"),)


def test_version_2_counts_only_where_it_has_the_cpu_controller(tmp_path: Path) -> None:
    mounts = f"cgroup2 {tmp_path} cgroup2 rw,nsdelegate 0 0\n"
    assert detect(mounts) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset memory\n")
    assert detect(mounts) is None
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    assert detect(mounts) == Hierarchy(2, tmp_path, tmp_path)


@pytest.mark.parametrize(("version", "name", "weight"), [(1, "cpu.shares", "65536"), (2, "cpu.weight", "6400")])
def test_a_world_weighs_more_than_one_process(version: int, name: str, weight: str, request) -> None:
    hierarchy: Hierarchy = request.getfixturevalue(f"v{version}")
    Subtree(hierarchy, "w012345").make()
    assert [(hierarchy.cpu / path / name).read_text() for path in ("e3", "e3/w012345")] == [weight] * 2


def test_no_group_file_system_at_all_is_none() -> None:
    assert detect("proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n") is None


def test_version_1_limits_are_absolute_cores_over_the_period(v1: Hierarchy) -> None:
    subtree = Subtree(v1, "w012345")
    subtree.make()
    group = subtree.group("s1n1")
    group.make()
    group.set_cores(1.5)
    assert (v1.cpu / "e3/w012345/s1n1/cpu.cfs_quota_us").read_text() == "150000"
    assert (v1.cpu / "e3/w012345/s1n1/cpu.cfs_period_us").read_text() == "100000"
    group.set_cores(None)
    assert (v1.cpu / "e3/w012345/s1n1/cpu.cfs_quota_us").read_text() == "-1"


def test_version_1_members_join_every_hierarchy(v1: Hierarchy) -> None:
    subtree = Subtree(v1, "w012345")
    subtree.make()
    subtree.owner.add(41)
    assert [(root / "e3/w012345/cgroup.procs").read_text() for root in v1.roots] == ["41", "41"]
    assert subtree.root.members() == {41}


def test_version_1_counters_are_in_seconds(v1: Hierarchy) -> None:
    subtree = Subtree(v1, "w012345")
    subtree.make()
    (v1.account / "e3/w012345/cpuacct.usage").write_text("1500000000\n")
    (v1.cpu / "e3/w012345/cpu.stat").write_text("nr_periods 40\nnr_throttled 10\nthrottled_time 250000000\n")
    assert subtree.root.usage_seconds() == 1.5
    assert subtree.root.throttled() == (40, 10, 0.25)


def test_version_2_limits_are_quota_and_period_on_one_line(v2: Hierarchy) -> None:
    subtree = Subtree(v2, "w012345")
    subtree.make()
    group = subtree.group("s1n1")
    group.make()
    group.set_cores(0.25)
    assert (v2.cpu / "e3/w012345/s1n1/cpu.max").read_text() == "25000 100000"
    group.set_cores(None)
    assert (v2.cpu / "e3/w012345/s1n1/cpu.max").read_text() == "max 100000"


def test_version_2_hands_the_cpu_controller_down_and_keeps_processes_in_leaves(v2: Hierarchy) -> None:
    subtree = Subtree(v2, "w012345")
    subtree.make()
    for above in ("", "e3", "e3/w012345"):
        assert (v2.cpu / above / "cgroup.subtree_control").read_text() == "+cpu"
    subtree.owner.add(41)
    assert (v2.cpu / "e3/w012345/owner/cgroup.procs").read_text() == "41"
    assert not (v2.cpu / "e3/w012345/cgroup.procs").exists()
    assert subtree.root.members() == {41}


def test_version_2_counters_are_in_seconds(v2: Hierarchy) -> None:
    subtree = Subtree(v2, "w012345")
    subtree.make()
    stat = v2.cpu / "e3/w012345/cpu.stat"
    stat.write_text("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
    assert subtree.root.usage_seconds() == 2.5
    assert subtree.root.throttled() == (0, 0, 0.0)
    stat.write_text("usage_usec 2500000\nnr_periods 8\nnr_throttled 4\nthrottled_usec 125000\n")
    assert subtree.root.throttled() == (8, 4, 0.125)


@pytest.mark.parametrize("cores", [0, -1, 0.009])
def test_a_limit_that_the_kernel_would_refuse_is_refused_with_the_least(v1: Hierarchy, cores: float) -> None:
    with pytest.raises(WorldError, match=f"to {cores} cores: the least is 0.01 cores"):
        Subtree(v1, "w012345").group("s1n1").set_cores(cores)


def test_removing_goes_bottom_up_and_leaves_other_worlds(v1: Hierarchy) -> None:
    ours, theirs = Subtree(v1, "w012345"), Subtree(v1, "w543210")
    for subtree in (ours, theirs):
        subtree.make()
        subtree.group("s1n1").make()
    assert ours.count() == 4
    for control in (v1.cpu / "e3").rglob("cpu.shares"):
        control.unlink()  # the kernel takes a group's control files away with it
    ours.remove()
    assert not any((root / "e3/w012345").exists() for root in v1.roots)
    assert all((root / "e3/w543210/s1n1").is_dir() for root in v1.roots)
    theirs.remove()
    assert not any((root / "e3").exists() for root in v1.roots)
    theirs.remove()


def test_a_group_that_cannot_be_removed_names_who_is_in_it(v1: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "REMOVE_WAIT_S", 0.02)
    subtree = Subtree(v1, "w012345")
    subtree.make()
    subtree.owner.add(41)  # a plain directory with a file in it cannot be removed either
    with pytest.raises(WorldError, match=r"cannot remove .*w012345.*members: \[41\]"):
        subtree.remove()


def test_a_read_only_hierarchy_is_a_world_error(tmp_path: Path) -> None:
    (tmp_path / "e3").write_text("in the way")
    with pytest.raises(WorldError, match="cannot make the control group e3/w012345"):
        Subtree(Hierarchy(2, tmp_path, tmp_path), "w012345").make()


def test_a_group_whose_parent_others_remove_again_and_again_is_given_up(
        v1: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def removed_meanwhile(group: Cgroup) -> None:
        made.append(group.path)
        if len(made) % 2 == 0:
            raise FileNotFoundError
    monkeypatch.setattr(Cgroup, "make", removed_meanwhile)
    with pytest.raises(WorldError, match="control group e3/w012345: e3 was removed 10 times"):
        Subtree(v1, "w012345").make()
    assert made == ["e3", "e3/w012345"] * 10


def test_a_process_moves_to_the_nearest_group_that_still_exists(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "cgroup.procs").write_text("")
    cgroups.move(41, [tmp_path / "a" / "gone" / "deeper"])
    assert (tmp_path / "a" / "cgroup.procs").read_text() == "41"
