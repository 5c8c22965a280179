"""A host's teaming process: speaks LACP on every member and keeps the egress on those that carry traffic.

It stands in for the kernel's bonding driver where there is none (see bonding.py), in the host's network
namespace. The LACP timers run in real seconds, not emulated ones: the partner, Open vSwitch, knows no others.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import msgspec

from nodes import lacp, lacpdu, netns
from nodes.errors import NodeError, WireError
from nodes.host_network import Command, TeamConfig, egress_commands, own_smartnics, probe_resilient_groups, run
from nodes.link_watch import LinkWatch
from topologies.unreadable import UNREADABLE

log = logging.getLogger(__name__)

RETRY_S = 0.1  # of a route that the kernel refused, and the least time between two rewrites of the status

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_MR_MULTICAST = 0


@dataclass(frozen=True, slots=True)
class PartnerStatus:
    """What a member last heard of its partner; `state` are the bits of lacpdu.py."""

    system: str
    key: int
    port: int
    state: int


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A member's LACP state (as in lacp.py), since when in emulated seconds, and why.

    Frames are counted up to the last change of anything else; `malformed` are those that were no LACPDU.
    """

    interface: str
    receive: str
    mux: str
    since_s: float
    reason: str
    partner: PartnerStatus
    sent: int
    received: int
    malformed: int


@dataclass(frozen=True, slots=True)
class TeamStatus:
    """The status file: `egress` names the members in the route, `trouble` what the kernel refused last."""

    host: str
    pid: int
    running: bool
    next_hops: str  # "resilient" or "plain"
    egress: tuple[str, ...]
    trouble: str
    members: tuple[MemberStatus, ...]


