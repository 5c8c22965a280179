"""The nouns of a machine room: processors, SmartNICs, servers, racks, and the cluster they form."""

from __future__ import annotations

from dataclasses import dataclass

from topologies.errors import TopologyError

MAX_SMARTNICS_PER_SERVER = 8
MAX_PLAIN_NICS_PER_SERVER = 8
MAX_SERVERS_PER_RACK = 240
MAX_CLIENTS_PER_RACK = 250
MAX_RACKS = 250
MAX_SWITCHES_PER_POD = 16

# Per family of cores, the clock of the processor that Table 1 measured: Beefy's E5-2680 v3, the LiquidIO II's OCTEON.
REFERENCE_CLOCK_GHZ = {"xeon": 2.5, "cnmips": 1.2}


@dataclass(frozen=True, slots=True)
class Processor:
    """The cores and memory of one compute node (paper sections 2.2 and 5).

    `family` is whose column of Table 1 says what a request costs, `work_per_clock` how much a core does per clock over
    the processor measured there. `busy_watts` is what it draws above idle with all cores busy; None leaves that to
    Tables 1 and 4.
    """

    name: str
    cores: int
    clock_ghz: float
    memory_gb: float
    family: str = "xeon"
    work_per_clock: float = 1.0
    busy_watts: float | None = None

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise TopologyError(f"processor {self.name!r} has {self.cores} cores; the least is 1")
        if self.clock_ghz <= 0:
            raise TopologyError(f"processor {self.name!r} runs at {self.clock_ghz} GHz; it must be above 0")
        if self.family not in REFERENCE_CLOCK_GHZ:
            raise TopologyError(f"processor {self.name!r} is of family {self.family!r}; Table 1 knows "
                                f"{' and '.join(REFERENCE_CLOCK_GHZ)}")
        if self.work_per_clock <= 0:
            raise TopologyError(f"processor {self.name!r} has work_per_clock {self.work_per_clock}; it must be above 0")
        if self.busy_watts is not None and self.busy_watts < 0:
            raise TopologyError(f"processor {self.name!r} draws {self.busy_watts} W; the least is 0")

    @property
    def speed(self) -> float:
        """How fast one core is, over one core of the processor that Table 1 measured of its family."""
        return self.clock_ghz / REFERENCE_CLOCK_GHZ[self.family] * self.work_per_clock


@dataclass(frozen=True, slots=True)
class SmartNic:
    """A NIC with a processor of its own: one link to the ToR, one PCIe link to its host."""

    model: str
    processor: Processor
    port_gbps: float
    pcie_gbps: float


@dataclass(frozen=True, slots=True)
class PlainNic:
    """A NIC that only carries packets between the ToR and the host."""

    model: str
    port_gbps: float


@dataclass(frozen=True, slots=True)
class Server:
    """A chassis: one host, its NICs, one MAC address, one fault domain, one power supply.

    `idle_watts`, `peak_watts` and `cost_usd` are those of the whole chassis (Table 4). With `dedicated` the plain NICs
    are for the host alone and the host for them: its network traffic takes no SmartNIC's port (section 5.3).
    """

    model: str
    host: Processor
    smartnics: tuple[SmartNic, ...]
    plain_nics: tuple[PlainNic, ...]
    idle_watts: float
    peak_watts: float
    cost_usd: float
    dedicated: bool = False

    def __post_init__(self) -> None:
        if len(self.smartnics) > MAX_SMARTNICS_PER_SERVER:
            raise TopologyError(
                f"{self.model}: {len(self.smartnics)} SmartNICs in one server; "
                f"a server holds 0 to {MAX_SMARTNICS_PER_SERVER}"
            )
        if len(self.plain_nics) > MAX_PLAIN_NICS_PER_SERVER:
            raise TopologyError(
                f"{self.model}: {len(self.plain_nics)} plain NICs in one server; "
                f"a server holds 0 to {MAX_PLAIN_NICS_PER_SERVER}"
            )
        if not self.smartnics and not self.plain_nics:
            raise TopologyError(f"{self.model}: a server needs at least one SmartNIC or plain NIC")
        if self.dedicated and not self.plain_nics:
            raise TopologyError(f"{self.model}: a NIC dedicated to the host, and no plain NIC")


@dataclass(frozen=True, slots=True)
class Rack:
    """Servers, clients and perhaps a controller node on one ToR."""

    servers: tuple[Server, ...]
    clients: int = 1
    controllers: int = 1
    client_gbps: float = 40.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.servers) <= MAX_SERVERS_PER_RACK:
            raise TopologyError(
                f"{len(self.servers)} servers in one rack; a rack holds 1 to {MAX_SERVERS_PER_RACK}"
            )
        if not 0 <= self.clients <= MAX_CLIENTS_PER_RACK:
            raise TopologyError(
                f"{self.clients} clients on one rack; a rack takes 0 to {MAX_CLIENTS_PER_RACK}"
            )
        if not 0 <= self.controllers <= 3:
            raise TopologyError(f"{self.controllers} controller nodes on one rack; a rack takes 0 to 3")


@dataclass(frozen=True, slots=True)
class Fabric:
    """How racks are joined: a fat tree of pods (see fat_tree.py). Unused in a cluster of one rack."""

    racks_per_pod: int = 2
    aggregations_per_pod: int = 2
    cores_per_aggregation: int = 2
    uplink_gbps: float = 40.0

    def __post_init__(self) -> None:
        for field in ("racks_per_pod", "aggregations_per_pod", "cores_per_aggregation"):
            value = getattr(self, field)
            if not 1 <= value <= MAX_SWITCHES_PER_POD:
                raise TopologyError(f"{field} is {value}; it can be 1 to {MAX_SWITCHES_PER_POD}")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One rack, or several behind aggregation and core switches."""

    name: str
    racks: tuple[Rack, ...]
    fabric: Fabric = Fabric()

    def __post_init__(self) -> None:
        if not 1 <= len(self.racks) <= MAX_RACKS:
            raise TopologyError(f"cluster {self.name!r} has {len(self.racks)} racks; it can have 1 to {MAX_RACKS}")
