"""Where each kind of failure strikes in the failover experiment: at a node that has a replica, or right around it."""

from __future__ import annotations

from collections.abc import Callable

from experiments.emulation.failures import Failure, failure_of
from topologies.inventory import Inventory

LOSS = 0.05  # of all frames, each way
CUT_OFF = "c1"  # the client that a partition leaves with the replica


def aimed(inventory: Inventory, kind: str, node: str) -> Failure:
    """Return the failure of `kind` that strikes `node`, which has a replica, or what it needs of its server."""
    return failure_of(inventory, kind, _AIMS[kind](inventory, node), LOSS if kind == "loss" else 0.0)


def cut_off(failure: Failure) -> frozenset[str]:
    """Return the clients that cannot be served as long as this failure lasts."""
    return frozenset({CUT_OFF}) if failure.kind == "partition" else frozenset()


def _node(_: Inventory, node: str) -> tuple[str, ...]:
    return (node,)


def _host(inventory: Inventory, node: str) -> tuple[str, ...]:
    return (inventory.host_of(inventory.node(node)).name,)


def _smartnic(inventory: Inventory, node: str) -> tuple[str, ...]:
    """The node itself if it is a SmartNIC, else the first of its server's, which is its way to the network."""
    entry = inventory.node(node)
    return _node(inventory, node) if entry.role == "smartnic" else (_smartnics(inventory, node)[0],)


def _smartnics(inventory: Inventory, node: str) -> tuple[str, ...]:
    return tuple(nic.name for nic in inventory.smartnics_of(inventory.host_of(inventory.node(node))))


def _side(inventory: Inventory, node: str) -> tuple[str, ...]:
    return (*_host(inventory, node), *_smartnics(inventory, node), CUT_OFF)


def _nothing(*_: object) -> tuple[str, ...]:
    return ()


_AIMS: dict[str, Callable[[Inventory, str], tuple[str, ...]]] = {
    "link": _smartnic, "pcie": _smartnic, "smartnic": _smartnic, "crash": _node, "hang": _node, "host": _host,
    "server": _host, "tor": _nothing, "controller": _nothing, "loss": _smartnic, "partition": _side}
KINDS = tuple(_AIMS)
