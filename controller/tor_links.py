"""How the app hears of links between switches, and when it looks what follows: a part of TorApp.

    switch comes --its ports asked--> told ... till all have, or GATHER_S: only then the first is told anything
    port goes up or down --SETTLE_S--> look: other links dead than before? --> only switches that differ are changed
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from controller import openflow, openflow_library
from controller.fabric_keeper import FabricKeeper
from controller.tor_program import TorProgram
from controller.tor_status import TorStatus

LOG = logging.getLogger(__name__)
LIBRARY = openflow_library.load()
_Event: Any = LIBRARY.EventBase
GATHER_S = 2.0  # after the first switch has come: whose ports are unknown by then is not waited for
SETTLE_S = 0.02  # after news of a port: the link's other end, and what was cut with it, tell of themselves


class LookEvent(_Event):
    """It is time to see which links are dead."""

    def __init__(self, due_s: float) -> None:
        super().__init__()
        self.due_s = due_s


class LinkHandling:
    """Mixed into TorApp, which has what it works on. All handlers run one after the other."""

    name: str
    register_handler: Callable[..., None]
    send_event: Callable[..., None]
    _connected: dict[int, Any]
    _conversations: dict[int, Any]
    _programs: Mapping[int, TorProgram]
    _status: TorStatus

    @abstractmethod
    def _begin(self, dpid: int) -> None: ...

    @abstractmethod
    def _change(self, dpid: int) -> None: ...

    @abstractmethod
    def _tell(self, status: TorStatus) -> None: ...

    def _watch_links(self) -> None:
        self._fabric = FabricKeeper()
        self._asked: dict[int, dict[int, bool]] = {}  # ports told so far, of switches that are telling
        self._heard: set[int] = set()  # switches that have told, and have not been told anything yet
        self._gathered_s: float | None = None
        self._look_due_s: float | None = None
        self.register_handler(LookEvent, self._on_look)

    def _ask_or_begin(self, dpid: int) -> None:
        """Begin with a switch, once it has said how its ports are if links to other switches hang on them."""
        program = self._programs.get(dpid)
        if program is None or not self._fabric.has_links(program.switch):
            self._begin(dpid)
            return
        if self._gathered_s is None:
            self._gathered_s = time.monotonic() + GATHER_S
            self._look_in(GATHER_S)
        self._asked[dpid] = {}
        datapath = self._connected[dpid]
        datapath.send_msg(openflow.port_request(datapath))

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPPortDescStatsReply, LIBRARY.MAIN_DISPATCHER)
    def on_ports(self, event: Any) -> None:
        datapath = event.msg.datapath
        if not self._is_current(datapath) or datapath.id not in self._asked:
            return
        self._asked[datapath.id] |= {port.port_no: openflow.is_up(datapath, port) for port in event.msg.body}
        if event.msg.flags & datapath.ofproto.OFPMPF_REPLY_MORE:
            return
        ports, program = self._asked.pop(datapath.id), self._programs.get(datapath.id)
        if program is not None:
            self._fabric.tell_all(program.switch, ports, time.monotonic())
        self._heard.add(datapath.id)
        self._begin_with_those_that_told()

    def _begin_with_those_that_told(self) -> None:
        """Begin with them when all have told, or enough time has passed."""
        if self._gathered_s is None or (self._fabric.silent() and time.monotonic() < self._gathered_s):
            return
        first, self._gathered_s = self._gathered_s > 0.0, 0.0  # whoever comes from now on is not waited for
        self._look(first)
        heard, self._heard = self._heard, set()
        for dpid in heard & self._connected.keys():
            self._begin(dpid)

    @LIBRARY.set_ev_cls(LIBRARY.events.EventOFPPortStatus, LIBRARY.MAIN_DISPATCHER)
    def on_port(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        program = self._programs.get(datapath.id)
        if program is None or not self._is_current(datapath) or datapath.id in self._asked:
            return  # who is being asked will tell what is newer
        up = message.reason != datapath.ofproto.OFPPR_DELETE and openflow.is_up(datapath, message.desc)
        if self._fabric.tell(program.switch, message.desc.port_no, up, time.monotonic()):
            self._look_in(SETTLE_S)

    def _is_current(self, datapath: Any) -> bool:
        """Say whether `datapath` is the connection over which its switch is spoken to now."""
        return self._connected.get(datapath.id) is datapath

    def _look_in(self, delay_s: float) -> None:
        due_s = time.monotonic() + delay_s
        if self._look_due_s is None or due_s < self._look_due_s:
            self._look_due_s = due_s
            LIBRARY.spawn(self._look_at, due_s)

    def _look_at(self, due_s: float) -> None:
        LIBRARY.sleep(max(0.0, due_s - time.monotonic()))
        self.send_event(self.name, LookEvent(due_s))

    def _on_look(self, event: Any) -> None:
        if event.due_s == self._look_due_s:
            self._look_due_s = None
        if self._gathered_s:
            self._begin_with_those_that_told()
            self._look_in(max(SETTLE_S, self._gathered_s - time.monotonic()) if self._gathered_s else SETTLE_S)
            return
        self._look()

    def _look(self, first: bool = False) -> None:
        """See which links count as dead, and change the switches for which that makes a difference.

        When an app that ran before has left them with another repair, at the `first` look, that may be all of them.
        """
        now_s = time.monotonic()
        left = first and bool(self._status.repairs)
        changed = self._fabric.look(now_s) or (left and self._status.repairs[-1].dead != self._fabric.repair.dead)
        if changed:
            repair = self._fabric.repair
            before, self._programs = self._programs, {p.dpid: p for p in repair.programs.values()}
            differ = {dpid: p for dpid, p in self._programs.items() if left or p != before.get(dpid)}
            LOG.info("dead links: %s; other programs for %s", ", ".join(repair.dead) or "none",
                     ", ".join(p.switch for p in differ.values()) or "none")
            now = time.time()
            noticed = now if self._fabric.since_s is None else now - (now_s - self._fabric.since_s)
            self._tell(self._status.repaired(repair, {p.switch for p in differ.values()}, noticed, now))
            for dpid in differ.keys() & self._connected.keys() - self._asked.keys() - self._heard:
                self._change(dpid)
        again_s = self._fabric.look_again_s()
        if again_s is not None:
            self._look_in(again_s - now_s)
