"""Table 3's applications: their sizes, their shapes, and every reply right when run in one process."""

from itertools import islice

import pytest

from microservices.applications import APPLICATIONS, application_named, iot_ts
from microservices.assumptions import DEFAULTS, varied
from microservices.direct import DirectRun
from microservices.errors import ApplicationError, ServiceError
from microservices.record_workload import KINDS
from microservices.records import decode_record, encode_record
from microservices.routing import Router
from microservices.service import BUILT_IN, Request, new_service
from microservices.sharding import shard_of, slot_owners
from microservices.state import reshard
from microservices.workloads import workload_named, workload_options

# Table 3: the number of nodes, and the microservices.
TABLE_3 = {
    "nfv-fin": (72, "flow_monitor ipsec nids"), "nfv-din": (60, "ddos natv4 nids"),
    "nfv-ifid": (84, "natv4 flow_monitor ipsec ddos"), "rta-ptc": (60, "count top_ranker knn"),
    "rta-sf": (96, "spike count kvs bayes"), "rta-shm": (84, "count ema sql bm25"),
    "iot-dh": (108, "api_gateway count knn kvs sql"), "iot-ts": (108, "api_gateway ema spike recommend sql"),
}
EVERYTHING = [*APPLICATIONS, *sorted(BUILT_IN)]


@pytest.mark.parametrize("name", TABLE_3)
def test_an_application_has_the_nodes_and_microservices_of_table_3(name) -> None:
    application = application_named(name)
    nodes, services = TABLE_3[name]
    assert len(application.instances) == nodes
    assert sorted(s.service for s in application.stages) == sorted(services.split())
    assert {i.backup for i in application.instances} == {0, 1}


def test_the_thermostat_is_sharded_as_section_4_says() -> None:
    assert {s.service: (s.shards, s.backups) for s in application_named("iot-ts").stages} == {
        "api_gateway": (6, 1), "sql": (12, 1), "ema": (12, 1), "spike": (12, 1), "recommend": (12, 1)}


def test_average_and_maximum_fan_out_are_those_of_section_4() -> None:
    fan_outs = [n for name in APPLICATIONS for n in application_named(name).fan_outs().values()]
    assert max(fan_outs) == 12
    assert round(sum(fan_outs) / len(fan_outs)) == 6
    thermostat = application_named("iot-ts").fan_outs().values()
    assert sum(thermostat) / len(thermostat) == 6


def test_sixteen_microservices_are_there_with_the_stateful_ones_of_table_2() -> None:
    services = {name: new_service(name) for name in BUILT_IN}
    assert len(services) == 16 and all(s.name == name for name, s in services.items())
    # Table 2 marks these; IPsec counts sequence numbers here, so it has state as well.
    stateful = {"count", "ema", "kvs", "flow_monitor", "ddos", "recommend", "spike", "api_gateway", "top_ranker", "sql"}
    assert {name for name, s in services.items() if s.stateful} == stateful | {"ipsec"}
    assert {name for name, s in services.items() if s.host_only} == {"sql"}
    for s in services.values():
        assert s.memory_mb > 0
        assert bool(s.new_state().arrays or s.new_state().hashtables) == (s.stateful and not s.host_only)


@pytest.mark.parametrize("name", EVERYTHING)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_reply_is_right(name, shards) -> None:
    run, workload = DirectRun(application_named(name, shards, backups=0)), workload_named(name, seed=shards)
    stages = set()
    for request in islice(workload.requests(), 150):
        answer = run.ask(request)
        assert answer.error is None
        assert workload.check_reply(request, answer.payload) is None
        stages |= {run.router.application.instances[n].stage for n in answer.path}
    assert stages == {s.name for s in run.router.application.stages}


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_check_refuses_an_empty_a_cut_and_another_request_s_reply(name) -> None:
    run, workload = DirectRun(application_named(name, 1, 0)), workload_named(name)
    first, second = islice(workload.requests(), 2)
    reply, other = run.ask(first).payload, run.ask(second).payload
    assert workload.check_reply(first, reply) is None
    for wrong in (b"", reply[:-1], reply + b"x", other):
        assert workload.check_reply(first, wrong) is not None


@pytest.mark.parametrize("name", [n for n in EVERYTHING if not n.startswith("nfv") and n in KINDS])
def test_the_check_refuses_a_missing_or_impossible_result(name) -> None:
    run, workload = DirectRun(application_named(name, 1, 0)), workload_named(name)
    (request,) = islice(workload.requests(), 1)
    reply = decode_record(run.ask(request).payload)
    for result in list(reply.results):
        forged = decode_record(encode_record(reply))
        forged.results[result] = "impossible"
        assert workload.check_reply(request, encode_record(forged)) is not None
        if result != "recommend":
            del forged.results[result]
            assert workload.check_reply(request, encode_record(forged)) is not None


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_workload_repeats_from_its_seed_and_fills_its_size_exactly(name) -> None:
    def first(seed, size, count=5):
        return list(islice(workload_named(name, seed, size).requests(), count))

    assert first(1, 512) == first(1, 512) != first(2, 512)
    for size in (400, 511, 512, 513, 1024, 1500):
        assert {len(r) for r in first(3, size, 20)} == {size}


@pytest.mark.parametrize("kind", ["ema", "iot-ts", "rta-sf"])
def test_every_size_is_met_where_msgpack_s_headers_grow(kind) -> None:
    for size in range(330, 620):
        assert {len(r) for r in islice(workload_named(kind, 1, size).requests(), 3)} == {size}


