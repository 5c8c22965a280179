"""Placing, removing, failing and placing again: constraints hold, nobody is moved without need, refusals say why."""

from __future__ import annotations

import itertools
import random

import pytest
from placement_cases import random_application, random_cluster, random_demand, random_state

from controller.errors import PlacementError
from controller.placement.constraints import ClusterState, UsedByOthers
from controller.placement.cost import SERVICE_FABRIC, WITH_COMMUNICATION, cost_of
from controller.placement.demand import Behaviour, Demand, demand_of
from controller.placement.placing import ALGORITHMS, Options, Placement, place, replace_lost
from microservices.application import Application, Channel, Stage
from microservices.applications import APPLICATIONS, application_named
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

QUICK = Options(time_limit_s=10.0)


def broken(placement: Placement, state: ClusterState) -> list[str]:
    """Return what is wrong with all that `state` holds, found in another way than the product does."""
    wrong, nodes = [], state.nodes
    totals: dict[int, list[int]] = {}
    for placed in state.placed.values():
        for need in placed.demand.needs:
            node = placed.where[need.number]
            share = need.shares[nodes.nodes[node].class_index]
            if share is None or node in need.forbidden or node in state.down:
                wrong.append(f"{need.name} may not run on {nodes.nodes[node].name}")
                continue
            totals[node] = [a + b for a, b in zip(totals.get(node, [0] * 5), share, strict=True)]
            if need.primary >= 0:
                other = nodes.nodes[placed.where[need.primary]].spot
                spot = nodes.nodes[node].spot
                if (spot.rack, spot.server) == (other.rack, other.server):
                    wrong.append(f"{need.name} is in its primary's fault domain")
    fresh = ClusterState(nodes)
    fresh._others = state._others
    for node, total in totals.items():
        fresh._refresh(node)
        if any(t > f for t, f in zip(total, fresh.free[node], strict=True)):
            wrong.append(f"{nodes.nodes[node].name} is overcommitted")
    return wrong


