"""Applications: graphs that are checked, routed by key, and answer every request once."""

from collections.abc import Sequence
from itertools import islice

import pytest

from microservices.application import Application, Channel, Stage, Trigger
from microservices.applications import nfv_fin
from microservices.direct import DirectRun
from microservices.errors import ApplicationError, ServiceError
from microservices.nfv_workload import NfvWorkload
from microservices.routing import CLIENT, Hop, Router
from microservices.service import REPLY, Microservice, Output, Request, new_service, service_class
from microservices.state import State


class Echo(Microservice):
    """Passes its request on, as often and to whom its payload's first word says."""

    name = "echo"
    memory_mb = 1

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        word = request.payload.split()[0].decode()
        return {"twice": (Output(b"x"), Output(b"x")), "none": (), "reply": (Output(b"r", REPLY),)}.get(
            word, (Output(request.payload, None if word == "on" else word),))


ECHO = f"{__name__}:Echo"


def app(*channels: Channel, stages: str = "abc", shards: int = 2) -> Application:
    return Application("app", 9, tuple(Stage(s, ECHO, shards) for s in stages), channels)


@pytest.mark.parametrize(("shards", "backups", "nodes"), [(1, 0, 3), (4, 0, 12), (12, 1, 72)])
def test_nfv_fin_has_its_nodes_and_answers_every_request_rightly(shards, backups, nodes) -> None:
    application = nfv_fin(shards, backups)
    assert len(application.instances) == nodes
    assert [i.number for i in application.instances] == list(range(nodes))
    assert len({i.name for i in application.instances}) == nodes
    run, workload, alerts = DirectRun(application), NfvWorkload(seed=shards, malicious_share=0.2), 0
    for request in islice(workload.requests(), 300):
        answer = run.ask(request)
        assert answer.error is None
        assert workload.check_reply(request, answer.payload) is None
        alerts += answer.payload.startswith(b"E3AL")
        assert len(answer.path) == (2 if answer.payload.startswith(b"E3AL") else 3)
    assert 30 < alerts < 100


def test_the_check_of_replies_tells_a_wrong_reply_from_a_right_one() -> None:
    run, workload = DirectRun(nfv_fin()), NfvWorkload(malicious_share=0.5)
    requests = list(islice(workload.requests(), 40))
    clean = [r for r in requests if not workload.expected_alerts(r)]
    bad = [r for r in requests if workload.expected_alerts(r)]
    good = run.ask(clean[0]).payload
    other = next(r for r in clean if r != clean[0])
    assert workload.check_reply(other, good)
    for wrong in (b"", clean[0], run.ask(bad[0]).payload, good[:-1], good[:50] + bytes((good[50] ^ 1,)) + good[51:],
                  good[:-1] + bytes((good[-1] ^ 1,))):
        assert workload.check_reply(clean[0], wrong)
    for wrong in (b"", good, bad[0], run.ask(bad[0]).payload[:-1]):
        assert workload.check_reply(bad[0], wrong)


def test_a_workload_repeats_from_its_seed_and_keeps_its_size_and_share() -> None:
    first = list(islice(NfvWorkload(seed=5, size_bytes=256, malicious_share=0.3).requests(), 400))
    assert first == list(islice(NfvWorkload(seed=5, size_bytes=256, malicious_share=0.3).requests(), 400))
    assert first[:5] != list(islice(NfvWorkload(seed=6, size_bytes=256, malicious_share=0.3).requests(), 5))
    assert {len(p) for p in first} == {256}
    share = sum(bool(NfvWorkload().expected_alerts(p)) for p in first) / 400
    assert 0.22 < share < 0.38
    with pytest.raises(ServiceError, match="no rule's contents fit"):
        NfvWorkload(size_bytes=40, rules='alert tcp any any -> any any (content:"abc"; sid:1;)')
    assert len(next(NfvWorkload(size_bytes=40, malicious_share=0).requests())) == 40


def test_a_malformed_request_is_an_error_reply_and_the_next_is_served() -> None:
    run = DirectRun(nfv_fin(3))
    answer = run.ask(b"not a packet")
    assert answer.error is not None and "inner packet" in answer.error
    request = next(NfvWorkload(malicious_share=0).requests())
    assert run.ask(request).error is None


def test_a_flow_stays_in_its_lane_through_aligned_stages() -> None:
    application = nfv_fin(4)
    run = DirectRun(application)
    for request in islice(NfvWorkload(malicious_share=0).requests(), 100):
        shards = {application.instances[n].shard for n in run.ask(request).path}
        assert len(shards) == 1
    assert application.fan_outs() == dict.fromkeys(range(8), 1)


def test_a_keyed_channel_joins_every_shard_to_every_shard() -> None:
    application = app(Channel("a", "b"), Channel("b", "c"))
    assert len(application.edges) == 8
    assert application.sources == ("a",) and application.sinks == ("c",)
    router = Router(application)
    targets = {router.next(0, [Output(b"on %d" % i)])[0].instance for i in range(50)}
    assert targets == {2, 3}


def test_side_branches_run_but_only_the_answering_way_replies() -> None:
    application = app(Channel("a", "b"), Channel("a", "c", answers=False))
    assert application.answering == {"a", "b"}
    answer = DirectRun(application).ask(b"on")
    assert {application.instances[n].stage for n in answer.path} == {"a", "b", "c"}
    assert answer.payload == b"on"
    router = Router(application)
    assert router.next(4, [Output(b"result", REPLY)]) == []


