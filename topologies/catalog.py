"""The systems of Table 4, the two servers of section 2.3, and the clusters that the paper measures, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from topologies.cluster import (
    MAX_RACKS,
    MAX_SERVERS_PER_RACK,
    MAX_SMARTNICS_PER_SERVER,
    Cluster,
    Fabric,
    PlainNic,
    Processor,
    Rack,
    Server,
    SmartNic,
)
from topologies.errors import TopologyError

# Section 5, "Experimental setup".
XEON_E5_2680V3 = Processor("Xeon E5-2680 v3", cores=12, clock_ghz=2.5, memory_gb=64)
XEON_E5_2620_PAIR = Processor("2 x Xeon E5-2620", cores=16, clock_ghz=2.1, memory_gb=128)
XEON_8160 = Processor("Xeon Platinum 8160", cores=24, clock_ghz=2.1, memory_gb=192)
CN6880 = Processor("CN6880 cnMIPS64", cores=32, clock_ghz=1.2, memory_gb=2, family="cnmips")
OCTEON_LIQUIDIO2 = Processor("OCTEON cnMIPS64", cores=12, clock_ghz=1.2, memory_gb=4, family="cnmips")

# Ours: the paper names no PCIe rate; 8 lanes of PCIe 2.0, the LiquidIO II's connector, carry 32 Gb/s.
LIQUIDIO_PCIE_GBPS = 32.0

# A LiquidIO II has two 10 Gb/s ports. Table 4 gives Type1 20 Gb/s for its one card, so both are in use and
# stand here as one ToR link of 20; it gives Type2 40 Gb/s for four cards, so one port of each is in use.
LIQUIDIO2_BOTH_PORTS = SmartNic("LiquidIO II", OCTEON_LIQUIDIO2, port_gbps=20.0, pcie_gbps=LIQUIDIO_PCIE_GBPS)
LIQUIDIO2_ONE_PORT = replace(LIQUIDIO2_BOTH_PORTS, port_gbps=10.0)

BEEFY = Server(
    "beefy", XEON_E5_2680V3, (), (PlainNic("X710", 20.0),), idle_watts=83, peak_watts=201, cost_usd=4500
)
WIMPY = Server("wimpy", CN6880, (), (PlainNic("2x10GbE", 20.0),), idle_watts=79, peak_watts=95, cost_usd=2209)
TYPE1 = Server(
    "type1", XEON_E5_2680V3, (LIQUIDIO2_BOTH_PORTS,), (), idle_watts=98, peak_watts=222, cost_usd=4650
)
TYPE2 = Server(
    "type2", XEON_E5_2620_PAIR, (LIQUIDIO2_ONE_PORT,) * 4, (), idle_watts=145, peak_watts=252, cost_usd=6750
)
SUPERBEEFY = Server(
    "superbeefy", XEON_8160, (), (PlainNic("XL710", 80.0),), idle_watts=77, peak_watts=256, cost_usd=12550
)

# Section 2.3: "two identical commodity servers", one with a 10GbE Intel X710, the other with a 10GbE LiquidIO. Ours:
# the server is Beefy, whose figures Table 4 gives with either NIC (idle and peak power and price of Beefy and Type1).
BEEFY_10G = replace(BEEFY, model="beefy10g", plain_nics=(PlainNic("X710", 10.0),))
LIQUIDIO_10G = replace(TYPE1, model="liquidio10g", smartnics=(LIQUIDIO2_ONE_PORT,))

# Section 5.3: "Replacing one SmartNIC with an Intel X710 NIC used exclusively to route traffic to the host". Ours: each
# NIC of Type2 has one 10 Gb/s port on the ToR (Table 4: 40 Gb/s for four), and the X710 takes the port of the SmartNIC
# that it replaces, so that both configurations have as many ports; the host then has a quarter of the bandwidth, the
# "up to 4x" of the text. With both its ports in use instead it would have half (`type2d20`). Idle power, peak power and
# price change by what Table 4 says of the same swap between Type1 and Beefy.
TYPE2_DEDICATED = replace(TYPE2, model="type2d", smartnics=(LIQUIDIO2_ONE_PORT,) * 3,
                          plain_nics=(PlainNic("X710", 10.0),), dedicated=True,
                          idle_watts=TYPE2.idle_watts - (TYPE1.idle_watts - BEEFY.idle_watts),
                          peak_watts=TYPE2.peak_watts - (TYPE1.peak_watts - BEEFY.peak_watts),
                          cost_usd=TYPE2.cost_usd - (TYPE1.cost_usd - BEEFY.cost_usd))
TYPE2_DEDICATED_BOTH = replace(TYPE2_DEDICATED, model="type2d20", plain_nics=(PlainNic("X710", 10.0),) * 2)

SYSTEMS: dict[str, Server] = {
    s.model: s for s in (BEEFY, WIMPY, TYPE1, TYPE2, SUPERBEEFY, BEEFY_10G, LIQUIDIO_10G, TYPE2_DEDICATED,
                         TYPE2_DEDICATED_BOTH)}

# Whose host is the processor that Table 1's host columns were measured on.
TABLE_1_HOSTS = frozenset(model for model, server in SYSTEMS.items() if server.host == XEON_E5_2680V3)

# Every cluster that the paper measures, in the notation of `cluster_named`.
PAPER_CLUSTERS: dict[str, str] = {
    "beefy10gx1": "Table 1, Figures 2 and 3: microservices on a host behind one 10GbE port",
    "liquidio10gx1": "Table 1, Figures 2 and 3: microservices on a SmartNIC with one 10GbE port",
    "beefyx3": "Figure 5: the homogeneous baseline",
    "type1x3": "Figures 5 to 8: one SmartNIC per server",
    "type2x2": "Figure 9, Table 5: four SmartNICs per server",
    "type2dx2": "Figure 9: three SmartNICs per server, and a plain NIC for the host alone",
    "beefyx4": "Table 5",
    "wimpyx4": "Table 5",
    "beefyx2+wimpyx2": "Table 5: heterogeneous",
    "superbeefyx1": "Table 5: one large server",
    "type2x40": "section 5.6: the largest rack",
}

# A server's name in that notation: what a count can be told from, as the last "x" and digits.
SERVER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,23}")
_PART = re.compile(r"(?P<model>[a-z][a-z0-9_-]*?)(?::(?P<nics>\d+))?x(?P<count>\d+)")


def add_systems(servers: Mapping[str, Server]) -> None:
    """Let `cluster_named` know servers of one's own; raises TopologyError for a name that stands for another server.

    From then on the whole process knows them, as it knows Table 4's.
    """
    for model, server in servers.items():
        if SERVER_NAME.fullmatch(model) is None:
            raise TopologyError(f"server name {model!r}: it is 1 to 24 of a-z, 0-9, - and _, and begins with a letter")
        if SYSTEMS.get(model, server) != server:
            raise TopologyError(f"server name {model!r} is taken; taken are {', '.join(sorted(SYSTEMS))}")
    SYSTEMS.update(servers)


def server_named(model: str, smartnics: int | None = None) -> Server:
    """Return the server `model`, with `smartnics` cards (0 to 8) in place of its own number.

    A server that loses its last SmartNIC keeps a link to the ToR: a plain NIC of the same rate.
    Idle and peak power and cost stay those of the chassis as it was. Raises TopologyError.
    """
    if model not in SYSTEMS:
        raise TopologyError(f"unknown system {model!r}; known: {', '.join(sorted(SYSTEMS))}")
    server = SYSTEMS[model]
    if smartnics is None:
        return server
    if smartnics > MAX_SMARTNICS_PER_SERVER:
        raise TopologyError(
            f"{model}: {smartnics} SmartNICs in one server; a server holds 0 to {MAX_SMARTNICS_PER_SERVER}"
        )
    card = server.smartnics[0] if server.smartnics else LIQUIDIO2_ONE_PORT
    plain = server.plain_nics
    if smartnics == 0 and not plain:
        plain = (PlainNic("plain", sum(nic.port_gbps for nic in server.smartnics)),)
    return replace(server, smartnics=(card,) * smartnics, plain_nics=plain)


def cluster_named(name: str, *, clients: int = 1, controllers: int = 1, fabric: Fabric | None = None) -> Cluster:
    """Build a cluster from its name: MODEL[:SMARTNICS]xCOUNT, joined by "+", then "/RACKS" if more than one.

    type1x3           three Type1 servers on one ToR
    type2:2x4         four Type2 servers with two SmartNICs each
    beefyx2+wimpyx2   a mixed rack
    type2x40/3        three such racks behind a fat tree

    `clients` and `controllers` are per rack. Raises TopologyError, naming the part that is wrong.
    """
    text, slash, racks_text = name.strip().lower().partition("/")
    racks = 1
    if slash:
        if not racks_text.isascii() or not racks_text.isdigit():
            raise TopologyError(f"cluster {name!r}: {racks_text!r} is not a number of racks")
        racks = _bounded(name, "racks", racks_text, MAX_RACKS)
    servers: list[Server] = []
    for part in text.split("+"):
        match = _PART.fullmatch(part)
        if match is None:
            raise TopologyError(
                f"unknown cluster {name!r}: {part!r} is not MODEL[:SMARTNICS]xCOUNT, for example type1x3 or "
                f"type2:2x4; models: {', '.join(sorted(SYSTEMS))}"
            )
        count = _bounded(name, "servers in one rack", match["count"], MAX_SERVERS_PER_RACK)
        nics = match["nics"]
        servers += [server_named(match["model"], None if nics is None else int(nics[:4]))] * count
    rack = Rack(tuple(servers), clients=clients, controllers=controllers)
    return Cluster(name.strip().lower(), (rack,) * racks, fabric or Fabric())


def _bounded(name: str, what: str, digits: str, limit: int) -> int:
    value = int(digits[:9])
    if not 1 <= value <= limit:
        raise TopologyError(f"cluster {name!r}: {value} {what}; the limits are 1 and {limit}")
    return value