def snapshot(state: ClusterState) -> tuple[object, ...]:
    return [*state.free], [*state.weight], {k: (id(p.demand), dict(p.where)) for k, p in state.placed.items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("weights", [SERVICE_FABRIC, WITH_COMMUNICATION], ids=["apart", "near"])
def test_constraints_hold_whatever_comes_goes_and_fails(algorithm: str, weights) -> None:
    options = Options(weights, time_limit_s=2.0)
    placed_at_all = refused = 0
    for seed in range(40 if algorithm != "ilp" else 20):
        rng = random.Random(seed)
        state = random_state(rng, random_cluster(rng, 2, 3))
        for number in range(4):
            demand = random_demand(rng, state, random_application(rng, 3, 3, number=number))
            before = snapshot(state)
            try:
                placement = place(demand, state, algorithm, options)
            except PlacementError as error:
                refused += 1
                assert demand.name in str(error) and snapshot(state) == before, (seed, error)
                continue
            placed_at_all += 1
            assert not broken(placement, state), seed
            if rng.random() < 0.3:
                state.remove(demand.name)
                assert snapshot(state) == before, seed
    assert placed_at_all > 20 and refused > 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_of_the_paper_is_placed_on_type1x3(algorithm: str, name: str) -> None:
    cluster = cluster_named("type1x3")
    state = ClusterState(cluster)
    application = application_named(name, 6, 1)
    placement = place(demand_of(application, 1000.0, state.nodes), state, algorithm, QUICK)
    assert not broken(placement, state)
    names = placement.node_names(state)
    deployed = deploy(application, names, inventory_of(cluster))
    for instance in application.instances:
        if not instance.backup:
            assert deployed.place(instance.number).node == names[instance.number]
        if instance.service == "sql":
            assert names[instance.number].endswith("h")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_applications_after_each_other_get_feasible_and_different_places(algorithm: str) -> None:
    state = ClusterState(cluster_named("type1x3"))
    first, second = (demand_of(application_named(name, 3, 0), 1_000_000.0, state.nodes)
                     for name in ("nfv-fin", "nfv-din"))
    alone = place(second, ClusterState(state.nodes), algorithm, QUICK).where
    one, two = place(first, state, algorithm, QUICK), place(second, state, algorithm, QUICK)
    assert not broken(one, state) and not broken(two, state)
    assert two.where != alone  # it makes room for what is there


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_after_a_failure_only_what_was_lost_moves(algorithm: str) -> None:
    state = ClusterState(cluster_named("type2x4"))
    for name in ("nfv-fin", "iot-dh"):
        place(demand_of(application_named(name, 6, 1), 20_000.0, state.nodes), state, algorithm, QUICK)
    before = {key: dict(p.where) for key, p in state.placed.items()}
    lost = set(state.fail("s1h"))
    assert lost == {"s1n1", "s1n2", "s1n3", "s1n4", "s1h"}  # one power supply
    changed = replace_lost(state, algorithm, QUICK)
    assert changed
    for key, placement in changed.items():
        assert not broken(placement, state)
        for n, node in before[key].items():
            moved = placement.where[n] != node
            assert moved == (node in state.down) == (n in placement.new)
    assert replace_lost(state, algorithm, QUICK) == {}
    state.heal("s1h")
    assert state.fits(next(iter(state.placed.values())).demand.needs[0], state.nodes.node("s1h").index)


def test_what_cannot_be_placed_anew_stays_noted_where_it_was() -> None:
    state = ClusterState(cluster_named("type1x1"))
    placed = place(demand_of(application_named("sql", 2, 0), 10.0, state.nodes), state)
    before = snapshot(state)
    state.fail("s1h")
    with pytest.raises(PlacementError, match="failed nodes"):
        replace_lost(state)
    state.heal("s1h")
    state.heal("s1n1")
    assert snapshot(state) == before and state.placed["sql"].where == placed.where


def chain(count: int) -> Application:
    stages = tuple(Stage(f"s{k}", "count") for k in range(count))
    return Application("chain", 1, stages, tuple(Channel(f"s{k}", f"s{k + 1}") for k in range(count - 1)))


def feasible_answers(demand: Demand, state: ClusterState) -> list[dict[int, int]]:
    """Return every placement that keeps all constraints, by trying all of them."""
    found, nodes = [], state.nodes
    choices = [[n for n in range(len(nodes)) if state.fits(need, n)] for need in demand.needs]
    for chosen in itertools.product(*choices):
        where = dict(enumerate(chosen))
        taken: dict[int, list[int]] = {}
        for need in demand.needs:
            node = where[need.number]
            share = need.shares[nodes.class_of[node]]
            taken[node] = [a + b for a, b in zip(taken.get(node, [0] * 5), share, strict=True)]
        fits = all(t <= f for node, total in taken.items() for t, f in zip(total, state.free[node], strict=True))
        apart = all(nodes.server_of[where[need.primary]] != nodes.server_of[where[need.number]]
                    for need in demand.needs if need.primary >= 0)
        if fits and apart:
            found.append(where)
    return found


def test_where_one_answer_is_feasible_all_three_give_it() -> None:
    """Each instance is forbidden all nodes but the one; what is left of them is just enough."""
    unique = 0
    for seed in range(60):
        rng = random.Random(seed)
        state = ClusterState(cluster_named(rng.choice(("type1x2", "type2x1", "beefyx2+type1x1"))))
        names = [n.name for n in state.nodes.nodes]
        application = chain(rng.randint(2, 4))
        only = {s.name: rng.choice(names) for s in application.stages}
        demand = demand_of(application, rng.random() * 3e5, state.nodes,
                           forbidden={s: [n for n in names if n != one] for s, one in only.items()})
        answers = feasible_answers(demand, state)
        if len(answers) != 1:
            continue
        unique += 1
        for algorithm in ALGORITHMS:
            assert place(demand, ClusterState(state.nodes), algorithm, QUICK).where == answers[0], (seed, algorithm)
    assert unique > 40


def test_where_room_leaves_one_answer_the_program_finds_it_and_the_others_do_or_refuse() -> None:
    """Memory that fits one way only: a puzzle, which greed or chance need not solve; they must not answer wrongly."""
    unique, found = 0, dict.fromkeys(ALGORITHMS, 0)
    for seed in range(40):
        rng = random.Random(seed)
        state = ClusterState(cluster_named("type1x2"))
        sizes = [rng.randint(40, 400) for _ in range(5)]
        homes = [rng.randrange(4) for _ in sizes]
        for node in state.nodes.nodes:
            left = sum(size for size, home in zip(sizes, homes, strict=True) if home == node.index)
            memory = state.nodes.classes[node.class_index].memory_mb
            state.report(node.name, others=UsedByOthers(memory_mb=memory - left - 1))
        behaviours = {f"s{k}": Behaviour(memory_mb=float(size)) for k, size in enumerate(sizes)}
        demand = demand_of(chain(5), 100.0, state.nodes, behaviours=behaviours)
        answers = feasible_answers(demand, state)
        if len(answers) != 1:
            continue
        unique += 1
        for algorithm in ALGORITHMS:
            try:
                assert place(demand, state, algorithm, QUICK).where == answers[0], (seed, algorithm)
                found[algorithm] += 1
                state.remove("chain")
            except PlacementError as error:
                assert "memory" in str(error)
    assert found["ilp"] == unique >= 10 and found["annealing"] > unique / 2 and found["hcm"] > 0, (unique, found)


@pytest.mark.parametrize("weights", [SERVICE_FABRIC, WITH_COMMUNICATION], ids=["apart", "near"])
@pytest.mark.parametrize("backups", [0, 1])
def test_the_programs_optimum_is_that_of_trying_all(weights, backups: int) -> None:
    compared = 0
    for seed in range(40):
        rng = random.Random(1000 * backups + seed)
        cluster = cluster_named(rng.choice(("type1x2", "type2:2x1+type1x1", "type1x1/2")))
        state = ClusterState(cluster)
        for node in state.nodes.nodes:
            state.weight[node.index] = rng.choice((0, 0, 1, 3))
            if rng.random() < 0.3:
                state.report(node.name, others=UsedByOthers(cpu_cores=8.0))
        services = [rng.choice(("count", "spike", "kvs", "top_ranker")) for _ in range(2 + (not backups))]
        stages = tuple(Stage(f"s{k}", s, rng.randint(1, 2) if not backups else 1 + (k == 0), backups)
                       for k, s in enumerate(services))
        application = Application("small", 1, stages, tuple(Channel("s0", f"s{k}", answers=k == 1)
                                                            for k in range(1, len(stages))))
        demand = demand_of(application, rng.choice((1e2, 1e4, 1e5)), state.nodes)
        if len(demand.needs) > 6:
            continue
        answers = feasible_answers(demand, state)
        if not answers:
            continue
        compared += 1
        least = min(cost_of(demand, where, state.nodes, state.weight, weights).total for where in answers)
        before = [*state.weight]
        placement = place(demand, state, "ilp", Options(weights, time_limit_s=30.0))
        found = cost_of(demand, placement.where, state.nodes, before, weights).total
        assert found == pytest.approx(least, abs=1e-4), (seed, placement.notes)
        assert placement.notes["ended"] == "optimal" and placement.notes["bound"] == pytest.approx(least, abs=1e-3)
        state.remove("small")
        near = place(demand, state, "annealing", Options(weights))
        assert cost_of(demand, near.where, state.nodes, before, weights).total >= least - 1e-6
    assert compared > 15


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("behaviour", "rps", "constraint"), [
    (Behaviour(memory_mb=1e6), 1.0, "memory"),
    (Behaviour(disk_mb=1e9), 1.0, "disk"),
    (Behaviour(execution_s={"xeon": 1.0, "cnmips": 1.0}), 100.0, "CPU"),
    (Behaviour(execution_s={"xeon": 0.0, "cnmips": 0.0}, request_bytes=8000), 1e7, "network"),
    (Behaviour(busiest_hour=1000.0, execution_s={"xeon": 1e-4, "cnmips": 1e-4}), 1000.0, "CPU")])
