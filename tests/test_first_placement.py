"""Where the first placement puts instances."""

import pytest

from experiments.emulation.first_placement import place_in_turn
from microservices.applications import APPLICATIONS, application_named
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of


@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("where", ["smartnic", "mixed", "host"])
def test_sql_goes_to_hosts_and_all_else_where_it_is_sent(name, where) -> None:
    application, inventory = application_named(name, 3, 0), inventory_of(cluster_named("type1x3"))
    last = application.order()[-1]
    for number, node in place_in_turn(application, inventory, where).items():
        instance = application.instances[number]
        on_host = where == "host" or instance.service == "sql" or (where == "mixed" and instance.stage == last)
        assert inventory.node(node).role == ("host" if on_host else "smartnic")


def test_a_server_without_smartnics_runs_everything_on_its_host() -> None:
    application, inventory = application_named("nfv-fin", 2, 0), inventory_of(cluster_named("beefyx2"))
    assert {inventory.node(n).role for n in place_in_turn(application, inventory, "smartnic").values()} == {"host"}
