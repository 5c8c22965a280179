"""The oracle and the in-process run of an application agree, though each finds its own way through the graph."""

from itertools import islice

import pytest

from experiments.clients.oracle import Oracle
from microservices.applications import APPLICATIONS, application_named
from microservices.direct import DirectRun
from microservices.workloads import workload_named


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("shards", [1, 4])
def test_oracle_and_direct_run_agree(name: str, shards: int) -> None:
    application = application_named(name, shards=shards, backups=0)
    oracle, direct = Oracle(application), DirectRun(application)
    workload = workload_named(name, seed=5)
    for number, payload in enumerate(islice(workload.requests(), 60)):
        expected, answer = oracle.ask(payload, number * 0.01), direct.ask(payload, number * 0.01)
        assert (expected.payload, expected.error) == (answer.payload, answer.error or "")
        assert answer.error or workload.check_reply(payload, expected.payload) is None


def test_an_error_takes_the_place_of_the_reply() -> None:
    expected = Oracle(application_named("rta-shm", shards=2, backups=0)).ask(b"no record", 0.0)
    assert expected.error and not expected.payload
