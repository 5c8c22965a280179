"""Calibrated speed on real packets: what must come out, what must show, and what must be refused."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.knee import Knee, Probe
from experiments.measurement.measuring import Plan, measure
from experiments.measurement.one_queue import Queue, full_rps, round_trip_s, service_time_s
from experiments.measurement.peak import in_closed_loop
from experiments.views.charts import REFUSED, KneeData, knee_chart
from microservices.application import Application, Stage
from microservices.applications import application_named
from microservices.errors import ServiceError
from nodes.deployment import Deployment, deploy
from nodes.emulated_node import run_in

KNN = Queue("knn", 12)  # 0.4 ms a request on each of 12 SmartNIC cores: long beside any lateness, if played slowly


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions("liquidio10gx1", label="scaled")) as started:
        yield started


def deployed(bed: Testbed, service: str) -> Deployment:
    application = application_named(service, shards=1, backups=0)
    return deploy(application, {i.number: "s1n1" for i in application.instances}, bed.inventory)


def played(bed: Testbed, service: str, time_scale: float, **told) -> ClientConfig:
    """Let `bed` play `service` so slowly; return the config of a client for it."""
    deployment = deployed(bed, service)
    bed.repace(Pacing("calibrated", time_scale), (deployment,))
    return ClientConfig(bed.inventory.node("c1").ip, 1, deployment, service, timeout_s=1e4, **told)


def test_a_closed_loop_gives_the_throughput_that_its_cores_can_and_no_reply_before_its_time(bed: Testbed) -> None:
    config = in_closed_loop(played(bed, "knn", 100.0), 24)
    found = measure(bed, {"c1": config}, Plan(requests=800, warm_requests=100))
    assert found.throughput_rps == pytest.approx(full_rps(KNN), rel=0.04)
    assert found.busy_cores("s1n1") == pytest.approx(12, rel=0.04)
    assert found.bad() == {}
    _, latencies_s = found.clients["c1"].replies()
    assert latencies_s.min() >= service_time_s("knn") + round_trip_s() - 1e-8  # stamps are whole nanoseconds
    # Little's law: twice as many requests as cores are under way, so each is there for twice its cost.
    assert found.latencies.mean_s == pytest.approx(24 / full_rps(KNN), rel=0.06)


def test_all_of_a_thousand_requests_are_under_way_where_they_wait_for_a_port_of_the_switch(bed: Testbed) -> None:
    config = in_closed_loop(played(bed, "kvs", 1000.0), 1000)
    found = measure(bed, {"c1": config}, Plan(requests=3000, warm_requests=1500))
    # Little's law. What is lost elsewhere than in an emulated queue is under way for a second, and answers nothing.
    assert found.throughput_rps * found.latencies.mean_s == pytest.approx(1000, rel=0.05)
    dropped = found.verdict.figure("frames dropped outside the modelled queues")
    assert dropped is not None and dropped.value == 0, dropped


BURST = """
import socket, sys
from nodes.socket_room import give_room
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    give_room(udp)
    udp.settimeout(2.0)
    for number in range(600):
        udp.sendto(number.to_bytes(2, "big"), (sys.argv[1], 7))
    print(len({udp.recv(64) for _ in range(600)}))
