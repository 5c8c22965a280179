"""The leader of three controllers is cut off from the other two: it decides nothing, and they go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import msgspec

from controller.errors import MigrationError
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError

SILENT_WITHIN_S = 15.0
LOOK_AGAIN_S = 0.02


class Minority(msgspec.Struct, frozen=True):
    """One leader `old` that was cut off. `refused`: what it said when it was asked to move something.

    `silent_s` and `decided_s` are real, from the cut on: till it ceased to decide, and till that and `new` did. `began`
    counts the migrations that the majority knows of beside its own; `lives` are the nodes that ran the instance in the
    end.
    """

    old: str
    new: str
    refused: str
    silent_s: float
    decided_s: float
    began: int
    owner: str
    lives: tuple[str, ...]
    follows: bool  # healed, the old one says that the new one leads

    @property
    def holds(self) -> bool:
        return (bool(self.refused) and self.new != self.old and not self.began and self.follows
                and self.lives == (self.owner,))


def cut_off(bed: Testbed, instance: str, destination: str, settled: Callable[[], str],
            living: Callable[[], tuple[str, ...]]) -> Minority:
    """Cut the leader off, ask it to move `instance`, let the majority move it, and heal.

    `settled` waits till nothing is under way and returns who has the instance, `living` the nodes that run it.
    """
    old, before = bed.leader(), _last(bed)
    bed.fail("partition", old)
    started = time.monotonic()
    try:
        bed.asked().move(instance, destination)
        refused = ""
    except MigrationError as error:
        refused = str(error)
    _await(lambda: not bed.asked().roles()[old].decides, f"{old} still decides, cut off")
    silent_s = time.monotonic() - started
    new = bed.leader()
    decided_s = time.monotonic() - started
    owner = settled()
    began = _last(bed) - before
    if refused:
        bed.migrate(instance, destination)
        owner = destination
    if bed.asked().roles()[old].decides:
        raise ExperimentError(f"{old} decides, and so does {new}")
    bed.heal("partition", old)
    _await(lambda: bed.asked().roles()[old].leader == bed.leader(), f"{old} follows nobody")
    return Minority(old, new, refused, silent_s, decided_s, began, owner, living(), True)


def _last(bed: Testbed) -> int:
    """Return the number of the last migration that the journal knows of."""
    number = 0
    while bed.asked().history(number + 1):
        number += 1
    return number


def _await(true: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + SILENT_WITHIN_S
    while not true():
        if time.monotonic() > deadline:
            raise ExperimentError(f"{complaint} after {SILENT_WITHIN_S:g} s")
        time.sleep(LOOK_AGAIN_S)


def judge_minorities(cuts: Sequence[Minority]) -> list[tuple[str, str, str, bool]]:
    """Return (what, measured, wanted, whether it is so); nothing where no leader was cut off."""
    if not cuts:
        return []
    good = sum(cut.holds for cut in cuts)
    wrong = next((f" ({cut})" for cut in cuts if not cut.holds), "")
    return [("leaders cut off that decided nothing, while the majority moved the instance", f"{good}{wrong}",
             str(len(cuts)), good == len(cuts)),
            ("the cut-off leader had refused, and the majority decided, after, median (longest)",
             f"{median(cut.decided_s for cut in cuts):.2f} s ({max(cut.decided_s for cut in cuts):.2f} s)", "", True)]
