"""Lays a placement out as a picture: racks, servers, nodes with what they run, channels by distance; no drawing here.

    rack 1
    +-- server 1 ------+  +-- server 2 ------+     y grows upwards; inches. A node's bar is how much of the CPU that
    | [s1n1]   [s1n2]  |  | [s2n1]   [s2n2]  |     may be planned is taken. A line is the channels between two nodes,
    |  nids 1-4        |  |                  |     one way: its colour is their level, its width their messages. What
    | [s1h          ]  |  | [s2h          ]  |     stays in a node has no line, and is said in the legend.
    +------------------+  +------------------+
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from controller.placement.compute_nodes import Resource
from controller.placement.constraints import ClusterState
from controller.placement.demand import PARTS
from controller.placement.placing import Placement
from experiments.views.placement_views import LEVEL_NAMES, content_of, ranges, shard_of
from topologies.distance import Level

TILE_W, LINE_H, HEAD_H, SPACE, FOOT_H = 1.75, 0.155, 0.42, 0.22, 0.3
MOST_LINES, CHARS = 7, 24
WIDEST, MOST_RACKS = 34.0, 6
HEADER_H, MARGIN = 0.6, 0.3


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle with a name and lines. `kind` is "rack", "server", "host", "smartnic" or "rest"; `busy` 0 to 1."""

    x: float
    y: float
    w: float
    h: float
    kind: str
    name: str
    lines: tuple[str, ...] = ()
    busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """Channels from one node to another, from middle to middle; `share` of all messages."""

    x1: float
    y1: float
    x2: float
    y2: float
    level: Level
    share: float


@dataclass(frozen=True)
class PlacementPicture:
    """What to draw. `legend` is (level, words), `notes` sentences on what is left out."""

    title: str
    subtitle: tuple[str, ...]
    width: float
    height: float
    tiles: tuple[Tile, ...]
    ways: tuple[Way, ...]
    legend: tuple[tuple[Level, str], ...]
    notes: tuple[str, ...]


def picture_of_placement(placement: Placement, state: ClusterState, communication: bool = False) -> PlacementPicture:
    """Lay out a placement; the same one always gives the same picture. Servers that run nothing may be left out."""
    return _Layout(placement, state).picture(communication)


