"""The operator's view: every node's load and power, where instances are, and migrations as they happen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from controller.control_client import ControllerClient
from controller.controller_events import ControllerEvent, ControllerState
from controller.errors import MigrationError
from experiments.emulation.coming_and_going import GONE
from experiments.emulation.pacing import Pacing
from experiments.errors import ExperimentError
from experiments.measurement.energy import Reports, WindowPower, power_between
from experiments.measurement.node_power import core_time, services_of
from experiments.shell.views import View
from microservices.measured import Column
from nodes.deployment import Deployment
from topologies.inventory import Inventory, NodeEntry

SHOWN_EVENTS = 8
COLUMNS = ("node", "role", "cores busy", "CPU", "network", "queue", "W", "heard ms ago", "instances")


def power_of(before: Reports, after: Reports, inventory: Inventory, pacing: Pacing,
             deployments: Sequence[Deployment]) -> WindowPower | None:
    """Return the power between two readings; None where watts are not known, or nobody reported twice."""
    if not pacing.calibrated:
        return None
    try:
        return power_between(before, after, inventory, Column(pacing.stack.value), pacing.assumptions,
                             services_of(deployments))
    except ExperimentError:
        return None


def top_content(before: Reports, after: Reports, inventory: Inventory, deployments: Sequence[Deployment],
                power: WindowPower | None, state: ControllerState | None,
                events: Sequence[ControllerEvent]) -> dict[str, Any]:
    """Return one look at a testbed, for JSON: counters of its agents before and after a while, and the controller's.

    What nobody tells is None: a silent node's load, watts unless at calibrated speed, and what only a resource
    controller knows where there is none.
    """
    on: dict[str, list[str]] = {}
    if state is None:
        for deployment in deployments:
            names = {i.number: i.name for i in deployment.application().instances}
            for place in deployment.places:
                on.setdefault(place.node, []).append(f"{deployment.name}/{names[place.number]}")
    heard = {node.name: node for node in state.nodes} if state is not None else {}
    watts = {node.name: node.active_watts for node in power.nodes} if power is not None else {}
    rows = []
    for entry in inventory.nodes:
        if entry.role not in ("host", "smartnic"):
            continue
        seen = heard.get(entry.name)
        now = after.get(entry.name)
        rows.append({"node": entry.name, "role": entry.role, "cores": entry.cores,
                     "busy_cores": _busy_cores(entry, before, after), "network": seen.network if seen else None,
                     "queue_frames": None if now is None else now.get("queue_depth", now.get("outstanding", 0)),
                     "active_watts": watts.get(entry.name),
                     "heard_ms": None if seen is None or seen.heard_s is None else 1e3 * seen.heard_s,
                     "instances": list(seen.instances) if seen else on.get(entry.name, []),
                     "backups": list(seen.backups) if seen else [], "free_mb": seen.free_mb if seen else None})
    return {"now_s": state.now_s if state is not None else max((c.get("now_ns", 0) for c in after.values()),
                                                               default=0) / 1e9,
            "wall_watts": power.wall_watts if power is not None else None, "nodes": rows,
            "orchestrator": None if state is None else "on" if state.automatic else "watch",
            "migrations": msgspec.to_builtins(state.under_way) if state is not None else [],
            "withdrawals": msgspec.to_builtins(state.withdrawals) if state is not None else [],
            "events": msgspec.to_builtins(list(events)[-SHOWN_EVENTS:])}


def _busy_cores(entry: NodeEntry, before: Reports, after: Reports) -> float | None:
    """Return how many cores were busy on average; None if the node did not report twice."""
    if not all("now_ns" in reports.get(entry.name, ()) for reports in (before, after)):
        return None
    time = core_time(before[entry.name], after[entry.name])
    return sum(time.busy_s.values()) / time.window_s if time.window_s > 0 else None


def top_views(content: Mapping[str, Any]) -> list[View]:
    """Return what `top_content` gave as tables for people."""
    rows: list[tuple[object, ...]] = [
            (row["node"], row["role"], _number(row["busy_cores"], "{:.2f}") + f" of {row['cores']}",
             _number(None if row["busy_cores"] is None else row["busy_cores"] / row["cores"], "{:.0%}"),
             _number(row["network"], "{:.0%}"), _number(row["queue_frames"], "{}"),
             _number(row["active_watts"], "{:.1f}"), _number(row["heard_ms"], "{:.0f}"), _shortened(row["instances"]))
            for row in content["nodes"]]
    columns: tuple[str, ...] = COLUMNS
    if any(row["backups"] for row in content["nodes"]):
        columns = (*COLUMNS, "backs up")
        rows = [(*shown, _shortened(row["backups"])) for shown, row in zip(rows, content["nodes"], strict=True)]
    said = {None: "off", "watch": "only watches", "on": "on"}[content["orchestrator"]]
    wall = "" if content["wall_watts"] is None else f", {content['wall_watts']:.1f} W at the wall"
    views = [View(f"{content['now_s'] * 1e3:,.0f} emulated ms{wall}; orchestrator {said}", columns, rows)]
    if content["migrations"]:
        views.append(View("Migrations under way", ("number", "instance", "from", "to", "state", "waits for"),
                          [(m["migration"], m["instance"], m["source"], m["destination"], m["state"],
                            ", ".join(m["unanswered"]) or "-") for m in content["migrations"]]))
    going = [w for w in content["withdrawals"] if w["state"] != GONE]
    if going:
        views.append(View("Withdrawals under way", ("application", "state", "waits for"),
                          [(w["name"], w["state"], ", ".join(w["owed"]) or "-") for w in going]))
    if content["events"]:
        views.append(View("Last events", ("ms", "what", "node", "instance", "migration", "detail"),
                          [event_row(event) for event in content["events"]]))
    return views


def event_row(event: Mapping[str, Any]) -> tuple[object, ...]:
    return (f"{event['now_s'] * 1e3:,.0f}", event["what"], event["node"] or "-", event["instance"] or "-",
            event["migration"] or "-", event["detail"])


def asked_of(resource: ControllerClient | None) -> tuple[ControllerState | None, list[ControllerEvent]]:
    """Return the state and the last events of a resource controller; nothing where there is none that answers."""
    if resource is None:
        return None, []
    try:
        return resource.state(), list(resource.events())[-SHOWN_EVENTS:]
    except MigrationError:
        return None, []


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _shortened(names: Sequence[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (f", ... ({len(names)})" if len(names) > shown else "") or "-"
