"""A controller node for test_raft_controller.py: a resource controller on the replicated journal, asked in JSON.

What it would send is in its answers; a controller that does not know whether an entry is written is thrown away.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from controller.errors import JournalError, MigrationError
from controller.migration_journal import decode_entries, encode_entry
from controller.raft_journal import RaftJournal
from controller.resource_controller import ResourceController
from experiments.emulation.first_placement import place_in_turn
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from nodes.transport import Sends
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

own, directory, *others = sys.argv[1:]
journal = RaftJournal(own, others, "a secret of this test", encode_entry, decode_entries, Path(directory))
inventory = inventory_of(cluster_named("type1x3"))
application = nfv_fin(shards=3)
deployment = deploy(application, place_in_turn(application, inventory), inventory)
controller: ResourceController | None = None


def answer_to(what: str, values: list[Any], out: Sends) -> dict[str, Any]:
    """Do what is asked; returns the answer, raises JournalError or MigrationError."""
    global controller
    if what == "status":
        return {"leads": journal.leads, "writes": journal.writes}
    if what == "take over":
        run = journal.take_over()
        controller = ResourceController(inventory, [deployment], journal, automatic=False)
        return {"run": run}
    if controller is None:
        raise JournalError("this controller does not decide")
    if what == "receive":
        controller.receive(bytes.fromhex(values[0]), bytes.fromhex(values[1]), values[2], out)
    elif what == "tick":
        controller.tick(values[0], out)
    elif what == "move":
        return {"number": controller.move(values[0], values[1], values[2], out)}
    else:
        names = {controller.where.name_of(key): node for key, node in controller.where.node_of.items()}
        return {"places": names, "under_way": len(controller.control.open), "term": controller.control.term,
                "boots": controller.control.boots}
    return {}


for line in sys.stdin:
    what, *values = json.loads(line)
    out: Sends = []
    try:
        answer = answer_to(what, values, out)
    except JournalError as error:
        controller, out, answer = None, [], {"error": str(error)}
    except MigrationError as error:
        answer = {"refused": str(error)}
    answer["out"] = [(send.ip.hex(), send.port, send.data.hex()) for send in out]
    answer["due"] = None if controller is None else controller.due()
    print(json.dumps(answer), flush=True)
journal.close()
