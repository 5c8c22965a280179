"""What the interactive CLI shows, as tables: pure functions of what was asked of nodes and switches."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from controller.tor_counters import RuleCounter
from controller.tor_program import TorProgram
from controller.tor_status import TorStatus
from experiments.clients.client import ClientResult
from experiments.errors import ExperimentError
from experiments.measurement.energy import WindowPower
from nodes.deployment import Deployment
from nodes.forwarding import Forwarding, Port
from nodes.frames import packed_ip
from topologies.inventory import Inventory, NodeEntry

ALIVE, NO_CARRIER, LACP_DOWN = "alive", "DEAD: no carrier", "DEAD: LACP is down"
UNKNOWN = "?"
UNBROKEN = 1000

Counters = Mapping[str, Mapping[str, int]]


class View(NamedTuple):
    """A table: a title, column names, rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    sentences: bool = False  # whether cells may be broken into lines


def rendered(view: View, width: int) -> str:
    """Return `view` as text, numbers to the right; `width` columns hold what may be broken into lines."""
    table = Table(title=view.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(view.columns):
        cells = [row[i] for row in view.rows]
        numbers = bool(cells) and all(isinstance(cell, int | float) or cell in ("-", UNKNOWN) for cell in cells)
        table.add_column(column, justify="right" if numbers else "left")
    for row in view.rows:
        table.add_row(*(str(cell) for cell in row))
    text = io.StringIO()
    columns = width if view.sentences else UNBROKEN
    Console(file=text, width=columns, markup=False, emoji=False, highlight=False, color_system=None).print(table)
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines() if line.strip())


def nodes_view(inventory: Inventory, counters: Counters, processes: Mapping[str, str]) -> View:
    """`counters` are of the agents that answered, `processes` says of every agent how its process is."""
    columns = ("node", "role", "server", "IP", "MAC", "agent", "to network", "to host", "to local", "queue",
               "deepest", "drops")
    rows = []
    for node in inventory.nodes:
        seen = counters.get(node.name)
        measured = [_number(seen, name) for name in ("to_network", "to_host", "to_local", "queue_depth",
                                                     "queue_deepest")]
        drops: object = "-" if node.name not in processes else UNKNOWN
        if seen is not None:
            drops = sum(drops_of(seen).values())
        if node.role != "smartnic":
            measured = ["-"] * len(measured)
        rows.append((node.name, node.role, server_of(node), node.ip, node.mac,
                     agent_state(processes.get(node.name), seen is not None), *measured, drops))
    return View("", columns, rows)


def agent_state(process: str | None, answered: bool) -> str:
    if process is None:
        return "-"
    return "answers" if answered else f"SILENT ({process})"


def server_of(node: NodeEntry) -> str:
    """Return RACK.SERVER, after a host with the system that it is; what belongs to no server has none."""
    if not node.server:
        return "-"
    return f"{node.rack}.{node.server}" + (f" {node.model}" if node.role == "host" else "")


def drops_of(counters: Mapping[str, int]) -> dict[str, int]:
    """Return what a node has dropped, by counter name, without the zeros."""
    return {name: count for name, count in counters.items() if "dropped" in name and count}


def route_views(program: TorProgram, rules: Mapping[str, RuleCounter]) -> list[View]:
    """Return where `program` sends each address, what else has matched, and what was dropped, with packets."""
    routes = []
    for route in program.routes:
        if route.group is not None:
            group = program.group(route.group)
            goes_to = f"group {group.name!r}: {', '.join(program.interface(b.port) for b in group.buckets)}"
        else:
            goes_to = program.interface(route.port) if route.port is not None else "nowhere"
        seen = rules.get(f"route to {route.name}") or rules.get(f"{route.name}, dropped")
        routes.append((route.name, route.prefix, goes_to, seen.packets if seen else UNKNOWN))
    shown = {f"route to {route.name}" for route in program.routes}
    matching = [r for r in rules.values() if r.packets and r.name not in shown]
    matched = [(r.table, r.name, r.packets) for r in matching if not r.drops]
    dropped = [(r.table, r.name, r.packets) for r in matching if r.drops]
    return [View(f"Routes of {program.switch}", ("to", "address", "goes to", "packets"), routes),
            View(f"Other rules of {program.switch} that matched", ("table", "rule", "packets"), matched),
            View(f"Dropped by {program.switch}", ("table", "rule", "packets"), dropped)]