def test_an_output_may_name_its_stage_and_a_side_stage_alone_still_leaves_a_reply_due() -> None:
    router = Router(app(Channel("a", "b"), Channel("a", "c", answers=False)))
    (hop,) = router.next(0, [Output(b"on", "b")])
    assert hop.instance in (2, 3)
    assert [h.instance for h in router.next(0, [Output(b"log", "c"), Output(b"done", REPLY)])][1] == CLIENT
    with pytest.raises(ServiceError, match="0 times"):
        router.next(0, [Output(b"log", "c")])
    with pytest.raises(ServiceError, match="channels lead to b, c"):
        router.next(0, [Output(b"on", "d")])


def test_an_output_named_for_a_channel_that_does_not_fire_is_the_reply() -> None:
    router = Router(app(Channel("a", "b", trigger=Trigger("never", 0.0)), Channel("b", "c")))
    assert router.next(0, [Output(b"on", "b")]) == [Hop(b"on", CLIENT)]


@pytest.mark.parametrize(("word", "times"), [(b"twice", 2), (b"none", 0)])
def test_a_handler_that_does_not_answer_exactly_once_is_an_error(word, times) -> None:
    answer = DirectRun(app(Channel("a", "b"), Channel("b", "c"))).ask(word)
    assert answer.error is not None and f"{times} times" in answer.error


def test_reply_goes_past_everything_that_would_follow() -> None:
    answer = DirectRun(app(Channel("a", "b"), Channel("b", "c"))).ask(b"reply")
    assert answer.payload == b"r" and len(answer.path) == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_trigger_lets_its_share_through_and_the_rest_is_answered_where_it_is(share) -> None:
    router = Router(app(Channel("a", "b", trigger=Trigger("threshold", share, seed=4)), Channel("b", "c")))
    hops = [router.next(0, [Output(b"on %d" % i)])[0] for i in range(2000)]
    through = sum(hop.instance != CLIENT for hop in hops)
    assert abs(through - 2000 * share) <= 4 * (2000 * share * (1 - share)) ** 0.5
    assert all(hop == Hop(b"on %d" % i, hop.instance) for i, hop in enumerate(hops))


def test_triggers_with_other_seeds_let_others_through() -> None:
    one, other = Trigger("t", 0.5, seed=1), Trigger("t", 0.5, seed=-2)
    payloads = [b"%d" % i for i in range(200)]
    assert [one.fires(p) for p in payloads] != [other.fires(p) for p in payloads]
    assert [one.fires(p) for p in payloads] == [Trigger("x", 0.5, seed=1).fires(p) for p in payloads]


@pytest.mark.parametrize(("make", "complaint"), [
    (lambda: app(Channel("a", "b"), Channel("b", "c"), Channel("c", "b")), "cycle"),
    (lambda: app(Channel("a", "a"), Channel("b", "c")), "cycle"),
    (lambda: app(Channel("a", "b")), "no channel joins c"),
    (lambda: app(Channel("a", "d")), "no stage 'd'"),
    (lambda: app(Channel("a", "b"), Channel("a", "b"), Channel("b", "c")), "more than one channel"),
    (lambda: app(Channel("a", "b"), Channel("a", "c")), "answers=False"),
    (lambda: app(Channel("a", "b"), Channel("b", "c"), Channel("a", "c", answers=False)), "two replies"),
    (lambda: app(stages="aa"), "distinct"),
    (lambda: Stage("A", "nids"), "lower-case"),
    (lambda: Stage("a", "nidz"), "unknown microservice 'nidz'"),
    (lambda: Stage("a", "nids", 257), "limits are 1 and 256"),
    (lambda: Stage("a", "nids", backups=-1), "least is 0"),
    (lambda: Application("x", 70000, (Stage("a", "nids"),), ()), "limits are 0 and 65535"),
    (lambda: Application("x", 1, (Stage("a", "nids", 2), Stage("b", "nids", 3)), (Channel("a", "b", aligned=True),)),
     "as many"),
    (lambda: Trigger("t", 1.5), "limits are 0 and 1"),
])
def test_a_graph_that_cannot_run_is_refused_by_name(make, complaint) -> None:
    with pytest.raises(ApplicationError, match=complaint):
        make()


def test_a_user_s_own_microservice_comes_from_a_file_of_theirs(tmp_path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from microservices.service import Microservice, Output\n"
                    "class Shout(Microservice):\n"
                    "    name, memory_mb = 'shout', 1\n"
                    "    def __init__(self, mark='!'):\n"
                    "        self.mark = mark.encode()\n"
                    "    def handle(self, request, state):\n"
                    "        return (Output(request.payload.upper() + self.mark),)\n")
    application = Application("mine", 3, (Stage("shout", f"{file}:Shout", 2, options={"mark": "?"}),), ())
    assert DirectRun(application).ask(b"hello").payload == b"HELLO?"
    with pytest.raises(ServiceError, match="options"):
        new_service(f"{file}:Shout", volume=3)
    for wrong in (f"{file}:Whisper", f"{tmp_path}/none.py:Shout", "no.such.module:X", "microservices.state:State",
                  "nidz"):
        with pytest.raises(ServiceError):
            service_class(wrong)
