"""How many requests are computed before their time, and which must wait because one before them was not. Pure.

What came by one channel is computed in its order: where one request of a channel could not be computed ahead, none
after it is, till all of those have been computed at their time, or have gone elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from nodes.messages import ChannelId


class Foresight:
    """Up to `limit` requests are computed and not on a core yet; 0: none is ever computed ahead."""

    __slots__ = ("_behind", "_computed", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._computed = 0
        self._behind: Counter[ChannelId] = Counter()  # known and not computed, by the channel that they came by

    def admits(self, channel: ChannelId) -> bool:
        """Whether the next request of `channel` may be computed now."""
        return self._computed < self.limit and channel not in self._behind

    def computed(self) -> None:
        """Note that a request is computed ahead."""
        self._computed += 1

    def used(self) -> None:
        """Note that a request that was computed ahead has its core."""
        self._computed -= 1

    def left(self, channels: Iterable[ChannelId]) -> None:
        """Note requests that are known and not computed, by the channels that they came by."""
        self._behind.update(channels)

    def forget(self, application: int, computed: int) -> None:
        """Note that nothing of an application is known here any more; `computed` of it were computed ahead."""
        self._computed -= computed
        for channel in [channel for channel in self._behind if channel.application == application]:
            del self._behind[channel]

    def caught_up(self, channel: ChannelId) -> None:
        """Note that a request that was left is computed now, or goes elsewhere."""
        if self._behind:
            self._behind[channel] -= 1
            if self._behind[channel] <= 0:
                del self._behind[channel]