def test_a_size_too_small_for_the_record_is_refused() -> None:
    with pytest.raises(ServiceError, match="need"):
        next(workload_named("iot-ts", 1, 40).requests())


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_an_instance_that_moves_in_mid_stream_answers_as_if_it_had_stayed(name) -> None:
    """Stop, snapshot, restore into a new instance elsewhere: all later outputs are the same."""
    here, requests = new_service(name), list(islice(workload_named(name, 7).requests(), 120))
    state = here.new_state()
    for payload in requests[:60]:
        here.handle(Request(payload), state)
    if here.host_only:
        return
    there = new_service(name)
    moved = there.new_state()
    moved.restore(state.snapshot())
    for payload in requests[60:]:
        assert there.handle(Request(payload), moved) == here.handle(Request(payload), state)
    assert moved.snapshot() == state.snapshot()


@pytest.mark.parametrize("name", sorted(n for n in BUILT_IN if n not in ("sql", "top_ranker", "recommend")))
def test_shards_answer_as_the_whole_would(name) -> None:
    """Not so for a ranking or a recommendation, which depend on who else is in the shard."""
    service, requests = new_service(name), list(islice(workload_named(name, 8).requests(), 200))
    whole = service.new_state()
    for payload in requests[:100]:
        service.handle(Request(payload), whole)
    parts = reshard([whole], slot_owners(5))
    for payload in requests[100:]:
        part = parts[shard_of(service.key_of(payload), 5)]
        assert service.handle(Request(payload), part) == service.handle(Request(payload), whole)
    assert reshard(parts, slot_owners(1))[0].snapshot() == reshard([whole], slot_owners(1))[0].snapshot()


@pytest.mark.parametrize("name", sorted(n for n in BUILT_IN if n != "sql"))
def test_a_backup_that_follows_the_changes_can_take_over(name) -> None:
    service = new_service(name)
    primary, backup = service.new_state(), service.new_state()
    primary.start_changes()
    for i, payload in enumerate(islice(workload_named(name, 9).requests(), 100)):
        service.handle(Request(payload), primary)
        if i % 20 == 19:
            backup.apply_changes(primary.take_changes())
    assert backup.snapshot() == primary.snapshot()


def test_thermostat_updates_set_off_analytics_in_their_share() -> None:
    run, workload = DirectRun(iot_ts(2)), workload_named("iot-ts")
    answers = [run.ask(r) for r in islice(workload.requests(), 400)]
    set_off = [a for a in answers if "recommend" in decode_record(a.payload).results]
    share = DEFAULTS.analytics_share
    assert abs(len(set_off) - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5
    names = {i.number: i.stage for i in run.router.application.instances}
    for a in answers:
        stages = {names[n] for n in a.path}
        assert ({"ema", "spike", "recommend"} <= stages) == (a in set_off)


def test_a_backup_routes_as_its_primary_does() -> None:
    application = application_named("rta-ptc", 2, 1)
    router, run = Router(application), DirectRun(application)
    primary, backup = (next(i.number for i in application.instances if i.name == n) for n in ("count-2", "count-2b1"))
    (request,) = islice(workload_named("rta-ptc").requests(), 1)
    outputs = run.router.services["count"].handle(Request(request), run.states[primary])
    assert router.next(backup, outputs) == router.next(primary, outputs)


def test_an_unknown_application_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ApplicationError, match="nfv-fin, nfv-din"):
        application_named("nfv")
    with pytest.raises(ServiceError, match="no records for 'nfv'"):
        workload_named("nfv")


def test_a_workload_takes_options_of_its_own_and_refuses_others() -> None:
    assert not any(workload_named("nfv-fin").expected_alerts(r)
                   for r in islice(workload_named("nfv-fin", malicious_share=0.0).requests(), 100))
    keys = {decode_record(r).key for r in islice(workload_named("iot-ts", keys=3).requests(), 100)}
    assert keys == {"iot-ts-0", "iot-ts-1", "iot-ts-2"}
    for name in ("nfv-fin", "iot-ts"):
        with pytest.raises(ServiceError, match="options"):
            workload_named(name, colour="red")


@pytest.mark.parametrize(("name", "assumed", "service"), [
    ("rta-ptc", "last_stage_share", "top_ranker"), ("rta-sf", "last_stage_share", "bayes"),
    ("rta-shm", "last_stage_share", "bm25"), ("iot-ts", "analytics_share", "recommend")])
def test_an_assumption_decides_how_many_requests_reach_a_stage_and_their_replies_are_right(
        name: str, assumed: str, service: str) -> None:
    assumptions = varied(assumed, 0.3)
    run = DirectRun(application_named(name, 2, 0, assumptions))
    workload = workload_named(name, **workload_options(name, assumptions))
    requests = list(islice(workload.requests(), 300))
    replies = [run.ask(r).payload for r in requests]
    assert [workload.check_reply(*pair) for pair in zip(requests, replies, strict=True)] == [None] * 300
    reached = sum(service in decode_record(reply).results for reply in replies)
    assert abs(reached - 90) < 4 * (300 * 0.3 * 0.7) ** 0.5


def test_without_a_change_an_assumption_changes_no_graph_and_no_workload() -> None:
    for name in APPLICATIONS:
        assert application_named(name, assumptions=DEFAULTS) == APPLICATIONS[name](12, 1)
        assert workload_options(name, DEFAULTS) == {}
    hub = application_named("iot-dh", assumptions=varied("logged_share", 0.5))
    assert {c.target for c in hub.channels if c.trigger is not None} == {"count", "sql"}
    assert workload_options("nfv-fin", varied("keys", 500.0)) == {"flows": 500}
    assert workload_options("iot-ts", varied("keys", 500.0)) == {"keys": 500}
    assert workload_options("iot-ts", varied("malicious_share", 0.1)) == {}
