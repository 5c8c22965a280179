"""A world leaves nothing behind, however it ends, and never meets another."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.emulation.clean import clean
from nodes import cgroups, journal, netns, processes
from nodes.errors import WorldError
from nodes.world import KERNEL_MODULE, World

ROOT = Path(__file__).resolve().parents[2]
OWNER = Path(__file__).with_name("world_owner.py")


def owner(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(OWNER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def started_owner(*arguments: str) -> tuple[subprocess.Popen[str], str, set[int]]:
    """Return a running owner, its world's id and the pids that would outlive it."""
    process = owner(*arguments)
    assert process.stdout is not None
    world_id, *survivors = process.stdout.readline().split()
    return process, world_id, set(map(int, survivors))


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if processes.started_at(pid) is not None}


def members(world_id: str) -> set[int]:
    """Return the processes of a world, found otherwise than the project finds them: by /proc/PID/cgroup."""
    found = set()
    for pid in processes.all_pids():
        try:
            if f"/e3/{world_id}" in Path(f"/proc/{pid}/cgroup").read_text():
                found.add(pid)
        except OSError:
            continue
    return found | processes.marked_with(world_id)


def traces(world_id: str) -> list[str]:
    """Return all that a world has on this machine right now."""
    found = [f"process {pid}" for pid in members(world_id)]
    found += [str(path) for path in (journal.RUN_ROOT / world_id,) if path.exists()]
    hierarchy = cgroups.detect()
    found += [str(root / "e3" / world_id) for root in (hierarchy.roots if hierarchy else ())
              if (root / "e3" / world_id).exists()]
    return found


def namespaces_of(pids: set[int]) -> set[int]:
    return {inode for inode in map(netns.inode_of, pids) if inode is not None} - {netns.inode_of(1)}


def dead_worlds() -> list[str]:
    with journal.room_lock():
        return [path.name for path in journal.run_dirs() if not journal.is_alive(path)]


def links() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", autouse=True)
def bystander() -> Iterator[int]:
    """Stand in a namespace of our own, with a link and a switch-like bridge in it, as a machine would have."""
    before = netns.open_current()
    netns.unshare()
    subprocess.run("ip link add br0 type bridge; ip link add tor1-s1n1 type veth peer name other0", shell=True,
                   check=True)
    yield netns.current_inode()
    netns.enter(before)
    os.close(before)


def test_stop_leaves_the_machine_as_it_was(bystander: int) -> None:
    links_before, environment_before = links(), dict(os.environ)
    groups_before = Path("/proc/self/cgroup").read_text()
    with World.start("test") as world:
        world.vsctl("add-br", "tor1", "--", "set", "bridge", "tor1", "datapath_type=netdev")
        sleeper = world.spawn(["unshare", "--net", "sleep", "1000"], "s1n1")
        world.cgroup("s1n1", 0.5).add(sleeper.pid)
        namespaces = namespaces_of(members(world.id)) - {bystander}
        assert world.netns_inode in namespaces
        assert len(traces(world.id)) >= 4
    assert traces(world.id) == []
    assert not processes.in_namespaces(namespaces)
    assert netns.current_inode() == bystander
    assert links() == links_before
    assert dict(os.environ) == environment_before
    assert Path("/proc/self/cgroup").read_text() == groups_before
    world.stop()
    with pytest.raises(WorldError, match="is stopped"):
        world.spawn(["true"], "late")


def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, bystander: int) -> None:
    made: list[World] = []

    def failing(self: World) -> None:
        made.append(self)
        raise WorldError("no switch today")

    monkeypatch.setattr(World, "_start_switch", failing)
    with pytest.raises(WorldError, match="no switch today"):
        World.start("test")
    assert traces(made[0].id) == []
    assert netns.current_inode() == bystander


