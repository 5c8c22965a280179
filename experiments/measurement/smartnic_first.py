"""As many microservices on SmartNICs as fit in memory (section 5.2), whatever they are and however busy they will be.

    shard 1 -> s1n1     shard 2 -> s2n1     shard 3 -> s3n1     shard 4 -> s1n1     ...

Stage by stage in the order in which requests pass them, a stage's shards in turn over all SmartNICs, so that those that
work by one key are neighbours. An instance that its SmartNIC has no memory for goes to the next that has; one that none
has memory for, or that may run on hosts only (SQL, section 4), to the host that its turn names. Pure.
"""

from __future__ import annotations

from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.service import service_class
from topologies.inventory import Inventory, NodeEntry

MB_PER_GB = 1024.0


def placed_on_smartnics(application: Application, inventory: Inventory) -> dict[int, str]:
    """Return the node names of the primaries of `application` by instance number.

    Backups are not run, but their memory is set aside after that of all primaries, so that none is too many. Raises
    ExperimentError for a cluster without SmartNICs, or without memory.
    """
    smartnics = inventory.of_role("smartnic")
    if not smartnics:
        raise ExperimentError(f"{inventory.cluster} has no SmartNIC to place {application.name} on")
    free_mb = {node.name: node.memory_gb * MB_PER_GB for node in inventory.nodes if node.role in ("host", "smartnic")}
    rank = {stage: place for place, stage in enumerate(application.order())}
    where = {}
    for instance in sorted(application.instances, key=lambda i: (i.backup, rank[i.stage], i.shard)):
        kind = service_class(instance.service)
        turn = instance.shard + instance.backup  # a backup is not where its primary is (section 3.5)
        order = [smartnics[(turn + step) % len(smartnics)] for step in range(len(smartnics))]
        hosts = [inventory.host_of(node) for node in order]
        node = _first_with_room(hosts if kind.host_only else [*order, *hosts], kind.memory_mb, free_mb)
        if node is None:
            raise ExperimentError(f"{application.name}: no memory for {instance.name} ({kind.memory_mb:g} MB) on "
                                  f"{inventory.cluster}")
        free_mb[node.name] -= kind.memory_mb
        if not instance.backup:
            where[instance.number] = node.name
    return where


def _first_with_room(nodes: list[NodeEntry], memory_mb: float, free_mb: dict[str, float]) -> NodeEntry | None:
    return next((node for node in nodes if free_mb[node.name] >= memory_mb), None)
