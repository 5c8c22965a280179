"""Where a client believes the instances of its application to be, and whom it believes when one has moved."""

from __future__ import annotations

from ipaddress import IPv4Address

from nodes.control_messages import Command, Verb
from nodes.deployment import Deployment
from nodes.transport import Address
from topologies.addressing import DATA_PORT, is_controller


class ClientPlaces:
    """Addresses by instance number, as `deployment` has them till somebody says otherwise.

    That may be a controller, or whoever stands where the instance is believed to be: its old place, which knows where
    it went. The ToR lets no false source address in. What is older than what was obeyed is refused, and counted.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.refused = 0
        self._application = deployment.number
        self._at = {place.number: Address(IPv4Address(place.ip).packed, DATA_PORT) for place in deployment.places}
        self._epochs = {place.number: place.epoch for place in deployment.places}

    def __getitem__(self, number: int) -> Address:
        return self._at[number]

    def addresses(self) -> set[bytes]:
        """Return the IP addresses of all places."""
        return {address.ip for address in self._at.values()}

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
