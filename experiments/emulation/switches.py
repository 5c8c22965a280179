"""The rack's switches as bridges of the world's Open vSwitch: made in one transaction, read by name."""

from __future__ import annotations

import re

from nodes.host_network import switch_lacp_settings
from nodes.world import World
from topologies.inventory import Inventory

ECHO_INTERVAL_S = 1  # how soon a switch notices that the app is gone, and looks for it again


def configure_switches(world: World, inventory: Inventory, controller: str, bonded: bool) -> None:
    """Make every switch, its ports and their LACP, and point it at the app that listens on `controller`.

    `bonded` joins a server's ports for the kernel's bonding driver (host_network.switch_lacp_settings).
    fail_mode=secure: without the app the switch keeps forwarding by what it was told, and learns nothing itself.
    """
    arguments: list[str] = []
    for switch in inventory.switches:
        ports = inventory.ports_of_switch(switch.name)
        arguments += ["--", "add-br", switch.name, "--", "set", "bridge", switch.name,
                      f"datapath_type={'netdev' if world.datapath == 'netdev' else 'system'}",
                      "protocols=OpenFlow15", "fail_mode=secure", f"other_config:datapath-id={switch.dpid:016x}",
                      f'other_config:hwaddr="{switch.mac}"', "other_config:disable-in-band=true"]
        for port in ports:
            arguments += ["--", "add-port", switch.name, port.interface,
                          "--", "set", "interface", port.interface, f"ofport_request={port.port}"]
        arguments += ["--", "set-controller", switch.name, f"tcp:{controller}",
                      "--", "set", "controller", switch.name, f"max_backoff={ECHO_INTERVAL_S * 1000}",
                      f"inactivity_probe={ECHO_INTERVAL_S * 5000}"]
    for host in inventory.of_role("host"):
        arguments += switch_lacp_settings(inventory, host.name, bonded=bonded)
    world.vsctl(*arguments)


def leave_queues_alone(world: World, inventory: Inventory) -> None:
    """Keep Open vSwitch's hands off the queues of its ports: it would take away what shapes them."""
    arguments = ["--", "--id=@none", "create", "qos", "type=linux-noop"]
    for port in inventory.ports:
        arguments += ["--", "set", "port", port.interface, "qos=@none"]
    world.vsctl(*arguments)


_MEMBER = re.compile(r"^(?:slave|member): (?P<name>\S+): (?P<state>.*)$")


def lacp_members(world: World) -> dict[str, bool]:
    """Return for each switch interface that speaks LACP whether it may carry traffic."""
    return parse_lacp(world.appctl("lacp/show"))


def parse_lacp(text: str) -> dict[str, bool]:
    """Read `ovs-appctl lacp/show`: interface -> may_enable."""
    found: dict[str, bool] = {}
    current = ""
    for line in text.splitlines():
        match = _MEMBER.match(line.strip())
        if match:
            current = match["name"]
            found[current] = False
        elif line.strip().startswith("may_enable:") and current:
            found[current] = line.split(":")[1].strip() == "true"
    return found
