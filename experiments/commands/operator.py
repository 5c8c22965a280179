"""The command line's commands that look at, and act on, a testbed that another process runs."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.commands.shared import Json, application_names, emit, table

World = Annotated[str, typer.Argument(help="A running testbed's world; the only one unless named.")]


def top(world: World = "", every: Annotated[float, typer.Option(help="Real seconds between two looks, 0.2 to 60.")]
        = 1.0, looks: Annotated[int, typer.Option(help="How many; 0: until Ctrl-C.")] = 0, json: Json = False) -> None:
    """Show a running testbed's nodes, power, instances and migrations, live; --json: one object per look, on a line."""
    from experiments.commands.top_command import run_top

    run_top(world, every, looks, json)


def migrate(instance: Annotated[str, typer.Argument(help="APPLICATION/INSTANCE.")],
            node: Annotated[str, typer.Argument(help="The host or SmartNIC that it is to run on.")],
            world: Annotated[str, typer.Option(help="A running testbed's world; the only one unless named.")] = "",
            json: Json = False) -> None:
    """Move an instance of a running testbed to another node, and show how long each step took."""
    from experiments.commands.top_command import run_migrate

    content = run_migrate(world, instance, node)
    emit(content, json, lambda: table(f"{content['instance']} {content['outcome']}: it runs on {content['owner']}",
                                      ("step", "emulated ms"),
                                      [(step, f"{1e3 * took:.3f}") for step, took in content["steps_s"].items()]))
    raise typer.Exit(0 if content["outcome"] == "moved" else 1)


def withdraw(application: Annotated[str, typer.Argument(help="Its name.")],
             world: Annotated[str, typer.Option(help="A running testbed's world; the only one unless named.")] = "",
             json: Json = False) -> None:
    """Take an application from a running testbed: what is under way is ended, its clients are turned away."""
    from experiments.commands.top_command import run_withdraw

    content = run_withdraw(world, application)
    emit(content, json, lambda: typer.echo(content["said"]))


def deploy(application: Annotated[str, typer.Argument(help="A name (see apps) or a file of yours.",
                                                      autocompletion=application_names)],
           world: Annotated[str, typer.Option(help="A running testbed's world; the only one unless named.")] = "",
           json: Json = False) -> None:
    """Deploy one more application on a running testbed, placed in turn; nothing that runs is restarted."""
    from experiments.commands.top_command import run_deploy

    content = run_deploy(world, application)
    emit(content, json, lambda: table(f"{content['application']} is deployed", ("instance", "node"),
                                      list(content["instances"].items())))


def events(world: World = "", follow: Annotated[bool, typer.Option("--follow", "-f", help="And what comes.")] = False,
           ) -> None:
    """Print what a running testbed's orchestrator saw and did, as JSON lines."""
    from experiments.commands.top_command import run_events

    run_events(world, follow)
