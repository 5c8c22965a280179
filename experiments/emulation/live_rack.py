"""Places applications on a rack that runs: onto what is free there now, and anew when a server has died.

    counters of the agents -> ClusterState -> placement -> deployment -> every agent, over the network

Nothing that runs is restarted or moved. What a dead server held is gone: its instances begin anew elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controller.placement.constraints import ClusterState
from controller.placement.demand import Behaviour, demand_of
from controller.placement.placing import DEFAULT_OPTIONS, Options, Placement, place, replace_lost
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from microservices.application import Application
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.cluster import Cluster


class LiveRack:
    """The state of a running testbed as placement sees it, and what it was told to run."""

    def __init__(self, bed: Testbed) -> None:
        cluster = bed.options.cluster
        self.bed = bed
        self.state = ClusterState(cluster if isinstance(cluster, Cluster) else cluster_named(cluster))
        self.deployments: dict[str, Deployment] = {}
        self._applications: dict[str, Application] = {}

    def observe(self) -> dict[str, int]:
        """Ask every agent how many requests are outstanding at it, and let placement know; return what they say."""
        found = {name: counters.get("outstanding", 0) for name, counters in self.bed.counters().items()}
        for name, outstanding in found.items():
            self.state.report(name, outstanding)
        return found

    def deploy(self, application: Application, rps: float, algorithm: str = "hcm",
               behaviours: Mapping[str, Behaviour] | None = None, options: Options = DEFAULT_OPTIONS) -> Placement:
        """Place `application` for `rps` requests/s onto what is free now, and run it.

        Raises PlacementError if it does not fit, ExperimentError if an agent refuses; the placement is then taken back.
        """
        self.observe()
        demand = demand_of(application, rps, self.state.nodes, behaviours=behaviours, backups=False)
        placed = place(demand, self.state, algorithm, options)
        try:
            self._tell(application, placed)
        except ExperimentError:
            self.state.remove(application.name)
            raise
        return placed

    def withdraw(self, name: str) -> None:
        """Take an application from the rack, and give back all that it took.

        Raises PlacementError for one that was not placed here, ExperimentError without an orchestrator.
        """
        self.state.placed_as(name)
        self.bed.withdraw(name)
        self.state.remove(name)
        del self.deployments[name], self._applications[name]

    def fail_server(self, host: str) -> Sequence[str]:
        """Cut the power of a server, and let placement know."""
        gone = self.bed.fail("server", host)
        for name in gone:
            self.state.fail(name)
        return gone

    def replace_lost(self, algorithm: str = "hcm") -> dict[str, Placement]:
        """Run what dead nodes ran on living ones; returns the applications that lost something, as they are now."""
        changed = replace_lost(self.state, algorithm)
        for name, placed in changed.items():
            self._tell(self._applications[name], placed)
        return changed

    def _tell(self, application: Application, placed: Placement) -> None:
        deployment = deploy(application, placed.node_names(self.state), self.bed.inventory)
        self.bed.deploy(deployment)
        self.deployments[application.name] = deployment
        self._applications[application.name] = application