def smartnic_routes_view(nic: NodeEntry, host: NodeEntry) -> View:
    """Return what the forwarding table of a SmartNIC answers; it has no kernel routes."""
    forwarding = Forwarding(packed_ip(nic.ip), packed_ip(host.ip))
    shown = {Port.NETWORK: "network", Port.HOST: "host, over PCIe", Port.LOCAL: "local core", Port.DROP: "dropped"}
    destinations = {f"{node.name} {node.ip}": packed_ip(node.ip) for node in (nic, host)} | {"anything else": bytes(4)}
    rows = [(name, shown[forwarding.egress(Port.NETWORK, ip)], shown[forwarding.egress(Port.HOST, ip)])
            for name, ip in destinations.items()]
    return View(f"Forwarding by the agent of {nic.name}", ("to", "from the network", "from the host"), rows)


def link_states(listing: str) -> dict[str, bool]:
    """Read `ovs-vsctl --format=json --columns=name,link_state list Interface`: interface -> has carrier."""
    return {name: state == "up" for name, state in msgspec.json.decode(listing)["data"]}


def liveness(links: Mapping[str, bool], lacp: Mapping[str, bool]) -> dict[str, str]:
    """Return how each switch interface is, as the switch sees it; one that speaks no LACP lives by its carrier."""
    return {name: NO_CARRIER if not up else LACP_DOWN if lacp.get(name) is False else ALIVE
            for name, up in links.items()}


def groups_view(programs: Mapping[str, TorProgram], packets: Mapping[str, Mapping[str, Mapping[str, int]]],
                alive: Mapping[str, str], only: Collection[str] | None = None) -> View:
    """`packets` by switch, group and interface; `only` are the names of the groups to show, None for all."""
    rows: list[tuple[object, ...]] = []
    for switch, program in programs.items():
        for group in program.groups:
            counted = packets.get(switch, {}).get(group.name, {})
            total = sum(counted.values())
            if only is not None and group.name not in only:
                continue
            for i, bucket in enumerate(group.buckets):
                interface = program.interface(bucket.port)
                seen = counted.get(interface, 0)
                head = (switch, group.group_id, group.name) if i == 0 else ("", "", "")
                rows.append((*head, interface, alive.get(program.interface(bucket.watch_port), UNKNOWN), seen,
                             f"{seen / total:.1%}" if total else "-"))
    return View("", ("switch", "group", "name", "member", "state", "packets", "share"), rows)


def apps_view(deployments: Iterable[Deployment], counters: Counters) -> View:
    rows: list[tuple[object, ...]] = []
    for deployment in deployments:
        instances = {i.number: i for i in deployment.application().instances}
        for place in deployment.places:
            instance = instances[place.number]
            seen = counters.get(place.node)
            counted = [UNKNOWN if seen is None else seen.get(f"{what} {deployment.name}/{instance.name}", 0)
                       for what in ("handled", "errors")]
            rows.append((deployment.name, instance.name, instance.service, place.node, place.ip, *counted))
    return View("", ("application", "instance", "microservice", "node", "IP", "handled", "errors"), rows)


def request_lines(result: ClientResult, client: str, application: str) -> list[str]:
    """Return what came of the requests, as sentences."""
    took, rate = result.seconds, result.answered / result.seconds if result.seconds else 0.0
    lines = [f"{client} sent {result.sent} requests to {application}: {result.answered} answered, {result.lost} lost, "
             f"{result.wrong + result.errors} wrong, {result.duplicated} duplicated, in {took * 1e3:.3g} ms "
             f"({rate:,.0f}/s)"]
    if result.turned_away:
        lines.append(f"{result.turned_away} were turned away: {application} is withdrawn")
    if result.latencies.count:
        p50, p99, most = (1e3 * s for s in (result.latencies.p50_s, result.latencies.p99_s, result.latencies.max_s))
        lines.append(f"latency: p50 {p50:.3g} ms, p99 {p99:.3g} ms, max {most:.3g} ms; "
                     f"longest time without a reply: {1e3 * result.longest_gap_s:.3g} ms")
    return lines + [f"  {complaint}" for complaint in result.complaints]