def test_a_switch_daemon_that_dies_at_start_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "ovs-vswitchd"
    broken.write_text("#!/bin/sh\necho no memory for ports\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(WorldError, match=r"ovs-vswitchd did not come up \(exit status 3\): no memory for ports"):
        World.start("test")


def test_the_switch_of_a_world_is_private_and_answers(world: World) -> None:
    world.vsctl("add-br", "tor9", "--", "set", "bridge", "tor9", "datapath_type=netdev", "protocols=OpenFlow15")
    assert subprocess.run(["ovs-vsctl", "list-br"], capture_output=True, text=True).stdout == "tor9\n"
    assert "priority=0" in world.ofctl("dump-flows", "tor9")
    assert "tor9" in world.appctl("dpif/show")
    assert (world.run_dir.stat().st_mode & 0o777) == 0o700
    with pytest.raises(WorldError, match="no-such-command"):
        world.appctl("no-such-command")
    world.vsctl("del-br", "tor9")


def test_a_second_world_in_the_same_process_is_refused(world: World) -> None:
    with pytest.raises(WorldError, match=f"has the world {world.id} already"):
        World.start("second")


def test_a_fork_of_the_owner_can_neither_stop_nor_clean_its_world(world: World) -> None:
    child = os.fork()
    if child == 0:
        world.stop()
        os._exit(0 if world.id in clean().alive else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert "ovs_version" in world.vsctl("list", "Open_vSwitch")


def test_a_group_limits_its_members_to_their_cores(world: World) -> None:
    group = world.cgroup("limited", 0.2)
    busy = world.spawn(["sh", "-c", "while :; do :; done"], "busy")
    group.add(busy.pid)
    before, begun = group.usage_seconds(), time.monotonic()
    time.sleep(1)
    cores = (group.usage_seconds() - before) / (time.monotonic() - begun)
    periods, throttled_periods, throttled_s = group.throttled()
    assert 0.05 < cores < 0.3
    assert 0 < throttled_periods <= periods
    assert throttled_s > 0
    with pytest.raises(WorldError, match="cannot remove the control group"):
        group.remove()
    busy.kill()
    busy.wait()
    group.remove()


def test_spawned_programs_die_with_their_owner() -> None:
    process, world_id, survivors = started_owner()
    spawned = {entry["pid"] for entry in journal.read(journal.RUN_ROOT / world_id / journal.JOURNAL_NAME)
               if entry["what"] == "process" and "pid" in entry} - survivors
    assert len(spawned) == 4
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while alive(spawned) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(spawned)
    assert alive(survivors) == survivors
    clean()
    assert traces(world_id) == []
    assert not alive(survivors)


@pytest.mark.parametrize("arguments", [[], ["--no-cgroups"]], ids=["with-groups", "without-groups"])
def test_cleaning_leaves_a_living_world_of_another_process_which_then_stops_whole(arguments: list[str]) -> None:
    process, world_id, survivors = started_owner(*arguments)
    before = members(world_id)
    assert world_id in clean().alive
    assert members(world_id) == before
    process.communicate("stop\n", timeout=20)
    assert process.returncode == 0
    assert traces(world_id) == []
    assert not alive(survivors)


def test_a_killed_world_without_control_groups_is_found_by_environment_namespace_and_journal() -> None:
    process, world_id, survivors = started_owner("--no-cgroups")
    process.kill()
    process.wait()
    assert alive(survivors) == survivors
    assert [removed.leftovers for removed in clean().removed if removed.id == world_id] == [()]
    assert traces(world_id) == []
    assert not alive(survivors)


def test_a_reused_pid_is_not_killed() -> None:
    bystanding = subprocess.Popen(["sleep", "1000"])
    run_dir = journal.RUN_ROOT / "wffffff"
    run_dir.mkdir(parents=True)
    started = processes.started_at(bystanding.pid)
    assert started is not None
    (run_dir / journal.JOURNAL_NAME).write_text(
        f'{{"what": "process", "name": "old", "pid": {bystanding.pid}, "started": {started - 1}}}\n{{"what": "pro')
    assert [r.processes for r in clean().removed if r.id == "wffffff"] == [0]
    assert bystanding.poll() is None
    bystanding.kill()
    bystanding.wait()
    assert not run_dir.exists()


@pytest.fixture
def pinging(world: World) -> Iterator[subprocess.Popen[str]]:
    """Two nodes of the living world that talk over its switch while others die."""
    world.vsctl("add-br", "tor1", "--", "set", "bridge", "tor1", "datapath_type=netdev")
    nodes = {name: world.spawn(["unshare", "--net", "sleep", "1000"], name) for name in ("c1", "c2")}
    for number, (name, node) in enumerate(nodes.items(), start=1):
        while netns.inode_of(node.pid) in (None, world.netns_inode):
            time.sleep(0.001)
        inside = f"nsenter --target {node.pid} --net"
        subprocess.run(f"ip link add tor1-{name} type veth peer {name}-net netns {node.pid} && "
                       f"ip link set tor1-{name} up && {inside} ip link set {name}-net up && "
                       f"{inside} ip address add 10.1.254.{number}/24 dev {name}-net", shell=True, check=True)
        world.vsctl("add-port", "tor1", f"tor1-{name}")
    talk = subprocess.Popen(["nsenter", "--target", str(nodes["c1"].pid), "--net", "ping", "-n", "-i", "0.05",
                             "10.1.254.2"], stdout=subprocess.PIPE, text=True)
    yield talk
    for process in (talk, *nodes.values()):
        process.kill()
        process.wait()
    world.vsctl("del-br", "tor1")


def test_kill_9_at_any_line_of_start_run_and_stop_can_be_cleaned(world: World, bystander: int,
                                                                 pinging: subprocess.Popen[str]) -> None:
    counted, _ = owner("--count").communicate(timeout=60)
    total = int(counted)
    drawn = random.Random(7)
    early = drawn.sample(range(2, 120), 6)  # the first lines are where the journal is not yet there
    late = drawn.sample(range(total * 9 // 10, total), 3)
    lines = [*early, *drawn.sample(range(120, total * 9 // 10), 6), *late]
    deaths = 0
    for _ in range(30):  # loops that wait run fewer lines at times, so a late line may not come: then another is drawn
        line = lines.pop(0) if lines else drawn.randrange(2, total * 9 // 10)
        deaths += owner("--die-at-line", str(line)).wait(timeout=20) == -signal.SIGKILL
        check_clean_removes_all(world, bystander, f"killed at line {line} of {total}")
        if deaths >= 13 and not lines:
            break
    assert deaths >= 13
    check_still_talking(pinging)


def test_kill_9_at_random_moments_can_be_cleaned(world: World, bystander: int,
                                                 pinging: subprocess.Popen[str]) -> None:
    seed = random.randrange(2**32)
    drawn = random.Random(seed)
    for moment in range(10):
        victim = owner()
        time.sleep(drawn.uniform(0.1, 0.6))
        victim.kill()
        victim.wait()
        check_clean_removes_all(world, bystander, f"moment {moment} of seed {seed}")
    check_still_talking(pinging)


def check_clean_removes_all(living: World, bystander: int, when: str) -> None:
    dead = dead_worlds()
    namespaces = {inode for world_id in dead for inode in namespaces_of(members(world_id))} - {bystander}
    report = clean()
    assert report.complete, f"{when}: {report.lines()}"
    assert living.id in report.alive
    assert set(dead) <= {removed.id for removed in report.removed}, when
    assert [trace for world_id in dead for trace in traces(world_id)] == [], when
    assert not processes.in_namespaces(namespaces), when


def check_still_talking(talk: subprocess.Popen[str]) -> None:
    assert talk.poll() is None
    talk.send_signal(signal.SIGINT)
    said, _ = talk.communicate(timeout=10)
    answered = [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)]
    # Every answer in turn; that to the last question may still be under way when ping is told to end.
    assert answered == list(range(1, len(answered) + 1)) and len(answered) > 20, said[-400:]


@pytest.mark.skipif(KERNEL_MODULE.exists(), reason="this machine has the openvswitch module")
def test_the_kernel_datapath_is_refused_where_the_module_is_missing() -> None:
    with pytest.raises(WorldError, match="needs the kernel module openvswitch"):
        World.start("test", datapath="kernel")


def test_another_thread_may_not_spawn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "_thread", world._thread + 1)
    with pytest.raises(WorldError, match="must be spawned by the thread that started"):
        world.spawn(["true"], "stray")


def test_clean_takes_an_empty_parent_group_away_where_no_world_is_left() -> None:
    hierarchy = cgroups.detect()
    if hierarchy is None:
        pytest.skip("this machine has no cgroup cpu controller")
    for root in hierarchy.roots:
        (root / cgroups.PARENT).mkdir(exist_ok=True)
    others = {root: any(path.is_dir() for path in (root / cgroups.PARENT).iterdir()) for root in hierarchy.roots}
    clean()
    assert {root: (root / cgroups.PARENT).exists() for root in hierarchy.roots} == others
