"""A node's side of replication: what leaves when, who follows whom, and what is refused."""

from __future__ import annotations

import random

import pytest
from replication_trio import CLIENTS, KEY, A, B, C, Trio, trio

from nodes.control_messages import Chunk, Fetch, Refusal, unpack_addresses
from nodes.errors import NodeError
from nodes.replication_log import MOST_BEHIND, MOST_TRIES, PLEDGE_LAG, WINDOW, Log, joiner_of
from nodes.replication_messages import Append, Appended, Offer, Part, View
from nodes.replication_steps import TRANSITIONS, Event
from nodes.wire import MAX_PAYLOAD


def test_alone_a_reply_leaves_at_once() -> None:
    t = trio(paired=False)
    t.say(b"one")
    assert t.locals[A].left == ["one"]


def test_with_a_backup_a_reply_leaves_when_that_has_acknowledged() -> None:
    t = trio()
    t.stop = lambda source, to, message: isinstance(message, Appended)
    t.say(b"one")
    assert t.locals[B].words == [b"one"] and t.locals[A].left == []
    t.stop = lambda source, to, message: False
    t.wait(0.06)
    assert t.locals[A].left == ["one"]


def test_an_entry_larger_than_a_datagram_is_applied_whole_or_not_at_all() -> None:
    t = trio()
    big = b"x" * (2 * MAX_PAYLOAD + 5)
    t.stop = lambda source, to, message: isinstance(message, Append) and len(message.payload) == 5
    t.say(big)
    assert t.locals[B].words == [] and t.locals[A].left == []
    t.view(4, B)  # promoted, it knows nothing of the part that came
    assert t.locals[B].words == [] and t.locals[B].serving
    t.stop = lambda source, to, message: False
    t.say(b"next", to=B)
    t.view(5, B, joiner=C)
    assert t.locals[C].words == [b"next"]


def test_an_entry_of_nothing_is_an_entry() -> None:
    t = trio()
    t.say(b"")
    assert t.locals[B].words == [b""] and t.locals[A].left == [""]


def test_a_joiner_gets_a_snapshot_and_then_the_log_and_is_complete_after_the_pledge() -> None:
    t = trio(paired=False)
    for number in range(20):
        t.say(b"w%d" % number)
    t.view(2, A, joiner=B)
    assert t.locals[B].words == t.locals[A].words
    assert [s.part for ip, s in t.said if ip == B] == [Part.JOINING, Part.CATCHING_UP, Part.FOLLOWING]


def test_replies_wait_for_a_joiner_from_the_pledge_on_and_not_before() -> None:
    t = trio(paired=False)
    t.stop = lambda source, to, message: source == B and isinstance(message, Appended)
    t.view(2, A, joiner=B)
    t.say(b"before")
    assert t.locals[A].left == ["before"]
    t.stop = lambda source, to, message: False
    t.wait(0.2)  # it is offered the snapshot again, and says that it has it
    assert t.parts()[1] is Part.FOLLOWING
    t.stop = lambda source, to, message: source == B and isinstance(message, Appended)
    t.say(b"after")
    assert t.locals[A].left == ["before"]


def test_a_joiner_that_is_far_behind_gets_no_pledge() -> None:
    t = trio(paired=False)
    t.view(2, A, joiner=B, to=(A,))
    for number in range(PLEDGE_LAG + 10):
        t.say(b"w%d" % number)
    t.stop = lambda source, to, message: isinstance(message, Append) and message.position >= 3
    t.view(2, A, joiner=B, to=(B,))
    t.wait(0.2)
    assert t.parts()[1] is Part.CATCHING_UP and len(t.locals[A].left) == PLEDGE_LAG + 10
    t.stop = lambda source, to, message: False
    t.wait(0.06)
    assert t.parts()[1] is Part.FOLLOWING and t.locals[B].words == t.locals[A].words


def test_a_primary_that_was_replaced_answers_nothing_more_not_even_reads() -> None:
    t = trio()
    t.view(4, B, to=(B,))
    t.say(b"read")
    t.wait(10.0)
    assert t.locals[A].left == [] and t.locals[B].words == []
    assert t.nodes[B].counters["append of another epoch or primary"] > 1


def test_a_primary_that_finds_itself_replaced_forgets_everything_and_can_join_again() -> None:
    t = trio()
    t.say(b"shared")
    t.view(4, B, to=(B,))
    t.say(b"own")
    t.view(4, B, to=(A,))
    assert t.parts()[0] is Part.OUT and t.locals[A].words == [] and not t.locals[A].serving
    t.view(5, B, joiner=A)
    assert t.parts()[:2] == [Part.FOLLOWING, Part.SERVING] and t.locals[A].words == [b"shared"]
    assert t.locals[A].left == ["shared"]


def test_a_primary_that_is_told_that_its_backup_is_gone_answers_alone() -> None:
    t = trio()
    t.stop = lambda source, to, message: B in (source, to)
    t.say(b"one")
    assert t.locals[A].left == []
    t.view(4, A)
    assert t.locals[A].left == ["one"]


