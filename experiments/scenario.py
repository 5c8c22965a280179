"""A rack under load while parts of it fail, are healed, and instances move, at the times that a scenario's file says.

    scenario.yaml --> rack, load --> at each step: fail, heal or migrate --> timeline of throughput and latency

`./e3 run scenario --file FILE`; without a file, the one that is shipped. What went wrong without an excuse (a wrong
reply, no service at the end) makes it fail; what was lost is counted, and judged if the file says so. A reply that came
twice has one excuse: a node that lost its memory, and has no backup, does again what it is asked again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from controller.errors import MigrationError
from experiments.clients.client import ClientConfig, ClientResult
from experiments.clients.store_checker import CHECKER as CHECKING
from experiments.emulation.chosen_application import application_of, requests_of
from experiments.emulation.failures import FORGETFUL
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.scenario_file import CHECKER, Move, Planned, Scenario, plan_of, read_scenario
from experiments.views.figures import draw, stored
from experiments.views.scenario_timeline import Bin, Moment, Timeline, binned, with_quiet
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

SHIPPED = Path(__file__).parent / "scenarios" / "one-after-another.yaml"
WARM_UP_REAL_S = 1.0
DRAIN_REAL_S = 5.0
RESULT_LIMIT_S = 60.0
LAST_S = 1.0  # at the end, in which there must be service
NEVER = ("wrong", "foreign")
Rows = list[tuple[str, str, str, bool]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run a scenario; `quick` halves all its times. Returns {"holds", "rows", ...}; raises ExperimentError."""
    scenario = read_scenario(Path(options.file) if options.file else SHIPPED)
    if options.quick:
        scenario = hurried(scenario)
    inventory = inventory_of(cluster_named(scenario.cluster, clients=scenario.load.clients,
                                           controllers=scenario.controllers))
    application = application_of(scenario.application, scenario.shards, int(scenario.replicate))
    plan = plan_of(scenario, inventory, application)  # what cannot be is refused before anything is started
    deployment = deploy(application, place_in_turn(application, inventory, scenario.where), inventory,
                        scenario.replicate)
    result_run = Run("scenario")
    pacing = UNPACED if scenario.speed == "unpaced" else Pacing(scenario.speed, scenario.time_scale)
    with Testbed.start(TestbedOptions(scenario.cluster, clients=scenario.load.clients, label="scenario", pacing=pacing,
                                      deployments=(deployment,), orchestrator=scenario.orchestrator,
                                      controllers=scenario.controllers)) as bed:
        clients = [_client(bed, scenario, deployment, i) for i in range(1, scenario.load.clients + 1)]
        time.sleep(WARM_UP_REAL_S)
        zero_s = bed.clock.reader()()
        moments = [_done(bed, step, zero_s, say) for step in plan]
        _sleep_until(bed, zero_s + scenario.seconds)
        moments = [_settled(bed, moment, scenario.seconds, say) for moment in moments]
        for client in clients:
            client.stop()
        results = [client.result(RESULT_LIMIT_S) for client in clients]
    answered = np.concatenate([result.replies()[0] for result in results]) - zero_s
    latencies = np.concatenate([result.replies()[1] for result in results])
    timeline = Timeline(scenario.title, scenario.seconds, scenario.bin_s,
                        binned(answered, latencies, scenario.seconds, scenario.bin_s),
                        with_quiet(moments, answered[answered < scenario.seconds], scenario.seconds))
    rows = judge(scenario, timeline, results, forgetful=len(deployment.replicated) < len(deployment.places))
    result_run.write_data([msgspec.to_builtins(b) for b in timeline.bins])
    figures = {"timeline": stored("timeline", timeline)}
    draw(result_run.directory, figures)
    say(f"drawn in {result_run.directory / 'timeline.png'}")
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "figures": figures,
               "scenario": msgspec.to_builtins(scenario), "quick": options.quick,
               "moments": msgspec.to_builtins(timeline.moments), "clients": [result.content() for result in results]}
    result_run.finish(content)
    return content


def hurried(scenario: Scenario) -> Scenario:
    """Return `scenario` in half the time."""
    steps = tuple(msgspec.structs.replace(step, at_s=step.at_s / 2) for step in scenario.steps)
    return msgspec.structs.replace(scenario, seconds=scenario.seconds / 2, steps=steps)


