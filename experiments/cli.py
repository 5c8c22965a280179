"""The command line: `./e3 --help`."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from controller.errors import ControllerError
from experiments.commands.bench import bench
from experiments.commands.operator import deploy, events, migrate, top, withdraw
from experiments.commands.report import report
from experiments.commands.run import run
from experiments.commands.shared import (
    ClusterArgument,
    Datapath,
    Json,
    Nodes,
    Speed,
    TimeScale,
    application_names,
    emit,
    say,
    table,
)
from experiments.errors import ExperimentError
from microservices.errors import ServiceError
from nodes.errors import NodeError
from topologies.errors import TopologyError

ROOT = Path(__file__).resolve().parent.parent
EXPECTED_ERRORS = (ControllerError, ExperimentError, ServiceError, NodeError, TopologyError)

app = typer.Typer(name="e3", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
                  rich_markup_mode=None, help="A packet-level testbed of E3: microservices on SmartNIC servers.")
app.add_typer(bench, name="bench")


@app.command()
def demo(cluster: ClusterArgument = "type1x3",
         requests: Annotated[int, typer.Option(help="Requests in all, 1 to 10,000,000.")] = 12_000,
         clients: Annotated[int, typer.Option(help="Client nodes per rack, 1 to 64.")] = 1,
         where: Annotated[str, typer.Option(help="Where instances run: smartnic, host, or mixed.")] = "mixed",
         size: Annotated[int, typer.Option(help="Bytes per request, 64 to 8,000.")] = 512,
         app_: Annotated[str, typer.Option("--app", help="The application: a name (see apps) or a file of yours.",
                                            autocompletion=application_names)]
         = "nfv-fin",
         payloads: Annotated[str, typer.Option(help="A file with a request on each line, sent in turn.")] = "",
         seed: Annotated[int, typer.Option(help="What the requests' contents are drawn from.")] = 1,
         keep_captures: Annotated[bool, typer.Option(help="Keep them even if all is well.")] = False,
         speed: Speed = "calibrated", time_scale: TimeScale = None, datapath: Datapath = "netdev",
         nodes: Nodes = None, json: Json = False) -> None:
    """Bring a rack up, run an application on it, and prove from captured packets how they were routed."""
    from experiments.demo import DemoOptions, run_demo
    from experiments.demo_views import show_demo

    result = run_demo(DemoOptions(cluster, requests, clients, where, seed, size, keep_captures=keep_captures,
                                  speed=speed, time_scale=time_scale, datapath=datapath, app=app_,
                                  payloads=payloads), say)
    emit(result.content(), json, lambda: show_demo(result, speed, table, say))
    raise typer.Exit(0 if result.holds else 1)


@app.command()
def apps(name: Annotated[str, typer.Argument(help="One application: of Table 3, a microservice, or a file.",
                                             autocompletion=application_names)] = "",
         output: Annotated[Path | None, typer.Option("--output", "-o", help="Draw it: a .svg, .png or .pdf file.")]
         = None, json: Json = False) -> None:
    """List Table 3's applications beside the paper's numbers, or show one and draw it as a graph."""
    from experiments.emulation.chosen_application import application_of
    from experiments.errors import ExperimentError
    from experiments.views import application_views as views
    from microservices.applications import APPLICATIONS

    if not name:
        if output is not None:
            raise ExperimentError(f"which application is to be drawn in {output}? There are {', '.join(APPLICATIONS)}")
        listed = views.content_of([application_of(each) for each in APPLICATIONS])
        emit(listed, json, lambda: table("Applications (e3 apps NAME)", views.LIST_COLUMNS, views.list_rows(listed)))
        return
    application = application_of(name)
    content = views.detail_of(application)
    if output is not None:
        from experiments.views.application_plot import draw_application

        draw_application(application, output)
        content["file"] = str(output)

    def show() -> None:
        table(f"{application.name}: {content['nodes']} nodes, {content['backups']} of them backups",
              views.STAGE_COLUMNS, views.stage_rows(content))
        table(f"Channels: fan-out {content['fan_out']['average']:.3g} on average, {content['fan_out']['maximum']} at "
              "most", views.CHANNEL_COLUMNS, views.channel_rows(content))
        if output is not None:
            say(f"drawn in {output}")

    emit(content, json, show)


@app.command()
def profiles(names: Annotated[list[str] | None, typer.Argument(help="Microservices, also your own (FILE.py:CLASS); "
                                                               "without any, the sixteen of Table 1.")] = None,
             size: Annotated[int, typer.Option(help="Bytes per request, 0 to 8,000.")] = 512,
             json: Json = False) -> None:
    """Show what microservices cost in time and power on each node class, as Table 1 and our assumptions have it."""
    from experiments.views import profile_views as views

    content = views.profiles_of(names or (), size)

    def show() -> None:
        table(f"Core time per request of {size} bytes, and active power at the peak", views.COST_COLUMNS,
              views.cost_rows(content))
        table("On a SmartNIC", views.SMARTNIC_COLUMNS, views.smartnic_rows(content))

    emit(content, json, show)


@app.command()
def assumptions(json: Json = False) -> None:
    """Show every assumption behind speed and power: its default, its range, and the paper's words behind it."""
    from experiments.views import profile_views as views
    from microservices.assumptions import ASSUMPTIONS

    emit(ASSUMPTIONS, json, lambda: table("Assumptions", views.ASSUMPTION_COLUMNS, views.assumption_rows()))


