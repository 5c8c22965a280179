"""Lays a cluster out as a picture: boxes, wires and words on a plane measured in inches; plot.py draws it.

    [ core ]  [ core ]           y grows upwards; a rack's parts stand in columns under their ToR:
    [ agg  ]  [ agg  ]           clients, servers (SmartNICs above, their host below), controller nodes
    [  tor1          ]
     |    |         |            What would be too wide is abridged: of equal neighbours the first and the
    c1  [s1n1]    ctl1           last are drawn, and a dashed box says which stand between them.
        [s1h ]
"""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias, TypeVar

from topologies.inventory import Inventory, NodeEntry, PortEntry, SwitchEntry, switch_links

WIDEST_RACK, WIDEST_ROW = 21.0, 25.0  # of one rack, of several side by side
NODE_W, NODE_H = 1.36, 0.72
TOR_H, SWITCH_H = 0.56, 0.5
CHASSIS_H, CHASSIS_W = 2.72, 2.2
GAP_W, SUMMARY_W, SUMMARY_H = 1.9, 2.9, 1.5
SPACE, WIRE_H, FABRIC_H = 0.18, 0.78, 0.85
MOST_SINGLES, MOST_PODS, MOST_CORES = 3, 4, 8
MARGIN, TITLE_H, LINE_H, CAPTION_CHARS_PER_INCH = 0.25, 0.5, 0.2, 14.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its lower left corner. `kind` chooses its looks; the first of `lines` is its name.

    A "chassis" has its lines at its foot and holds other boxes; "gap" stands for what is left out.
    """

    x: float
    y: float
    w: float
    h: float
    kind: str  # "switch", "smartnic", "host", "nic", "client", "controller", "chassis", "gap" or "rack"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """A straight link; `kind` is "ethernet", "pcie" or "fabric". `label` stands at its middle."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str
    label: str = ""


@dataclass(frozen=True)
class Picture:
    """What to draw. `abridged` says in sentences what is left out; `caption` is below the picture."""

    title: str
    width: float
    height: float
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    caption: tuple[str, ...]
    abridged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Left:
    """Things of one kind, in order, that a dashed box stands for."""

    items: tuple[NodeEntry, ...]


_Column: TypeAlias = NodeEntry | _Left  # a server by its host, or the servers left out


def picture_of(inventory: Inventory) -> Picture:
    """Lay out `inventory`. The same inventory always gives the same picture."""
    plan = _Plan(inventory)
    tors = [s for s in inventory.switches if s.tier == "tor"]
    detailed = {s.name: plan.rack_columns(s) for s in tors}
    widths = {s.name: plan.rack_width(detailed[s.name]) for s in tors}
    below = CHASSIS_H + WIRE_H
    if sum(widths.values()) + SPACE * len(tors) > WIDEST_ROW and len(tors) > 1:
        below = SUMMARY_H + WIRE_H / 2
        widths = dict.fromkeys(widths, SUMMARY_W)
        detailed = {}
        plan.abridged.append("Each rack is one box: its servers and their links are not drawn one by one.")
    plan.draw_racks(tors, detailed, widths, tor_y=below)
    caption = [*_caption(inventory, bool(detailed)), *plan.abridged]
    width = max(max(b.x + b.w for b in plan.boxes), 8.0)
    lines = [line for text in caption for line in _wrapped(text, int(width * CAPTION_CHARS_PER_INCH))]
    top = max(b.y + b.h for b in plan.boxes)
    return Picture(_title(inventory), width + 2 * MARGIN, top + TITLE_H + LINE_H * (len(lines) + 1.5) + 2 * MARGIN,
                   tuple(plan.boxes), tuple(plan.wires), tuple(lines), tuple(plan.abridged))


def _title(inventory: Inventory) -> str:
    counts = Counter(n.role for n in inventory.nodes)
    parts = [_counted(counts["host"], "server"), _counted(counts["smartnic"], "SmartNIC"),
             _counted(counts["client"], "client"), _counted(len(inventory.switches), "switch")]
    return f"{inventory.cluster}: {', '.join(parts)}"


def _caption(inventory: Inventory, detailed: bool) -> list[str]:
    said = ["Each server has one MAC address, shared by its host and all its SmartNICs; each of these has an IP "
            "address of its own, by which the ToR routes."]
    if detailed:
        said.append("On a link to the ToR stand the ToR's interface, after which captures are named, and the rate.")
        rates = sorted({f"{link.gbps:g}" for link in inventory.pcie})
        if rates:
            said[-1] += f" A double line is a PCIe link of {'/'.join(rates)} Gb/s."
    fabric = sorted({lower.gbps for lower, _ in switch_links(inventory)})
    if fabric:
        said.append(f"Links between switches: {'/'.join(f'{gbps:g}' for gbps in fabric)} Gb/s each.")
    return said


