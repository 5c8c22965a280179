"""What a replicated instance has consumed and sent, as entries tell it to a backup."""

from __future__ import annotations

import pytest

from nodes.channel_images import data_message
from nodes.errors import NodeError
from nodes.messages import CLIENT_BIT, KIND_REPLY, KIND_REQUEST, DataMessage
from nodes.replica_ledger import Consumed, Entry, Ledger, Way, decode_entry, decode_image
from nodes.transport import Address

CLIENT = CLIENT_BIT | 5
OTHER = Address(b"\x0a\1\2\1", 9)


def reply(number: int) -> DataMessage:
    return DataMessage(KIND_REPLY, 1, 3, CLIENT << 32 | number, b"\x0a\1\xfe\1", 4000, 1, b"%d" % number, 3)


def onward(number: int) -> DataMessage:
    return DataMessage(KIND_REQUEST, 1, 4, CLIENT << 32 | number, b"\x0a\1\xfe\1", 4000, 1, b"%d" % number, 3)


def entry(sequence: int, ways: list[Way], outputs: list[DataMessage]) -> Entry:
    return Entry(Consumed(CLIENT, 7, sequence, b"\x0a\1\xfe\1", 4000), b"", ways, [m.encode() for m in outputs])


def noted(*entries: Entry) -> Ledger:
    ledger = Ledger()
    for one in entries:
        ledger.note(decode_entry(one.encode()), [data_message(m) for m in one.outputs])
    return ledger


def test_the_ends_of_channels_go_on_after_what_the_entries_say() -> None:
    ledger = noted(entry(0, [Way(CLIENT, 50, 0, 0)], [reply(1)]), entry(1, [Way(CLIENT, 50, 0, 1)], [reply(2)]),
                   entry(2, [Way(CLIENT, 50, 0, 1), Way(4, 60, 0, 0)], [reply(3), onward(3)]))
    (receiver,) = ledger.receivers()
    assert (receiver.sender, receiver.session, receiver.expected) == (CLIENT, 7, 3)
    to_client, to_other = ledger.senders(8, lambda number: OTHER)
    assert (to_client.session, to_client.settled, to_client.next, to_client.ip) == (50, 1, 3, b"\x0a\1\xfe\1")
    assert [data_message(m).sequence for m in to_client.in_flight] == [1, 2]
    assert (to_other.receiver, to_other.session, to_other.ip, to_other.next) == (4, 60, OTHER.ip, 1)
    assert ledger.clients() == [(b"\x0a\1\xfe\1", 4000)]


def test_more_than_a_window_waits_for_credit() -> None:
    ledger = noted(*(entry(i, [Way(CLIENT, 50, 0, 0)], [reply(i)]) for i in range(5)))
    (image,) = ledger.senders(2, lambda number: None)
    assert [data_message(m).sequence for m in image.in_flight] == [0, 1] and len(image.waiting) == 3
    assert (image.next, image.edge) == (2, 2)


def test_a_session_that_began_anew_counts_from_what_was_not_acknowledged() -> None:
    ledger = noted(*(entry(i, [Way(CLIENT, 50, 0, 0)], [reply(i)]) for i in range(3)),
                   Entry(None, b"", [Way(CLIENT, 51, 2, 2)], []), entry(3, [Way(CLIENT, 51, 2, 2)], [reply(3)]))
    (image,) = ledger.senders(8, lambda number: None)
    assert (image.session, image.settled, image.next) == (51, 0, 2)
    assert [data_message(m).payload for m in image.in_flight] == [b"2", b"3"]
    assert ledger.begun(CLIENT) == 2


def test_a_joiner_gets_the_same_ledger() -> None:
    ledger = noted(entry(0, [Way(CLIENT, 50, 0, 0), Way(4, 60, 0, 0)], [reply(1), onward(1)]),
                   entry(1, [Way(CLIENT, 50, 0, 1)], [reply(2)]))
    again = Ledger.of(decode_image(ledger.image(b"state")))
    later = entry(2, [Way(CLIENT, 50, 0, 1), Way(4, 60, 0, 1)], [reply(3), onward(3)])
    for one in (ledger, again):
        one.note(later, [data_message(m) for m in later.outputs])
    assert again.receivers() == ledger.receivers()
    assert again.senders(8, lambda _: OTHER) == ledger.senders(8, lambda _: OTHER)
    assert decode_image(ledger.image(b"state")).snapshot == b"state"


def test_what_is_no_entry_and_what_leads_nowhere_is_refused() -> None:
    for read in (decode_entry, decode_image):
        with pytest.raises(NodeError):
            read(b"\x93\1\2\3")
    with pytest.raises(NodeError, match="no way"):
        noted(entry(0, [], [reply(1)]))
