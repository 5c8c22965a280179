"""A host's links as one 802.3ad bond of the kernel, where the kernel has the bonding driver.

Such a kernel speaks LACP itself, and no teaming process runs; the switch's side is `switch_lacp_settings` of
host_network.py with `bonded`. The commands follow the kernel's own
documentation of the driver (Documentation/networking/bonding.rst). They are only built and compared here:
no machine that this was developed on had the driver, so they have never run.
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from nodes.host_network import Command, TeamConfig, own_smartnics, setup_commands
from topologies.addressing import ALL_NODES_PREFIX

BOND = "bond0"


def teaming_mode() -> str:
    """Return "bonding" where the kernel can make an 802.3ad bond, else "multipath" (the teaming process).

    Tried in a network namespace of its own, that ends with the command. Where the driver is a module it is
    loaded first without its default bond, which would appear in the machine's own namespace.
    """
    with suppress(OSError):  # no modprobe: then the driver is built in, or there is none
        subprocess.run(("modprobe", "-q", "bonding", "max_bonds=0"), capture_output=True, check=False)
    try:
        tried = subprocess.run(("unshare", "--net", "ip", "link", "add", BOND, "type", "bond", "mode", "802.3ad"),
                               capture_output=True, check=False)
    except OSError:
        return "multipath"
    return "multipath" if tried.returncode else "bonding"


def bonding_commands(config: TeamConfig) -> list[Command]:
    """Return what to run once in the host's namespace, in place of `setup_commands` and the teaming process."""
    # `all_slaves_active`: a SmartNIC whose port to the ToR is down has no LACP partner, but its host must still
    # hear it over PCIe.
    lines = [f"link add {BOND} address {config.mac} type bond mode 802.3ad lacp_rate fast xmit_hash_policy layer3+4 "
             "miimon 100 all_slaves_active 1"]
    for member in config.members:
        lines += [f"link set {member.interface} down", f"link set {member.interface} master {BOND}"]
    lines += [f"link set {BOND} up",
              f"route replace {ALL_NODES_PREFIX} via {config.gateway} dev {BOND} src {config.host_ip} onlink"]
    bond = Command(("ip", "-batch", "-"), "".join(f"{line}\n" for line in lines))
    # Enslaving sets a member down and up again, which drops its routes: the SmartNICs' come last, again.
    return [*setup_commands(config), bond, own_smartnics(config)]
