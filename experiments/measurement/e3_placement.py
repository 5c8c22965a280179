"""Where E3 would run an application's microservices: on SmartNIC or host by Table 1 and the text, which node by HCM.

    host        what may run nowhere else (SQL, section 4); what Table 1 gives more requests per Joule on a host; and
                what sections 5.1 and 5.2 say that E3 has or migrates there, in the applications that they name
    SmartNIC    everything else

Section 5.4 does likewise: "we avoid host starvation and microservice overload by constraining problematic microservices
to the host". Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from controller.errors import PlacementError
from controller.placement.compute_nodes import ComputeNodes
from controller.placement.constraints import ClusterState
from controller.placement.demand import DEFAULT_REQUEST_BYTES, Behaviour, demand_of
from controller.placement.placing import place
from controller.placement.prediction import predict
from controller.placement.profile_costs import DEFAULT_COSTS, Costs
from experiments.errors import ExperimentError
from experiments.measurement.copies import copies_of, workload_of
from microservices.application import Application
from microservices.measured import Column
from microservices.profiles import TABLE_1
from microservices.service import service_class
from topologies.cluster import Cluster

# Section 5.2: "Top Ranker in RTA-PTC, Spike in RTA-SF, API gateway in IOT-DH and IOT-TS".
MIGRATED = {"rta-ptc": "top_ranker", "rta-sf": "spike", "iot-dh": "api_gateway", "iot-ts": "api_gateway"}
# Section 5.1, of RTA-PTC: "E3 only places the Count microservice on the SmartNIC and migrates the rest to the host".
ALSO_ON_HOSTS = {"rta-ptc": frozenset({"top_ranker", "knn"})}
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
    told = MIGRATED.get(application) == service or service in ALSO_ON_HOSTS.get(application, ())
    pinned = service_class(service).host_only or told
    return "host" if pinned or better_on_host(service) else "smartnic"


@dataclass(frozen=True, slots=True)
class Where:
    """What placement must heed: what is known of each stage, its pin among it, and the nodes forbidden to it."""

    behaviours: Mapping[str, Behaviour]
    forbidden: Mapping[str, Collection[str]] = field(default_factory=dict)


def by_side(application: Application, request_bytes: float = DEFAULT_REQUEST_BYTES, hosts: Collection[str] = (),
            ) -> Where:
    """Return that every stage is on the side that E3 would choose, those named in `hosts` on hosts."""
    return Where({s.name: Behaviour(request_bytes, pin="host" if s.name in hosts else
                                    side_of(s.service, workload_of(application))) for s in application.stages})


def by_family(application: Application, cluster: Cluster, request_bytes: float = DEFAULT_REQUEST_BYTES) -> Where:
    """Return the same for hosts of two families: Xeons stand for hosts, cnMIPS ones (Wimpy) for SmartNICs."""
    nodes = ComputeNodes(cluster)
    of_family: dict[str, list[str]] = {"xeon": [], "cnmips": []}
    for node in nodes.nodes:
        of_family[nodes.classes[node.class_index].family].append(node.name)
    sides = {s.name: side_of(s.service, workload_of(application)) for s in application.stages}
    return Where({name: Behaviour(request_bytes) for name in sides},
                 {name: of_family["cnmips" if side == "host" else "xeon"] for name, side in sides.items()})


def anywhere(application: Application, request_bytes: float = DEFAULT_REQUEST_BYTES) -> Where:
    """Return that every stage may run wherever it can."""
    return Where({s.name: Behaviour(request_bytes) for s in application.stages})


@dataclass(frozen=True, slots=True)
class E3Placement:
    """Node names by instance number, and what to expect: the highest rate, what is full then, latency without load.

    `copies` has the same of every copy, `nodes` being the first; `watts` are those at the wall at the highest rate.
    The expectation is for requests that spread evenly over shards; those of real keys do not.
    """

    nodes: Mapping[int, str]
    most_rps: float
    limit: str
    unloaded_s: float
    watts: float = 0.0
    copies: tuple[Mapping[int, str], ...] = ()

    @property
    def requests_per_joule(self) -> float:
        return self.most_rps / self.watts


def placed_for_peak(application: Application, cluster: Cluster, where: Where | None = None, copies: int = 1,
                    costs: Costs = DEFAULT_COSTS) -> E3Placement:
    """Place the primaries of `application`, or of several copies, by HCM for the highest rate at which they fit.

    HCM fills a node before it takes the next one, so the rate decides over how many nodes an application is spread.
    `where` is by_side unless given. Raises ExperimentError if it fits at no rate, PlacementError if the cluster lacks a
    kind of node that it needs.
    """
    nodes = ComputeNodes(cluster)
    heeded, placing = where or by_side(application), copies_of(application, copies)
    rate = LEAST_RPS
    found = _placed_at(placing, rate, nodes, heeded, costs)
    if found is None:
        raise ExperimentError(f"{copies} x {application.name} does not fit on {cluster.name} even at {LEAST_RPS:g} "
                              "requests/s")
    above = MOST_RPS
    while above / rate > 1 + RESOLUTION:
        middle = (rate * above) ** 0.5
        better = _placed_at(placing, middle, nodes, heeded, costs)
        if better is None:
            above = middle
        else:
            rate, found = middle, better
    return found


def _placed_at(placing: Sequence[Application], rps: float, nodes: ComputeNodes, where: Where,
               costs: Costs) -> E3Placement | None:
    """Return where the copies run at this rate in all; None if they do not fit."""
    state = ClusterState(nodes)
    placements = []
    for one in placing:
        demand = demand_of(one, rps / len(placing), nodes, behaviours=where.behaviours, forbidden=where.forbidden,
                           backups=False, costs=costs)
        try:
            placements.append(place(demand, state))
        except PlacementError:
            return None
    together = [(placement.demand, placement.where) for placement in placements]
    unloaded = predict(together, nodes, UNLOADED)
    assert unloaded.latency_s is not None  # it has one wherever cores are not full
    names = tuple(placement.node_names(state) for placement in placements)
    return E3Placement(names[0], unloaded.most_rps, unloaded.limit, unloaded.latency_s,
                       predict(together, nodes, unloaded.most_rps / rps).watts, names)