@app.command("cli")
def cli_command(cluster: ClusterArgument = "type1x3",
                clients: Annotated[int, typer.Option(help="Client nodes per rack, 1 to 64.")] = 1,
                speed: Speed = "calibrated", time_scale: TimeScale = None, datapath: Datapath = "netdev",
                orchestrator: Annotated[str, typer.Option(help="watch: hears nodes and moves what you tell it to; on: "
                                                               "also what is overloaded; off.")] = "watch",
                controllers: Annotated[int, typer.Option(help="Nodes of the resource controller: 1 or 3.")] = 1,
                nodes: Nodes = None) -> None:
    """Bring a rack up with NFV-FIN on it, and type at Mininet's CLI with E3's verbs."""
    from experiments.emulation.pacing import Pacing
    from experiments.shell.interactive import TIME_SCALE, run_interactive

    usual = TIME_SCALE if speed == "calibrated" else 1.0
    pacing = Pacing(speed, usual if time_scale is None else time_scale)
    run_interactive(cluster, clients, pacing, datapath, orchestrator, controllers)


for operating in (top, deploy, withdraw, migrate, events, run, report):
    app.command()(operating)


@app.command()
def pcap(files: Annotated[list[Path], typer.Argument(help="Captures, or directories of them.")],
         json: Json = False) -> None:
    """Prove from captures how packets were routed."""
    from experiments.captures.pcap_routing import run

    proof = run(files)

    def show() -> None:
        table(f"{proof.packets} packets from {len(proof.captures)} captures", ("kind", "packets"), proof.kinds.items())
        if proof.checks:
            table("Routing proof", ("check", "verdict", "counts", "claim"), proof.rows())
            table("Paths that requests took", ("path", "requests"), proof.node_paths.items())
        for note in proof.notes:
            say(note)

    emit(proof.content(), json, show)
    raise typer.Exit(0 if proof.holds or not proof.checks else 1)


@app.command("list")
def list_command(json: Json = False) -> None:
    """List the experiments and the clusters that the paper measures."""
    from experiments.runs.registry import EXPERIMENTS
    from topologies.catalog import PAPER_CLUSTERS

    content = {"experiments": {name: e.sentence for name, e in EXPERIMENTS.items()}, "clusters": PAPER_CLUSTERS}

    def show() -> None:
        table("Experiments (e3 run NAME)", ("name", "what it shows"), content["experiments"].items())
        table("Clusters of the paper", ("name", "where"), PAPER_CLUSTERS.items())

    emit(content, json, show)


@app.command()
def draw(cluster: ClusterArgument = "type1x3",
         output: Annotated[Path | None, typer.Option("--output", "-o", help="A .svg, .png or .pdf file.")] = None,
         clients: Annotated[int, typer.Option(help="Client nodes per rack.")] = 1, nodes: Nodes = None,
         json: Json = False) -> None:
    """Draw a cluster: servers, SmartNICs, switches, links, addresses. Without -o: CLUSTER.svg in this directory."""
    from experiments.views.cluster_picture import picture_of
    from experiments.views.plot import save_picture
    from topologies.catalog import cluster_named
    from topologies.inventory import inventory_of

    picture = picture_of(inventory_of(cluster_named(cluster, clients=clients)))
    path = output or Path(re.sub(r"[^a-z0-9+]", "-", cluster.lower()) + ".svg")
    save_picture(picture, path)
    content = {"file": str(path), "title": picture.title, "abridged": list(picture.abridged)}
    emit(content, json, lambda: print("\n".join([f"{picture.title}, in {path}", *picture.abridged])))


