"""The interactive CLI's verbs that break and mend, and tell how the switch notices."""

from __future__ import annotations

import time

from experiments.emulation.choice import chosen
from experiments.emulation.failures import KINDS, Failure, linked_to, part_of, share_of
from experiments.errors import ExperimentError
from experiments.shell import views
from experiments.shell.verbs import LookingVerbs, starting, words_of
from experiments.shell.views import ALIVE, View

SWITCH_SEES_WITHIN_S = 15.0  # LACP with fast timers needs up to 3 s to notice, and about as long to come back
ALL = "all"
RUNS_WITHIN_S = 0.3  # emulated: heartbeats tell of a new run, and commands repeat
UNSEEN = ("tor", "controller", "loss", "partition")  # which no port's state tells of


class FailingVerbs(LookingVerbs):
    """Mixed into a cmd.Cmd, as LookingVerbs is."""

    def do_fail(self, line: str) -> None:
        """Break something, and see how the switch notices; without words: show what is broken.
        Usage: fail | fail KIND [NAME]... [SHARE]

        link NODE | SWITCH SWITCH   the cable between NODE and the ToR, or between two switches, is pulled
        pcie SMARTNIC       the PCIe link between SMARTNIC and its host is gone
        smartnic SMARTNIC   it loses its power: its agent ends, both its links lose carrier
        crash NODE          the agent ends and its links stay up, which only LACP can notice, within 3 s
        hang NODE           the agent stops (SIGSTOP), its links stay up; healed, it goes on with all that it had
        host HOST           the host's system crashes; its SmartNICs go on
        server HOST         the server loses its power, with all its SmartNICs
        tor                 the app that programs the switches is killed; they forward as they were told
        controller [NODE]   the resource controller is killed; of three, the leader, or that of NODE
        loss NODE SHARE | SWITCH SWITCH SHARE   the link loses a share of all frames, each way: 0.02 or 2%
        partition NODE...   the network falls in two: the NODEs named, and everybody else"""
        words = words_of(line)
        if not words:
            self._show_broken()
            return
        kind = chosen(words[0], list(KINDS), "kind of failure")
        share, names = 0.0, words[1:]
        if KINDS[kind].takes_share:
            if not 3 <= len(words) <= (4 if KINDS[kind].is_link else 3):
                raise ExperimentError(f"usage: fail {kind} {KINDS[kind].usage}")
            share, names = share_of(words[-1]), words[1:-1]
        self.bed.fail(kind, *names, share=share)
        failure = next(reversed(self.bed.broken))
        self.say(failure.said())
        self._watch(failure, alive=False)

    def do_heal(self, line: str) -> None:
        """Mend what `fail` broke, and see when the switch uses it again.
        Usage: heal KIND [NAME]... | heal all

        What lost its power or crashed comes back with an empty state: its instances start anew. `heal all` mends
        everything, the latest first."""
        words = words_of(line)
        if words == [ALL]:
            for failure in reversed(list(self.bed.broken)):
                self._heal(failure)
            return
        if not words:
            raise ExperimentError("usage: heal KIND [NAME]... | heal all; `fail` shows what is broken")
        self._heal(part_of(self.bed.inventory, words[0], words[1:]))

    def _heal(self, part: Failure) -> None:
        failure = next((f for f in self.bed.broken if f.same_part(part)), part)
        self.bed.heal(part.kind, *part.names)
        self.say(failure.said(mended=True))
        self._watch(failure, alive=True)

    def _show_broken(self) -> None:
        rows = [(failure.words, failure.said(), f"heal {failure.heal_words}") for failure in self.bed.broken]
        self.show(View("Broken", ("failure", "what is so", "mended by"), rows))

    # -- what the switch and the agents say of it --------------------------------------------------------------

    def _depends_on(self, failure: Failure) -> list[str]:
        """Return the switch ports whose state tells of `failure`."""
        inventory, kind = self.bed.inventory, failure.kind
        if kind in UNSEEN:
            return []
        name = failure.names[0]
        if kind in ("host", "server"):
            return [p.interface for p in inventory.ports_of_server(inventory.node(name))]
        if kind in ("crash", "hang") and inventory.node(name).role == "host":
            return []
        return [p.interface for p in inventory.ports if name in (p.peer, p.interface, p.peer_interface)]

    def _watch(self, failure: Failure, alive: bool) -> None:
        """Wait till the switch sees what happened, and say how long that took."""
        ports = self._depends_on(failure)
        start = time.monotonic()
        if not ports:
            if failure.kind not in UNSEEN:
                self.say("no port of a switch depends on it: groups stay as they are")
                if alive:
                    self._await_answers(failure, start)
            return
        while time.monotonic() - start < SWITCH_SEES_WITHIN_S:
            states = self.liveness()
            took_s = time.monotonic() - start
            if all((states.get(port) == ALIVE) is alive for port in ports):
                for port in ports:
                    self.say(f"after {took_s:.1f} s the switch sees {port} {states[port]}")
                if alive:
                    self._await_answers(failure, start)
                return
            time.sleep(0.05)
        self.say(f"after {SWITCH_SEES_WITHIN_S:g} s the switch still sees "
                 + ", ".join(f"{port} {states.get(port, views.UNKNOWN)}" for port in ports))

    def _await_answers(self, failure: Failure, start: float) -> None:
        """Wait till the agents whose way leads over what failed answer again, and say how long that took."""
        name, inventory = failure.names[0], self.bed.inventory
        if name not in self.names("host", "smartnic"):
            return
        entry = inventory.node(name)
        silent = {name, inventory.host_of(entry).name}
        if failure.kind == "server":
            silent |= {nic.name for nic in inventory.smartnics_of(entry)}
        concerned = sorted(silent)
        while silent and time.monotonic() - start < SWITCH_SEES_WITHIN_S:
            answered = self.bed.counters(*silent).keys()
            for node in sorted(answered):
                self.say(f"after {time.monotonic() - start:.1f} s {node} answers")
            silent -= answered
        if silent:
            self.say(f"{' and '.join(sorted(silent))} did not answer within {SWITCH_SEES_WITHIN_S:g} s")
            return
        limit_s = max(SWITCH_SEES_WITHIN_S, RUNS_WITHIN_S * self.bed.pacing.time_scale)
        while (lacking := self._lacking(concerned)) and time.monotonic() - start < limit_s:
            time.sleep(0.1)
        if self.bed.resource is not None:
            self.say(f"after {time.monotonic() - start:.1f} s "
                     + (f"{', '.join(lacking)} still cannot serve" if lacking else "all that belongs there runs"))

    def _lacking(self, nodes: list[str]) -> list[str]:
        """Return what belongs on `nodes` and does not run there, or has neighbours that have not been told yet.

        Nothing while no controller can be asked.
        """
        if self.bed.resource is None or not self.bed.can_decide():
            return []
        told = {m.instance for m in self.bed.resource.state().under_way}
        return sorted(told.union(*(self.bed.not_running_on(node) for node in nodes)))

    def complete_fail(self, text: str, line: str, begin: int, _end: int) -> list[str]:
        before = line[:begin].split()
        if len(before) == 1:
            return starting(text, list(KINDS))
        kind = KINDS.get(before[1])
        if kind is not None and kind.is_link and len(before) == 3 and before[2] in self.switches():
            return starting(text, linked_to(self.bed.inventory, before[2]))
        if kind is None or len(before) - 2 >= kind.most:
            return []
        return starting(text, [name for name in kind.names(self.bed.inventory) if name not in before])

    def complete_heal(self, text: str, line: str, begin: int, _end: int) -> list[str]:
        """Offer what is broken, word by word."""
        before = line[:begin].split()[1:]
        broken = [failure.heal_words.split() for failure in self.bed.broken]
        offered = [words[len(before)] for words in broken if words[:len(before)] == before and len(words) > len(before)]
        return starting(text, list(dict.fromkeys(offered + ([ALL] if not before else []))))
