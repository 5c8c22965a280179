"""Names, IPs, MACs, ports and interface names of everything in the machine room, in one place.

An IP says where a node stands: 10.RACK.SERVER.NODE, where NODE is 1 for the host and 10 + i for SmartNIC i.
Clients stand at 10.RACK.254.i, controller nodes at 10.RACK.253.i, and 10.RACK.255.254 is the ToR's gateway
address. A server has one MAC for its host and all its SmartNICs (paper section 2.4). Counting starts at 1.
"""

from __future__ import annotations

from topologies.errors import TopologyError

# UDP ports. Clients may reach the data port only; the ToR drops the others unless a compute or controller
# node sends them.
DATA_PORT = 0xE300
CONTROL_PORT = 0xE301
TEAM_PORT = 0xE302
CONTROL_PORTS = (CONTROL_PORT, TEAM_PORT)
RAFT_PORT = 0xE303  # TCP, between controller nodes only; where there are several, the ToR drops it from all others

ALL_NODES_PREFIX = "10.0.0.0/8"
INTERFACE_NAME_LIMIT = 15  # IFNAMSIZ - 1

CLIENT_SERVER_BYTE = 254
CONTROLLER_SERVER_BYTE = 253
SMARTNIC_NODE_BYTE = 10


def host_ip(rack: int, server: int) -> str:
    return f"10.{rack}.{server}.1"


def smartnic_ip(rack: int, server: int, nic: int) -> str:
    return f"10.{rack}.{server}.{SMARTNIC_NODE_BYTE + nic}"


def client_ip(rack: int, client: int) -> str:
    return f"10.{rack}.{CLIENT_SERVER_BYTE}.{client}"


def controller_ip(rack: int, controller: int) -> str:
    return f"10.{rack}.{CONTROLLER_SERVER_BYTE}.{controller}"


def is_controller(packed_ip: bytes) -> bool:
    """Return whether an address (4 bytes) is that of a controller node."""
    return len(packed_ip) == 4 and packed_ip[2] == CONTROLLER_SERVER_BYTE


def is_client(packed_ip: bytes) -> bool:
    """Return whether an address (4 bytes) is that of a client."""
    return len(packed_ip) == 4 and packed_ip[2] == CLIENT_SERVER_BYTE


def is_computing(packed_ip: bytes) -> bool:
    """Return whether an address (4 bytes) is that of a host or SmartNIC."""
    return len(packed_ip) == 4 and packed_ip[0] == 10 and 1 <= packed_ip[2] < CONTROLLER_SERVER_BYTE


def gateway_ip(rack: int) -> str:
    return f"10.{rack}.255.254"


def rack_prefix(rack: int) -> str:
    return f"10.{rack}.0.0/16"


def server_mac(rack: int, server: int) -> str:
    return f"02:e3:{rack:02x}:{server:02x}:00:01"


def bypassed_mac(rack: int, server: int, nic: int, wire: int) -> str:
    """Return the address of the kernel's interface under a SmartNIC's agent: `wire` 1 is to the ToR, 2 to the host.

    It is on no frame. The agent receives and sends with the server's MAC; the kernel, which must leave those frames
    alone, takes them for somebody else's at the first look instead of routing each before it drops it.
    """
    return f"02:e3:{rack:02x}:{server:02x}:{wire:02x}:{nic:02x}"


def client_mac(rack: int, client: int) -> str:
    return f"02:e3:{rack:02x}:{CLIENT_SERVER_BYTE:02x}:00:{client:02x}"


def controller_mac(rack: int, controller: int) -> str:
    return f"02:e3:{rack:02x}:{CONTROLLER_SERVER_BYTE:02x}:00:{controller:02x}"


TIERS = ("tor", "agg", "core")


def switch_mac(tier: str, index: int) -> str:
    return f"02:e3:ff:{TIERS.index(tier) + 1:02x}:{index >> 8:02x}:{index & 0xFF:02x}"


def switch_dpid(tier: str, index: int) -> int:
    return (TIERS.index(tier) + 1) << 16 | index


def rack_name_prefix(rack: int, racks: int) -> str:
    """Return what node names start with: nothing in a cluster of one rack, else "r" and the rack."""
    return f"r{rack}" if racks > 1 else ""


def interface_name(node: str, end: str) -> str:
    """Return `node`-`end`; raises TopologyError where Linux has no room for it."""
    name = f"{node}-{end}"
    if len(name) > INTERFACE_NAME_LIMIT:
        raise TopologyError(f"interface name {name!r} has {len(name)} characters; Linux allows {INTERFACE_NAME_LIMIT}")
    return name
