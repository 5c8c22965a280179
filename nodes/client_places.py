"""Where a client believes its application's instances to be, whom it believes when one has moved, and whom it asks.

An instance that has gone says where to, and so does a controller to all clients that are known to have come to it. A
client whose first request was lost with its node is known to nobody, and its node says nothing: so who hears nothing of
an instance asks the controllers, again and again, till it is heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address

from nodes.control_messages import Command, Verb, requests_in
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.messages import ChannelId
from nodes.transport import Address, Send, Sends
from topologies.addressing import DATA_PORT, is_controller

ASK_S = 0.5  # ours: how long nothing is heard of an instance before it is asked for, and asked for again


class ClientPlaces:
    """Addresses by instance number, as `deployment` has them till somebody says otherwise.

    That may be a controller, or whoever stands where the instance is believed to be: its old place, which knows where
    it went. The ToR lets no false source address in. What is older than what was obeyed is refused, and counted.
    `controllers` (IPs of 4 bytes) are asked for instances of which nothing is heard; without any, nobody is.
    """

    def __init__(self, deployment: Deployment, controllers: Iterable[bytes] = ()) -> None:
        self.refused = 0
        self.controllers = tuple(controllers)
        self._application = deployment.number
        self._at = {place.number: Address(IPv4Address(place.ip).packed, DATA_PORT) for place in deployment.places}
        self._epochs = {place.number: place.epoch for place in deployment.places}
        self._asked: dict[int, float] = {}  # when each instance was last asked for

    def __getitem__(self, number: int) -> Address:
        return self._at[number]

    def addresses(self) -> set[bytes]:
        """Return the IP addresses of all places."""
        return {address.ip for address in self._at.values()}

    def ask(self, silent: Iterable[tuple[ChannelId, float]], now: float, out: Sends) -> None:
        """Ask for instances of which nothing was heard for ASK_S; `silent` says of channels to them since when."""
        if not self.controllers:
            return
        for channel, since in silent:
            number = channel.receiver
            if self._at_of(number, since) <= now and number in self._at:
                self._asked[number] = now
                question = Command(0, 0, 0, Verb.WHERE, self._application, number, self._epochs[number],
                                   self._at[number].ip).encode()
                out += [Send(ip, DATA_PORT, question) for ip in self.controllers]

    def due(self, silent: Iterable[tuple[ChannelId, float]]) -> float | None:
        """Return when `ask` has something to do; None while it has nothing."""
        if not self.controllers:
            return None
        return min((self._at_of(channel.receiver, since) for channel, since in silent), default=None)

    def told(self, source_ip: bytes, command: Command) -> Address | None:
        """Take a command from `source_ip`; return where its instance is now if that is news, else None."""
        at = self._at.get(command.instance)
        if (command.verb != Verb.CONNECT or command.application != self._application or at is None
                or not (is_controller(source_ip) or source_ip == at.ip)
                or command.epoch < self._epochs[command.instance]):
            self.refused += 1
            return None
        self._epochs[command.instance] = command.epoch
        if command.peer == at.ip:
            return None
        now_at = self._at[command.instance] = Address(command.peer, DATA_PORT)
        return now_at

    def turned_away(self, source_ip: bytes, command: Command) -> list[int] | None:
        """Take a WITHDRAW from `source_ip`; return the ids of the requests that are not served, [] for all.

        None is for who cannot be believed, and for what is older than what was obeyed: the application is back since.
        """
        at = self._at.get(command.instance)
        known = (self.addresses() if at is None else {at.ip}) if not is_controller(source_ip) else {source_ip}
        epoch = max(self._epochs.values()) if at is None else self._epochs[command.instance]
        if command.verb == Verb.WITHDRAW and command.application == self._application and source_ip in known \
                and command.epoch >= epoch:
            with suppress(WireError):
                return requests_in(command.payload)
        self.refused += 1
        return None

    def _at_of(self, number: int, since: float) -> float:
        """Return when to ask for an instance of which nothing was heard since then."""
        return max(since, self._asked.get(number, since)) + ASK_S
