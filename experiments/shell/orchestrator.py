"""The interactive CLI's verbs for the orchestrator: look at the rack's load, move an instance, read what happened."""

from __future__ import annotations

import time

import msgspec

from experiments.emulation.choice import chosen
from experiments.emulation.chosen_application import application_of
from experiments.emulation.coming_and_going import placed_beside, said_of
from experiments.emulation.first_placement import shards_for
from experiments.errors import ExperimentError
from experiments.shell.top import asked_of, event_row, power_of, top_content, top_views
from experiments.shell.verbs import LookingVerbs, seconds_of, starting, words_of
from experiments.shell.views import View
from microservices.applications import APPLICATIONS

CLEAR_SCREEN = "\x1b[H\x1b[2J"
MIGRATION_LIMIT_S = 120.0  # real
STEP_COLUMNS = ("step", "emulated ms")


class OrchestratorVerbs(LookingVerbs):
    """Mixed into a cmd.Cmd, as LookingVerbs is."""

    def do_top(self, line: str) -> None:
        """Show the load, power and instances of every node, and migrations as they happen.
        Usage: top [SECONDS]

        A look every SECONDS real ones, 1 unless told otherwise, until Ctrl-C; one look where nobody types. Cores, CPU
        and queue are the agents' own counts, network shares and "heard" (in emulated ms) come from heartbeats."""
        seconds = seconds_of(words_of(line), "top")
        before = self.bed.counters()
        try:
            while True:
                time.sleep(seconds)
                after = self.bed.counters()
                state, events = asked_of(self.bed.resource)
                power = power_of(before, after, self.bed.inventory, self.bed.pacing, self.bed.deployments)
                content = top_content(before, after, self.bed.inventory, self.bed.deployments, power, state, events)
                before = after
                if self.interactive:
                    self.say(CLEAR_SCREEN)
                for view in top_views(content):
                    self.show(view)
                if not self.interactive:
                    return
        except KeyboardInterrupt as interrupt:
            if self.ends_session(interrupt):
                raise

    def do_migrate(self, line: str) -> None:
        """Move an instance to another node, with its state and without losing a request, and show how long it took.
        Usage: migrate INSTANCE NODE

        INSTANCE is APPLICATION/INSTANCE as `apps` shows it, or INSTANCE alone where only one has that name."""
        words = words_of(line)
        if len(words) != 2:
            raise ExperimentError("usage: migrate INSTANCE NODE; `apps` shows the instances")
        node = chosen(words[1], self.names("host", "smartnic"), "host or SmartNIC")
        self.bed.asked()
        told = self.bed.migrate(words[0], node, MIGRATION_LIMIT_S)
        self.say(f"{told.instance} {told.outcome}: it runs on {told.owner}; {told.state_bytes:,} bytes of state")
        self.show(View("", STEP_COLUMNS, [(step, f"{1e3 * took:.3f}") for step, took in told.steps_s.items()]))

    def complete_migrate(self, text: str, line: str, begin: int, _end: int) -> list[str]:
        if len(line[:begin].split()) > 1:
            return starting(text, self.names("host", "smartnic"))
        return starting(text, [f"{d.name}/{i.name}" for d in self.bed.deployments for i in d.application().instances])

    def do_deploy(self, line: str) -> None:
        """Deploy one more application on the running rack, placed in turn: shard i of stage k on server i + k.
        Usage: deploy APPLICATION

        APPLICATION is a name (`e3 apps` lists them) or a file of yours. Nothing that runs is restarted or moved."""
        words = words_of(line)
        if len(words) != 1:
            raise ExperimentError("usage: deploy APPLICATION; `e3 apps` lists those there are")
        application = application_of(words[0], shards_for(self.bed.inventory))
        self.bed.deploy(placed_beside(application, self.bed.inventory, self.bed.deployed()))
        self.say(f"{application.name} is deployed, in {len(self.bed.deployments[-1].places)} instances")

    def complete_deploy(self, text: str, *_: object) -> list[str]:
        return starting(text, [*APPLICATIONS])

    def do_withdraw(self, line: str) -> None:
        """Take an application from the running rack: requests under way are ended, its instances stop everywhere.
        Usage: withdraw APPLICATION

        Its clients are turned away, other applications notice nothing. `deploy` brings it back, with nothing."""
        words = words_of(line)
        if len(words) != 1:
            raise ExperimentError("usage: withdraw APPLICATION; `apps` shows those there are")
        self.say(said_of(self.bed.withdraw(words[0])))

    def complete_withdraw(self, text: str, *_: object) -> list[str]:
        return starting(text, [deployment.name for deployment in self.bed.deployments])

    def do_events(self, line: str) -> None:
        """Show what the orchestrator saw and did, the latest last.
        Usage: events [N | all] [json]

        The last 20 unless told otherwise. `json` prints one JSON object per line: sequence, now_s (emulated), what,
        node, instance, migration, detail."""
        words = words_of(line)
        as_json = words[-1:] == ["json"]
        count = words[:-1] if as_json else words
        if len(count) > 1 or not (count in ([], ["all"]) or (count[0].isascii() and count[0].isdigit())):
            raise ExperimentError(f"events {line.strip()}: events [N | all] [json]")
        found = list(self.bed.asked().events())
        if count != ["all"]:
            number = int(count[0][:9]) if count else 20
            found = found[len(found) - number:] if number < len(found) else found
        if as_json:
            for event in found:
                self.say(msgspec.json.encode(event).decode())
            return
        self.show(View("Events", ("ms", "what", "node", "instance", "migration", "detail"),
                       [event_row(msgspec.to_builtins(event)) for event in found], sentences=True))

    def complete_events(self, text: str, *_: object) -> list[str]:
        return starting(text, ["all", "json"])
