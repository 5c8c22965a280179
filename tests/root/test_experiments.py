"""Every experiment that takes seconds at its quick size must hold, on real packets.

Those that honour a time scale are tables and figures of many minutes even so: test_figures_live.py tries their parts.
Of failover, test_failover_live.py has one failure of each application, and test_raft_controller.py a leader that is
killed; scenario and ecmp-availability are half a minute each of what test_faults.py does. What needs no root is in
test_rootless_experiments.py. `./e3 run all --quick` runs them all.
"""

import pytest
from demos import demo_without_drops, why

from experiments.demo import DemoOptions
from experiments.runs.registry import EXPERIMENTS
from experiments.runs.run_options import RunOptions
from experiments.runs.run_plan import planned

TRIES = 3
ELSEWHERE = ("failover", "controller-failover", "ecmp-availability", "scenario")


def a_packet_was_lost(rows: list[tuple[str, str, str]]) -> bool:
    """Whether the routing proof misses packets: a busy machine drops one now and then, a wrong switch each time."""
    delivery = next((measured for what, measured, _ in rows if what == "check: delivery"), ", 0 lost")
    return ", 0 lost" not in delivery


@pytest.mark.parametrize("name", [
    name for name, e in EXPERIMENTS.items()
    if planned(name).needs_root and "time_scale" not in e.honours and name not in ELSEWHERE])
def test_the_experiment_holds(name: str) -> None:
    said: list[str] = []
    for _ in range(TRIES):
        outcome = EXPERIMENTS[name].run(RunOptions(quick=True), said.append)
        if outcome["holds"] or not a_packet_was_lost(outcome["rows"]):
            break
    assert outcome["holds"], (outcome["rows"], said)


@pytest.mark.parametrize(("cluster", "where"), [
    ("type2x2", "host"), ("beefyx2+type1x1", "mixed")])
def test_the_demo_answers_every_request_and_proves_the_routing(cluster: str, where: str) -> None:
    result = demo_without_drops(DemoOptions(cluster, requests=1500, clients=2, where=where))
    assert result.holds, why(result)
    assert result.proof.packets >= 1500 * 4


def test_a_node_limited_by_quota_still_answers() -> None:
    result = demo_without_drops(DemoOptions("type1x2", requests=300, speed="quota"))
    assert result.holds, why(result)
