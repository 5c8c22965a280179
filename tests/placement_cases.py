"""Random graphs, clusters and states for tests of placement, from a seed."""

from __future__ import annotations

import random

from controller.placement.constraints import ClusterState, UsedByOthers
from controller.placement.demand import Behaviour, Demand, demand_of
from microservices.application import Application, Channel, Stage
from microservices.service import BUILT_IN
from topologies.catalog import SYSTEMS, server_named
from topologies.cluster import Cluster, Fabric, Rack

LIGHT = sorted(set(BUILT_IN) - {"recommend", "bayes"})


def random_application(rng: random.Random, most_stages: int = 5, most_shards: int = 4, backups: bool = True,
                       one_ancestor: bool = False, number: int = 1) -> Application:
    """A connected graph: every later stage hangs on an earlier one, and perhaps on more of them."""
    stages, channels = [], []
    for k in range(rng.randint(1, most_stages)):
        stages.append(Stage(f"s{k}", rng.choice(LIGHT), 1 if one_ancestor else rng.randint(1, most_shards),
                            rng.choice((0, 0, 1, 2)) if backups else 0))
        if k == 0:
            continue
        for j in sorted(rng.sample(range(k), 1 if one_ancestor or k < 2 else rng.randint(1, min(k, 2)))):
            aligned = stages[j].shards == stages[k].shards and rng.random() < 0.5
            channels.append(Channel(f"s{j}", f"s{k}", aligned=aligned, answers=False))
    return Application(f"random{number}", number, tuple(stages), tuple(channels))


def random_cluster(rng: random.Random, most_racks: int = 4, most_servers: int = 4) -> Cluster:
    kinds = [server_named(rng.choice(sorted(SYSTEMS)), rng.choice((None, 0, 1, 2, 3)))
             for _ in range(rng.randint(1, 3))]
    racks = tuple(Rack(tuple(rng.choice(kinds) for _ in range(rng.randint(1, most_servers))))
                  for _ in range(rng.randint(1, most_racks)))
    return Cluster("random", racks, Fabric(racks_per_pod=rng.randint(1, 3)))


def random_state(rng: random.Random, cluster: Cluster) -> ClusterState:
    """Some nodes are down, others are in use, busy, or both."""
    state = ClusterState(cluster)
    for node in state.nodes.nodes:
        draw = rng.random()
        kind = state.nodes.classes[node.class_index]
        if draw < 0.06:
            state.fail(node.name)
        elif draw < 0.4:
            state.report(node.name, rng.choice((0, rng.randint(0, 64 * kind.cores))), UsedByOthers(
                rng.random() * kind.memory_mb, 0.0, rng.choice((0.0, rng.random() * kind.cores)),
                rng.choice((0.0, rng.random() * kind.network_gbps))))
    return state


def random_demand(rng: random.Random, state: ClusterState, application: Application,
                  loads: tuple[float, ...] = (0.0, 1e3, 1e5, 1e6, 5e6)) -> Demand:
    behaviours = {s.name: Behaviour(rng.choice((64.0, 512.0, 4000.0)), rng.choice((1.0, 1.5, 3.0)),
                                    rng.choice((None, 0.0, 1000.0)), rng.choice((0.0, 0.0, 0.0, 50_000.0)),
                                    pin=rng.choice(("", "", "", "host")))
                  for s in application.stages if rng.random() < 0.5}
    names = [n.name for n in state.nodes.nodes]
    forbidden = {s.name: rng.sample(names, rng.randint(0, min(3, len(names)))) for s in application.stages
                 if rng.random() < 0.3}
    return demand_of(application, rng.choice(loads) * rng.random(), state.nodes, behaviours=behaviours,
                     forbidden=forbidden)
