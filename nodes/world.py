"""One private machine room: a network namespace, its own Open vSwitch, its control groups, and a journal of it all.

A world works in the process that starts it. `World.start` moves the calling thread into a new network
namespace, so that Mininet, run by the same thread afterwards, lives wholly inside; `stop` moves it back. What
a killed owner leaves behind, remains.py takes away: it is found by the journal and the control groups.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from nodes import cgroups, journal, netns, processes
from nodes.errors import WorldError
from nodes.programs import NEEDED, find_binary, find_schema, run
from nodes.remains import remove_run_dir

log = logging.getLogger(__name__)

DATAPATHS = ("netdev", "kernel")
KERNEL_MODULE = Path("/sys/module/openvswitch")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
READY_TIMEOUT_S = 30
TERM_WAIT_S = 2.0

_current: World | None = None


class World:
    """A running machine room; made by `start`, ended by `stop`, once.

    One process has one world at a time, because a namespace belongs to a thread and the environment to the
    process; run several worlds in several processes. Do not open the journal from the owning process: closing
    it again would drop the lock that says the world is alive.
    """

    def __init__(self, label: str, datapath: str) -> None:
        self.id = ""
        self.label = label
        self.datapath = datapath
        self.run_dir = journal.RUN_ROOT
        self.netns_inode = 0
        self.switch_pid = 0
        self.owner_pid = os.getpid()
        self.subtree: cgroups.Subtree | None = None  # None: this machine has no control group that limits CPU time
        self._thread = threading.get_ident()
        self._journal: journal.Journal | None = None
        self._spawned: list[subprocess.Popen[Any]] = []
        self._adopted: list[tuple[int, int | None]] = []
        self._old_netns: int | None = None
        self._old_cgroups: tuple[Path, ...] = ()
        self._old_environ: dict[str, str | None] = {}
        self._stopped = False

    @classmethod
    def start(cls, label: str = "e3", datapath: str = "netdev") -> World:
        """Start a world and return it, its switch daemons answering.

        `label` is for people, who see it in `doctor` and `clean`. `datapath` is "netdev" (in user space, works
        everywhere) or "kernel" (needs the openvswitch module). Raises WorldError, with nothing left behind,
        where the machine cannot carry it or this process has a world already.
        """
        global _current
        _check_machine(datapath)
        if _current is not None and _current.owner_pid == os.getpid():
            raise WorldError(f"this process has the world {_current.id} already: stop it, or start another process")
        world = cls(label, datapath)
        _current = world
        atexit.register(world.stop)
        try:
            world._take_run_dir()
            world._take_cgroups()
            world._take_environment()
            world._take_namespace()
            world._start_switch()
        except BaseException:
            world.stop()
            raise
        log.info("world %s (%s) started in %s, datapath %s", world.id, label, world.run_dir, datapath)
        return world

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    # -- what a running world offers ---------------------------------------------------------------------------

    def vsctl(self, *args: str) -> str:
        """Run ovs-vsctl on the private database and return what it prints; raises WorldError with its complaint."""
        return run([find_binary("ovs-vsctl"), f"--db=unix:{self.run_dir}/db.sock",
                     f"--timeout={READY_TIMEOUT_S}", *args])

    @property
    def switch_log(self) -> Path:
        """What the private ovs-vswitchd says."""
        return self.run_dir / "ovs-vswitchd.log"

    def appctl(self, *args: str) -> str:
        """Run ovs-appctl on the private ovs-vswitchd and return what it prints; raises WorldError."""
        return run([find_binary("ovs-appctl"), "--target=ovs-vswitchd", *args], OVS_RUNDIR=str(self.run_dir))

    def ofctl(self, command: str, switch: str, *args: str) -> str:
        """Run `ovs-ofctl COMMAND` in OpenFlow 1.5 on the bridge `switch` and return what it prints."""
        return run([find_binary("ovs-ofctl"), "-O", "OpenFlow15", command,
                     f"unix:{self.run_dir}/{switch}.mgmt", *args])

    def spawn(self, argv: Sequence[str], name: str, **popen_kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program that dies with this world; its output goes to `run_dir`/`name`.log.

        `popen_kwargs` are those of subprocess.Popen. The program has a session of its own, so that Ctrl-C at the
        terminal reaches only us. Must be called by the thread that started the world: the kernel ends the program
        when the thread that forked it ends. Raises WorldError otherwise, or if there is no such program.
        """
        self._check_running()
        if threading.get_ident() != self._thread:
            raise WorldError(f"{name} must be spawned by the thread that started world {self.id}: "
                             "a spawned program dies with the thread that spawned it")
        self._note("process", name=_checked_name(name), argv=list(argv))
        then = popen_kwargs.pop("preexec_fn", None)
        owner_pid = os.getpid()

        def in_child() -> None:
            netns.die_with(owner_pid)
            if then is not None:
                then()

        with open(self.run_dir / f"{name}.log", "ab") as output:
            options = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT,
                       "start_new_session": True, **popen_kwargs}
            if options.get("env") is not None:
                options["env"] = {**options["env"], processes.WORLD_VARIABLE: self.id}
            try:
                child = subprocess.Popen(argv, preexec_fn=in_child, **options)
            except OSError as error:
                raise WorldError(f"cannot start {name}: {argv[0]}: {error.strerror}") from error
        self._spawned.append(child)
        self.adopt(child.pid, name)
        return child

    def adopt(self, pid: int, name: str) -> None:
        """Journal a process that others started in this world, by pid and start time."""
        started = processes.started_at(pid)
        self._note("process", name=name, pid=pid, started=started)
        self._adopted.append((pid, started))

    def cgroup(self, name: str, cores: float | None) -> cgroups.Cgroup:
        """Make the control group `name` of this world, limited to `cores` core-equivalents (None: no limit).

        Raises WorldError where the machine has no control group that limits CPU time: see `subtree`.
        """
        self._check_running()
        if self.subtree is None:
            raise WorldError(f"no control group for {name}: this machine has no writable cgroup cpu controller")
        group = self.subtree.group(_checked_name(name))
        self._note("cgroup", paths=[str(path) for path in group.directories])
        group.make()
        group.set_cores(cores)
        return group

    # -- stopping ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process of the world and remove all that it made; a second call does nothing.

        Spawned programs are asked with SIGTERM first, so that a capture can write its last packets. A fork of
        the owner cannot stop the world: there, the call does nothing.
        """
        global _current
        if self._stopped or os.getpid() != self.owner_pid:
            return
        self._stopped = True
        _current = None
        atexit.unregister(self.stop)
        with contextlib.ExitStack() as always:  # last first, each one whatever the others do
            always.callback(signal.pthread_sigmask, signal.SIG_SETMASK,
                            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM}))
            always.push(self._leave_run_dir)
            always.callback(self._leave_cgroups)
            always.callback(self._leave_environment)
            always.callback(self._leave_namespace)
            always.callback(self._end_processes)
        log.info("world %s stopped", self.id)

    def _end_processes(self) -> None:
        for child in self._spawned:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + TERM_WAIT_S
        for child in reversed(self._spawned):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
        _, left = processes.end_all(self._processes, {os.getpid()})
        for child in self._spawned:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.kill()
                child.wait(TERM_WAIT_S)
        if left:
            raise WorldError(f"world {self.id}: cannot end the processes {sorted(left)}")

    def _processes(self) -> set[int]:
        if self.subtree is not None:
            return self.subtree.root.members()
        return (processes.marked_with(self.id) | processes.in_namespaces({self.netns_inode} - {0})
                | {pid for pid, started in self._adopted if processes.started_at(pid) == started is not None})

    def _leave_namespace(self) -> None:
        if self._old_netns is None:
            return
        if threading.get_ident() == self._thread:
            netns.enter(self._old_netns)
        else:
            log.warning("world %s: stopped by another thread; the one that started it stays in its namespace", self.id)
        os.close(self._old_netns)
        self._old_netns = None

    def _leave_environment(self) -> None:
        for name, value in self._old_environ.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _leave_cgroups(self) -> None:
        if self._old_cgroups:
            cgroups.move(os.getpid(), self._old_cgroups)
        if self.subtree is not None:
            self.subtree.remove()

    def _leave_run_dir(self, kind: type[BaseException] | None, error: BaseException | None,
                       trace: TracebackType | None) -> None:
        """Remove the run directory; if something before resisted, keep it, so that `clean` can finish the work."""
        with journal.room_lock(journal.RUN_ROOT):
            try:
                if error is None and self.id and self.run_dir.is_dir():
                    remove_run_dir(self.run_dir)
            finally:
                if self._journal is not None:
                    self._journal.close()

    # -- starting, in this order: whatever was taken can be found from what was taken before --------------------

    def _take_run_dir(self) -> None:
        with journal.room_lock(journal.RUN_ROOT):
            taken = {path.name for path in journal.run_dirs(journal.RUN_ROOT)}
            self.id = next(i for i in iter(lambda: "w" + secrets.token_hex(3), "") if i not in taken)
            self.run_dir = journal.RUN_ROOT / self.id
            self.run_dir.mkdir(mode=0o700)
            self._journal = journal.Journal.create(self.run_dir / journal.JOURNAL_NAME)
        self._note("world", id=self.id, label=self.label, datapath=self.datapath, pid=self.owner_pid,
                   started=processes.started_at(self.owner_pid))

    def _take_cgroups(self) -> None:
        hierarchy = cgroups.detect()
        if hierarchy is None:
            log.warning("world %s: no cgroup cpu controller; nodes are not limited", self.id)
            return
        subtree = cgroups.Subtree(hierarchy, self.id)
        self._note("cgroup", paths=[str(path) for path in subtree.root.directories])
        before = cgroups.where_now(hierarchy, self.owner_pid)
        try:
            subtree.make()
            self._old_cgroups = before
            subtree.owner.add(self.owner_pid)
        except WorldError as error:
            log.warning("world %s: nodes are not limited: %s", self.id, error)
            self._note("no-cgroup", why=str(error))
            cgroups.move(self.owner_pid, before)
            self._old_cgroups = ()
            subtree.remove()
            return
        self.subtree = subtree

    def _take_environment(self) -> None:
        wanted = {processes.WORLD_VARIABLE: self.id,
                  **{name: str(self.run_dir) for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR")}}
        for name, value in wanted.items():
            self._old_environ[name] = os.environ.get(name)
            os.environ[name] = value

    def _take_namespace(self) -> None:
        self._note("namespace")
        self._old_netns = netns.open_current()
        netns.unshare()
        self.netns_inode = netns.current_inode()
        self._note("namespace", inode=self.netns_inode)
        run([find_binary("ip"), "link", "set", "lo", "up"])
        for scope in ("all", "default"):  # the switch's ports would emit router solicitations of their own
            with contextlib.suppress(FileNotFoundError):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")

    def _start_switch(self) -> None:
        database = self.run_dir / "conf.db"
        run([find_binary("ovsdb-tool"), "create", str(database), str(find_schema())])
        quiet = ["-vsyslog:off", "-vfile:off", "-vconsole:info"]  # the console goes to the log that spawn opens
        database_server = self.spawn([find_binary("ovsdb-server"), str(database), "--pidfile", *quiet,
                                      f"--remote=punix:{self.run_dir}/db.sock"], "ovsdb-server")
        self._wait_for(self.run_dir / "db.sock", database_server)
        self.vsctl("--retry", "--no-wait", "init")  # the socket is there a moment before somebody listens
        switch_daemon = self.spawn([find_binary("ovs-vswitchd"), f"unix:{self.run_dir}/db.sock", "--pidfile", *quiet],
                                   "ovs-vswitchd")
        self._wait_for(self.run_dir / "ovs-vswitchd.pid", switch_daemon)
        self.switch_pid = switch_daemon.pid
        self.vsctl("set", "Open_vSwitch", ".", f"external-ids:system-id={self.id}")

    def _wait_for(self, path: Path, daemon: subprocess.Popen[Any]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not path.exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                name = Path(str(daemon.args[0])).name if isinstance(daemon.args, list) else "daemon"
                said: list[str] = []
                with contextlib.suppress(OSError):
                    said = (self.run_dir / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
                raise WorldError(f"{name} did not come up (exit status {daemon.poll()}): {' '.join(said)}")
            time.sleep(0.005)

    def _note(self, what: str, **facts: Any) -> None:
        if self._journal is not None:
            self._journal.note(what, **facts)

    def _check_running(self) -> None:
        if self._stopped:
            raise WorldError(f"world {self.id} is stopped")
        if os.getpid() != self.owner_pid:
            raise WorldError(f"world {self.id} belongs to process {self.owner_pid}, not to its fork {os.getpid()}")


def _check_machine(datapath: str) -> None:
    if datapath not in DATAPATHS:
        raise WorldError(f"no datapath {datapath!r}; there are {', '.join(DATAPATHS)}")
    if os.geteuid() != 0:
        raise WorldError("a world needs root: run it with sudo")
    for name in NEEDED:
        find_binary(name)
    if datapath == "kernel" and not KERNEL_MODULE.exists():
        raise WorldError("datapath 'kernel' needs the kernel module openvswitch, which is not loaded: "
                         "modprobe openvswitch, or use datapath 'netdev'")


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WorldError(f"{name!r} cannot be the name of a process or group: use letters, digits, '.', '_' and '-'")
    return name
