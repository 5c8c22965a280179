"""Whom a compute node obeys: of the controllers that it knows, the one of the highest term that it has heard."""

from __future__ import annotations


class Authority:
    """The controllers at `ips` (4 bytes each), of whom one decides at a time, in terms that grow.

    `term` is the highest that was heard, and `leader` whoever used it: till then the first. What a node says without
    being asked goes to the leader. A term belongs to who used it first: commands of an earlier one, or by another in
    the same, come from a controller that was replaced and may not know it yet.
    """

    def __init__(self, *ips: bytes) -> None:
        self.ips = ips
        self.leader = ips[0]
        self.term = 0
        self._heard = False

    def obeys(self, ip: bytes, term: int) -> bool:
        """Return whether what the controller at `ip` says in `term` is to be done; from then on nothing of before."""
        if ip not in self.ips or term < self.term or (self._heard and term == self.term and ip != self.leader):
            return False
        self.leader, self.term, self._heard = ip, term, True
        return True
