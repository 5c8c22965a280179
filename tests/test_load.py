"""What a client is told: refusals, times of an open loop, which replies are looked at and what is found."""

from __future__ import annotations

from itertools import islice

import msgspec
import numpy as np
import pytest

from experiments.clients.arrivals import CHUNK, intended_times
from experiments.clients.latencies import summary_of
from experiments.clients.load import MAX_FLOWS, ClientConfig, ClientResult
from experiments.clients.reply_judge import ReplyJudge
from experiments.errors import ExperimentError
from microservices.applications import application_named
from microservices.workload import Workload
from nodes.deployment import deploy
from nodes.messages import KIND_ERROR, KIND_REPLY, DataMessage
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x1"))


def config(**told) -> ClientConfig:
    application = application_named("kvs", shards=1, backups=0)
    deployment = deploy(application, {i.number: "s1n1" for i in application.instances}, RACK)
    return ClientConfig("10.1.254.1", 1, deployment, "kvs", **told)


@pytest.mark.parametrize(("told", "words"), [
    ({"requests": -1}, "-1 requests over 8 flows with 4 outstanding"),
    ({"flows": 0}, "over 0 flows"),
    ({"flows": MAX_FLOWS + 1}, f"{MAX_FLOWS} flows the most"),
    ({"window": 0}, "with 0 outstanding"),
    ({"exact": True}, "32 requests outstanding .* one request at a time"),
    ({"exact": True, "flows": 1, "window": 1, "outstanding": 5}, "5 requests outstanding .* one request at a time"),
    ({"exact": True, "flows": 1, "window": 1, "rate_rps": 10.0}, "at 10.0 requests/s, .*one request at a time"),
    ({"exact": True, "flows": 1, "window": 1, "check_every": 2}, "one reply in 2 checked; exact"),
    ({"rate_rps": -1.0}, "poisson arrivals at -1.0 requests/s"),
    ({"rate_rps": float("nan")}, "arrivals at nan"),
    ({"rate_rps": float("inf")}, "arrivals at inf"),
    ({"rate_rps": 5.0, "arrivals": "bursts"}, "bursts arrivals .* poisson or constant"),
    ({"outstanding": -1}, "-1 requests outstanding"),
    ({"outstanding": 4, "rate_rps": 5.0}, "4 requests outstanding at 5.0 requests/s: .* open loop has no such number"),
    ({"check_every": 0}, "one reply in 0 checked"),
    ({"pool": -1}, "-1 requests made before the start")])