def test_a_backup_is_replaced_without_a_moment_without_one() -> None:
    t = trio()
    t.view(4, A, B, C)
    t.stop = lambda source, to, message: to == A and source == B and isinstance(message, Appended)
    t.say(b"one")
    assert t.locals[A].left == []  # C has it, B has not said so
    t.view(5, A, C)
    assert t.locals[A].left == ["one"] and t.parts() == [Part.SERVING, Part.OUT, Part.FOLLOWING]


def test_who_has_nothing_can_neither_serve_nor_back_up() -> None:
    t = trio(paired=False)
    t.view(2, C, to=(C,))
    t.view(2, A, C, to=(C,))
    assert [s.refusal for _, s in t.said] == [Refusal.OUT_OF_PLACE] * 2 and t.parts()[2] is Part.OUT


def test_a_joiner_that_has_not_read_the_pledge_can_neither_serve_nor_back_up() -> None:
    t = trio(paired=False)
    t.stop = lambda source, to, message: isinstance(message, Append)
    t.view(2, A, joiner=B)
    t.view(3, A, B, to=(B,))
    t.view(3, B, to=(B,))
    assert [s.refusal for _, s in t.said[-2:]] == [Refusal.OUT_OF_PLACE] * 2 and t.parts()[1] is Part.CATCHING_UP


def test_a_primary_takes_no_backup_that_it_has_not_pledged_to() -> None:
    t = trio()
    t.view(4, A, C, to=(A,))
    assert t.said[-1][1].refusal == Refusal.OUT_OF_PLACE and t.nodes[A].epoch(*KEY) == 3


def test_views_of_an_earlier_epoch_or_term_are_refused() -> None:
    t = trio()
    t.view(2, B, to=(A,))
    t.view(5, B, to=(A,), term=0)
    assert [s.refusal for _, s in t.said] == [Refusal.OLD_EPOCH, Refusal.OLD_TERM]
    assert t.parts()[0] is Part.SERVING


def test_nothing_begins_in_a_run_of_the_node_that_was_not_meant() -> None:
    t = Trio()
    t.view(1, A, fresh=1, boot=99, to=(A,))
    t.view(1, A, joiner=B, boot=99, to=(B,))
    assert [s.refusal for _, s in t.said] == [Refusal.OTHER_BOOT] * 2 and t.parts() == [Part.OUT] * 3


def test_a_view_that_comes_again_changes_nothing() -> None:
    t = trio()
    t.say(b"one")
    for _ in range(3):
        t.view(3, A, B)
    t.say(b"two")
    assert t.locals[A].left == ["one", "two"] and t.locals[B].words == [b"one", b"two"]
    assert t.parts() == [Part.SERVING, Part.FOLLOWING, Part.OUT]


def test_only_the_controller_is_obeyed_and_only_the_primary_followed() -> None:
    t = trio()
    t.view(9, C, source=C, to=(A, B))
    t.deliver(C, B, Append(*KEY, 3, 0, 1, b"forged"))
    t.deliver(C, A, Appended(*KEY, 3, 1 << 40, Part.FOLLOWING))
    t.deliver(C, B, Offer(*KEY, 3, 0, 5, bytes(16)))
    assert t.parts() == [Part.SERVING, Part.FOLLOWING, Part.OUT] and t.locals[B].words == []
    assert t.nodes[A].counters == {"view not from the controller": 1, "acknowledgement of something else": 1}
    assert t.nodes[B].counters == {"view not from the controller": 1, "append of another epoch or primary": 1,
                                   "offer of another epoch or primary": 1}


def test_a_backup_cannot_acknowledge_what_was_never_sent() -> None:
    t = trio()
    t.stop = lambda source, to, message: isinstance(message, Append)
    t.say(b"one")
    t.deliver(B, A, Appended(*KEY, 3, 1 << 40, Part.FOLLOWING))
    assert t.locals[A].left == []


def test_a_snapshot_is_given_to_the_joiner_only_and_what_is_damaged_is_fetched_again() -> None:
    t = trio(paired=False)
    for number in range(3000):
        t.say(b"word%d" % number)
    damaged: list[object] = []

    def stop(source: bytes, to: bytes, message: object) -> bool:
        if isinstance(message, Chunk) and not damaged:
            damaged.append(message)
            t.deliver(source, to, Chunk(message.digest, message.offset, b"?" * len(message.payload)))
            return True
        return False
    t.stop = stop
    t.view(2, A, joiner=B)
    assert t.nodes[B].counters["fetched: wrong digest"] == 1 and t.parts()[1] is Part.JOINING
    offer = next(m for m in t.passed if isinstance(m, Offer))
    t.deliver(C, A, Fetch(offer.digest, 0))
    assert t.nodes[A].counters["fetch of what is not there, or not theirs"] == 1
    t.wait(0.2)
    assert t.parts()[1] is Part.FOLLOWING and t.locals[B].words == t.locals[A].words


@pytest.mark.parametrize("when", ["snapshot", "log"])
def test_who_cannot_use_what_comes_is_out_and_says_why(when: str) -> None:
    t = trio(paired=when == "log")
    t.locals[B].complaint = "no such collection"
    if when == "log":
        t.say(b"one")
    else:
        t.view(2, A, joiner=B)
    assert t.parts()[1] is Part.OUT
    assert (t.said[-1][1].part, t.said[-1][1].payload) == (Part.OUT, b"no such collection")


def test_a_follower_that_is_too_far_behind_stops_the_primary() -> None:
    t = trio()
    t.stop = lambda source, to, message: B in (source, to)
    assert t.nodes[A].has_room(*KEY) and not t.nodes[B].has_room(*KEY)
    for number in range(MOST_BEHIND):
        t.say(b"%d" % number)
    assert not t.nodes[A].has_room(*KEY)
    t.stop = lambda source, to, message: False
    t.wait(0.06)
    assert t.nodes[A].has_room(*KEY) and len(t.locals[A].left) == MOST_BEHIND


def test_a_follower_that_the_primary_does_not_hear_is_named_to_the_controller() -> None:
    t = trio()
    t.stop = lambda source, to, message: B in (source, to)
    t.say(b"one")
    for _ in range(MOST_TRIES - 1):
        t.wait(0.06)
    assert t.said == []
    t.wait(0.06)
    assert [(ip, s.silent) for ip, s in t.said] == [(A, B)]
    t.stop = lambda source, to, message: C in (source, to) and not isinstance(message, View)
    t.view(4, A, joiner=C)
    t.said.clear()
    for _ in range(MOST_TRIES):
        t.wait(0.11)
    assert [s.silent for ip, s in t.said] == [C]


def test_a_primary_that_hung_blames_nobody() -> None:
    t = trio()
    t.stop = lambda source, to, message: B in (source, to)
    t.say(b"one")
    t.wait(60.0)
    t.stop = lambda source, to, message: False
    t.wait(0.06)
    assert t.said == [] and t.locals[A].left == ["one"]


def test_who_does_not_serve_logs_nothing() -> None:
    t = trio()
    with pytest.raises(NodeError, match="1/7"):
        t.say(b"one", to=B)


def test_a_lossy_link_brings_every_entry_once_and_in_order() -> None:
    t, draw = trio(), random.Random(4)
    t.stop = lambda source, to, message: isinstance(message, Append | Appended) and draw.random() < 0.3
    for number in range(500):
        t.say(b"%d" % number)
        t.wait(0.001)
    for _ in range(40):
        t.wait(0.06)
    assert t.locals[B].words == [b"%d" % number for number in range(500)]
    assert t.locals[A].left == [str(number) for number in range(500)]


def test_what_comes_out_of_order_is_kept_within_a_window() -> None:
    t = trio()
    first = t.nodes[B]._here[KEY].next
    for position in (first + 2, first + 1, first + WINDOW, first):
        t.deliver(A, B, Append(*KEY, 3, position, 1, b"%d" % (position - first)))
    assert t.locals[B].words == [b"0", b"1", b"2"]


def test_nothing_is_due_while_nothing_is_under_way() -> None:
    t = trio()
    t.say(b"one")
    assert [node.due() for node in t.nodes.values()] == [None] * 3
    t.stop = lambda source, to, message: isinstance(message, Appended)
    t.say(b"two")
    assert t.nodes[A].due() == pytest.approx(0.05)


def test_a_log_keeps_what_somebody_may_ask_for() -> None:
    log = Log()
    assert [log.append(b"a"), log.append(b"b" * (MAX_PAYLOAD + 1)), log.pledge()] == [1, 3, 4]
    joiner = joiner_of(log, b"snapshot")
    assert joiner.needs == 4 and joiner.permits == float("inf")
    log.trim(2)
    assert (log.first, log.next, log.at(2)) == (2, 4, (1, b"b"))


def test_whatever_a_node_is_it_can_be_made_to_forget_to_join_and_to_begin_anew() -> None:
    for part in Part:
        for event in (Event.FORGET, Event.JOIN, Event.FOUND):
            assert (part, event) in TRANSITIONS
    assert [part for part in Part if (part, Event.SERVE) in TRANSITIONS] == [Part.FOLLOWING, Part.SERVING]
    assert [part for part in Part if (part, Event.BACK_UP) in TRANSITIONS] == [Part.FOLLOWING]


def test_who_serves_tells_the_controller_its_clients_and_who_follows_does_not() -> None:
    trio = Trio()
    trio.view(1, A, fresh=1, boot=A[3])
    trio.view(2, A, joiner=B, boot=0)
    told = {(ip, said.part): said.payload for ip, said in trio.said}
    assert unpack_addresses(told[A, Part.SERVING]) == CLIENTS
    assert not any(payload for (_, part), payload in told.items() if part is not Part.SERVING)