class _Plan:
    """The boxes and wires placed so far."""

    def __init__(self, inventory: Inventory) -> None:
        self.inventory = inventory
        self.boxes: list[Box] = []
        self.wires: list[Wire] = []
        self.abridged: list[str] = []
        self._ports: defaultdict[str, list[PortEntry]] = defaultdict(list)  # by the node that hangs on them
        for port in inventory.ports:
            self._ports[port.peer].append(port)
        self._smartnics: defaultdict[tuple[int, int], list[NodeEntry]] = defaultdict(list)  # by rack and server
        for node in inventory.of_role("smartnic"):
            self._smartnics[node.rack, node.server].append(node)

    # -- what is drawn of a rack -----------------------------------------------------------------------------

    def rack_columns(self, tor: SwitchEntry) -> list[_Column]:
        """Return the rack's servers, as many as there is room for, and gaps for the others."""
        hosts = [n for n in self.inventory.nodes if n.role == "host" and n.rack == tor.index]
        columns: list[_Column] = list(hosts)
        if self._width(columns) <= WIDEST_RACK:
            return columns
        runs = [list(group) for _, group in groupby(hosts, key=lambda h: (h.model, len(self._nics(h))))]
        for ends in (2, 1):  # of each run of equal servers first and last are drawn, or the first only
            columns = [column for run in runs for column in self._ends_of(run, ends)]
            if self._width(columns) <= WIDEST_RACK:
                return columns
        while self._width(columns) > WIDEST_RACK and len(columns) > 2:
            last = [n for column in columns[-2:] for n in (column.items if isinstance(column, _Left) else (column,))]
            columns[-2:] = [_Left(tuple(last))]
        return columns

    def rack_width(self, columns: Sequence[_Column]) -> float:
        rack = next(c.rack for c in columns if isinstance(c, NodeEntry))
        return self._width(columns) + sum(
            (GAP_W if isinstance(one, _Left) else NODE_W) + SPACE
            for role in ("client", "controller") for one in self._singles(rack, role))

    def _width(self, columns: Sequence[_Column]) -> float:
        return sum((GAP_W if isinstance(c, _Left) else self._server_width(c)) + SPACE for c in columns) - SPACE

    def _server_width(self, host: NodeEntry) -> float:
        return max(CHASSIS_W, self._slots(host) * (NODE_W + SPACE) + SPACE)

    def _slots(self, host: NodeEntry) -> int:
        return len(self._nics(host)) + len(self._ports[host.name])

    def _nics(self, host: NodeEntry) -> list[NodeEntry]:
        return self._smartnics[host.rack, host.server]

    def _ends_of(self, run: Sequence[NodeEntry], ends: int) -> list[_Column]:
        if len(run) <= ends:
            return list(run)
        last = run[-1:] if ends == 2 else ()
        return [run[0], _Left(tuple(run[1:len(run) - len(last)])), *last]

    def _singles(self, rack: int, role: str) -> list[_Column]:
        return _shortened([n for n in self.inventory.nodes if n.role == role and n.rack == rack], MOST_SINGLES,
                          lambda left: _Left(tuple(n for n in left if isinstance(n, NodeEntry))))

    # -- drawing ---------------------------------------------------------------------------------------------

    def draw_racks(self, tors: list[SwitchEntry], detailed: dict[str, list[_Column]], widths: dict[str, float],
                   tor_y: float) -> None:
        """Place the racks side by side, pod by pod, and the fabric above them."""
        pods = [list(group) for _, group in groupby(tors, key=lambda s: s.pod)]
        x = 0.0
        middles: dict[str, tuple[float, float, float]] = {}  # switch -> middle, lower and upper edge
        spans: dict[int, tuple[float, float]] = {}
        for pod in _shortened(pods, MOST_PODS, lambda left: [t for group in left for t in group]):
            if pod not in pods:
                self._gap(x, tor_y, GAP_W, TOR_H, f"{pod[0].name} to {pod[-1].name}", f"{len(pod)} racks not drawn")
                self.abridged.append(f"Racks {pod[0].index} to {pod[-1].index} and their aggregation switches are "
                                     "left out.")
                x += GAP_W + SPACE
                continue
            start = x
            for tor in pod:
                width = widths[tor.name]
                self.boxes.append(Box(x, tor_y, width, TOR_H, "switch", (
                    tor.name, f"gateway {tor.gateway}   MAC {tor.mac}" if width > 3.6 else f"gateway {tor.gateway}")))
                if detailed:
                    self._rack(tor, detailed[tor.name], x, tor_y)
                else:
                    self._summary(tor, x, tor_y)
                middles[tor.name] = (x + width / 2, tor_y, tor_y + TOR_H)
                x += width + SPACE * 2
            spans[pod[0].pod] = (start, x - SPACE * 2)
        right = x - SPACE * 2
        self._fabric_rows(middles, spans, right, tor_y + TOR_H)

    def _fabric_rows(self, middles: dict[str, tuple[float, float, float]], spans: dict[int, tuple[float, float]],
                     right: float, below: float) -> None:
        aggregations = [s for s in self.inventory.switches if s.tier == "agg"]
        for pod, (left, end) in spans.items():
            mine = [s for s in aggregations if s.pod == pod]
            self._switch_row(mine, left, end, below + FABRIC_H, middles)
        cores = [s for s in self.inventory.switches if s.tier == "core"]
        self._switch_row(cores, 0.0, right, below + 2 * FABRIC_H + SWITCH_H, middles)
        for lower, upper in switch_links(self.inventory):
            ends = [middles.get(lower.switch), middles.get(upper.switch)]
            if ends[0] is None or ends[1] is None:
                continue
            (x1, _, top), (x2, bottom, _) = sorted((e for e in ends if e), key=lambda e: e[1])
            self.wires.append(Wire(x1, top, x2, bottom, "fabric"))

    def _switch_row(self, switches: list[SwitchEntry], left: float, right: float, y: float,
                    middles: dict[str, tuple[float, float, float]]) -> None:
        most = max(2, min(MOST_CORES, int((right - left) / (NODE_W + SPACE))))
        shown = _shortened([[s] for s in switches], most, lambda out: [s for group in out for s in group])
        for i, group in enumerate(shown):
            middle = left + (right - left) * (i + 0.5) / len(shown)
            x = middle - NODE_W / 2
            if len(group) > 1:
                self._gap(x, y, NODE_W, SWITCH_H, f"{group[0].name} to {group[-1].name}", "not drawn")
                self.abridged.append(f"Switches {group[0].name} to {group[-1].name} are left out.")
                continue
            self.boxes.append(Box(x, y, NODE_W, SWITCH_H, "switch", (group[0].name, group[0].mac)))
            middles[group[0].name] = (middle, y, y + SWITCH_H)

    def _rack(self, tor: SwitchEntry, columns: list[_Column], x: float, tor_y: float) -> None:
        node_y = tor_y - WIRE_H - NODE_H
        for one in self._singles(tor.index, "client"):
            x = self._single(one, x, node_y, tor_y)
        for column in columns:
            if isinstance(column, _Left):
                self._left_out(column, x, tor_y)
                x += GAP_W + SPACE
            else:
                self._server(column, x, node_y, tor_y)
                x += self._server_width(column) + SPACE
        for one in self._singles(tor.index, "controller"):
            x = self._single(one, x, node_y, tor_y)

    def _single(self, one: _Column, x: float, y: float, tor_y: float) -> float:
        if isinstance(one, _Left):
            first, last = one.items[0], one.items[-1]
            self._gap(x, y, GAP_W, NODE_H, f"{first.name} to {last.name}", f"{first.ip} to {last.ip}")
            self.abridged.append(f"Nodes {first.name} to {last.name} are left out.")
            return x + GAP_W + SPACE
        self.boxes.append(Box(x, y, NODE_W, NODE_H, one.role, (f"{one.role} {one.name}", one.ip)))
        self._tor_wire(self._ports[one.name][0], x + NODE_W / 2, y + NODE_H, tor_y)
        return x + NODE_W + SPACE

    def _server(self, host: NodeEntry, x: float, node_y: float, tor_y: float) -> None:
        width = self._server_width(host)
        foot = tor_y - WIRE_H - CHASSIS_H + 0.1
        host_y = foot + 0.45
        self.boxes.append(Box(x, foot, width, CHASSIS_H, "chassis", (
            f"server {host.server}: {host.model}", f"shared MAC {host.mac}")))
        host_x, host_w = x + SPACE, width - 2 * SPACE
        about = (f"{host.ip}   {_cpu(host)}",) if host_w > CHASSIS_W else (host.ip, _cpu(host))
        self.boxes.append(Box(host_x, host_y, host_w, NODE_H, "host", (f"host {host.name}", *about)))
        slots = self._slots(host)
        slot = x + (width - slots * (NODE_W + SPACE) + SPACE) / 2
        for nic in self._nics(host):
            middle = slot + NODE_W / 2
            lines = (f"SmartNIC {nic.name}", nic.ip, _cpu(nic))
            self.boxes.append(Box(slot, node_y, NODE_W, NODE_H, "smartnic", lines))
            self._tor_wire(self._ports[nic.name][0], middle, node_y + NODE_H, tor_y)
            self.wires.append(Wire(middle, host_y + NODE_H, middle, node_y, "pcie", "PCIe"))
            slot += NODE_W + SPACE
        for port in self._ports[host.name]:
            middle = slot + NODE_W / 2
            self.boxes.append(Box(slot, node_y, NODE_W, NODE_H, "nic", ("plain NIC", port.peer_interface)))
            self._tor_wire(port, middle, node_y + NODE_H, tor_y)
            self.wires.append(Wire(middle, host_y + NODE_H, middle, node_y, "ethernet"))
            slot += NODE_W + SPACE

    def _tor_wire(self, port: PortEntry, x: float, y: float, tor_y: float) -> None:
        self.wires.append(Wire(x, y, x, tor_y, "ethernet", f"{port.interface}\n{port.gbps:g} Gb/s"))

    def _left_out(self, left: _Left, x: float, tor_y: float) -> None:
        first, last = left.items[0], left.items[-1]
        foot = tor_y - WIRE_H - CHASSIS_H + 0.1
        nics = sum(len(self._nics(h)) for h in left.items)
        models = ", ".join(f"{count} x {model}" for model, count in Counter(h.model for h in left.items).items())
        links = [p for h in left.items for n in [h, *self._nics(h)]
                 for p in self._ports[n.name]]
        if first is last:
            names, addresses = f"server {first.server}", [f"host {first.ip}"]
        else:
            names, addresses = f"servers {first.server} to {last.server}", [f"hosts {first.ip}", f"to {last.ip}"]
        self._gap(x, foot, GAP_W, CHASSIS_H, names, models, _counted(nics, "SmartNIC"), *addresses)
        self.wires.append(Wire(x + GAP_W / 2, foot + CHASSIS_H, x + GAP_W / 2, tor_y, "ethernet",
                               f"{len(links)} links"))
        self.abridged.append(f"Abridged: the dashed box stands for {names} of rack {first.rack}, {models}, with "
                             f"{_counted(nics, 'SmartNIC')} and {_counted(len(links), 'link')} to the ToR.")

    def _summary(self, tor: SwitchEntry, x: float, tor_y: float) -> None:
        mine = [n for n in self.inventory.nodes if n.rack == tor.index]
        hosts = [n for n in mine if n.role == "host"]
        counts = Counter(n.role for n in mine)
        links = sum(len(self._ports[n.name]) for n in mine)
        y = tor_y - WIRE_H / 2 - SUMMARY_H
        self.boxes.append(Box(x, y, SUMMARY_W, SUMMARY_H, "rack", (
            f"rack {tor.index}", ", ".join(f"{n} x {m}" for m, n in Counter(h.model for h in hosts).items()),
            f"hosts {hosts[0].ip} to {hosts[-1].ip}" if len(hosts) > 1 else f"host {hosts[0].ip}",
            f"{_counted(counts['smartnic'], 'SmartNIC')}, {_counted(counts['client'], 'client')}, "
            f"{_counted(counts['controller'], 'controller node')}", f"{links} links to {tor.name}")))
        self.wires.append(Wire(x + SUMMARY_W / 2, y + SUMMARY_H, x + SUMMARY_W / 2, tor_y, "ethernet"))

    def _gap(self, x: float, y: float, w: float, h: float, *lines: str) -> None:
        self.boxes.append(Box(x, y, w, h, "gap", lines))


def _shortened(items: Sequence[T], most: int, left_out: Callable[[Sequence[T]], T]) -> list[T]:
    """Return up to `most` of `items`; what `left_out` makes of the others stands before the last."""
    if len(items) <= most:
        return list(items)
    return [*items[:most - 2], left_out(items[most - 2:-1]), items[-1]]


def _cpu(node: NodeEntry) -> str:
    return f"{node.cores} cores, {node.clock_ghz:g} GHz"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 'es' if what.endswith('ch') else 's'}"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width)
