"""The judge of histories: known good and bad ones, and the same verdicts as trying every order."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from experiments.clients.linearizability import (
    NEVER,
    REFUSED,
    UNKNOWN,
    Command,
    Operation,
    Ruling,
    Stored,
    check,
    check_store,
    read_exchange,
    store_step,
)
from experiments.errors import ExperimentError
from microservices.kvs import Kvs
from microservices.service import Request

GET = Command("get")


def put(value: bytes) -> Command:
    return Command("set", 0, value)


def got(value: bytes | None) -> Stored | None:
    return None if value is None else Stored(0, value)


def judged(*operations: Operation) -> Ruling:
    return check(operations, None, store_step).ruling


def test_one_after_the_other_a_read_gives_what_was_written() -> None:
    assert judged(Operation(0, 1, put(b"a"), "STORED"), Operation(2, 3, GET, got(b"a"))) is Ruling.LINEARIZABLE


def test_a_read_of_what_was_overwritten_before_it_began_is_found() -> None:
    verdict = check([Operation(0, 1, put(b"a"), "STORED"), Operation(2, 3, put(b"b"), "STORED"),
                     Operation(4, 5, GET, got(b"a"))], None, store_step)
    assert verdict.ruling is Ruling.VIOLATION
    assert verdict.stuck == Operation(4, 5, GET, got(b"a")) and verdict.explained == 2


def test_a_read_during_a_write_may_give_the_old_or_the_new() -> None:
    writes = Operation(0, 1, put(b"a"), "STORED"), Operation(2, 9, put(b"b"), "STORED")
    for value in (b"a", b"b"):
        assert judged(*writes, Operation(3, 4, GET, got(value))) is Ruling.LINEARIZABLE


def test_two_reads_during_a_write_may_not_give_the_new_and_then_the_old() -> None:
    writes = Operation(0, 1, put(b"a"), "STORED"), Operation(2, 9, put(b"b"), "STORED")
    old_then_new = Operation(3, 4, GET, got(b"a")), Operation(5, 6, GET, got(b"b"))
    new_then_old = Operation(3, 4, GET, got(b"b")), Operation(5, 6, GET, got(b"a"))
    assert judged(*writes, *old_then_new) is Ruling.LINEARIZABLE
    assert judged(*writes, *new_then_old) is Ruling.VIOLATION


def test_a_write_that_was_acknowledged_and_is_gone_is_found() -> None:
    assert judged(Operation(0, 1, put(b"a"), "STORED"), Operation(2, 3, GET, None)) is Ruling.VIOLATION


def test_a_write_of_which_nothing_was_heard_may_have_happened_at_any_time_or_never() -> None:
    lost = Operation(0, NEVER, put(b"a"))
    for values in ((None, None), (None, b"a"), (b"a", b"a")):
        assert judged(lost, *(Operation(2 + 2 * i, 3 + 2 * i, GET, got(v)) for i, v in enumerate(values))) \
            is Ruling.LINEARIZABLE
    assert judged(lost, Operation(2, 3, GET, got(b"a")), Operation(4, 5, GET, None)) is Ruling.VIOLATION


def test_a_write_of_which_nothing_was_heard_did_not_happen_before_its_call() -> None:
    assert judged(Operation(2, NEVER, put(b"a")), Operation(0, 1, GET, got(b"a"))) is Ruling.VIOLATION


def test_counting_once_too_often_is_found() -> None:
    once = [Operation(0, 1, put(b"0"), "STORED"), Operation(2, 3, Command("incr", 0, b"1"), b"1")]
    assert judged(*once, Operation(4, 5, GET, got(b"1"))) is Ruling.LINEARIZABLE
    assert judged(*once, Operation(4, 5, GET, got(b"2"))) is Ruling.VIOLATION


def test_two_clients_cannot_both_have_added_the_same_key() -> None:
    add = Command("add", 0, b"x")
    assert judged(Operation(0, 9, add, "STORED"), Operation(0, 9, add, "NOT_STORED")) is Ruling.LINEARIZABLE
    assert judged(Operation(0, 9, add, "STORED"), Operation(0, 9, add, "STORED")) is Ruling.VIOLATION


def test_what_touches_at_one_moment_counts_as_concurrent() -> None:
    assert judged(Operation(0, 1, put(b"a"), "STORED"), Operation(1, 2, GET, None)) is Ruling.LINEARIZABLE


def test_keys_are_judged_apart_and_the_bad_one_is_named() -> None:
    good = (b"k", Operation(0, 1, put(b"a"), "STORED")), (b"k", Operation(2, 3, GET, got(b"a")))
    bad = (b"l", Operation(0, 1, put(b"a"), "STORED")), (b"l", Operation(2, 3, GET, None))
    assert check_store(good)
    verdict = check_store([*bad, *good])
    assert not verdict and verdict.key == b"l" and "nothing explains" in str(verdict)


def test_a_search_that_is_given_too_few_steps_says_that_it_does_not_know() -> None:
    lost = [Operation(0, NEVER, put(b"%d" % i)) for i in range(12)]
    impossible = [*lost, Operation(1, 2, GET, got(b"no such"))]
    assert check(impossible, None, store_step, most_steps=100).ruling is Ruling.UNDECIDED
    assert check(impossible, None, store_step).ruling is Ruling.VIOLATION


@pytest.mark.parametrize("wrong", [Operation(2, 1, GET, None), Operation(0, NEVER, GET, None),
                                   Operation(0, 1, GET, UNKNOWN)])
def test_what_is_no_operation_is_refused(wrong: Operation) -> None:
    with pytest.raises(ExperimentError):
        check([wrong], None, store_step)


# -- against every order -------------------------------------------------------------------------------------------

def explained_by_some_order(operations: list[Operation]) -> bool:
    """Try all orders of all completed operations and of any of the others."""
    completed = [o for o in operations if o.returned_s != NEVER]
    others = [o for o in operations if o.returned_s == NEVER]
    for count in range(len(others) + 1):
        for some in itertools.combinations(others, count):
            for order in itertools.permutations([*completed, *some]):
                if any(later.returned_s < earlier.called_s for earlier, later in itertools.combinations(order, 2)):
                    continue
                state: object = None
                for o in order:
                    state = store_step(state, o.what, o.result)  # type: ignore[arg-type]
                    if state is REFUSED:
                        break
                else:
                    return True
    return False


def small_history(draw: random.Random) -> list[Operation]:
    """Up to seven operations with results that a store could have given, or nearly."""
    operations = []
    for _ in range(draw.randint(2, 7)):
        called = draw.randint(0, 12)
        returned = NEVER if draw.random() < 0.2 else called + draw.randint(0, 8)
        what = draw.choice([GET, GET, put(b"1"), put(b"2"), Command("add", 0, b"3"), Command("delete"),
                            Command("incr", 0, b"1")])
        results = {"get": [None, got(b"1"), got(b"2"), got(b"3")], "set": ["STORED"], "add": ["STORED", "NOT_STORED"],
                   "delete": ["DELETED", "NOT_FOUND"], "incr": [b"2", b"3", "NOT_FOUND"]}[what.verb]
        operations.append(Operation(called, returned, what, UNKNOWN if returned == NEVER else draw.choice(results)))
    return operations


def test_small_histories_are_judged_as_by_trying_every_order() -> None:
    draw = random.Random(5)
    rulings = []
    for _ in range(1500):
        history = small_history(draw)
        expected = explained_by_some_order(history)
        assert bool(check(history, None, store_step)) is expected, history
        rulings.append(expected)
    assert 0.1 < sum(rulings) / len(rulings) < 0.9


# -- long histories --------------------------------------------------------------------------------------------------

def long_history(operations: int, clients: int, keys: int, lost: float, seed: int) -> list[tuple[bytes, Operation]]:
    """What `clients` see that use a perfect store at once: each operation happens at a time within its call."""
    draw = random.Random(seed)
    free = [draw.random() for _ in range(clients)]
    plans = []
    for number in range(operations):
        client = min(range(clients), key=free.__getitem__)
        called = free[client] + draw.random() * 0.1
        happens, returned = called + draw.random(), called + 1 + draw.random()
        free[client] = returned
        key = b"key %d" % draw.randrange(keys)
        what = draw.choice([GET, GET, put(b"%d" % number), Command("incr", 0, b"7"), Command("delete"),
                            Command("add", 0, b"%d" % number)])
        plans.append((happens, called, returned, key, what))
    state: dict[bytes, object] = {}
    history = []
    for _, called, returned, key, what in sorted(plans, key=lambda plan: plan[0]):
        before = state.get(key)
        result = next(r for r in possible(what, before) if store_step(before, what, r) is not REFUSED)
        state[key] = store_step(before, what, result)
        unheard = draw.random() < lost
        history.append((key, Operation(called, NEVER if unheard else returned, what, UNKNOWN if unheard else result)))
    return history


def possible(what: Command, before: object) -> list[object]:
    number = int(before.value) if isinstance(before, Stored) and before.value.isdigit() else 0
    return [before, "STORED", "NOT_STORED", "DELETED", "NOT_FOUND", b"%d" % (number + 7)]


@pytest.mark.parametrize(("clients", "keys", "lost"), [(10, 100, 0.0), (10, 1, 0.0), (40, 20, 0.0), (10, 100, 0.005)])
def test_a_history_of_ten_thousand_operations_is_judged_within_seconds(clients: int, keys: int, lost: float) -> None:
    history = long_history(10_000, clients, keys, lost, seed=1)
    started = time.process_time()
    assert check_store(history)
    took_s = time.process_time() - started
    print(f"{clients} clients, {keys} keys, {lost:.1%} unheard of: {took_s:.2f} s")
    assert took_s < 20


def test_one_wrong_result_in_ten_thousand_is_found() -> None:
    history = long_history(10_000, 10, 100, 0.0, seed=2)
    at, (key, operation) = next((i, pair) for i, pair in enumerate(history) if i > 5000 and pair[1].what == GET
                                and pair[1].result is not None)
    history[at] = key, operation._replace(result=Stored(0, b"never written"))
    verdict = check_store(history)
    assert verdict.ruling is Ruling.VIOLATION and verdict.key == key


# -- the store's protocol ----------------------------------------------------------------------------------------------

def test_the_store_that_the_testbed_runs_agrees_with_the_model_command_by_command() -> None:
    kvs, draw = Kvs(), random.Random(3)
    state, history = kvs.new_state(), []
    for number in range(2000):
        key, value = b"k%d" % draw.randrange(3), b"%d" % draw.randrange(2**64 if draw.random() < 0.1 else 50)
        request = draw.choice([
            b"get %b\r\n" % key, b"delete %b\r\n" % key, b"incr %b 3\r\n" % key, b"decr %b 40\r\n" % key,
            *(b"%b %b %d 0 %d\r\n%b\r\n" % (verb, key, number % 7, len(value), value)
              for verb in (b"set", b"add", b"replace"))])
        (output,) = kvs.handle(Request(request), state)
        key, command, result = read_exchange(request, output.payload)
        history.append((key, Operation(number, number + 0.5, command, result)))
    assert check_store(history)
    assert {o.what.verb for _, o in history} == {"get", "set", "add", "replace", "delete", "incr", "decr"}  # type: ignore[attr-defined]


def test_a_request_without_a_reply_has_no_known_result() -> None:
    assert read_exchange(b"get k\r\n", None) == (b"k", GET, UNKNOWN)


@pytest.mark.parametrize(("request_", "reply"), [(b"get", b"END\r\n"), (b"set k 0 0 x\r\n", b"STORED\r\n"),
                                                 (b"get k\r\n", b"nonsense\r\n"), (b"get k\r\n", b"VALUE k\r\n")])
def test_what_is_not_the_protocol_is_refused(request_: bytes, reply: bytes) -> None:
    with pytest.raises(ExperimentError):
        read_exchange(request_, reply)


def test_a_verb_that_is_not_modelled_is_refused() -> None:
    with pytest.raises(ExperimentError, match="cas"):
        store_step(None, Command("cas"), "STORED")
