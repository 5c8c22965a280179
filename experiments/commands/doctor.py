"""`e3 doctor`: what this machine can do for the testbed, and what follows from what it cannot.

Every probe that makes something makes it in a throw-away network namespace, or in a world of its own that
is stopped at once, so that nothing stays behind.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nodes import cgroups, journal
from nodes.errors import WorldError
from nodes.programs import SYSTEM_DIRS, find_binary
from nodes.world import KERNEL_MODULE, World

PROBE_TIMEOUT_S = 10
PROBE_VETH = "ip link add e3probe0 type veth peer name e3probe1"
# (program, Debian package, what follows from its lack, whether the testbed stops without it)
PROGRAMS = (
    ("ip", "iproute2", "no link can be made", True),
    ("tc", "iproute2", "no link can be given a rate", True),
    ("ethtool", "ethtool", "checksum offload stays on, and TCP hangs on the user-space datapath", True),
    ("tcpdump", "tcpdump", "no captures, so no routing proof", False),
    ("ping", "iputils-ping", "no reachability check", False),
    ("iperf3", "iperf3", "no TCP check between hosts", False),
)
# (qdisc, its arguments, what follows from its lack)
QDISCS = (
    ("tbf", "rate 10mbit burst 10kb latency 50ms",
     "links cannot have their rates, so nothing runs at calibrated speed: modprobe sch_tbf, or --speed unpaced"),
    ("htb", "default 1", "nothing: link rates are token buckets (tbf)"),
    ("netem", "delay 1ms", "nothing: ways have their delays in emulated time, lost frames are made by BPF filters"),
)
BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}
BPF_PROG_LOAD, BPF_PROG_TYPE_XDP = 5, 6


@dataclass(frozen=True, slots=True)
class Row:
    """One thing about the machine: what was `found`, and what `follows` from it ("" if all is well).

    `fatal` means that no testbed starts here; `mend` is then the one command that mends it.
    """

    what: str
    found: str
    follows: str = ""
    fatal: bool = False
    mend: str = ""


def doctor() -> list[Row]:
    """Look at the machine and return all rows, in order of importance; takes about a second."""
    return [*_machine(), *_rights(), *_programs(), *_open_vswitch(), *_python_packages(), *_links(), *_worlds()]


def is_fit(rows: list[Row]) -> bool:
    """Say whether a testbed can start on the machine that `rows` describe."""
    return not any(row.fatal for row in rows)


def _machine() -> Iterator[Row]:
    cores = len(os.sched_getaffinity(0))
    yield Row("kernel", f"Linux {platform.release()}, {platform.machine()}")
    yield Row("Python", platform.python_version())
    yield Row("cores", str(cores), "" if cores >= 2 else "switch and nodes share one core: everything is slower")
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available_gb = int(fields["MemAvailable"].split()[0]) / 2**20
    yield Row("memory", f"{available_gb:.1f} GiB available",
              "" if available_gb >= 1 else "room for one small rack only: a node takes up to 30 MB")


def _rights() -> Iterator[Row]:
    if os.geteuid() == 0:
        yield Row("root", "yes")
    else:
        yield Row("root", "no", "no namespace, link or capture can be made; rows below are what can be seen without",
                  fatal=True, mend="run it with sudo")
        return
    trouble = _trouble_in_throwaway("true")
    yield Row("network namespaces", "no" if trouble else "yes", trouble and f"no node can be made: {trouble}",
              fatal=bool(trouble), mend=trouble and "run on a machine or container with CAP_SYS_ADMIN")
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        yield Row("AF_PACKET sockets", "yes")
    except OSError as error:
        yield Row("AF_PACKET sockets", "no", f"SmartNIC agents cannot own their ports: {error.strerror}", fatal=True,
                  mend="run on a machine or container with CAP_NET_RAW")


def _programs() -> Iterator[Row]:
    for program, package, lack, fatal in PROGRAMS:
        try:
            yield Row(program, find_binary(program))
        except WorldError:
            yield Row(program, "missing", lack, fatal, f"apt-get install {package}")


def _open_vswitch() -> Iterator[Row]:
    try:
        version = _output(find_binary("ovs-vswitchd"), "--version").splitlines()[0].split()[-1]
        yield Row("Open vSwitch", version)
    except (WorldError, IndexError) as error:
        yield Row("Open vSwitch", "missing", f"no switch: {error}", fatal=True,
                  mend="apt-get install openvswitch-switch")
        return
    if os.geteuid() == 0:
        yield from _trial_world()
    else:
        hierarchy = cgroups.detect()
        yield Row("control groups", f"version {hierarchy.version}" if hierarchy else "no cpu controller")
    if KERNEL_MODULE.exists():
        yield Row("datapath kernel", "yes")
    else:
        loadable = _loadable("openvswitch")
        yield Row("datapath kernel", "not loaded" if loadable else "no", "the datapath netdev, in user space, is used"
                  + ("; for the kernel's: modprobe openvswitch" if loadable else ""))


def _trial_world() -> Iterator[Row]:
    """Start a world, which tries namespace, control groups and private switch all at once, and stop it again."""
    begun = time.monotonic()
    try:
        with World.start("doctor") as world:
            yield Row("datapath netdev", f"yes: a private switch came up in {time.monotonic() - begun:.2f} s")
            if world.subtree is None:
                yield Row("control groups", "no writable cpu controller",
                          "nodes are not limited: one may starve the others; a dead world's processes are found by "
                          "their environment and namespace instead")
            else:
                world.cgroup("probe", 0.5).remove()
                yield Row("control groups", f"version {world.subtree.hierarchy.version}, "
                                            f"{world.subtree.root.directories[0].parent.parent}")
    except WorldError as error:
        yield Row("private world", "does not start", str(error), fatal=True,
                  mend="apt-get install --reinstall openvswitch-switch")


def _python_packages() -> Iterator[Row]:
    mininet = _package_version("mininet", "mininet")
    yield Row("Mininet", mininet or "missing", "" if mininet else "no topology can be built", not mininet,
              "" if mininet else "apt-get install mininet")
    found = {name: _package_version(module, name) for name, module in (("ryu", "ryu"), ("os-ken", "os_ken"))}
    present = [f"{name} {version}" for name, version in found.items() if version]
    yield Row("OpenFlow controller", " and ".join(present) or "missing",
              "" if present else "no ToR can be programmed", not present,
              "" if present else "pip install os-ken")


def _links() -> Iterator[Row]:
    if os.geteuid() != 0:
        return
    trouble = _trouble_in_throwaway(PROBE_VETH)
    yield Row("veth", "no" if trouble else "yes", trouble and f"no node can be linked: {trouble}", bool(trouble),
              trouble and "modprobe veth")
    if trouble:
        return
    for qdisc, arguments, lack in QDISCS:
        trouble = _trouble_in_throwaway(f"{PROBE_VETH} && tc qdisc add dev e3probe0 root {qdisc} {arguments}")
        yield Row(f"qdisc {qdisc}", "no" if trouble else "yes", trouble and f"{lack} ({trouble})")
    yield _bonding()
    trouble = _xdp_trouble()
    yield Row("XDP", "no" if trouble else "yes", trouble and f"agents use AF_PACKET, and nothing needs XDP ({trouble})")


def _bonding() -> Row:
    without = "hosts are teamed by a user-space LACP speaker and multipath routes"
    if not Path("/sys/module/bonding").exists():  # not tried: loading it would make bond0 outside our namespaces
        loadable = _loadable("bonding")
        return Row("bonding", "not loaded" if loadable else "no",
                   without + ("; for the kernel's driver: modprobe bonding max_bonds=0" if loadable else ""))
    trouble = _trouble_in_throwaway("ip link add e3probe0 type bond mode 802.3ad")
    return Row("bonding", "no" if trouble else "yes", trouble and f"{without} ({trouble})")


def _xdp_trouble() -> str:
    """Load the XDP program `return XDP_PASS`, unload it again, and return what went wrong ("" if nothing)."""
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        return f"not tried on {platform.machine()}"
    program = ctypes.create_string_buffer(bytes.fromhex("b700000002000000" "9500000000000000"))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        BPF_PROG_TYPE_XDP.to_bytes(4, "little") + (2).to_bytes(4, "little")
        + ctypes.addressof(program).to_bytes(8, "little") + ctypes.addressof(licence).to_bytes(8, "little"), 72)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, BPF_PROG_LOAD, attributes, 72)
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return ""


def _worlds() -> Iterator[Row]:
    run_dirs = journal.run_dirs()
    if run_dirs and os.geteuid() != 0:
        for state in ("alive", "dead"):
            yield Row(f"worlds {state}", f"unknown, of {len(run_dirs)}", "only root can see which of them live")
        return
    alive: list[str] = []
    dead: list[str] = []
    if run_dirs:
        with journal.room_lock():  # no world is half started or half stopped while we look
            for run_dir in journal.run_dirs():
                (alive if journal.is_alive(run_dir) else dead).append(run_dir.name)
    yield Row("worlds alive", ", ".join(alive) or "none")
    yield Row("worlds dead", ", ".join(dead) or "none",
              "they hold processes, control groups and files: e3 clean removes them" if dead else "")


def _trouble_in_throwaway(script: str) -> str:
    """Run a shell script in a network namespace that dies with it; return its complaint, "" if it had none."""
    try:
        done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True,
                              timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return said[0].strip() if said else f"exit status {done.returncode}"


def _loadable(module: str) -> bool:
    """Say whether modprobe would find `module`, without loading it."""
    modprobe = shutil.which("modprobe", path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_DIRS}")
    if modprobe is None:
        return False
    return subprocess.run([modprobe, "--dry-run", "--quiet", module], check=False, capture_output=True).returncode == 0


def _package_version(module: str, distribution: str) -> str:
    """Return the version of an importable package, "" if it cannot be imported."""
    if importlib.util.find_spec(module) is None:
        return ""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout
