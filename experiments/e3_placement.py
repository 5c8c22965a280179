"""Where E3 would run an application's microservices: SmartNIC or host by Table 1 and section 5.2, which node by HCM.

    host        what may run nowhere else (SQL, section 4); what Table 1 gives more requests per Joule on a host; and
                what section 5.2 says that E3 migrates there, in the applications that it names
    SmartNIC    everything else

Section 5.4 does likewise: "we avoid host starvation and microservice overload by constraining problematic microservices
to the host". Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.errors import PlacementError
from controller.placement.compute_nodes import ComputeNodes
from controller.placement.constraints import ClusterState
from controller.placement.demand import Behaviour, demand_of
from controller.placement.placing import place
from controller.placement.prediction import predict
from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.measured import Column
from microservices.profiles import TABLE_1
from microservices.service import service_class
from topologies.cluster import Cluster

# Section 5.2: "Top Ranker in RTA-PTC, Spike in RTA-SF, API gateway in IOT-DH and IOT-TS".
MIGRATED = {"rta-ptc": "top_ranker", "rta-sf": "spike", "iot-dh": "api_gateway", "iot-ts": "api_gateway"}
LEAST_RPS, MOST_RPS = 1.0, 1e8
RESOLUTION = 0.02  # of the rate that an application is placed for
UNLOADED = 0.01  # of that rate


def better_on_host(service: str) -> bool:
    """Return whether Table 1 gives a microservice more requests per Joule on a host than on a SmartNIC."""
    row = TABLE_1[service]
    nic, host = row[Column.SMARTNIC], row[Column.BYPASS]
    return host.rps / host.active_watts > nic.rps / nic.active_watts


def side_of(service: str, application: str) -> str:
    """Return "host" or "smartnic"."""
    pinned = service_class(service).host_only or MIGRATED.get(application) == service
    return "host" if pinned or better_on_host(service) else "smartnic"


@dataclass(frozen=True, slots=True)
class E3Placement:
    """Node names by instance number, and what to expect: the highest rate, what is full then, latency without load.

    The expectation is for requests that spread evenly over shards; those of real keys do not.
    """

    nodes: Mapping[int, str]
    most_rps: float
    limit: str
    unloaded_s: float


def placed_for_peak(application: Application, cluster: Cluster) -> E3Placement:
    """Place the primaries of `application` by HCM for the highest rate at which they fit.

    HCM fills a node before it takes the next one, so the rate decides over how many nodes an application is spread.
    Raises ExperimentError if it fits at no rate, PlacementError if the cluster lacks a kind of node that it needs.
    """
    nodes = ComputeNodes(cluster)
    rate = LEAST_RPS
    found = _placed_at(application, rate, nodes)
    if found is None:
        raise ExperimentError(f"{application.name} does not fit on {cluster.name} even at {LEAST_RPS:g} requests/s")
    above = MOST_RPS
    while above / rate > 1 + RESOLUTION:
        middle = (rate * above) ** 0.5
        better = _placed_at(application, middle, nodes)
        if better is None:
            above = middle
        else:
            rate, found = middle, better
    return found


def _placed_at(application: Application, rps: float, nodes: ComputeNodes) -> E3Placement | None:
    """Return where `application` runs at this rate; None if it does not fit."""
    pins = {s.name: Behaviour(pin=side_of(s.service, application.name)) for s in application.stages}
    demand = demand_of(application, rps, nodes, behaviours=pins, backups=False)
    state = ClusterState(nodes)
    try:
        placement = place(demand, state)
    except PlacementError:
        return None
    unloaded = predict([(demand, placement.where)], nodes, UNLOADED)
    assert unloaded.latency_s is not None  # it has one wherever cores are not full
    return E3Placement(placement.node_names(state), unloaded.most_rps, unloaded.limit, unloaded.latency_s)