def app_lines(status: TorStatus | None, running: bool) -> list[str]:
    """Return what the ToR app says of itself and of each switch, as sentences."""
    if not running:
        return ["the ToR app is not running; the switches forward as they were last told"]
    if status is None:
        return ["the ToR app has written no status yet"]
    lines = [f"the ToR app runs as process {status.pid} on {status.library}, listening on {status.listen}"]
    if status.dead_links:
        lines.append(f"links between switches that are dead: {', '.join(status.dead_links)}; {len(status.repairs)} "
                     "times so far other ones than before")
    lines += [f"{switch}, rerouted: {'; '.join(said)}" for switch, said in (status.reroutes or {}).items()]
    for seen in (status.switches or {}).values():
        changes = [f"{name.replace('_', ' ')} {count}" for name, count in (seen.changes or {}).items() if count]
        mended = f"it mended: {', '.join(changes)}" if changes else "it changed nothing"
        lines.append(f"{seen.switch}: {'connected' if seen.connected else 'NOT connected'}, "
                     f"{'as it should be' if seen.reconciled else 'NOT yet as it should be'}; {mended}")
        lines += [f"  {error}" for error in seen.errors]
    return lines


def link_rows(inventory: Inventory, up: Mapping[str, bool]) -> View:
    """Return every link with the state of both ends; `up` tells which interfaces have carrier."""
    def state(interface: str) -> str:
        return {True: "up", False: "DOWN", None: UNKNOWN}[up.get(interface)]

    ends = []
    seen: set[str] = set()
    for port in inventory.ports:
        if port.peer_interface not in seen:  # a link between switches is a port of both
            seen.add(port.interface)
            ends.append((port.interface, port.peer_interface, "network", port.gbps))
    ends += [(link.smartnic_interface, link.host_interface, "PCIe", link.gbps) for link in inventory.pcie]
    return View("", ("link", "kind", "Gb/s", "state"),
                [(f"{one} <-> {other}", kind, f"{gbps:g}", f"{state(one)} / {state(other)}")
                 for one, other, kind, gbps in ends])


def iperf_line(report: Mapping[str, Any], client: str, server: str) -> str:
    """Read iperf3's JSON report; raises ExperimentError with its own complaint."""
    if "error" in report:
        raise ExperimentError(f"iperf3 from {client} to {server}: {report['error']}")
    sent, received = report["end"]["sum_sent"], report["end"]["sum_received"]
    return (f"{client} -> {server}: {received['bits_per_second'] / 1e9:.2f} Gb/s of TCP over "
            f"{received['seconds']:.1f} s, {sent.get('retransmits', 0)} retransmits")


def _number(seen: Mapping[str, int] | None, name: str) -> object:
    return UNKNOWN if seen is None else seen.get(name, "-")


def power_views(power: WindowPower) -> list[View]:
    """Return the servers' watts and the nodes' cores over one window."""
    servers = View(f"{power.wall_watts:.1f} W, over {power.seconds * 1e3:.3g} emulated ms",
                   ("server", "model", "idle W", "active W", "wall W"),
                   [(s.host, s.model, f"{s.idle_watts:g}", f"{s.active_watts:.1f}", f"{s.wall_watts:.1f}")
                    for s in power.servers])
    nodes = View("Nodes", ("node", "busy cores", "awake", "asleep", "active W"),
                 [(n.name, f"{n.busy_cores:.2f}", f"{n.awake_cores:.2f}", f"{n.sleeping_cores:.2f}",
                   f"{n.active_watts:.1f}") for n in power.nodes])
    return [servers, nodes]
