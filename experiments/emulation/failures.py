"""What can fail in a testbed, by name: the words that the shell, scenarios and the Testbed share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.emulation.choice import chosen
from experiments.errors import ExperimentError
from nodes.frame_filter import MOST_ON_A_SIDE
from topologies.addressing import TIERS
from topologies.inventory import Inventory, switch_links


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to fail. `usage` names its words, `called` is what such a part is, `names` which there are.

    `broken` and `mended` are sentences about `{}`, what was named. `takes_share`: a share of frames comes last.
    `is_link`: both ends of a link may be named in place of one, a switch and what it is linked to.
    """

    usage: str
    called: str
    names: Callable[[Inventory], list[str]]
    broken: str
    mended: str
    fewest: int = 1
    most: int = 1
    takes_share: bool = False
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of `kind` at `names`; of "loss", `share` of all frames."""

    kind: str
    names: tuple[str, ...] = ()
    share: float = 0.0

    @property
    def words(self) -> str:
        """What a person types after `fail` for it."""
        return " ".join((self.kind, *self.names, *([f"{self.share:g}"] if KINDS[self.kind].takes_share else [])))

    @property
    def heal_words(self) -> str:
        """What a person types after `heal`."""
        return " ".join((self.kind, *self.names))

    def said(self, mended: bool = False) -> str:
        """Return what is so now, as a sentence."""
        kind = KINDS[self.kind]
        named = " and ".join(self.names) or "this rack"
        return (kind.mended if mended else kind.broken).format(named, share=self.share)

    def same_part(self, other: Failure) -> bool:
        return (self.kind, self.names) == (other.kind, other.names)


def _roles(*roles: str) -> Callable[[Inventory], list[str]]:
    return lambda inventory: [node.name for node in inventory.nodes if node.role in roles]


def _links(inventory: Inventory) -> list[str]:
    return ([node.name for node in inventory.nodes if inventory.ports_of_node(node.name)]
            + [end.interface for ends in switch_links(inventory) for end in ends])


def linked_to(inventory: Inventory, name: str) -> list[str]:
    """Return the nodes and switches that hang on switch `name`, or the switch that node `name` hangs on."""
    return list(dict.fromkeys([p.peer for p in inventory.ports_of_switch(name)]
                              + [p.switch for p in inventory.ports_of_node(name)]))


def _one_link(inventory: Inventory, kind: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the name that a link goes by: its node, or, between switches, the interface nearer the servers."""
    switches = [s.name for s in inventory.switches]
    lower = {port.interface: min(ends, key=lambda p: TIERS.index(inventory.switch(p.switch).tier)).interface
             for ends in switch_links(inventory) for port in ends}
    if len(names) == 1 and names[0] in switches:
        raise ExperimentError(f"{kind} {names[0]}: which of its links? Name the other end too: "
                              f"{', '.join(linked_to(inventory, names[0])) or 'it has none'}")
    if len(names) != 2:
        return tuple(lower.get(name, name) for name in names)
    one, other = (chosen(name, [*switches, *(n.name for n in inventory.nodes)], "node or switch") for name in names)
    port = next((p for p in inventory.ports if {p.switch, p.peer} == {one, other}), None)
    if port is None:
        raise ExperimentError(f"no link between {one} and {other}; {one} is linked to "
                              f"{', '.join(linked_to(inventory, one)) or 'no switch'}")
    return (lower.get(port.interface, port.peer),)


def _none(_: Inventory) -> list[str]:
    return []


LINKED = "node or switch interface whose link can fail"
KINDS: dict[str, Kind] = {
    "link": Kind("NODE | SWITCH SWITCH", LINKED, _links, "the link of {} is down", "the link of {} is up",
                 is_link=True),
    "pcie": Kind("SMARTNIC", "SmartNIC", _roles("smartnic"), "the PCIe link of {} is down",
                 "the PCIe link of {} is up"),
    "smartnic": Kind("SMARTNIC", "SmartNIC", _roles("smartnic"), "{} is off", "{} is on, with a new agent"),
    "crash": Kind("NODE", "agent", _roles("host", "smartnic"), "the agent of {} has crashed", "{} has a new agent"),
    "hang": Kind("NODE", "agent", _roles("host", "smartnic"), "the agent of {} hangs", "the agent of {} goes on"),
    "host": Kind("HOST", "host", _roles("host"), "the system of {} has crashed",
                 "{} has started again, with a new agent"),
    "server": Kind("HOST", "host", _roles("host"), "the server of {} is off",
                   "the server of {} is on, with new agents"),
    "tor": Kind("", "part", _none, "the ToR app is dead", "the ToR app runs", fewest=0, most=0),
    "controller": Kind("[NODE]", "controller node", _roles("controller"), "the resource controller of {} is dead",
                       "the resource controller of {} runs", fewest=0),
    "loss": Kind("NODE SHARE | SWITCH SWITCH SHARE", LINKED, _links,
                 "the link of {} loses {share:.4g} of all frames each way", "the link of {} loses nothing",
                 takes_share=True, is_link=True),
    "partition": Kind("NODE...", "node", _roles("host", "smartnic", "client", "controller"),
                      "{} can reach each other, and nobody else", "{} can reach everybody", most=MOST_ON_A_SIDE),
}
FORGETFUL = frozenset({"smartnic", "crash", "host", "server"})  # whose agents come back with nothing
NO_PARTS = "it takes no names"


def failure_of(inventory: Inventory, kind: str, names: Sequence[str], share: float = 0.0) -> Failure:
    """Return the failure of `kind` at `names`; raises ExperimentError for what this rack does not have."""
    known = KINDS[chosen(kind, list(KINDS), "kind of failure")]
    if known.is_link:
        names = _one_link(inventory, kind, names)
    if not known.fewest <= len(names) <= known.most:
        wanted = NO_PARTS if not known.most else "name one" if known.most == 1 else f"name 1 to {known.most}"
        raise ExperimentError(f"{kind} of {len(names)} parts ({' '.join(names) or 'none'}): {wanted}; "
                              f"usage: {kind} {known.usage}".rstrip())
    found = tuple(chosen(name, known.names(inventory), known.called) for name in names)
    if len(set(found)) < len(found):
        raise ExperimentError(f"{kind} {' '.join(found)}: each can be named once")
    if known.takes_share and not 0.0 < share <= 1.0:
        raise ExperimentError(f"a share of {share:g} for {kind} {' '.join(found)}: it must be above 0 and at most 1")
    if not known.takes_share and share:
        raise ExperimentError(f"{kind} takes no share, not {share:g}")
    return Failure(kind, found, share)


def part_of(inventory: Inventory, kind: str, names: Sequence[str]) -> Failure:
    """Return what is to be healed: a failure of that kind at these names, whatever its share was."""
    known = KINDS[chosen(kind, list(KINDS), "kind of failure")]
    return failure_of(inventory, kind, names, 1.0 if known.takes_share else 0.0)


def share_of(word: str) -> float:
    """Read a share of frames as people write it: 0.02 or 2%. Raises ExperimentError for anything else."""
    number, percent = (word[:-1], 100.0) if word.endswith("%") else (word, 1.0)
    try:
        return float(number) / percent
    except ValueError:
        raise ExperimentError(f"{word!r} is no share of frames: write 0.02 or 2%") from None
