"""The app that keeps every switch at its program: reads what is there, sends the difference, reads again.

    python -m controller.tor_app --programs FILE --listen 127.0.0.1:6653 --status FILE

    read --nothing to change--> reconciled --SIGHUP--> read
      \\                            \\--a link between switches dies or lives again--> send, barrier --> read
       \\--changes--> send, barrier --> read ... at most ATTEMPTS times, then an error that the status file tells

It decides nothing and no packet ever comes here: while it is dead the switches forward as before, and when it
comes back it touches only what differs. What changes with a dead link is fabric_repair.py's to say; before the app
tells its first switch anything, all switches with links to others have said how their ports are.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from controller import openflow, openflow_library, tor_status
from controller.errors import ControllerError
from controller.tor_program import TorProgram, from_json
from controller.tor_rules import Changes, difference
from controller.tor_status import RepairStatus, SwitchStatus, TorStatus

LOG = logging.getLogger(__name__)
try:
    from controller.tor_links import LIBRARY, LinkHandling
except ControllerError as missing:
    if __name__ != "__main__":
        raise
    sys.exit(f"tor_app: {missing}")
_App: Any = LIBRARY.App
_Event: Any = LIBRARY.EventBase
ATTEMPTS = 3
SIGNAL_POLL_S = 0.1
ERRORS_KEPT = 5


class ReloadEvent(_Event):
    """Someone sent SIGHUP."""


@dataclass
class Conversation:
    """What was asked of one connected switch and has come back so far; an xid of None waits for nothing."""

    datapath: Any
    program: TorProgram
    load: int
    attempt: int = 0
    done: bool = False
    rules_xid: int | None = None
    groups_xid: int | None = None
    barrier_xid: int | None = None
    rules: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)


class TorApp(LinkHandling, _App):
    """Drives a Conversation with each switch. All handlers run one after the other, in the app's own loop."""

    OFP_VERSIONS = (openflow_library.OPENFLOW_15,)

    def __init__(self, *args: Any, programs: Path, listen: str, status: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._programs_path = programs
        self._status_path = status
        self._status = TorStatus(os.getpid(), f"{LIBRARY.name} {LIBRARY.version}", listen, repairs=_repairs_in(status))
        self._programs: Mapping[int, TorProgram] = {}
        self._connected: dict[int, Any] = {}
        self._conversations: dict[int, Conversation] = {}
        self._hangups = 0
        self._watch_links()
        self.register_handler(ReloadEvent, self._on_reload)
        self._load()

    def start(self) -> None:
        super().start()
        signal.signal(signal.SIGHUP, self._on_sighup)
        LIBRARY.spawn(self._watch_hangups)

    def _on_sighup(self, _signal: int, _frame: Any) -> None:
        self._hangups += 1  # nothing more: a signal handler may stand in the middle of anything

    def _watch_hangups(self) -> None:
        seen = 0
        while True:
            LIBRARY.sleep(SIGNAL_POLL_S)
            if self._hangups != seen:
                seen = self._hangups
                self.send_event(self.name, ReloadEvent())

    def _on_reload(self, _event: Any) -> None:
        if self._load():
            self._tell(replace(self._status, strangers=()))
            for dpid in self._connected:
                self._ask_or_begin(dpid)

    def _load(self) -> bool:
        try:
            programs = _programs_in(self._programs_path)
        except ControllerError as error:
            LOG.error("%s; the programs in use stay", error)
            self._tell(replace(self._status, program_error=str(error)))
            return False
        self._fabric.load(programs)
        self._programs = {p.dpid: p for p in self._fabric.repair.programs.values()}
        self._tell(replace(self._status, loads=self._status.loads + 1, program_error=""))
        return True

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPStateChange, [LIBRARY.MAIN_DISPATCHER, LIBRARY.DEAD_DISPATCHER])
    def on_state(self, event: Any) -> None:
        dpid = event.datapath.id
        if event.state == LIBRARY.MAIN_DISPATCHER:
            self._connected[dpid] = event.datapath
            self._conversations.pop(dpid, None)
            self._ask_or_begin(dpid)
        elif self._connected.get(dpid) is event.datapath:
            del self._connected[dpid]
            self._asked.pop(dpid, None)
            self._heard.discard(dpid)
            talk = self._conversations.pop(dpid, None)
            if talk is not None:
                LOG.info("%s has gone", talk.program.switch)
                self._tell_switch(talk.program, connected=False)

    def _begin(self, dpid: int) -> None:
        before = self._conversations.pop(dpid, None)
        program = self._programs.get(dpid)
        if program is None:
            LOG.warning("switch %#x has no program; nothing is sent to it", dpid)
            self._tell(replace(self._status, strangers=tuple(sorted({*self._status.strangers, dpid}))))
            return
        known = self._switch_status(program)
        since, reconciled = (time.time(), 0) if before is None else (known.connected_since, known.reconciled)
        self._conversations[dpid] = talk = Conversation(self._connected[dpid], program, self._status.loads)
        self._tell_switch(program, connected=True, connected_since=since, reconciled=reconciled, changes=None,
                          errors=())
        self._read(talk)

    def _read(self, talk: Conversation) -> None:
        talk.rules, talk.groups, talk.barrier_xid = [], [], None
        rules, groups = openflow.read_requests(talk.datapath)
        talk.rules_xid, talk.groups_xid = self._send(talk, rules), self._send(talk, groups)

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPFlowDescStatsReply, LIBRARY.MAIN_DISPATCHER)
    def on_rules(self, event: Any) -> None:
        talk = self._talk(event.msg)
        if talk is not None and event.msg.xid == talk.rules_xid:
            talk.rules += event.msg.body
            if not event.msg.flags & talk.datapath.ofproto.OFPMPF_REPLY_MORE:
                talk.rules_xid = None
                self._reconcile_when_read(talk)

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPGroupDescStatsReply, LIBRARY.MAIN_DISPATCHER)
    def on_groups(self, event: Any) -> None:
        talk = self._talk(event.msg)
        if talk is not None and event.msg.xid == talk.groups_xid:
            talk.groups += event.msg.body
            if not event.msg.flags & talk.datapath.ofproto.OFPMPF_REPLY_MORE:
                talk.groups_xid = None
                self._reconcile_when_read(talk)

    def _reconcile_when_read(self, talk: Conversation) -> None:
        if talk.rules_xid is not None or talk.groups_xid is not None:
            return
        changes = difference(openflow.installed(talk.rules, talk.groups), talk.program)
        if talk.attempt == 0:
            self._tell_switch(talk.program, changes=changes.counts())
        if not changes:
            LOG.info("%s is as it should be", talk.program.switch)
            talk.done = True
            self._tell_switch(talk.program, reconciled=talk.load, reconciled_at=time.time())
            if talk.program.switch in self._status.rerouting:
                self._tell(self._status.told((talk.program.switch,), time.time()))
            return
        if talk.attempt == ATTEMPTS:
            self._tell_error(talk, f"still different after {ATTEMPTS} attempts: {changes.counts()}")
            return
        talk.attempt += 1
        self._send_changes(talk, changes)

    def _change(self, dpid: int) -> None:
        """Send a switch what its new program asks for beyond the last one; if it is not there yet, begin anew."""
        before, program = self._conversations.get(dpid), self._programs[dpid]
        changes = None if before is None or not before.done else difference(before.program, program)
        if not changes:
            self._begin(dpid)
            return
        self._conversations[dpid] = talk = Conversation(self._connected[dpid], program, self._status.loads, attempt=1)
        self._tell_switch(program, changes=changes.counts())
        self._send_changes(talk, changes)

    def _send_changes(self, talk: Conversation, changes: Changes) -> None:
        try:
            messages = openflow.change_messages(talk.datapath, changes)
        except ControllerError as error:
            self._tell_error(talk, f"nothing sent: {error}")
            return
        LOG.info("%s: sending %s", talk.program.switch, changes.counts())
        status = self._switch_status(talk.program)
        self._tell_switch(talk.program, sent=status.sent + sum(changes.counts().values()))
        for message in messages:
            talk.barrier_xid = self._send(talk, message)  # the last one is a barrier

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPBarrierReply, LIBRARY.MAIN_DISPATCHER)
    def on_barrier(self, event: Any) -> None:
        talk = self._talk(event.msg)
        if talk is not None and event.msg.xid == talk.barrier_xid:
            self._read(talk)

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPErrorMsg, LIBRARY.MAIN_DISPATCHER)
    def on_error(self, event: Any) -> None:
        talk = self._talk(event.msg)
        if talk is not None:
            message = event.msg
            self._tell_error(talk, f"the switch refused a message: type {message.type} "
                                   f"code {getattr(message, 'code', None)}, it was {bytes(message.data)[:64].hex()}")

    def _talk(self, message: Any) -> Conversation | None:
        talk = self._conversations.get(message.datapath.id)
        return talk if talk is not None and talk.datapath is message.datapath else None

    def _send(self, talk: Conversation, message: Any) -> int:
        talk.datapath.send_msg(message)
        return int(message.xid)

    def _tell_error(self, talk: Conversation, error: str) -> None:
        LOG.error("%s: %s", talk.program.switch, error)
        errors = (*self._switch_status(talk.program).errors, error)[-ERRORS_KEPT:]
        self._tell_switch(talk.program, errors=errors)

    def _switch_status(self, program: TorProgram) -> SwitchStatus:
        return self._status.of(program.switch) or SwitchStatus(program.switch, program.dpid)

    def _tell_switch(self, program: TorProgram, **news: Any) -> None:
        self._tell(self._status.with_switch(replace(self._switch_status(program), **news)))

    def _tell(self, status: TorStatus) -> None:
        self._status = status
        draft = self._status_path.with_name(self._status_path.name + ".new")
        draft.write_bytes(tor_status.to_json(status))
        draft.replace(self._status_path)


