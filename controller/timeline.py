"""How long each step of a migration took, as the controller saw it: made from what it says it did.

    alarm --detect--> begin --push--> stopping --stop--> moving --transfer--> switching --resume--> finishing
                                                                     '------reconnect------> reconnected ... done

All times are emulated seconds at the controller, so a step has the way of its command and of its answer in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.migration_steps import Happening, Migration, State

# Each step, from which happening to which. Happenings are the states that a migration entered, and a few words more.
STEPS: dict[str, tuple[str, str]] = {
    "detect": ("alarm", "begin"),
    "push": ("begin", State.STOPPING.value),
    "stop": (State.STOPPING.value, State.MOVING.value),
    "transfer": (State.MOVING.value, State.SWITCHING.value),
    "resume": (State.SWITCHING.value, State.FINISHING.value),
    "reconnect": (State.SWITCHING.value, "reconnected"),
    "held": (State.STOPPING.value, State.FINISHING.value),
    "total": ("begin", State.DONE.value),
}


@dataclass(slots=True)
class Timeline:
    """One migration. `at` says when things happened, emulated seconds, the last time that each did.

    `held` is how long the instance stood still at most: from the command to stop it to the news that it runs. `outcome`
    is "" while it is under way, then "moved", "stayed", "restarted" (afresh, with nothing of its state), "lost": all
    nodes that could have ended it are dead, and another migration has made the instance anew elsewhere; or "withdrawn",
    cut off with its application.
    """

    migration: int
    instance: str
    source: str
    destination: str
    why: str
    state_bytes: int = 0
    outcome: str = ""
    owner: str = ""
    at: dict[str, float] = field(default_factory=dict)

    @property
    def steps_s(self) -> Mapping[str, float]:
        """Return how long each step took, in seconds, in order; without those that there were not."""
        return {step: self.at[end] - self.at[start] for step, (start, end) in STEPS.items()
                if start in self.at and end in self.at and self.at[end] >= self.at[start]}

    def note(self, happening: Happening, migration: Migration) -> None:
        """Take what happened to this migration, which stands so now."""
        self.at[happening.what] = happening.now_s
        self.state_bytes = max(self.state_bytes, migration.size)
        if happening.what == State.DONE.value:
            self.owner = migration.owner
            self.outcome = ("restarted" if migration.fresh else "stayed" if migration.owner == migration.source
                            else "moved")
        else:
            self.outcome = ""
