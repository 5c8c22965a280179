"""An instance moves back and forth while requests pass through it: each exactly once and in order, whatever is lost."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import messages
from nodes.channel import OVERTAKEN_S, ChannelOptions
from nodes.channel_images import ReceiverImage, SenderImage
from nodes.channel_move import InboxImage, Package, PlaceImage, decode_package, loop_back
from nodes.errors import NodeError
from nodes.messages import KIND_PROBE, KIND_REQUEST, AckMessage, ChannelId, DataMessage
from nodes.transport import Address, Sends, Transport

PORT = 0xE300
APP, W, X, Y = 1, 10, 20, 30  # upstream, the instance that moves, downstream
OPTIONS = ChannelOptions(window=8, backlog=4)


def at(i: int) -> Address:
    return Address(bytes((10, 1, 0, i)), PORT)


class Node:
    """A transport, and the instances on it: W makes numbers, X passes on what it has counted, Y writes down."""

    def __init__(self, place: int, boot: int) -> None:
        self.address = at(place)
        self.transport = Transport(boot, OPTIONS)
        self.here: set[int] = set()
        self.where = {W: at(1), X: at(2), Y: at(4)}
        self.inbox: deque[tuple[DataMessage, bool]] = deque()
        self.counted: list[int] = []
        self.written: list[int] = []

    def receive(self, source: Address, data: bytes, now: float, out: Sends) -> None:
        message = messages.decode(data)
        if isinstance(message, AckMessage):
            self.transport.acknowledge(source, message, now, out)
        elif isinstance(message, DataMessage) and message.instance in self.here \
                and source == self.where[message.sender]:  # for another instance: neither taken nor acknowledged
            self.inbox.extend((m, True) for m in self.transport.receive(source, message, now, out))

    def work(self, now: float, out: Sends) -> None:
        """Handle what there is room for."""
        while self.inbox and (Y in self.here or self.transport.has_room(ChannelId(APP, X, Y))):
            message, by_channel = self.inbox.popleft()
            if by_channel:
                self.transport.consumed(message.channel, now)
            number = int.from_bytes(message.payload, "big")
            if message.instance == Y:
                self.written.append(number)
            else:
                self.counted.append(number)
                self.offer(X, Y, number, now, out)
        self.transport.tick(now, out)

    def offer(self, sender: int, receiver: int, number: int, now: float, out: Sends) -> None:
        message = DataMessage(KIND_REQUEST, APP, receiver, number, bytes(4), 0, 0, number.to_bytes(4, "big"), sender)
        self.transport.offer(message, self.where[receiver], now, out)

    def freeze(self) -> bytes:
        self.here.remove(X)
        inbox = [InboxImage(m.encode(), by_channel, True) for m, by_channel in self.inbox if m.instance == X]
        self.inbox = deque(pair for pair in self.inbox if pair[0].instance != X)
        receivers = self.transport.take_out_receivers(APP, X)
        senders, floor = self.transport.take_out(APP, X)
        state = b"".join(n.to_bytes(4, "big") for n in self.counted)
        return Package(APP, X, state, inbox, receivers, senders, floor, []).encode()

    def go_on(self, data: bytes, now: float, out: Sends) -> None:
        package = decode_package(data, APP, X)
        self.here.add(X)
        self.counted = [int.from_bytes(package.snapshot[i:i + 4], "big") for i in range(0, len(package.snapshot), 4)]
        held = Counter(m.sender for m, by_channel, _ in package.requests() if by_channel)
        self.transport.put_in_receivers(APP, X, package.receivers, held, now)
        self.transport.put_in(APP, X, package.senders, package.session_floor, now, out)
        self.inbox.extend((m, by_channel) for m, by_channel, _ in package.requests())


class Net:
    def __init__(self, seed: int, loss: float) -> None:
        self.draw = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        # The nodes' boot numbers neither grow from one to the next nor fall.
        boots = self.draw.sample((100, 2000, 30_000, 400_000), 4)
        self.nodes = {i: Node(i, boots[i - 1]) for i in (1, 2, 3, 4)}
        self.nodes[1].here, self.nodes[2].here, self.nodes[4].here = {W}, {X}, {Y}

    def at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + delay, next(self.order), action))

    def leave(self, node: Node, out: Sends) -> None:
        while own := loop_back(out, node.address.ip):
            for send in own:
                node.receive(node.address, send.data, self.now, out)
            node.work(self.now, out)
        for send in out:
            for _ in range(self.draw.choices((0, 1, 2), (self.loss, 1 - 1.5 * self.loss, self.loss / 2))[0]):
                to = self.nodes[send.ip[3]]
                self.at(1e-4 + self.draw.random() * (0.02 if self.draw.random() < self.loss else 1e-4),
                        lambda to=to, data=send.data: self.arrive(node.address, to, data))  # type: ignore[misc]

    def arrive(self, source: Address, to: Node, data: bytes) -> None:
        out: Sends = []
        to.receive(source, data, self.now, out)
        to.work(self.now, out)
        self.leave(to, out)

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, action = heapq.heappop(self.events)
            action()
        self.now = until

    def tick(self) -> None:
        for node in self.nodes.values():
            out: Sends = []
            node.work(self.now, out)
            self.leave(node, out)
        self.at(0.005, self.tick)

    def connect(self, place: int) -> None:
        """Tell every node, one after the other and in any order, where X stands now."""
        for node in self.draw.sample(list(self.nodes.values()), 4):
            self.at(self.draw.random() * 0.05, lambda node=node: self.told(node, place))  # type: ignore[misc]

    def told(self, node: Node, place: int) -> None:
        out: Sends = []
        node.where[X] = at(place)
        node.transport.redirect(APP, X, at(place), self.now, out)
        self.leave(node, out)


def passed(seed: int, loss: float, moves: int, places: tuple[int, ...]) -> Net:
    """Let 400 numbers pass while X moves through `places`; now and then it is frozen and goes on where it was."""
    net = Net(seed, loss)
    net.at(0.0, net.tick)
    numbers = iter(range(400))

    def make() -> None:
        out: Sends = []
        node = net.nodes[1]
        for _ in range(net.draw.randint(0, 3)):
            if node.transport.has_room(ChannelId(APP, W, X)) and (number := next(numbers, None)) is not None:
                node.offer(W, X, number, net.now, out)
        net.leave(node, out)
        net.at(0.004, make)
    make()
    place = 2
    for turn in range(moves):
        net.run(net.now + net.draw.random() * 0.15)
        package = net.nodes[place].freeze()
        net.run(net.now + net.draw.random() * 0.08)
        if net.draw.random() < 0.8:
            place = places[turn % len(places)]
        out: Sends = []
        net.nodes[place].go_on(package, net.now, out)
        net.leave(net.nodes[place], out)
        net.connect(place)
        net.run(net.now + 0.06)
    net.run(net.now + 60.0)
    return net


@pytest.mark.parametrize("places", [(3, 2), (4, 2), (1, 3), (4, 1, 2, 3)],
                         ids=["to and fro", "to the next one's node", "to the last one's node", "everywhere"])
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.15])
def test_every_request_is_executed_once_and_in_order_however_often_it_moves(places: tuple[int, ...],
                                                                            loss: float) -> None:
    for seed in range(6):
        net = passed(seed, loss, 12, places)
        counted = next(node.counted for node in net.nodes.values() if X in node.here)
        assert counted == list(range(400)), seed
        assert net.nodes[4].written == list(range(400)), seed
        assert all(node.transport.idle for node in net.nodes.values())


def test_without_what_is_in_the_inbox_requests_would_be_lost() -> None:
    """So that the test above can fail."""
    net = passed(1, 0.0, 0, (2,))
    assert net.nodes[4].written == list(range(400))
    forgetful = Node.go_on

    def go_on(self: Node, data: bytes, now: float, out: Sends) -> None:
        package = decode_package(data, APP, X)
        forgetful(self, Package(APP, X, package.snapshot, [], package.receivers, package.senders,
                                package.session_floor, []).encode(), now, out)
    Node.go_on = go_on  # type: ignore[method-assign]
    try:
        assert any(passed(seed, 0.1, 12, (3, 2)).nodes[4].written != list(range(400)) for seed in range(20))
    finally:
        Node.go_on = forgetful  # type: ignore[method-assign]


def test_an_instance_that_lost_all_is_sent_what_was_not_acknowledged_in_a_new_session() -> None:
    sender, new = Transport(5, OPTIONS), Transport(3, OPTIONS)
    first = Transport(900, OPTIONS)
    out: Sends = []
    for number in range(4):
        sender.offer(DataMessage(KIND_REQUEST, APP, X, number, bytes(4), 0, 0, bytes((number,)), W), at(2), 0.0, out)
    for send in out[:2]:
        first.receive(at(1), messages.decode(send.data), 0.0, [])  # type: ignore[arg-type]
    acks: Sends = []
    first.flush(acks)
    for ack in acks:
        sender.acknowledge(at(2), messages.decode(ack.data), 0.1, out)  # type: ignore[arg-type]
    again: Sends = []
    sender.redirect(APP, X, at(3), 1.0, again)
    assert {send.ip for send in again} == {at(3).ip} and len(again) == 2
    given: list[bytes] = []
    for _ in range(5):
        replies: Sends = []
        for send in again:
            message = messages.decode(send.data)
            if isinstance(message, DataMessage):
                given += [m.payload for m in new.receive(at(1), message, 1.0, replies)]
        new.flush(replies)
        again = []
        for ack in replies:
            sender.acknowledge(at(3), messages.decode(ack.data), 1.1, again)  # type: ignore[arg-type]
    assert given == [b"\2", b"\3"] and sender.idle


def test_acknowledgements_from_the_old_place_no_longer_count() -> None:
    sender, old = Transport(5, OPTIONS), Transport(9, OPTIONS)
    out: Sends = []
    sender.offer(DataMessage(KIND_REQUEST, APP, X, 1, bytes(4), 0, 0, b"x", W), at(2), 0.0, out)
    old.receive(at(1), messages.decode(out[0].data), 0.0, [])  # type: ignore[arg-type]
    acks: Sends = []
    old.flush(acks)
    sender.redirect(APP, X, at(3), 0.1, [])
    sender.acknowledge(at(2), messages.decode(acks[0].data), 0.2, [])  # type: ignore[arg-type]
    assert not sender.idle


@pytest.mark.parametrize("places", [(2,), (3, 2)], ids=["told twice of the same place", "there and back"])
def test_an_acknowledgement_that_others_have_overtaken_does_not_begin_a_new_session(places: tuple[int, ...]) -> None:
    sender = Transport(5, OPTIONS)
    out: Sends = []
    for number in range(4):
        sender.offer(DataMessage(KIND_REQUEST, APP, X, number, bytes(4), 0, 0, b"x", W), at(2), 0.0, out)

    def acknowledged(boot: int, expected: int, now: float = 0.2) -> list[DataMessage]:
        sent: Sends = []
        sender.acknowledge(at(2), AckMessage(boot, (messages.AckEntry(ChannelId(APP, W, X), 5, expected, 0, 8),)), now,
                           sent)
        return [messages.decode(one.data) for one in sent]  # type: ignore[misc]

    acknowledged(9, 3)
    for place in places:
        sender.redirect(APP, X, at(place), 0.1, [])
    assert acknowledged(9, 1) == []  # of before it said 3
    assert [(m.session, m.request_id) for m in acknowledged(10, 0)] == [(6, 3)]  # a later run, which has lost all


@pytest.mark.parametrize(("now", "sent"), [(0.1 + OVERTAKEN_S, []), (0.2 + OVERTAKEN_S, [(6, 3)])])
def test_what_a_run_known_before_still_lacks_when_nothing_can_be_under_way_it_has_lost(
        now: float, sent: list[tuple[int, int]]) -> None:
    sender = Transport(5, OPTIONS)
    for number in range(4):
        sender.offer(DataMessage(KIND_REQUEST, APP, X, number, bytes(4), 0, 0, b"x", W), at(2), 0.0, [])
    channel, out = ChannelId(APP, W, X), []
    sender.acknowledge(at(2), AckMessage(9, (messages.AckEntry(channel, 5, 3, 0, 8),)), 0.0, [])
    sender.redirect(APP, X, at(2), 0.1, [])
    for _ in range(3):  # and it answers nothing till then, so that the two do not repeat without end
        sender.acknowledge(at(2), AckMessage(9, (messages.AckEntry(channel, 5, 1, 0, 8),)), now, out)
    assert [(m.session, m.request_id) for m in map(messages.decode, (one.data for one in out))] == sent


def test_a_starved_channel_asks_at_the_new_place() -> None:
    sender = Transport(5, ChannelOptions(window=1, backlog=4))
    out: Sends = []
    for number in range(2):
        sender.offer(DataMessage(KIND_REQUEST, APP, X, number, bytes(4), 0, 0, b"x", W), at(2), 0.0, out)
    entry = messages.AckEntry(ChannelId(APP, W, X), 5, 1, 0, 1)
    sender.acknowledge(at(2), AckMessage(9, (entry,)), 0.0, [])
    sender.redirect(APP, X, at(3), 0.1, [])
    out.clear()
    sender.tick(9.0, out)
    assert [messages.decode(s.data).kind for s in out] == [KIND_PROBE] and out[0].ip == at(3).ip


def package() -> Package:
    return Package(APP, X, b"state", [InboxImage(request(W, X, 0), True, True)],
                   [receiver_of(W)], [sender_of([request(X, Y, 3), request(X, Y, 4)], 5)], 7,
                   [PlaceImage(Y, 3, at(4).ip)])


def request(sender: int, receiver: int, sequence: int) -> bytes:
    return DataMessage(KIND_REQUEST, APP, receiver, 1, bytes(4), 0, 0, b"x", sender, 1, sequence).encode()


def receiver_of(sender: int) -> ReceiverImage:
    return ReceiverImage(sender, 1, 1, at(1).ip, PORT)


def sender_of(in_flight: list[bytes], following: int) -> SenderImage:
    return SenderImage(Y, 1, following, following - len(in_flight), 64, 9, in_flight, [], at(4).ip, PORT)


def test_a_package_reads_as_it_was_written() -> None:
    assert decode_package(package().encode(), APP, X) == package()


@pytest.mark.parametrize(("change", "words"), [
    ({"application": 2}, "2/20"), ({"instance": 21}, "1/21"), ({"receivers": []}, "no receiving end"),
    ({"senders": [sender_of([request(X, Y, 3)], 9)]}, "next is 9"),
    ({"inbox": [InboxImage(b"rubbish", True, True)]}, "magic"),
    ({"inbox": [InboxImage(AckMessage(1, ()).encode(), True, True)]}, "AckMessage")])
def test_a_package_that_does_not_fit_together_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(NodeError, match=words):
        decode_package(msgspec.structs.replace(package(), **change).encode(), APP, X)


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_package_is_refused_or_is_one(data: st.DataObject) -> None:
    whole = bytearray(package().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[:data.draw(st.integers(0, len(whole)))])
    with suppress(NodeError):
        decode_package(cut, APP, X)