def judge(scenario: Scenario, timeline: Timeline, results: list[ClientResult], forgetful: bool = True) -> Rows:
    """Return (what, measured, wanted, whether it is so). `forgetful`: there are instances that nobody backs up."""
    sums = {name: sum(getattr(result, name) for result in results)
            for name in ("sent", "answered", "lost", "errors", "late", "unfinished", "duplicated", *NEVER)}
    rows: Rows = [("requests answered", f"{sums['answered']} of {sums['sent']}", "> 0", sums["answered"] > 0)]
    lost = sums["lost"] + sums["unfinished"] + sums["errors"]
    most = scenario.most_lost
    rows.append(("requests lost, answered with an error, or not answered till the end", str(lost),
                 "" if most is None else f"<= {most}", most is None or lost <= most))
    bad = sum(sums[name] for name in NEVER)
    complaint = next((c for r in results if any(getattr(r, n) for n in NEVER) for c in r.complaints), "")
    rows.append(("replies that were wrong, or nobody's", f"{bad}{f' ({complaint})' if bad else ''}", "0", bad == 0))
    forgot = forgetful and any(m.verb == "fail" and m.part.split()[0] in FORGETFUL for m in timeline.moments)
    rows.append(("replies that came twice", str(sums["duplicated"]), "" if forgot else "0",
                 forgot or sums["duplicated"] == 0))
    for moment in timeline.moments:
        rows.append((f"{moment.at_s:g} s, {moment.words}: longest time without a reply till the next step",
                     f"{moment.quiet_s:.3f} s", "", True))
    last = _replies_from(timeline.bins, scenario.seconds - LAST_S)
    rows.append((f"replies in the last {LAST_S:g} s", str(last), "> 0", last > 0))
    return rows


def _replies_from(bins: tuple[Bin, ...], at_s: float) -> int:
    return sum(b.replies for b in bins if b.at_s >= at_s - 1e-9)


def _client(bed: Testbed, scenario: Scenario, deployment: Deployment, number: int) -> RunningClient:
    load, name = scenario.load, f"c{number}"
    workload, options = load.workload, {}
    if workload == CHECKER:
        workload, options = CHECKING, {"writer": number}
    elif not workload:
        workload = requests_of(scenario.application, deployment.application(), None, False).workload
    return bed.start_client(name, ClientConfig(
        bed.inventory.node(name).ip, number, deployment, workload, requests=0, flows=load.flows, window=load.window,
        payload_bytes=load.payload_bytes, seed=number, timeout_s=load.timeout_s, options=options,
        rate_rps=load.rate_rps, drain_real_s=DRAIN_REAL_S))


def _sleep_until(bed: Testbed, at_s: float) -> None:
    clock = bed.clock.reader()
    while (left_s := at_s - clock()) > 0:
        time.sleep(min(1.0, left_s * bed.clock.time_scale))


def _done(bed: Testbed, step: Planned, zero_s: float, say: Callable[[str], None]) -> Moment:
    _sleep_until(bed, zero_s + step.at_s)
    clock = bed.clock.reader()
    began_s = clock() - zero_s
    if isinstance(step.what, Move):
        return _move_begun(bed, step, step.what, began_s, say)
    failure = step.what
    if step.verb == "fail":
        bed.fail(failure.kind, *failure.names, share=failure.share)
    else:
        bed.heal(failure.kind, *failure.names)
    say(f"{began_s:.1f} s: {failure.said(mended=step.verb == 'heal')}")
    return Moment(step.at_s, began_s, clock() - zero_s, step.verb, step.words, failure.heal_words)


def _move_begun(bed: Testbed, step: Planned, move: Move, began_s: float, say: Callable[[str], None]) -> Moment:
    try:
        number = bed.asked().move(move.instance, move.node)
    except MigrationError as error:
        say(f"{began_s:.1f} s: {step.words} is refused: {error}")
        return Moment(step.at_s, began_s, began_s, step.verb, f"{step.words}, refused", move.instance)
    say(f"{began_s:.1f} s: {step.words} is migration {number}")
    return Moment(step.at_s, began_s, began_s, step.verb, step.words, move.instance, migration=number)


def _settled(bed: Testbed, moment: Moment, end_s: float, say: Callable[[str], None]) -> Moment:
    """Return `moment` with how its migration, if it is one, ended, and when."""
    if not moment.migration:
        return moment
    told = None
    with contextlib.suppress(MigrationError):
        lines = bed.asked().timelines(moment.migration - 1)
        told = next((line for line in lines if line.migration == moment.migration), None)
    if told is None:  # whoever knew is dead: a new leader knows what was decided, and no times
        outcome, took_s = "of which nobody has kept the times", 0.0
    elif not told.outcome:
        outcome, took_s = "under way till the end", end_s - moment.began_s
    else:
        outcome, took_s = told.outcome, told.steps_s.get("total", 0.0)
    say(f"migration {moment.migration}: {outcome}{f', on {told.owner}' if told and told.outcome else ''}")
    return msgspec.structs.replace(moment, ended_s=moment.began_s + took_s, words=f"{moment.words}, {outcome}")