def test_a_refusal_names_the_tightest_constraint_with_need_and_limit(algorithm, behaviour, rps, constraint) -> None:
    state = ClusterState(cluster_named("type1x2"))
    before = snapshot(state)
    demand = demand_of(chain(1), rps, state.nodes, behaviours={"s0": behaviour})
    with pytest.raises(PlacementError, match=rf"chain does not fit: s0-1 .*constraint is {constraint}.*needs"):
        place(demand, state, algorithm, QUICK)
    assert snapshot(state) == before


def test_refusals_name_what_is_no_resource_too() -> None:
    state = ClusterState(cluster_named("type1x1"))
    with pytest.raises(PlacementError, match="fault domains"):
        place(demand_of(application_named("count", 1, 1), 1.0, state.nodes), state)
    with pytest.raises(PlacementError, match="forbidden nodes"):
        place(demand_of(chain(1), 1.0, state.nodes, forbidden={"s0": ["s1n1", "s1h"]}), state)
    state.fail("s1h")
    with pytest.raises(PlacementError, match="failed nodes"):
        place(demand_of(chain(1), 1.0, state.nodes), state)


def test_requests_outstanding_at_a_node_keep_more_away_from_it() -> None:
    state = ClusterState(cluster_named("type1x2"))
    state.report("s1n1", outstanding=12 * 64)
    assert place(demand_of(chain(2), 1e5, state.nodes), state).node_names(state) == {0: "s1h", 1: "s1h"}


