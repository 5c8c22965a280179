"""Which nodes must be kept from the network before what they ran alone can begin anew elsewhere. Pure.

Silence is no proof of death, and two of one instance would be worse than none. So whoever can cut a node off for good
is asked to (an operator, or the switch of its power: STONITH), again and again, till it says that it has. A node is
asked for if it is dead by its silence while another is alive: who has listened for as long as it takes to be alive has
listened to all, so a controller that has just begun, which holds everybody for dead, asks for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.membership import Life, Membership
from controller.resource_controller import ResourceController

ASK_AGAIN_S = 0.5  # ours


class Fencing:
    """What is asked for of the nodes of `membership`."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._asked: dict[str, float] = {}  # when each was last asked for

    def due(self, now: float, holders: Iterable[str]) -> list[str]:
        """Return whom to ask for at `now`, of the nodes that are the `holders` of what nobody else can serve."""
        if not self._membership.nodes_that_are(Life.ALIVE):
            return []
        wanted = sorted({node for node in holders if self._membership.life(node) is Life.DEAD})
        self._asked = {node: at for node, at in self._asked.items() if node in wanted}
        found = [node for node in wanted if now >= self._asked.get(node, now - ASK_AGAIN_S) + ASK_AGAIN_S]
        self._asked |= dict.fromkeys(found, now)
        return found


def to_fence(controller: ResourceController, fencing: Fencing, now: float) -> list[str]:
    """Return the nodes that somebody is to cut off now, and make it an event; for after each `tick` of `controller`.

    Who has cut one off calls `controller.declared_dead`.
    """
    held = controller.where.node_of | {m.key: m.holder for m in controller.control.open.values()}
    found = fencing.due(now, (node for key, node in held.items()
                              if key not in controller.where.replicated and node not in controller.control.dead))
    for node in found:
        controller.record.tell(now, "fence", node, detail="it is silent, and has what nobody else can serve")
    return found
