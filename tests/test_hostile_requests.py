"""Whatever bytes arrive, a handler answers them or raises a ServiceError, and its state stays one that can be moved."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microservices.errors import ServiceError
from microservices.records import Record, encode_record
from microservices.service import BUILT_IN, Output, Request, new_service
from microservices.workloads import workload_named

Junk = st.binary(max_size=120)
Damage = st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), min_size=1, max_size=4)
Records = st.builds(Record, key=st.text(min_size=1, max_size=8), time_s=st.floats(), text=st.text(max_size=12),
                    values=st.lists(st.floats(), max_size=4).map(tuple), op=st.sampled_from(["", "get", "query", "x"]),
                    token=st.binary(max_size=17),
                    results=st.dictionaries(st.sampled_from(["count", "ema", "x"]),
                                            st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**64 - 1),
                                                      st.floats(), st.text(max_size=3)), max_size=2))


@pytest.fixture(scope="module", params=sorted(BUILT_IN))
def service(request):
    return new_service(request.param)


def serve(service, state, payload: bytes) -> None:
    assert isinstance(service.key_of(payload), bytes)
    try:
        outputs = service.handle(Request(payload), state)
    except ServiceError:
        return
    assert all(isinstance(output, Output) and isinstance(output.payload, bytes) for output in outputs)
    assert len(outputs) == 1


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_bytes_damaged_requests_and_odd_records_break_nothing(service, data) -> None:
    state = service.new_state()
    good = bytearray(next(islice(workload_named(service.name, data.draw(st.integers(0, 50))).requests(), 1)))
    for position, value in data.draw(Damage):
        good[position] = value
    for payload in (data.draw(Junk), bytes(good), bytes(good[:data.draw(st.integers(0, 511))]),
                    *map(encode_record, data.draw(st.lists(Records, max_size=8)))):
        serve(service, state, payload)
    if not service.host_only:
        service.new_state().restore(state.snapshot())


@pytest.mark.parametrize("values", [(1.7e308,), (-1.7e308,), (5e-324,), (1.7e308, 1.7e308)])
def test_numbers_at_the_ends_of_their_range_break_nothing(service, values) -> None:
    state = service.new_state()
    for sign in (1.0, -1.0) * 20:
        serve(service, state, encode_record(Record("k", values=tuple(sign * v for v in values))))
    if not service.host_only:
        service.new_state().restore(state.snapshot())
