"""By which mechanism a request came to the core that executes it: what receiving it cost depends on that."""

from __future__ import annotations

from enum import IntEnum


class Origin(IntEnum):
    """NETWORK: a packet from the ToR. PCIE: from the server's other processor. NODE: by a queue in memory."""

    NETWORK = 0
    PCIE = 1
    NODE = 2
