"""Placing an application by a plain rule, so that its way through the rack is known in advance.

Shard i of stage k goes to server i + k (modulo the servers): consecutive stages are on different servers and
every request crosses the ToR. The demo, the CLI and scenarios use it; controller/placement has the algorithms.
"""

from __future__ import annotations

from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.service import service_class
from topologies.inventory import Inventory

WHERE = ("smartnic", "host", "mixed")


def shards_for(inventory: Inventory) -> int:
    """Return how many shards an application is given that is to use every SmartNIC or, without any, every host."""
    return max(1, len(inventory.of_role("smartnic")) or len(inventory.of_role("host")))


def place_in_turn(application: Application, inventory: Inventory, where: str = "mixed") -> dict[int, str]:
    """Return instance number -> node name for every primary.

    `where`: "smartnic" uses SmartNICs only, "host" hosts only, "mixed" the host for the last stage and SmartNICs
    before it. A server without SmartNICs runs everything on its host, and a host_only microservice (SQL) runs on the
    host whatever `where` says, as in section 4. Raises ExperimentError for another word, ServiceError for a
    microservice that there is not.
    """
    if where not in WHERE:
        raise ExperimentError(f"cannot place on {where!r}; there are {', '.join(WHERE)}")
    hosts = inventory.of_role("host")
    nics = {host.name: inventory.smartnics_of(host) for host in hosts}
    stages = list(application.order())
    pinned = {stage.name for stage in application.stages if service_class(stage.service).host_only}
    placed = {}
    for instance in application.instances:
        if instance.backup:
            continue
        depth = stages.index(instance.stage)
        host = hosts[(instance.shard + depth) % len(hosts)]
        own = nics[host.name]
        on_host = (where == "host" or not own or instance.stage in pinned
                   or (where == "mixed" and depth == len(stages) - 1))
        placed[instance.number] = host.name if on_host else own[instance.shard // len(hosts) % len(own)].name
    return placed
