"""A testbed under load in a process of its own: says "ready", and its client's result when told to stop.

    python -m experiments.load_world CLUSTER      one line of JSON when ready; at the end of its input, another
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from experiments.clients.client import ClientConfig
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RESULT_TIMEOUT_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description="a testbed under load until its input ends")
    parser.add_argument("cluster")
    cluster = parser.parse_args().cluster
    inventory = inventory_of(cluster_named(cluster))
    application = nfv_fin(shards=len(inventory.of_role("smartnic")))
    deployment = deploy(application, place_in_turn(application, inventory), inventory)
    with Testbed.start(TestbedOptions(cluster, label="load", deployments=(deployment,))) as bed:
        client = bed.start_client("c1", ClientConfig(inventory.node("c1").ip, 1, deployment, application.name,
                                                     requests=0, flows=4, window=2))
        _tell({"world": bed.world.id})
        sys.stdin.read()
        client.stop()
        _tell(client.result(RESULT_TIMEOUT_S).content())


def _tell(content: object) -> None:
    sys.stdout.write(msgspec.json.encode(content).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