def _programs_in(path: Path) -> dict[str, TorProgram]:
    try:
        return from_json(path.read_bytes())
    except OSError as error:
        raise ControllerError(f"{path}: {error.strerror}") from error
    except ControllerError as error:
        raise ControllerError(f"{path}: {error}") from error


def _repairs_in(status_path: Path) -> tuple[RepairStatus, ...]:
    """Return what an app that ran before has repaired, as its status tells; nothing if that cannot be read."""
    try:
        return tor_status.from_json(status_path.read_bytes()).repairs
    except (OSError, ControllerError):
        return ()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m controller.tor_app",
                                     description="Keep switches at their programs.")
    parser.add_argument("--programs", type=Path, required=True, help="JSON that controller.tor_program wrote")
    parser.add_argument("--listen", default="127.0.0.1:6653", help="loopback ADDRESS:PORT (default %(default)s)")
    parser.add_argument("--status", type=Path, required=True, help="where to say how things stand")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    host, _, port = options.listen.rpartition(":")
    try:
        if not port.isascii() or not port.isdigit():
            raise ControllerError(f"--listen {options.listen!r} is not ADDRESS:PORT, for example 127.0.0.1:6653")
        _programs_in(options.programs)  # here and now; later ones that cannot be read leave the programs in use
        LIBRARY.serve(TorApp, host.strip("[]"), int(port),
                      programs=options.programs, listen=options.listen, status=options.status)
    except ControllerError as error:
        print(f"tor_app: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # os-ken's threads would outlive a plain exit
