"""Many racks: which ToR, aggregation and core switches are joined by which links.

                  core1 core2   core3 core4          one group of cores per aggregation position
                    |  \\ /  |     |  \\ /  |
                   agg1    agg3  agg2    agg4         agg1, agg2 in pod 1; agg3, agg4 in pod 2
                    |  \\ /          |  \\ /
                  tor1   tor2      tor3   tor4        every ToR to every aggregation of its pod

Aggregation i of every pod joins all cores of group i (Al-Fares et al., SIGCOMM'08; VL2, SIGCOMM'09): two
racks in one pod have `aggregations_per_pod` equal paths, in two pods that many times `cores_per_aggregation`.
A cluster of one pod needs no cores and has none.
"""

from __future__ import annotations

from typing import NamedTuple

from topologies.cluster import Cluster


class FabricLink(NamedTuple):
    """A link between two switches, each given as (tier, index from 1); `lower` is nearer the servers."""

    lower: tuple[str, int]
    upper: tuple[str, int]
    gbps: float


def pod_of_rack(cluster: Cluster, rack: int) -> int:
    """Return the pod (from 1) in which rack `rack` (from 1) stands."""
    return (rack - 1) // cluster.fabric.racks_per_pod + 1


def pods(cluster: Cluster) -> int:
    return pod_of_rack(cluster, len(cluster.racks))


def pod_of_aggregation(cluster: Cluster, aggregation: int) -> int:
    return (aggregation - 1) // cluster.fabric.aggregations_per_pod + 1


def fabric_links(cluster: Cluster) -> list[FabricLink]:
    """Return every switch-to-switch link of `cluster`, lower tier first; none for a single rack."""
    if len(cluster.racks) == 1:
        return []
    fabric = cluster.fabric
    links: list[FabricLink] = []
    for rack in range(1, len(cluster.racks) + 1):
        first = (pod_of_rack(cluster, rack) - 1) * fabric.aggregations_per_pod
        for position in range(1, fabric.aggregations_per_pod + 1):
            links.append(FabricLink(("tor", rack), ("agg", first + position), fabric.uplink_gbps))
    if pods(cluster) == 1:
        return links
    for pod in range(1, pods(cluster) + 1):
        for position in range(1, fabric.aggregations_per_pod + 1):
            aggregation = (pod - 1) * fabric.aggregations_per_pod + position
            for k in range(1, fabric.cores_per_aggregation + 1):
                core = (position - 1) * fabric.cores_per_aggregation + k
                links.append(FabricLink(("agg", aggregation), ("core", core), fabric.uplink_gbps))
    return links