class _Layout:
    """The tiles placed so far, and the middles of the nodes among them."""

    def __init__(self, placement: Placement, state: ClusterState) -> None:
        self.placement, self.state, self.nodes = placement, state, state.nodes
        self.tiles: list[Tile] = []
        self.middles: dict[int, tuple[float, float]] = {}
        self.notes: list[str] = []
        self.words = {node: self._words(node) for node in set(placement.where.values())}
        tallest = max((len(lines) for lines in self.words.values()), default=1)
        self.tile_h = HEAD_H + LINE_H * max(2, tallest)

    def picture(self, communication: bool) -> PlacementPicture:
        used = {self.nodes.server_of[node] for node in self.placement.where.values()}
        racks: dict[int, list[int]] = {}
        for s, (_, members) in enumerate(self.nodes.servers):
            racks.setdefault(self.nodes.spots[members[0]].rack, []).append(s)
        shown = [r for r in racks if used & set(racks[r])]
        if len(racks) - len(shown):
            self.notes.append(f"{len(racks) - len(shown)} racks run nothing of it and are not drawn.")
        if len(shown) > MOST_RACKS:
            self.notes.append(f"{len(shown) - MOST_RACKS} more racks run parts of it and are not drawn.")
        server_h = 2 * self.tile_h + 3 * SPACE + FOOT_H
        y, width = 0.0, 0.0
        for r in reversed(shown[:MOST_RACKS]):
            right = self._rack(r, racks[r], used, y + SPACE, server_h)
            width = max(width, right)
            self.tiles.append(Tile(0.0, y, right, server_h + 2 * SPACE + FOOT_H, "rack", f"rack {r}"))
            y += server_h + 2 * SPACE + FOOT_H + SPACE
        self.tiles.sort(key=lambda t: ("rack", "server", "rest", "host", "smartnic").index(t.kind))
        content = content_of(self.placement, self.state, communication)
        messages = content["predicted"]["messages_per_request"]
        total = sum(messages.values()) or 1.0
        legend = tuple((Level(level), f"to {LEVEL_NAMES[Level(level)]}: {n / total:.0%} of messages")
                       for level, n in messages.items())
        p = content["predicted"]
        latency = "none" if p["latency_s"] is None else f"{p['latency_s'] * 1e6:,.1f} us"
        how = placement_words(self.placement, communication)
        title = f"{self.placement.demand.name} on {self.nodes.cluster.name}, placed by {how}"
        facts = (f"at {content['requests_per_s']:,.0f} requests/s predicted: latency {latency}, {p['watts']:,.0f} W, "
                 f"{p['requests_per_joule']:,.0f} requests per joule; carries {p['most_requests_per_s']:,.0f} "
                 f"requests/s; mean distance {p['mean_distance']:.2f}")
        width = max(width, 9.0)
        subtitle = tuple(textwrap.wrap(facts, int(width * 13)))
        return PlacementPicture(title, subtitle, width, y, tuple(self.tiles), tuple(self._ways()), legend,
                                tuple(sorted(self.notes)))

    def _rack(self, rack: int, servers: Sequence[int], used: set[int], y: float, height: float) -> float:
        """Place a rack's servers, if not all have room those with most primaries; returns where it ends."""
        widths = {s: max(1, len(self.nodes.servers[s][1]) - 1) * (TILE_W + SPACE) + SPACE for s in servers}
        chosen = list(servers)
        if sum(widths[s] + SPACE for s in chosen) > WIDEST:
            chosen = sorted((s for s in servers if s in used), key=lambda s: (-self._primaries(s), s))
        while len(chosen) > 1 and sum(widths[s] + SPACE for s in chosen) > WIDEST:
            chosen.pop()
        chosen.sort()
        x = SPACE
        for s in chosen:
            self._server(s, x, y + FOOT_H, widths[s], height)
            x += widths[s] + SPACE
        left = len(servers) - len(chosen)
        if left:
            busy = len(used & (set(servers) - set(chosen)))
            lines = (f"{left} more servers", f"{busy} of them in use" if busy else "not in use")
            self.tiles.append(Tile(x, y + FOOT_H, TILE_W, height, "rest", "not drawn", lines))
            self.notes.append(f"Rack {rack}: {left} servers are not drawn, {busy} of them in use.")
            x += TILE_W + SPACE
        return x

    def _primaries(self, server: int) -> int:
        return sum(need.primary < 0 and self.nodes.server_of[self.placement.where[need.number]] == server
                   for need in self.placement.demand.needs)

    def _server(self, s: int, x: float, y: float, width: float, height: float) -> None:
        server, members = self.nodes.servers[s]
        self.tiles.append(Tile(x, y, width, height, "server",
                               f"server {self.nodes.spots[members[0]].server}: {server.model}"))
        self._node(members[-1], x + SPACE, y + SPACE + FOOT_H, width - 2 * SPACE)
        for i, node in enumerate(members[:-1]):
            self._node(node, x + SPACE + i * (TILE_W + SPACE), y + 2 * SPACE + FOOT_H + self.tile_h, TILE_W)

    def _node(self, node: int, x: float, y: float, width: float) -> None:
        entry = self.nodes.nodes[node]
        busy = max(0.0, min(1.0, 1 - self.state.free[node][Resource.CPU] / PARTS))
        self.tiles.append(Tile(x, y, width, self.tile_h, self.nodes.classes[entry.class_index].role,
                               f"{entry.name}  {busy:.0%}", self.words.get(node, ()), busy))
        self.middles[node] = (x + width / 2, y + self.tile_h / 2)

    def _words(self, node: int) -> tuple[str, ...]:
        groups: dict[str, list[int]] = {}
        for need in self.placement.demand.needs:
            if self.placement.where[need.number] == node:
                groups.setdefault(need.stage + " backup" * (need.primary >= 0), []).append(shard_of(need))
        lines = [line for stage, shards in groups.items()
                 for line in textwrap.wrap(f"{stage} {ranges(shards)}", CHARS, subsequent_indent="  ")]
        if len(lines) > MOST_LINES:
            lines = [*lines[:MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} lines more"]
        return tuple(lines)

    def _ways(self) -> list[Way]:
        traffic: dict[tuple[int, int], float] = {}
        total = sum(t for *_, t in self.placement.demand.edges) or 1.0
        for a, b, messages in self.placement.demand.edges:
            here, there = self.placement.where[a], self.placement.where[b]
            if here != there and here in self.middles and there in self.middles:
                traffic[here, there] = traffic.get((here, there), 0.0) + messages / total
        return [Way(*self.middles[a], *self.middles[b], self.nodes.level(a, b), share)
                for (a, b), share in sorted(traffic.items())]


def placement_words(placement: Placement, communication: bool) -> str:
    names = {"hcm": "HCM", "annealing": "simulated annealing", "ilp": "the integer program"}
    return names[placement.algorithm] + (", communication in its cost" if communication else "")
