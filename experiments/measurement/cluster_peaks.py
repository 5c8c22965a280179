"""Applications at their peaks on the clusters of Table 4, placed as E3 would: Figures 5, 9 and 10, and Table 5.

How an application comes onto a cluster was settled before anything was measured:

    SmartNICs             on the side that e3_placement.py says, which node by HCM
    hosts of one family   anywhere, which node by HCM
    Xeons and cnMIPS      both: as with SmartNICs, Wimpy in their place, or anywhere; whichever is predicted to give
                          more requests per Joule, "Our goal is to maximize microservice energy efficiency" (section 3)
    copies                "as many instances of each application [...] as necessary to maximize request throughput"
                          (section 5.1): 1, 2 or 4, the fewest within 3 % of the most throughput in virtual time
    hosts' stack          Linux's (section 3.1), on every cluster
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec

from controller.errors import PlacementError
from controller.placement.profile_costs import Costs
from experiments.errors import ExperimentError
from experiments.measurement.copies import copies_of
from experiments.measurement.e3_placement import E3Placement, Where, anywhere, by_family, by_side, placed_for_peak
from experiments.measurement.measuring import Plan
from experiments.measurement.rack_peak import RackPeak, RackRoom
from experiments.runs.run_options import RunOptions
from microservices.application import Application
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS, Assumptions
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.cluster import Cluster

T = TypeVar("T")
MORE_COPIES = (2, 4)
CLIENTS = max(MORE_COPIES)  # one for each copy
GROWTH = 0.03  # ours: what a knee's throughput is known to
ROUGHLY = 1.0  # a knee to a factor of two: by doubling alone
SATURATING = 2  # times what one copy's knee takes: copies share the same cores, and fill them a little more evenly
PLAN, QUICK_PLAN = Plan(requests=6000, warm_requests=1500), Plan(requests=1600, warm_requests=500)
RETRIES = 2


class ClusterPeak(msgspec.Struct, frozen=True):
    """An application's peak on a cluster: how it was placed, what placement expected, and what was measured.

    `cost_usd` and `peak_watts` are the cluster's by Table 4.
    """

    application: str
    cluster: str
    copies: int
    nodes: tuple[dict[int, str], ...]
    limit: str
    predicted_rps: float
    cost_usd: float
    peak_watts: float
    peak: RackPeak

    @property
    def stands(self) -> bool:
        """Whether machine and replies allow the figures to be believed."""
        return self.peak.holds and not self.peak.bad


class ClusterRooms:
    """The racks of such points, of which one is up at a time: points of one cluster should follow each other."""

    def __init__(self, options: RunOptions, say: Callable[[str], None], assumptions: Assumptions = DEFAULTS) -> None:
        self._options = options
        self._say = say
        self._assumptions = assumptions
        self._plan = QUICK_PLAN if options.quick else PLAN
        self._cluster = ""
        self._room: RackRoom | None = None

    def __enter__(self) -> ClusterRooms:
        return self

    def __exit__(self, *_: object) -> None:
        if self._room is not None:
            self._room.clear()

    def peak(self, application: str, cluster: str, on_hosts: Collection[str] = ()) -> ClusterPeak:
        """Find the peak of an application on a cluster; stages in `on_hosts` are on hosts whatever suits them best.

        Raises ExperimentError or PlacementError for one that cannot be placed there.
        """
        room, graph = self._room_of(cluster), application_named(application, assumptions=self._assumptions)
        placed = placed_on(graph, cluster_named(cluster), 1, on_hosts, self._assumptions)
        forecast = room.forecast(_deployed(room, graph, placed.copies), ROUGHLY)
        if (rough := forecast.knee.probe) is not None:
            tried = [(placed, forecast.knee.reference)]
            for copies in MORE_COPIES:
                try:
                    more = placed_on(graph, cluster_named(cluster), copies, on_hosts, self._assumptions)
                except (ExperimentError, PlacementError):
                    break  # so many do not fit, in memory for example
                full = SATURATING * int(rough.load)
                tried.append((more, room.forecast_rps(_deployed(room, graph, more.copies), full)))
            placed = fewest_enough(tried)
        deployed = _deployed(room, graph, placed.copies)
        if rough is not None:
            forecast = room.forecast(deployed)
        servers = room.inventory.servers
        return ClusterPeak(application, cluster, len(deployed), tuple(dict(nodes) for nodes in placed.copies),
                           placed.limit, placed.most_rps, sum(s.cost_usd for s in servers),
                           sum(s.peak_watts for s in servers), room.peak(deployed, cluster, forecast))

    def loaded(self, known: ClusterPeak, outstanding: int) -> RackPeak:
        """Measure what stands where `known` has it, with so many requests outstanding, under these assumptions."""
        room, graph = self._room_of(known.cluster), application_named(known.application, assumptions=self._assumptions)
        return room.loaded(_deployed(room, graph, known.nodes), outstanding, known.cluster)

    def _room_of(self, cluster: str) -> RackRoom:
        if self._room is None or self._cluster != cluster:
            if self._room is not None:
                self._room.clear()
            self._cluster = cluster
            self._room = RackRoom(cluster, self._options, self._plan, CLIENTS, say=self._say,
                                  assumptions=self._assumptions)
        return self._room


def fewest_enough(tried: Sequence[tuple[T, float]]) -> T:
    """Return the first of what was tried, with its rate, that gives what the best gives, but for GROWTH."""
    enough_rps = max(rps for _, rps in tried) / (1 + GROWTH)
    return next(one for one, rps in tried if rps >= enough_rps)


def _deployed(room: RackRoom, graph: Application, nodes: Collection[Any]) -> tuple[Deployment, ...]:
    return tuple(deploy(one, dict(where), room.inventory)
                 for one, where in zip(copies_of(graph, len(nodes)), nodes, strict=True))


def placed_on(application: Application, cluster: Cluster, copies: int = 1, on_hosts: Collection[str] = (),
              assumptions: Assumptions = DEFAULTS) -> E3Placement:
    """Return where E3 has `application` on `cluster`: of the ways there are, that with most requests per Joule.

    Raises ExperimentError or PlacementError, of the first way, if none fits.
    """
    found: list[E3Placement] = []
    refused: list[ExperimentError | PlacementError] = []
    for where in ways_onto(application, cluster, on_hosts, assumptions):
        try:
            found.append(placed_for_peak(application, cluster, where, copies, Costs(assumptions)))
        except (ExperimentError, PlacementError) as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return max(found, key=lambda placed: placed.requests_per_joule)


def ways_onto(application: Application, cluster: Cluster, on_hosts: Collection[str] = (),
              assumptions: Assumptions = DEFAULTS) -> list[Where]:
    """Return the ways in which an application may be placed on a kind of cluster, as the module says."""
    servers = [server for rack in cluster.racks for server in rack.servers]
    if any(server.smartnics for server in servers):
        return [by_side(application, assumptions.request_bytes, on_hosts)]
    free = anywhere(application, assumptions.request_bytes)
    if len({server.host.family for server in servers}) > 1:
        return [by_family(application, cluster, assumptions.request_bytes), free]
    return [free]


def agreement(found: Collection[ClusterPeak], within: float = 0.05) -> list[tuple[str, str, str]]:
    """Return a row on how packets and virtual time agree in throughput and power; none where packets were not sent."""
    offs = {f"{point.application} on {point.cluster}": off for point in found
            if (off := point.peak.off_forecast()) is not None}
    if not offs:
        return []
    near = sum(abs(rps) <= within and abs(watts) <= within for rps, watts in offs.values())
    worst = max(offs, key=lambda name: max(map(abs, offs[name])))
    return [(f"packets within {within:.0%} of virtual time in throughput and power",
             f"{near} of {len(offs)}; most off: {worst}, {offs[worst][0]:+.1%} and {offs[worst][1]:+.1%}",
             f"all of {len(offs)}")]


def record(point: ClusterPeak) -> dict[str, Any]:
    """Return a point's line of data.csv."""
    peak = point.peak
    off = peak.off_forecast()
    return {"application": point.application, "cluster": point.cluster, "copies": point.copies, "rps": peak.rps,
            "mean_ms": peak.mean_s * 1e3, "p99_ms": peak.p99_s * 1e3, "wall_w": peak.wall_watts,
            "krpj": peak.requests_per_joule / 1e3, "outstanding": peak.outstanding,
            "predicted_rps": point.predicted_rps, "predicted_limit": point.limit,
            "simulated": peak.simulated, "simulated_rps": peak.forecast_rps or "",
            "throughput_off_simulated": "" if off is None else off[0],
            "power_off_simulated": "" if off is None else off[1],
            "time_scale": peak.time_scale, "holds": point.stands}
