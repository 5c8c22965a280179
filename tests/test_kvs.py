"""The key-value store answers as memcached does, held against a model of its protocol text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microservices.errors import ServiceError
from microservices.kvs import Kvs
from microservices.records import Record, decode_record, encode_record
from microservices.service import Request
from microservices.sharding import shard_of, slot_owners
from microservices.state import reshard

KVS = Kvs()


def say(state, command: bytes) -> bytes:
    return KVS.handle(Request(command), state)[0].payload


def test_a_session_reads_as_memcached_s_protocol_text_says() -> None:
    state = KVS.new_state()
    for command, reply in (
        (b"get k\r\n", b"END\r\n"),
        (b"set k 5 0 3\r\nabc\r\n", b"STORED\r\n"),
        (b"get k\r\n", b"VALUE k 5 3\r\nabc\r\nEND\r\n"),
        (b"gets k\r\n", b"VALUE k 5 3 1\r\nabc\r\nEND\r\n"),
        (b"add k 0 0 1\r\nx\r\n", b"NOT_STORED\r\n"),
        (b"replace k 0 0 4\r\n\r\n\r\n\r\n", b"STORED\r\n"),
        (b"cas k 0 0 1 1\r\nx\r\n", b"EXISTS\r\n"),
        (b"cas k 0 0 2 2\r\n10\r\n", b"STORED\r\n"),
        (b"incr k 5\r\n", b"15\r\n"),
        (b"decr k 50\r\n", b"0\r\n"),
        (b"incr k 18446744073709551615\r\n", b"18446744073709551615\r\n"),
        (b"incr k 2\r\n", b"1\r\n"),
        (b"delete k\r\n", b"DELETED\r\n"),
        (b"delete k\r\n", b"NOT_FOUND\r\n"),
        (b"incr k 1\r\n", b"NOT_FOUND\r\n"),
        (b"replace k 0 0 0\r\n\r\n", b"NOT_STORED\r\n"),
        (b"cas k 0 0 0 9\r\n\r\n", b"NOT_FOUND\r\n"),
    ):
        assert say(state, command) == reply, command


def test_a_unique_number_is_not_given_out_again_after_a_delete() -> None:
    state = KVS.new_state()
    say(state, b"set k 0 0 1\r\na\r\n")
    stale = say(state, b"gets k\r\n").split()[4]
    say(state, b"delete k\r\n")
    say(state, b"set k 0 0 1\r\nb\r\n")
    assert say(state, b"cas k 0 0 1 %b\r\nc\r\n" % stale) == b"EXISTS\r\n"


Commands = st.lists(st.tuples(st.sampled_from(["set", "add", "replace", "delete", "get"]), st.sampled_from("abcdefgh"),
                              st.binary(max_size=5)), max_size=60)


@given(Commands, st.integers(1, 6))
@settings(max_examples=50)
def test_any_session_over_any_number_of_shards_leaves_what_a_dict_would_hold(commands, shards) -> None:
    model: dict[bytes, bytes] = {}
    states = [KVS.new_state()]
    for step, (verb, letter, value) in enumerate(commands):
        if step == len(commands) // 2:
            states = reshard(states, slot_owners(shards))
        key = letter.encode()
        command = b"%b %b" % (verb.encode(), key) + (b"\r\n" if verb in ("delete", "get")
                                                     else b" 0 0 %d\r\n%b\r\n" % (len(value), value))
        assert KVS.key_of(command) == key
        reply = say(states[shard_of(key, len(states))], command)
        if verb == "get":
            held = model.get(key)
            expected = b"" if held is None else b"VALUE %b 0 %d\r\n%b\r\n" % (key, len(held), held)
            expected += b"END\r\n"
        elif verb == "delete":
            expected = b"NOT_FOUND\r\n" if model.pop(key, None) is None else b"DELETED\r\n"
        elif verb == "set" or (verb == "add") == (key not in model):
            model[key], expected = value, b"STORED\r\n"
        else:
            expected = b"NOT_STORED\r\n"
        assert reply == expected


@pytest.mark.parametrize("command", [
    b"get\r\n", b"get a b\r\n", b"get k", b"get k\r\nx", b"set k 0 0\r\n\r\n", b"set k 0 0 5\r\nabc\r\n",
    b"set k 0 0 3\r\nabcd", b"set k 0 60 1\r\na\r\n", b"set k -1 0 1\r\na\r\n", b"set k 0 0 1048577\r\na\r\n",
    b"flush_all\r\n", b"incr k x\r\n",
    b"get " + b"k" * 251 + b"\r\n", b"get \x01\r\n", b"set k 0 0 1 noreply\r\na\r\n", b"incr k 1\r\n",
])
def test_a_command_that_is_not_understood_is_an_error_and_changes_nothing(command) -> None:
    state = KVS.new_state()
    say(state, b"set k 0 0 5\r\nhello\r\n")
    before = state.snapshot()
    with pytest.raises(ServiceError):
        say(state, command)
    assert state.snapshot() == before


def test_records_store_fetch_and_delete_by_their_key() -> None:
    state = KVS.new_state()

    def ask(**fields):
        payload = encode_record(Record("device", **fields))
        assert KVS.key_of(payload) == b"device"
        return decode_record(say(state, payload)).results["kvs"]

    assert ask(op="get") is None
    assert ask(text="21.5 °C") == "STORED"
    assert ask(op="get") == "21.5 °C"
    assert say(state, b"get device\r\n") == b"VALUE device 0 8\r\n21.5 \xc2\xb0C\r\nEND\r\n"
    assert ask(op="delete") == "DELETED" and ask(op="delete") == "NOT_FOUND"
    with pytest.raises(ServiceError):
        ask(op="flush")


@given(st.binary(max_size=80))
def test_any_bytes_have_a_key_and_an_answer_or_a_service_error(payload) -> None:
    assert isinstance(KVS.key_of(payload), bytes)
    try:
        KVS.handle(Request(payload), KVS.new_state())
    except ServiceError:
        return
