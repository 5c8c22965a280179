"""Mininet's nodes and links as E3 needs them: nothing configures itself one command at a time.

Mininet makes and moves each interface with several commands. Here all links of a rack are made by one batch
of `ip`, straight into the namespaces where they belong, and each node's own batch follows. A node is
Mininet's (a shell in a network namespace), so its CLI works on it.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from mininet.link import Intf
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import Node, Switch

from nodes.errors import NodeError
from topologies.inventory import Inventory, NodeEntry, SwitchEntry
from topologies.mininet_topo import E3Topo

logging.setLoggerClass(logging.Logger)  # importing Mininet sets its own, which prints every line once more
MTU_BYTES = 9000  # jumbo frames: the largest message and its headers in one packet, no fragments anywhere


class EmulatedNode(Node):
    """A namespace with a shell in it. Addresses and routes are set by the testbed, per role."""

    def __init__(self, name: str, entry: NodeEntry, **params: Any) -> None:
        self.entry = entry
        super().__init__(name, **params)

    def config(self, **_params: Any) -> dict[str, Any]:
        return {}

    def IP(self, intf: Any = None) -> str:
        return self.entry.ip

    def MAC(self, intf: Any = None) -> str:
        return self.entry.mac


class EmulatedSwitch(Switch):
    """A bridge of the world's Open vSwitch; `configure_switches` makes all of them at once."""

    def __init__(self, name: str, entry: SwitchEntry, **params: Any) -> None:
        self.entry = entry
        params["inNamespace"] = False
        super().__init__(name, **params)

    def start(self, controllers: Any) -> None:
        pass

    def stop(self, deleteIntfs: bool = False) -> None:
        pass

    def connected(self) -> bool:
        return True


class EmulatedInterface(Intf):
    """An interface that is what the batch made it."""

    def config(self, **_params: Any) -> dict[str, Any]:
        return {}


class EmulatedLink:
    """A veth pair, made by `make_links` together with all others. It ends with its namespaces."""

    def __init__(self, node1: Node, node2: Node, intfName1: str, intfName2: str, port1: int | None = None,
                 port2: int | None = None, addr1: str | None = None, addr2: str | None = None, **_params: Any) -> None:
        self.addresses = (addr1, addr2)
        self.intf1 = self._interface(intfName1, node1, port1, addr1)
        self.intf2 = self._interface(intfName2, node2, port2, addr2)

    def _interface(self, name: str, node: Node, port: int | None, mac: str | None) -> EmulatedInterface:
        return EmulatedInterface(name, node=node, port=node.newPort() if port is None else port, link=self, mac=mac,
                                 moveIntfFn=lambda *_: None)

    def command(self) -> str:
        """Return the line for `ip -batch` that makes this link."""
        ends = []
        for interface, mac in zip((self.intf1, self.intf2), self.addresses, strict=True):
            node = interface.node
            ends.append(f"name {interface.name} mtu {MTU_BYTES}"
                        + (f" address {mac}" if mac and isinstance(node, EmulatedNode) else "")
                        + (f" netns {node.pid}" if node.inNamespace else ""))
        return f"link add {ends[0]} type veth peer {ends[1]}"

    def stop(self) -> None:
        pass

    def delete(self) -> None:
        pass

    def status(self) -> str:
        return "OK"

    def __str__(self) -> str:
        return f"{self.intf1}<->{self.intf2}"


def build_network(inventory: Inventory) -> Mininet:
    """Make every node, switch object and link of `inventory`; raises NodeError. The caller is in the world."""
    run_in(None, ["mnexec", "-n", "true"])  # Mininet itself would wait for ever for a shell that cannot start
    setLogLevel("error")
    Mininet.inited = True  # its own init would change limits of the whole machine
    classes = dict.fromkeys(("host", "smartnic", "client", "controller"), EmulatedNode)
    topo = E3Topo(cluster=inventory, classes={**classes, "switch": EmulatedSwitch})
    net = Mininet(topo=topo, build=False, controller=None, link=EmulatedLink, intf=None)
    net.build()
    make_links(net.links)
    return net


def end_network(net: Mininet) -> None:
    """End the shells of all nodes; links and namespaces end with them."""
    net.terms = []  # to end terminals, Mininet would kill by name across the whole machine
    net.stop()


def make_links(links: Iterable[EmulatedLink]) -> None:
    """Make all veth pairs, and bring up their ends outside of nodes. Raises NodeError."""
    links = list(links)
    ip_batch(None, [link.command() for link in links])
    outside = [i.name for link in links for i in (link.intf1, link.intf2) if not i.node.inNamespace]
    ip_batch(None, [f"link set {name} up" for name in outside])


def ip_batch(node: Node | None, lines: Sequence[str]) -> None:
    """Run `ip -batch` with `lines` in the namespace of `node` (None: the world's); raises NodeError."""
    if lines:
        run_in(node, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def tc_batch(node: Node | None, lines: Sequence[str]) -> None:
    """Run `tc -batch` with `lines` in the namespace of `node` (None: the world's); raises NodeError."""
    if lines:
        run_in(node, ["tc", "-batch", "-"], "\n".join(lines) + "\n")


def run_in(node: Node | None, argv: Sequence[str], text: str | None = None, timeout_s: float = 120.0) -> str:
    """Run a command in the network namespace of `node` (None: the world's) and return what it printed.

    Raises NodeError with the command's own complaint, or if it has not ended after `timeout_s`.
    """
    where = [] if node is None else ["nsenter", f"--net=/proc/{node.pid}/ns/net"]
    what = f"{node.name if node else 'world'}: {' '.join(argv)}"
    try:
        done = subprocess.run([*where, *argv], input=text, capture_output=True, text=True, check=False,
                              timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{what} has not ended after {timeout_s:g} s") from error
    if done.returncode != 0:
        raise NodeError(f"{what}: {done.stderr.strip().splitlines()[:3]}")
    return done.stdout
