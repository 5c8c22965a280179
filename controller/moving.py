"""Moves that are decided: begun one neighbour at a time, sent, and made known to clients."""

from __future__ import annotations

from controller.controller_record import ControllerRecord
from controller.errors import MigrationError
from controller.migration import MigrationControl
from controller.migration_steps import Happening, Migration, Outgoing, State
from controller.orchestrator import Orchestrator
from controller.surroundings import Around
from controller.whereabouts import Key, Whereabouts
from nodes.transport import Send, Sends
from topologies.addressing import CONTROL_PORT

TELL_CLIENTS = frozenset({State.SWITCHING.value, State.RESUMING.value, State.FINISHING.value, State.DONE.value,
                          "reconnected"})


class Moving:
    """What the resource controller, which inherits it, does about a move once it is decided.

    Two neighbours never move at the same time, since each is to know where the other is: the later of them is postponed
    till the earlier has settled.
    """

    where: Whereabouts
    record: ControllerRecord
    control: MigrationControl
    orchestrator: Orchestrator
    _around: Around
    _index: dict[str, int]  # of the nodes' names
    _postponed: dict[Key, tuple[str, str]]  # decided moves that wait for a neighbour: where to, and why
    _settled: bool  # something has, since postponed moves were looked at

    def _begin(self, key: Key, to: str, why: str, now: float, out: Sends) -> int:
        source = self.where.node_of[key]
        neighbour = self._neighbour_on_its_way(key)
        if neighbour:
            raise MigrationError(f"{neighbour}, its neighbour, is on its way")
        commands: Outgoing = []
        number = self.control.begin(*key, source, to, self._around.to_tell(key, source, to), now, commands, why)
        self._send(commands, out, {number: why})
        return number

    def _neighbour_on_its_way(self, key: Key) -> str:
        """Return the name of one, "" if there is none: each is to know where the other is when it begins to move."""
        return next((self.where.name_of(m.key) for m in self.control.open.values()
                     if self.where.are_neighbours(key, m.key)), "")

    def _take_up(self, now: float, out: Sends) -> None:
        """Begin what was decided and waited for a neighbour that has settled."""
        self._settled = False
        for key, (to, why) in list(self._postponed.items()):
            if not self._neighbour_on_its_way(key):
                del self._postponed[key]
                try:
                    self._begin(key, to, why, now, out)
                except MigrationError as error:
                    self.orchestrator.stayed(*key)
                    self.record.tell(now, "verdict", self.where.node_of[key], self.where.name_of(key),
                               detail=f"to {to}, {why}; not done: {error}")

    def _send(self, commands: Outgoing, out: Sends, whys: dict[int, str] | None = None) -> None:
        """Put commands into datagrams, and take down what has happened meanwhile."""
        for node, command in commands:
            out.append(Send(self.control.ip_of(node), CONTROL_PORT, command.encode()))
        news, self.control.happenings = self.control.happenings, []
        for happening in news:
            self._happened(happening, (whys or {}).get(happening.migration, ""), out)
        if self._settled and self._postponed:
            self._take_up(news[-1].now_s, out)

    def _happened(self, happening: Happening, why: str, out: Sends) -> None:
        m = self.control.migration(happening.migration)
        if m is None:
            return
        self.record.happened(happening, m, why)
        if happening.what in TELL_CLIENTS:
            self._tell_clients(m, out)

    def _tell_clients(self, m: Migration, out: Sends) -> None:
        command = self.control.for_clients(m)
        if command is not None:
            data = command.encode()
            out += [Send(ip, port, data) for ip, port in m.clients]

    def _done(self, application: int, number: int, node: str, epoch: int) -> None:
        """Note that an instance has settled somewhere."""
        del epoch
        key = application, number
        self._settled = True
        if self.where.node_of[key] != node:
            self.where.node_of[key] = node
            self.orchestrator.arrived(*key, self._index[node])
        else:
            self.orchestrator.stayed(*key)