@app.command("place")
def place_command(application: Annotated[str, typer.Argument(metavar="APP", help="A name (see apps) or a file.",
                                                              autocompletion=application_names)],
                  cluster: ClusterArgument = "type1x3",
                  algorithm: Annotated[str, typer.Option(help="hcm, annealing or ilp.")] = "hcm",
                  communication: Annotated[bool, typer.Option("--communication",
                                                              help="Put distance first in the cost.")] = False,
                  rps: Annotated[float, typer.Option(help="Requests/s to place for; 0: half of what the cluster could "
                                                          "serve at best, less what backups reserve.")] = 0.0,
                  shards: Annotated[int, typer.Option(help="Shards per stage, 1 to 256.")] = 12,
                  backups: Annotated[int, typer.Option(help="Backups of each shard, 0 to 7.")] = 1,
                  seed: Annotated[int, typer.Option(help="What annealing draws from.")] = 1,
                  time_limit: Annotated[float, typer.Option(help="Seconds that ilp may take.")] = 60.0,
                  plot: Annotated[Path | None, typer.Option(help="Draw it: a .svg, .png or .pdf file.")] = None,
                  nodes: Nodes = None, json: Json = False) -> None:
    """Place an application on a cluster: where everything runs, and what that is predicted to do."""
    from experiments.emulation.chosen_application import application_of
    from experiments.views import placement_views as views
    from topologies.catalog import cluster_named

    placement, state = views.placed_on(application_of(application, *views.size(shards, backups)),
                                       cluster_named(cluster), algorithm, communication, rps, seed, time_limit)
    content = views.content_of(placement, state, communication)
    if plot is not None:
        from experiments.views.placement_picture import picture_of_placement
        from experiments.views.placement_plot import save_placement

        save_placement(picture_of_placement(placement, state, communication), plot)
        content["file"] = str(plot)

    def show() -> None:
        table(f"{content['application']} on {content['cluster']} by {algorithm}", views.NODE_COLUMNS,
              views.node_rows(content))
        table("Predicted", views.FIGURE_COLUMNS, views.figure_rows(content))
        if plot is not None:
            say(f"drawn in {plot}")

    emit(content, json, show)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what this machine can do, and what follows from each lack."""
    from experiments.commands.doctor import doctor as look
    from experiments.commands.doctor import is_fit

    rows = look()
    emit([msgspec.to_builtins(row) for row in rows], json, lambda: table(
        "This machine", ("what", "found", "what follows", "what to do"),
        [(r.what, r.found, ("FATAL: " if r.fatal else "") + r.follows, r.mend) for r in rows]))
    raise typer.Exit(0 if is_fit(rows) else 1)


@app.command()
def clean(json: Json = False) -> None:
    """Remove what dead testbeds left on this machine, and nothing else."""
    from experiments.emulation.clean import clean as remove

    report = remove()
    emit(msgspec.to_builtins(report), json, lambda: print("\n".join(report.lines())))
    raise typer.Exit(0 if report.complete else 1)


@app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test_command(context: typer.Context) -> None:
    """Run the whole test suite: ruff, mypy and pytest. Further words go to pytest, in one process.

    Without any, tests that need no root run on all cores; then the others, which have the machine to themselves.
    """
    steps: list[tuple[str, list[str]]] = [("pytest", [*context.args])]
    if not context.args:
        steps = [("ruff", ["check", "."]), ("mypy", []),
                 ("pytest", ["--ignore=tests/root", "--numprocesses=auto", "--dist=loadscope"]),
                 ("pytest", ["tests/root"])]
    failed = 0
    for name, arguments in steps:
        say(f"{name} {' '.join(arguments)}".rstrip())
        status = subprocess.run([sys.executable, "-m", name, *arguments], cwd=ROOT, check=False).returncode
        if status and name != "pytest":
            raise typer.Exit(status)
        failed = failed or status
    raise typer.Exit(failed)


def _interrupted(number: int, _frame: object) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> None:
    """Run the command line: exit status 2 and one line for bad input or a machine that cannot."""
    logging.basicConfig(level=os.environ.get("E3_LOG", "WARNING"), format="e3: %(message)s")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)  # so that a testbed is stopped as on Ctrl-C
    try:
        sys.exit(app(prog_name="e3", standalone_mode=False))
    except typer.TyperException as error:
        said = error.format_message() if hasattr(error, "format_message") else str(error)
        if said.startswith("Usage:"):
            print(said)  # no command was given: this is the help
        else:
            say(said)
        sys.exit(2)
    except EXPECTED_ERRORS as error:
        say(str(error))
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted; everything it started is stopped")
        sys.exit(130)


if __name__ == "__main__":
    main()
