"""The benchmark of handlers: that its bare calls do the work of the handlers that they stand beside."""

from itertools import islice

import pytest

from experiments.benchmarks.library_calls import LIBRARY_CALLS
from experiments.benchmarks.microservices import COLUMNS, measure
from microservices.records import decode_record
from microservices.service import Request, new_service
from microservices.workloads import workload_named


def both(name: str, count: int = 120):
    """Return the service, the payloads, what the handler says to each, and what the bare call says."""
    service = new_service(name)
    state = service.new_state()
    payloads = list(islice(workload_named(name).requests(), count))
    outputs = [service.handle(Request(p), state)[0].payload for p in payloads]
    call, prepared = LIBRARY_CALLS[name].prepare(service, state, payloads)
    assert len(prepared) == count
    return service, payloads, outputs, [call(one) for one in prepared]


@pytest.mark.parametrize("name", ["knn", "bm25"])
def test_the_bare_call_finds_what_the_handler_finds(name) -> None:
    service, _, outputs, found = both(name)
    for output, bare in zip(outputs, found, strict=True):
        result = decode_record(output).results[name]
        if name == "knn":
            assert sorted(service._names)[bare] == result
        else:
            assert [s for s in bare[1] if s > 0] == pytest.approx([score for _, score in result])


def test_the_bare_cipher_makes_as_much_esp() -> None:
    _, _, outputs, found = both("ipsec")
    assert [len(bare) for bare in found] == [len(output) - 20 for output in outputs]


def test_the_bare_automaton_hits_in_every_packet_that_the_handler_refuses() -> None:
    _, payloads, outputs, found = both("nids", 600)
    refused = [output != payload for payload, output in zip(payloads, outputs, strict=True)]
    assert any(refused)
    assert all(bare for bare, out in zip(found, refused, strict=True) if out)


def test_the_bare_statements_count_on_where_the_handler_would() -> None:
    _, payloads, outputs, found = both("sql")
    before = [decode_record(o).results["sql"] for o in outputs]
    totals = {decode_record(p).key: n for p, n in zip(payloads, before, strict=True)}
    assert [n + totals[decode_record(p).key] for p, n in zip(payloads, before, strict=True)] == found


def test_the_bare_filter_recommends_what_the_handler_does() -> None:
    service, payloads, _, found = both("recommend", 400)
    state = service.new_state()
    for payload in payloads:
        service.handle(Request(payload), state)
    for payload, bare in zip(payloads, found, strict=True):
        record = decode_record(payload)
        record.values = ()
        ours = service.answer(record, state, 0.0)
        assert sorted((s for _, s in bare if s > 0), reverse=True) == pytest.approx([s for _, s in ours])


def test_a_measurement_has_all_its_columns_and_times_that_add_up() -> None:
    rows = measure(names=["count", "nids"], rounds=3)
    assert [row.microservice for row in rows] == ["count", "nids"]
    for row in rows:
        assert len(row.values()) == len(COLUMNS)
        assert row.requests_per_s * row.handler_us == pytest.approx(1e6)
        assert 0.0 < row.outside_share < 1.5
    assert rows[0].ratio is None and rows[0].holds
    assert rows[1].bare_us is not None and rows[1].ratio is not None and 0.2 < rows[1].ratio < 2.0