def read_status(path: Path) -> TeamStatus:
    """Read a status file; raises NodeError if there is none yet or it is something else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TeamStatus)
    except FileNotFoundError as error:
        raise NodeError(f"no teaming process has written {path} yet") from error
    except UNREADABLE as error:
        raise NodeError(f"{path} is not a team's status: {error}") from error


def run_team(config: TeamConfig) -> NoReturn:
    """Be the teaming process of a host; call it in a forked child, in the host's network namespace.

    `setup_commands` have been run there. SIGTERM makes it leave the team, withdraw the route and exit with 0;
    it is killed when its parent ends, and exits with 1, its log saying why, on an error. It leaves by
    `os._exit`, so that nothing of the parent that was forked with it is unwound.
    """
    status = 1
    try:
        netns.die_with(config.parent_pid or os.getppid())
        driver = _Driver(config)
        try:
            driver.serve()
        finally:
            driver.close()
        status = 0
    except Exception:
        log.exception("%s: the teaming process ends; its host loses the network", config.host)
    finally:
        logging.shutdown()
        os._exit(status)


class _Driver:
    """Sockets, timers, routes and the status file around one LacpTeam."""

    def __init__(self, config: TeamConfig) -> None:
        self._config = config
        self._team = lacp.LacpTeam(config.mac_bytes, [m.interface for m in config.members], time.monotonic())
        self._counts = {m.interface: {"sent": 0, "received": 0, "malformed": 0} for m in config.members}
        self._resilient = _succeeds(probe_resilient_groups())
        self._egress: tuple[str, ...] | None = None  # what the route says; None: not known
        self._returned: set[str] = set()  # members whose SmartNIC's route is to be put back
        self._trouble = ""
        self._retry_at = 0.0
        self._written: tuple[object, ...] = ()
        self._written_at = 0.0
        self._stopping = False
        self._poll = select.poll()
        self._watch = LinkWatch()
        self._poll.register(self._watch, select.POLLIN)
        self._sockets = {_listen(m.interface): m.interface for m in config.members}
        for listener in self._sockets:
            self._poll.register(listener, select.POLLIN)
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._poll.register(self._wake, select.POLLIN)
        signal.set_wakeup_fd(self._woken.fileno())
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the CLI is not for us
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or `run` could not wait for its commands

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def serve(self) -> None:
        """Serve until SIGTERM."""
        while not self._stopping:
            self._poll.poll(self._wait_ms(time.monotonic()))
            with suppress(BlockingIOError):
                self._wake.recv(64)  # signals other than SIGTERM may have woken us, too
            # What has come is heard before what is overdue: after a stop (SIGSTOP) both are waiting.
            self._hear_links()
            self._hear_frames()
            now = time.monotonic()
            self._do(self._team.tick(now))
            self._keep_routes(now)
            self._write_status(now)
        now = time.monotonic()
        self._do(self._team.leave(now))
        self._keep_routes(now)
        self._written_at = 0.0
        self._write_status(now)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._watch.close()
        for closing in (self._wake, self._woken, *self._sockets):
            closing.close()

    def _wait_ms(self, now: float) -> float | None:
        due = [self._team.deadline()]
        if self._trouble:
            due.append(self._retry_at)
        if self._written != self._state():
            due.append(self._written_at + RETRY_S)
        known = [at for at in due if at is not None]
        return max(0.0, (min(known) - now) * 1000) if known else None

    def _hear_links(self) -> None:
        names = self._counts.keys()
        for name, up in self._watch.read():
            if name in names:
                if up:
                    self._returned.add(name)
                else:
                    self._returned.discard(name)
                self._do(self._team.carrier(name, up, time.monotonic()))

    def _hear_frames(self) -> None:
        for listener, name in self._sockets.items():
            # A bound, so that a flood on one member keeps neither the others nor the timers waiting.
            for _ in range(64):
                try:
                    frame = listener.recv(2048)
                except BlockingIOError:
                    break
                except OSError as error:  # the interface went down: the link watch tells the same
                    log.debug("%s: %s", name, error)
                    break
                try:
                    pdu = lacpdu.decode(frame)
                except WireError as error:
                    self._counts[name]["malformed"] += 1
                    log.debug("%s: dropped: %s", name, error)
                    continue
                self._counts[name]["received"] += 1
                self._do(self._team.received(name, pdu, time.monotonic()))

    def _do(self, actions: lacp.Actions) -> None:
        by_name = {name: listener for listener, name in self._sockets.items()}
        for name, frame in actions.frames:
            try:
                by_name[name].send(frame)
                self._counts[name]["sent"] += 1
            except OSError as error:  # lost like a frame on a wire; the next is due in a second
                log.debug("%s: not sent: %s", name, error)
        for event in actions.events:
            log.info("%s: %s %s: %s", self._config.host, event.member, "up" if event.up else "down", event.reason)

    def _keep_routes(self, now: float) -> None:
        """Make the kernel's routes follow the team; what it refuses is tried again a little later."""
        wanted = self._team.distributing()
        if self._trouble and now < self._retry_at:
            return
        try:
            if wanted != self._egress:
                self._egress = None
                for command in egress_commands(self._config, wanted, resilient=self._resilient):
                    run(command)
                self._egress = wanted
            if self._returned:
                run(own_smartnics(self._config, sorted(self._returned)))
                self._returned.clear()
            self._trouble = ""
        except NodeError as error:
            self._trouble, self._retry_at = str(error), now + RETRY_S
            log.warning("%s: %s; trying again in %g s", self._config.host, error, RETRY_S)

    def _state(self) -> tuple[object, ...]:
        """Return whatever makes the status file stale when it changes."""
        malformed = tuple(counts["malformed"] for counts in self._counts.values())
        return self._team.members(), self._egress, self._trouble, malformed, self._stopping

    def _write_status(self, now: float) -> None:
        state = self._state()
        if state == self._written or now < self._written_at + RETRY_S:
            return
        config = self._config
        members = tuple(
            MemberStatus(m.name, m.receive, m.mux, (m.since - config.clock_start_s) / config.time_scale, m.reason,
                         PartnerStatus(m.partner.system.hex(":"), m.partner.key, m.partner.port, m.partner.state),
                         **self._counts[m.name])
            for m in self._team.members())
        status = TeamStatus(config.host, os.getpid(), not self._stopping, "resilient" if self._resilient else "plain",
                            self._egress or (), self._trouble, members)
        beside = config.status_path.with_name(config.status_path.name + ".new")
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1))
        beside.replace(config.status_path)
        self._written, self._written_at = state, now


def _listen(interface: str) -> socket.socket:
    """Return a raw socket that hears the slow protocols on `interface` only."""
    index = socket.if_nametoindex(interface)
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # 0: nothing before bind
    listener.setblocking(False)
    listener.bind((interface, lacpdu.SLOW_PROTOCOLS_ETHERTYPE))
    listener.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, struct.pack(
        "=iHH8s", index, _PACKET_MR_MULTICAST, len(lacpdu.SLOW_PROTOCOLS_MAC), lacpdu.SLOW_PROTOCOLS_MAC))
    return listener


def _succeeds(commands: list[Command]) -> bool:
    try:
        for command in commands:
            run(command)
    except NodeError:
        return False
    return True
