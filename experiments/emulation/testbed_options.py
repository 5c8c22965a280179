"""What to build: the options of a testbed."""

from __future__ import annotations

from dataclasses import dataclass, field

from controller.overload import OverloadOptions
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.errors import ExperimentError
from nodes.deployment import Deployment
from nodes.world import DATAPATHS
from topologies.cluster import Cluster

ORCHESTRATOR = ("off", "watch", "on")
CONTROLLERS = (1, 3)


@dataclass(frozen=True, slots=True)
class TestbedOptions:
    """What to build. `cluster` is a name (topologies.catalog) or a Cluster; `pacing` says at what speed it plays.

    `orchestrator`: "off", nodes report to nobody; "watch", a resource controller hears them and moves what it is told
    to by hand; "on", it also moves what `overload` says must move. `fencing`: it has a dead node cut off for good if
    that ran something that nobody else can serve, which then begins anew, empty, elsewhere; else that is the operator's
    to decide (`fence`), for a node that is only silent has everything when it is back. `controllers`: 1, its journal is
    a file; 3, it is replicated to three nodes, of which any two go on without the third.
    """

    cluster: str | Cluster = "type1x3"
    clients: int = 1
    label: str = "e3"
    datapath: str = "netdev"
    pacing: Pacing = UNPACED
    deployments: tuple[Deployment, ...] = ()
    frame_loss: float = 0.0
    orchestrator: str = "off"
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    fencing: bool = False
    controllers: int = 1

    __test__ = False  # a noun, not a test, whatever its name starts with

    def __post_init__(self) -> None:
        if not 0.0 <= self.frame_loss < 1.0:
            raise ExperimentError(f"a frame loss of {self.frame_loss}; the limits are 0 and 1")
        if self.orchestrator not in ORCHESTRATOR:
            raise ExperimentError(f"no orchestrator {self.orchestrator!r}; there are {', '.join(ORCHESTRATOR)}")
        if self.controllers not in CONTROLLERS:
            raise ExperimentError(f"{self.controllers} controllers; there can be "
                                  + " or ".join(str(n) for n in CONTROLLERS))
        if self.fencing and self.orchestrator == "off":
            raise ExperimentError("nodes cannot be fenced with the orchestrator off: nobody would know of their death")
        replicated = [d.name for d in self.deployments if d.replicated]
        if replicated and self.orchestrator == "off":
            raise ExperimentError(f"{', '.join(replicated)} cannot be replicated with the orchestrator off")
        if self.datapath not in DATAPATHS:
            raise ExperimentError(f"no datapath {self.datapath!r}; there are {', '.join(DATAPATHS)}")
