"""What the commands of a migration do to a node's runtime: instances are judged, frozen, started and followed.

An instance is frozen in two steps. At once its channels end here no more: nothing is acknowledged in its name, and what
was acknowledged waits in its inbox. When its last request is done, all of it becomes one package (channel_move.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from microservices.errors import ServiceError, StateError
from microservices.state import State
from nodes.artifact import artifact_of
from nodes.channel_images import ReceiverImage, SenderImage
from nodes.channel_move import InboxImage, Package, PlaceImage, decode_package
from nodes.control_messages import moved_to
from nodes.errors import NodeError
from nodes.instances import Waiting
from nodes.messages import CLIENT_BIT
from nodes.migration_agent import Key
from nodes.origin import Origin
from nodes.transport import Address, Send
from topologies.addressing import DATA_PORT

if TYPE_CHECKING:
    from nodes.service_runtime import ServiceRuntime

Image = TypeVar("Image", ReceiverImage, SenderImage)
log = logging.getLogger(__name__)


class LocalInstances:
    """The `Local` of nodes/migration_agent.py. `now` is to be set before each turn of the agent.

    What is to be sent goes out with the next `work` of `services`, which must know its own address.
    """

    def __init__(self, services: ServiceRuntime) -> None:
        self.now = 0.0
        self._services = services
        self._execution = services.execution
        self._transport = services.transport
        self._receivers: dict[Key, list[ReceiverImage]] = {}  # of what was frozen here
        self._packages: dict[Key, bytes] = {}  # of what was frozen here, and is not forgotten yet
        self._judged: dict[Key, tuple[bytes, Package, State]] = {}  # what is about to begin here

    def usable(self, key: Key, binary: bytes, fresh: bool = False) -> str | None:
        """Say whether `binary` is the source of the instance's microservice as it is installed here: that one runs.

        Unless it is `fresh`, its state must be one that can be moved, too.
        """
        kind = self._execution.kind_of(key)
        if kind is None:
            return f"no instance {key[1]} of an application {key[0]} is known here"
        router, instance = kind
        try:
            if not fresh:
                router.services[instance.stage].new_state().snapshot()
            installed = artifact_of(instance.service)
        except (ServiceError, StateError) as error:
            return str(error)
        if sha256(binary).digest() != sha256(installed).digest():
            return f"{instance.service}: sha256 {sha256(binary).hexdigest()[:16]} was pushed, another one is installed"
        return None

    def acceptable(self, key: Key, package: bytes) -> str | None:
        """Say whether `package` is an instance of this kind whose state can be restored."""
        try:
            decoded = decode_package(package, *key)
            self._judged[key] = package, decoded, self._restored(key, decoded)
        except (NodeError, StateError) as error:
            return str(error)
        return None

    def clients(self, key: Key, package: bytes) -> list[tuple[bytes, int]]:
        """Return the addresses, each once, of the clients that send to the instance in an acceptable `package`."""
        held, decoded, _ = self._judged.get(key, (b"", None, None))
        if decoded is None or held != package:
            decoded = decode_package(package, *key)
        return _clients(decoded.receivers)

    def freeze(self, key: Key) -> None:
        """Begin no request of the instance any more, and acknowledge nothing for it."""
        self._execution.halt(key)
        self._services.hold_back(key, self.now)
        self._receivers[key] = self._transport.take_out_receivers(*key)

    def frozen(self, key: Key) -> bytes | None:
        """Return the instance as a package once nothing of it runs any more; None till then."""
        execution = self._execution
        if not execution.is_quiet(key):
            return None
        try:
            snapshot = execution.state(*key).snapshot()
        except StateError:  # the destination has judged that it can; if not, the controller lets it go on
            log.exception("%s/%s cannot be frozen", *key)
            return None
        inbox = [InboxImage(w.message.encode(), w.channel is not None, w.origin is Origin.NETWORK)
                 for w in execution.inbox(key)]
        execution.take_out(key)
        senders, floor = self._transport.take_out(*key)
        places = [PlaceImage(*place) for place in execution.neighbours(key)]
        package = Package(*key, snapshot, inbox, self._receivers[key], senders, floor, places).encode()
        self._packages[key] = package
        self._services.changed()
        return package

    def resume(self, key: Key) -> None:
        """Go on with an instance that `freeze` stopped, as if nothing had been.

        It counts as a later run: it may have lived elsewhere meanwhile, and all that it did there be lost.
        """
        self._transport.renew(self._services.boot_now())
        package = self._packages.pop(key, None)
        receivers = self._receivers.pop(key, [])
        if package is None:
            held = Counter(w.channel.sender for w in self._execution.inbox(key) if w.channel is not None)
            self._transport.put_in_receivers(*key, self._known_sources(key, receivers), held, self.now)
            self._execution.go_on(key, self.now)
            self._services.changed()
        else:
            decoded = decode_package(package, *key)
            self._go_on(key, decoded, self._restored(key, decoded))

    def start(self, key: Key, binary: bytes, package: bytes | None) -> None:
        """Run the instance that is in `package`, or a fresh one."""
        judged = self._judged.pop(key, None)
        self._packages.pop(key, None)
        self._receivers.pop(key, None)
        if package is None:
            self._transport.renew(self._services.boot_now())
            self._execution.put_in(key, None, ())
            self._settle(key)
        else:
            if judged is None or judged[0] != package:
                decoded = decode_package(package, *key)
                judged = package, decoded, self._restored(key, decoded)
            self._go_on(key, judged[1], judged[2])

    def release(self, key: Key) -> None:
        """Forget what is kept of an instance that was frozen, or was to begin here."""
        self._packages.pop(key, None)
        self._receivers.pop(key, None)
        self._judged.pop(key, None)

    def connect(self, key: Key, ip: bytes, epoch: int) -> None:
        """By the decision `epoch`, send what is for the instance to `ip` from now on, and believe it there only.

        Clients that sent to it here are told, too: they believe us, and the controller may not know of them yet.
        """
        services, to = self._services, Address(ip, DATA_PORT)
        if epoch < self._execution.epoch_of(key):
            return  # a package has told us later news
        self._execution.place(key, to, epoch)
        self._transport.redirect(*key, to, self.now, services.pending)
        if to != services.own:
            said = moved_to(key, ip, epoch)
            services.pending += [Send(*client, said) for client in _clients(self._receivers.get(key, ()))]
        services.changed()

    # -- going on ------------------------------------------------------------------------------------------------------

    def _restored(self, key: Key, package: Package) -> State:
        kind = self._execution.kind_of(key)
        if kind is None:
            raise NodeError(f"no instance {key[1]} of an application {key[0]} is known here")
        router, instance = kind
        state = router.services[instance.stage].new_state()
        state.restore(package.snapshot)
        return state

    def _go_on(self, key: Key, package: Package, state: State) -> None:
        """Let the instance in `package` live here: what was in its inbox comes first."""
        for place in package.places:  # the old place was told of its neighbours, we need not have been
            self._learn((key[0], place.instance), place)
        inbox = [Waiting(message, message.channel if by_channel else None, self.now,
                         Origin.NETWORK if over_network else Origin.PCIE if by_channel else Origin.NODE)
                 for message, by_channel, over_network in package.requests()]
        held = Counter(w.channel.sender for w in inbox if w.channel is not None)
        self._execution.put_in(key, state, inbox)
        self._settle(key)
        self._transport.put_in_receivers(*key, self._known_sources(key, package.receivers), held, self.now)
        self._transport.put_in(*key, self._known_goals(key, package.senders), package.session_floor, self.now,
                               self._services.pending)

    def _learn(self, near: Key, place: PlaceImage) -> None:
        """Believe what the old place knew of a neighbour, unless we know later.

        Where we believe it there already, we may do so by an earlier decision, and it went elsewhere and came back in
        between: then the later one is noted all the same, since this node's own packages tell it on.
        """
        at, epoch = self._execution.address_of(*near), self._execution.epoch_of(near)
        if at is None or at.ip != place.ip:
            self.connect(near, place.ip, place.epoch)
        elif place.epoch > epoch:
            self._execution.place(near, at, place.epoch)

    def _settle(self, key: Key) -> None:
        """Believe that the instance is here, before the controller says so to all."""
        own = self._services.own
        assert own is not None
        if self._execution.address_of(*key) != own:
            self._execution.place(key, own, self._execution.epoch_of(key))
            self._transport.redirect(*key, own, self.now, self._services.pending)
        self._services.changed()

    # Where neighbours are, we may know better than the node that the instance comes from.

    def _known_sources(self, key: Key, images: Iterable[ReceiverImage]) -> list[ReceiverImage]:
        return [_at(image, self._execution.address_of(key[0], image.sender)) for image in images]

    def _known_goals(self, key: Key, images: Iterable[SenderImage]) -> list[SenderImage]:
        return [_at(image, self._execution.address_of(key[0], image.receiver)) for image in images]


def _at(image: Image, address: Address | None) -> Image:
    return image if address is None else replace(image, ip=address.ip, port=address.port)


def _clients(receivers: Iterable[ReceiverImage]) -> list[tuple[bytes, int]]:
    return list(dict.fromkeys((image.ip, image.port) for image in receivers if image.sender & CLIENT_BIT))
