"""Host starvation as section 3.4 describes it, and its end, in virtual time.

    c1 --- [tor1] --- s1n1: Top Ranker, all cores busy     "head-of-line blocking of network traffic due to microservice
    c2 ---------------- '=== s1h: Count                     interference with firmware on SmartNIC memory/cache"

Figure 7's applications run alone, and none of them sends a host more frames than its SmartNIC's traffic manager gets
through with, however slow memory-intensive microservices make it. Here a neighbour on the host does.
"""

from __future__ import annotations

from statistics import fmean

import msgspec

from controller.control_requests import ToldTimeline
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from experiments.clients.load import ClientConfig
from experiments.measurement.peak import in_closed_loop
from experiments.measurement.replayed_orchestrator import Moved
from experiments.measurement.rising_load import TIMEOUT_S, decisions
from experiments.measurement.simulated_bed import SimulatedBed
from microservices.applications import application_named
from nodes.deployment import deploy

BUSY, NEIGHBOUR = "top_ranker", "count"
BUSY_OUTSTANDING, NEIGHBOUR_OUTSTANDING = 24, 512
NEIGHBOUR_SHARDS = 4
ALONE_S = 1.0  # of the busy microservice, before its neighbour is asked
SETTLE_S, WINDOW_S = 0.02, 0.02
MOST_S = 3.0


class StarvedHost(msgspec.Struct, frozen=True):
    """The neighbour's throughput and mean latency while it starves and after, and what the orchestrator did.

    `queue_frames` waited at the traffic manager meanwhile.
    """

    starved_rps: float
    starved_mean_s: float
    queue_frames: int
    relieved_rps: float
    relieved_mean_s: float
    moves: tuple[Moved, ...]


def starved_host(bed: SimulatedBed, options: OverloadOptions | None = None) -> StarvedHost:
    """Let a neighbour on the host of a busy SmartNIC be asked, till the orchestrator has moved something, or MOST_S."""
    inventory = bed.inventory
    graphs = application_named(BUSY, 1, 0), application_named(NEIGHBOUR, NEIGHBOUR_SHARDS, 0)
    busy, neighbour = (deploy(graph, {i.number: node for i in graph.instances}, inventory)
                       for graph, node in zip(graphs, ("s1n1", "s1h"), strict=True))
    bed.repace(bed.pacing, (busy, neighbour))
    controller = ResourceController(inventory, (busy, neighbour), options=options)

    def client(number: int, outstanding: int) -> dict[str, ClientConfig]:
        deployment = (busy, neighbour)[number - 1]
        config = ClientConfig(inventory.node(f"c{number}").ip, number, deployment, deployment.name,
                              timeout_s=TIMEOUT_S, seed=number)
        return {f"c{number}": in_closed_loop(config, outstanding)}

    run = bed.begin(client(1, BUSY_OUTSTANDING), controller)
    run.play_till(ALONE_S)
    rise_s = run.now
    run.join(client(2, NEIGHBOUR_OUTSTANDING))

    def window() -> tuple[float, float]:
        run.play_till(run.now + SETTLE_S)
        began_s = run.now
        run.play_till(began_s + WINDOW_S)
        latencies = run.latencies_s("c2", began_s)
        return len(latencies) / WINDOW_S, fmean(latencies)

    starved = window()
    queue = run.queue_frames("s1n1")
    while run.now < rise_s + MOST_S and not controller.control.closed:
        run.play_till(run.now + SETTLE_S)
    relieved = window()
    run.stop()
    names = {f"{graph.name}/{i.name}": i for graph in graphs for i in graph.instances}
    lines = [ToldTimeline.of(line) for line in controller.timelines.values()]
    made = decisions(controller.events, lines, names, rise_s)
    return StarvedHost(*starved, queue, *relieved, tuple(move for move in made if move.destination))