def test_overload_is_accepted_on_demand_for_rates_but_never_for_memory() -> None:
    state = ClusterState(cluster_named("type1x2"))
    slow = Behaviour(execution_s={"xeon": 1.0, "cnmips": 1.0})
    placement = place(demand_of(chain(1), 100.0, state.nodes, behaviours={"s0": slow}), state,
                      options=Options(overload=True))
    assert placement.overcommitted and "CPU of s1n1: 90.4 cores more than its 9.6" in placement.overcommitted[0].words
    big = Behaviour(memory_mb=1e6)
    with pytest.raises(PlacementError, match="memory"):
        place(demand_of(Application("big", 2, (Stage("s0", "count"),), ()), 1.0, state.nodes, behaviours={"s0": big}),
              state, options=Options(overload=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("weights", [SERVICE_FABRIC, WITH_COMMUNICATION], ids=["apart", "near"])
def test_the_same_question_and_seed_get_the_same_answer(algorithm, weights) -> None:
    def answer() -> dict[int, str]:
        state = ClusterState(cluster_named("type1x3"))
        demand = demand_of(application_named("rta-ptc", 2, 0), 2000.0, state.nodes)
        return place(demand, state, algorithm, Options(weights, seed=5, time_limit_s=60.0)).node_names(state)
    assert answer() == answer()


def test_wrong_questions_are_refused_with_what_there_is() -> None:
    state = ClusterState(cluster_named("type1x1"))
    demand = demand_of(chain(1), 1.0, state.nodes)
    with pytest.raises(PlacementError, match=r"magic.*hcm, annealing, ilp"):
        place(demand, state, "magic")
    place(demand, state)
    with pytest.raises(PlacementError, match="placed already"):
        place(demand, state)
    with pytest.raises(PlacementError, match="no application 'other'"):
        state.remove("other")
    with pytest.raises(PlacementError, match="no compute node 's9h'"):
        state.fail("s9h")
    with pytest.raises(PlacementError, match="no stage 'nine'"):
        demand_of(chain(1), 1.0, state.nodes, behaviours={"nine": Behaviour()})
    with pytest.raises(PlacementError, match="-1"):
        demand_of(chain(1), -1.0, state.nodes)
    with pytest.raises(PlacementError, match="cannot be pinned"):
        demand_of(application_named("sql", 1, 0), 1.0, state.nodes, behaviours={"sql": Behaviour(pin="smartnic")})
    with pytest.raises(PlacementError, match="must run on a smartnic"):
        demand_of(chain(1), 1.0, ClusterState(cluster_named("beefyx1")).nodes,
                  behaviours={"s0": Behaviour(pin="smartnic")})