def test_what_no_client_can_do_is_refused_with_the_value_and_the_limit(told: dict, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        config(**told)


def test_a_change_to_what_no_client_can_do_is_refused_too() -> None:
    with pytest.raises(ExperimentError, match=r"-3\.0 requests/s"):
        msgspec.structs.replace(config(), rate_rps=-3.0)


def test_one_request_at_a_time_may_be_exact_however_it_is_said() -> None:
    assert config(exact=True, flows=1, window=1).exact and config(exact=True, flows=3, window=9, outstanding=1).exact


def test_what_a_client_is_told_arrives_as_it_was_said() -> None:
    told = config(rate_rps=100.0, ways={b"\x0a\x01\x01\x0b": 5e-6}, options={"keys": 7}, payloads=(b"a", b"b"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=ClientConfig) == told


def test_a_result_gives_each_reply_and_keeps_them_out_of_the_manifest() -> None:
    answered, latencies = np.array([1.0, 2.5]), np.array([0.25, 0.5])
    result = ClientResult(2, 2, 0, 0, 0, 0, 0, 0, 2.5, 1.5, summary_of(latencies), [],
                          answered_s=answered.tobytes(), latencies_s=latencies.tobytes())
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=ClientResult)
    assert [list(part) for part in again.replies()] == [[1.0, 2.5], [0.25, 0.5]]
    content = again.content()
    assert content["answered"] == 2 and not {"answered_s", "latencies_s"} & set(content)
    msgspec.json.encode(content)


# -- arrivals ------------------------------------------------------------------------------------------------------

def times(count: int, arrivals: str, rate_rps: float = 1000.0, seed: int = 1, client: int = 0) -> np.ndarray:
    return np.array(list(islice(intended_times(50.0, rate_rps, arrivals, seed, client), count)))


def test_constant_arrivals_begin_at_once_and_are_evenly_spaced_to_the_last() -> None:
    found = times(10_001, "constant", rate_rps=3.0)
    assert found[0] == 50.0 and found[-1] == 50.0 + 10_000 / 3.0  # no error adds up
    assert np.allclose(np.diff(found), 1 / 3.0)


def test_poisson_arrivals_have_the_rate_and_gaps_as_irregular_as_they_should_be() -> None:
    count = 5 * CHUNK + 7  # over the edges of what is drawn at once
    gaps = np.diff(times(count, "poisson"), prepend=50.0)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential gaps: deviation and mean are equal
    per_window = np.bincount(((times(count, "poisson") - 50.0) / 0.02).astype(int))[:-1]
    assert per_window.var() == pytest.approx(per_window.mean(), rel=0.15)  # counts: variance and mean


def test_the_same_seed_gives_the_same_times_and_another_seed_or_client_others() -> None:
    first = times(100, "poisson", seed=3, client=1)
    assert (first == times(100, "poisson", seed=3, client=1)).all()
    for other in (times(100, "poisson", seed=4, client=1), times(100, "poisson", seed=3, client=2)):
        assert not (first == other).any()


def test_two_clients_of_one_seed_are_poisson_together() -> None:
    """Had both the same times, every gap but half would be 0, and the deviation 1.7 times the mean."""
    both = np.sort(np.concatenate([times(CHUNK, "poisson", client=client) for client in (1, 2)]))
    gaps = np.diff(both)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.08)


# -- replies -------------------------------------------------------------------------------------------------------

class Picky(Workload):
    """Wants replies that are their request in capitals; of errors, only those of requests that begin with x."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def requests(self):
        return iter(())

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        self.seen.append(request)
        return None if reply == request.upper() else f"{reply!r}"

    def check_error(self, request: bytes, error: str) -> str | None:
        return None if request.startswith(b"x") else error


def message(payload: bytes, kind: int = KIND_REPLY) -> DataMessage:
    return DataMessage(kind, 1, 0, 1, bytes(4), 9, 1, payload)


def test_every_reply_is_looked_at_unless_told_otherwise() -> None:
    judge = ReplyJudge(config(), Picky())
    assert judge.verdict(b"a", message(b"A"), 0.0) == ("answered", "")
    assert judge.verdict(b"a", message(b"b"), 0.0) == ("wrong", "b'b'")
    assert judge.checked == 2


def test_one_reply_in_so_many_is_looked_at() -> None:
    workload = Picky()
    judge = ReplyJudge(config(check_every=4), workload)
    found = [judge.verdict(b"%d" % n, message(b"wrong"), 0.0)[0] for n in range(1, 13)]
    assert found == ["answered", "answered", "answered", "wrong"] * 3
    assert judge.checked == 3 and workload.seen == [b"4", b"8", b"12"]


def test_an_error_is_looked_at_always_and_may_be_what_is_due() -> None:
    judge = ReplyJudge(config(check_every=1000), Picky())
    assert judge.verdict(b"xyz", message(b"no", KIND_ERROR), 0.0) == ("answered", "")
    assert judge.verdict(b"abc", message(b"no such key", KIND_ERROR), 0.0) == ("errors", "no such key")
    assert judge.checked == 2


def test_exact_replies_are_held_against_a_direct_evaluation_in_order() -> None:
    judge = ReplyJudge(config(exact=True, flows=1, window=1), Picky())
    get = b"\x00"  # no request of the key-value store: the oracle has the error that is due
    what, complaint = judge.verdict(get, message(b"something"), 0.0)
    assert what == "wrong" and complaint.startswith("expected the error")
    expected = complaint.split("'")[1]
    again = ReplyJudge(config(exact=True, flows=1, window=1), Picky())
    assert again.verdict(get, message(expected.encode(), KIND_ERROR), 0.0) == ("answered", "")