"""


def test_a_client_s_first_burst_waits_until_its_gateway_is_found_and_loses_nothing(bed: Testbed) -> None:
    bed.repace(UNPACED)
    run_in(bed.net["c1"], ["ip", "neigh", "flush", "dev", bed.inventory.ports_of_node("c1")[0].peer_interface])
    assert run_in(bed.net["c1"], [sys.executable, "-c", BURST, bed.inventory.node("s1n1").ip]) == "600\n"


def test_requests_of_earlier_clients_do_not_count_as_warm_up(bed: Testbed) -> None:
    config = in_closed_loop(played(bed, "knn", 20.0), 24)
    plan = Plan(requests=400, warm_requests=300)

    def entered(counters: dict[str, dict[str, int]]) -> int:
        return counters["s1n1"]["handled knn/knn-1"]

    first, second = (measure(bed, {"c1": config}, plan) for _ in range(2))
    assert entered(first.before) >= 300
    assert entered(second.before) >= entered(first.after) + 300
    assert second.throughput_rps == pytest.approx(full_rps(KNN), rel=0.05)


def test_one_request_at_a_time_takes_its_cost_and_its_ways_and_each_reply_is_exact(bed: Testbed) -> None:
    config = played(bed, "knn", 50.0, requests=100, flows=1, window=1, exact=True)
    result = bed.start_client("c1", config).result(60)
    assert (result.answered, result.checked, result.wrong, result.complaints) == (100, 100, 0, [])
    _, latencies_s = result.replies()
    least_s = service_time_s("knn") + round_trip_s()
    assert latencies_s.min() >= least_s - 1e-8
    assert result.latencies.p50_s == pytest.approx(least_s, rel=0.15)


def test_a_store_with_state_answers_every_request_exactly_at_calibrated_speed(bed: Testbed) -> None:
    config = played(bed, "kvs", 20.0, requests=1500, flows=1, window=1, exact=True)
    result = bed.start_client("c1", config).result(60)
    assert (result.answered, result.checked) == (1500, 1500), result.complaints


@pytest.mark.parametrize("who", ["the agent", "the client"])
def test_an_open_loop_s_latency_counts_from_the_time_at_which_a_request_was_to_leave(bed: Testbed, who: str) -> None:
    scale, rate_rps, stall_s = 5.0, 1000.0, 0.5
    config = played(bed, "knn", scale, requests=400, rate_rps=rate_rps, arrivals="constant")
    client = bed.start_client("c1", config)
    victim = bed.agents["s1n1"].pid if who == "the agent" else client.pid
    time.sleep(0.6)
    os.kill(victim, signal.SIGSTOP)
    try:
        time.sleep(stall_s)
    finally:
        os.kill(victim, signal.SIGCONT)
    result = client.result(60)
    _, latencies_s = result.replies()
    assert result.answered == 400
    stalled_s = stall_s / scale  # in emulated time, in which 100 requests were to leave
    assert latencies_s.max() >= 0.9 * stalled_s
    late = int((latencies_s > stalled_s / 2).sum())
    assert late >= 0.8 * stalled_s / 2 * rate_rps  # half of them waited for more than half of it, not one alone
    assert (result.behind.max_ns / 1e9 >= 0.9 * stalled_s) is (who == "the client")


def shaped(bed: Testbed) -> dict[str, str]:
    """Return the rate of every shaped interface, in the world's namespace and in the nodes', as tc says it."""
    found = {}
    for end in (None, bed.net["c1"], bed.net["ctl1"], bed.net["s1n1"], bed.net["s1h"]):
        for line in run_in(end, ["tc", "qdisc", "show"]).splitlines():
            if " tbf " in line:
                words = line.split()
                found[words[words.index("dev") + 1]] = words[words.index("rate") + 1]
    return found


def test_a_testbed_changes_its_speed_and_is_as_fast_as_before_when_it_is_unpaced_again(bed: Testbed) -> None:
    deployment = deployed(bed, "kvs")
    rates = {end: port.gbps for port in bed.inventory.ports for end in (port.interface, port.peer_interface)}
    rates |= {end: link.gbps for link in bed.inventory.pcie for end in (link.smartnic_interface, link.host_interface)}
    for scale in (400.0, 100.0):
        bed.repace(Pacing("calibrated", scale), (deployment,))
        assert shaped(bed) == {end: f"{gbps * 1e3 / scale:g}Mbit" for end, gbps in rates.items()}
        assert bed.clock.time_scale == scale and bed.counters("s1n1")["s1n1"]["now_ns"] < 60e9 / scale
    bed.repace(UNPACED)
    assert shaped(bed) == {}
    config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, "kvs", requests=2000)
    result = bed.start_client("c1", config).result(60)
    assert result.answered == 2000 and result.seconds < 10


UNPRICED = """
from microservices.service import Microservice, Output


class Unpriced(Microservice):
    name = "unpriced"
    memory_mb = 1

    def handle(self, request, state):
        return (Output(request.payload),)
"""


def test_a_speed_that_cannot_be_is_refused_and_the_testbed_stays_as_it_is(bed: Testbed, tmp_path: Path) -> None:
    played(bed, "kvs", 50.0)
    agents, deployments = {name: child.pid for name, child in bed.agents.items()}, bed.deployments
    (tmp_path / "unpriced.py").write_text(UNPRICED)
    application = Application("unpriced", 9, (Stage("only", f"{tmp_path / 'unpriced.py'}:Unpriced"),), ())
    with pytest.raises(ExperimentError, match="cannot change to the quota model"):
        bed.repace(Pacing("quota"))
    with pytest.raises(ServiceError, match="'unpriced' has no profile"):
        bed.repace(Pacing("calibrated", 50.0), (deploy(application, {0: "s1n1"}, bed.inventory),))
    assert {name: child.pid for name, child in bed.agents.items()} == agents
    assert bed.deployments == deployments and set(bed.counters()) == set(agents)


def test_a_run_that_is_played_far_too_fast_is_refused_with_the_reason_and_drawn_so(bed: Testbed) -> None:
    offered_rps = 1.5e6  # of KVS, at a time scale of 5: 300,000 requests in a real second
    config = played(bed, "kvs", 5.0, rate_rps=offered_rps, flows=8, pool=512, check_every=16)
    found = measure(bed, {"c1": config}, Plan(requests=3000, warm_requests=300, most_real_s=10.0))
    assert not found.verdict.holds
    figures = {"lateness", "turn of a loop", "overruns", "CPU of the machine", "frames dropped"}
    assert any(reason.startswith(tuple(figures)) and "the limit is" in reason for reason in found.verdict.reasons)
    assert any(name in reason for reason in found.verdict.reasons for name in ("s1n1", "c1"))
    probe = Probe(offered_rps, found.throughput_rps, found.latencies, found.verdict)
    chart = knee_chart(KneeData("KVS, too fast", Knee(None, (probe,), "no knee: the machine did not keep up")))
    assert chart.any_refused and all(curve.is_refused(0) for curve in chart.curves)
    assert all(good != good for curve in chart.curves for good in curve.good_ys())  # not a number: no line leads there
    chart_plot = pytest.importorskip("experiments.views.chart_plot", reason="matplotlib is not installed")
    figure = chart_plot.figure_of(chart)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend() is not None)]
    assert REFUSED in [text.get_text() for legend in legends for text in legend.get_texts()]
