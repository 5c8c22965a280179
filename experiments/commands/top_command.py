"""What an operator sees and does of a testbed that another process runs: top, deploy, withdraw, migrate, events."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec

from controller.control_client import ControllerClient
from experiments.emulation.bed_facts import chosen_world, facts_in
from experiments.emulation.chosen_application import application_of
from experiments.emulation.coming_and_going import placed_beside, said_of, tell, withdrawn
from experiments.emulation.control_plane import ControlPlane
from experiments.emulation.first_placement import shards_for
from experiments.emulation.orchestrating import migrated
from experiments.errors import ExperimentError
from experiments.shell.top import asked_of, power_of, top_content, top_views
from experiments.shell.views import rendered
from topologies.inventory import Inventory

CLEAR_SCREEN = "\x1b[H\x1b[2J"
WIDTH = 150
LEAST_S, MOST_S = 0.2, 60.0
MIGRATION_LIMIT_S = 120.0
FOLLOW_S = 0.2


def run_top(world: str, every_s: float, looks: int, as_json: bool) -> None:
    """Print a look at a running testbed every `every_s` real seconds, `looks` times or till Ctrl-C.

    Raises ExperimentError if there is no such testbed.
    """
    if not LEAST_S <= every_s <= MOST_S or looks < 0:
        raise ExperimentError(f"{looks} looks, one every {every_s:g} s: the limits are 0, and {LEAST_S:g} to "
                              f"{MOST_S:g} s")
    run_dir = chosen_world(world)
    inventory = Inventory.from_json((run_dir / "inventory.json").read_bytes())
    facts = facts_in(run_dir)
    nodes = [node for node in inventory.nodes if node.role in ("host", "smartnic")]
    plane = ControlPlane(facts.controller_pid, inventory.node(facts.controller).ip)
    resource = ControllerClient(run_dir) if ControllerClient(run_dir).stands else None
    live = sys.stdout.isatty() and not as_json
    try:
        before, seen = plane.counters(nodes), 0
        while not looks or seen < looks:
            time.sleep(every_s)
            after, facts = plane.counters(nodes), facts_in(run_dir)
            state, events = asked_of(resource)
            power = power_of(before, after, inventory, facts.pacing, facts.deployments)
            content = top_content(before, after, inventory, facts.deployments, power, state, events)
            before, seen = after, seen + 1
            if as_json:
                sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
            else:
                sys.stdout.write((CLEAR_SCREEN if live else "")
                                 + "".join(rendered(view, WIDTH) for view in top_views(content)))
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        if interrupt.args:
            raise
    finally:
        plane.close()


def run_migrate(world: str, instance: str, node: str) -> dict[str, Any]:
    """Move an instance of a running testbed; return how it went. Raises MigrationError or ExperimentError."""
    told = migrated(ControllerClient(chosen_world(world)), instance, node, MIGRATION_LIMIT_S)
    content: dict[str, Any] = msgspec.to_builtins(told)
    return content


def run_withdraw(world: str, application: str) -> dict[str, Any]:
    """Take an application from a running testbed; return how that ended. Raises MigrationError or ExperimentError."""
    run_dir = chosen_world(world)
    state = withdrawn(ControllerClient(run_dir), application, facts_in(run_dir).pacing.time_scale)
    content: dict[str, Any] = msgspec.to_builtins(state)
    return {**content, "said": said_of(state)}


def run_deploy(world: str, name: str) -> dict[str, Any]:
    """Deploy one more application on a running testbed, on all nodes that answer; return where its instances are.

    Raises ExperimentError, MigrationError or ApplicationError.
    """
    run_dir = chosen_world(world)
    inventory = Inventory.from_json((run_dir / "inventory.json").read_bytes())
    facts, resource = facts_in(run_dir), ControllerClient(run_dir)
    if not resource.stands:
        raise ExperimentError(f"the orchestrator of {run_dir.name} is off: who owns that testbed must deploy on it")
    deployment = placed_beside(application_of(name, shards_for(inventory)), inventory, resource.deployments())
    plane = ControlPlane(facts.controller_pid, inventory.node(facts.controller).ip)
    try:
        living = plane.counters([node for node in inventory.nodes if node.role in ("host", "smartnic")])
        deployment = tell(plane, map(inventory.node, living), deployment, resource)
    finally:
        plane.close()
    names = {one.number: one.name for one in deployment.application().instances}
    return {"application": deployment.name,
            "instances": {names[place.number]: place.node for place in deployment.places}}


def run_events(world: str, follow: bool) -> None:
    """Print the events of a running testbed's resource controller as JSON lines, and those that come if `follow`."""
    resource, after = ControllerClient(chosen_world(world)), 0
    try:
        while True:
            for event in resource.events(after):
                sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
                after = event.sequence
            sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_S)
    except KeyboardInterrupt as interrupt:
        if interrupt.args:
            raise
