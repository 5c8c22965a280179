"""The interactive CLI's verbs for packets: capture them, and prove from them how they were routed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.captures.capture import Capture
from experiments.captures.pcap_routing import run as prove
from experiments.emulation.choice import chosen
from experiments.errors import ExperimentError
from experiments.runs.results import Run
from experiments.shell.verbs import LookingVerbs, no_words, starting, words_of
from experiments.shell.views import View


@dataclass(frozen=True, slots=True)
class Capturing:
    """Captures under way; `run` is None where the user named the directory, `before` is what buckets had counted."""

    capture: Capture
    directory: Path
    run: Run | None
    before: dict[str, dict[str, dict[str, int]]]


class CapturingVerbs(LookingVerbs):
    """Mixed into a cmd.Cmd, as LookingVerbs is."""

    def __init__(self) -> None:
        self.capturing: Capturing | None = None

    def do_capture(self, line: str) -> None:
        """Capture packets, one pcap file per interface, or stop capturing.
        Usage: capture [INTERFACE | NODE | SWITCH]... [DIRECTORY]
               capture off

        A node or switch stands for all its interfaces; with no name, every switch port is captured, which is what
        `proof` needs to judge everything. A word with a slash is the directory for the files (default: a new one
        under results/capture). `capture off` stops and lists the files; `proof` stops and judges."""
        words = words_of(line)
        if words == ["off"]:
            self._report(self._stop_capture(), {})
            return
        if self.capturing:
            raise ExperimentError(f"capturing already, into {self.capturing.directory}; `capture off` ends it")
        folders = [word for word in words if "/" in word]
        if len(folders) > 1:
            raise ExperimentError(f"one directory is enough, not {len(folders)}: {', '.join(folders)}")
        interfaces = self._interfaces([word for word in words if "/" not in word])
        run = None if folders else Run("capture")
        directory = run.directory / "captures" if run else Path(folders[0])
        if directory.exists() and any(directory.glob("*.pcap")):
            raise ExperimentError(f"{directory} holds captures already; give an empty or new directory")
        try:
            capture = self.bed.capture(directory, interfaces)
        except OSError as error:
            raise ExperimentError(f"cannot capture into {directory}: {error.strerror}") from error
        self.capturing = Capturing(capture, directory, run, self.bed.bucket_packets())
        self.say(f"capturing at {', '.join(interfaces)} into {directory}")

    def _interfaces(self, words: list[str]) -> list[str]:
        inventory = self.bed.inventory
        if not words:
            return [p.interface for p in inventory.ports]
        places = self.bed.places()
        found: dict[str, None] = {}
        for word in words:
            chosen(word, [*places, *self.names(), *self.switches()], "interface, node or switch")
            own = [p.interface for p in inventory.ports if p.switch == word]
            own += [p.peer_interface for p in inventory.ports_of_node(word)]
            own += [end for link in inventory.pcie for name, end in (
                (link.smartnic, link.smartnic_interface), (link.host, link.host_interface)) if name == word]
            found |= dict.fromkeys(own or [word])
        return list(found)

    def _stop_capture(self) -> Capturing:
        """End the captures and write what the buckets have counted meanwhile; return what was under way."""
        if not self.capturing:
            raise ExperimentError("nothing is being captured; `capture` starts")
        ended, self.capturing = self.capturing, None
        ended.capture.stop()
        self.bed.write_bucket_packets(ended.directory, ended.before)
        return ended

    def _report(self, ended: Capturing, content: dict[str, Any]) -> None:
        """Write the manifest, which makes a run's directory a result, and say where the files are."""
        files = sorted(ended.directory.glob("*.pcap"))
        if ended.run:
            ended.run.finish({"cluster": self.bed.inventory.cluster, "files": [f.name for f in files], **content})
        size = sum(f.stat().st_size for f in files)
        self.say(f"{len(files)} captures, {size} bytes, are in {ended.directory}")

    def complete_capture(self, text: str, *_: object) -> list[str]:
        return starting(text, ["off", *self.bed.places(), *self.names(), *self.switches()])

    def do_proof(self, line: str) -> None:
        """Stop capturing and prove from the captures how packets were routed.
        Usage: proof

        Start with `capture`, make traffic, then `proof`. The files stay; `e3 pcap DIRECTORY` judges them again."""
        no_words(line, "proof")
        ended = self._stop_capture()
        proof = prove([ended.directory])
        self.show(View(f"Routing proof from {proof.packets} captured packets", ("check", "verdict", "counts", "claim"),
                       proof.rows(), sentences=True))
        if proof.node_paths:
            self.show(View("Paths that requests took", ("path", "requests"), list(proof.node_paths.items())))
        for note in proof.notes:
            self.say(note)
        self.say(f"the routing is {'proved' if proof.holds else 'NOT proved'}")
        self._report(ended, {"proof": proof.content()})
