"""Whether a reply is right: by the workload's own check or, byte for byte, by the oracle."""

from __future__ import annotations

from experiments.clients.load import ClientConfig
from experiments.clients.oracle import Oracle
from microservices.workload import Workload
from nodes.messages import KIND_REPLY, DataMessage


class ReplyJudge:
    """Looks at one reply in `check_every`, and at each error."""

    def __init__(self, told: ClientConfig, workload: Workload) -> None:
        self._workload = workload
        self._oracle = Oracle(told.deployment.application()) if told.exact else None
        self._every = told.check_every
        self._seen = 0
        self.checked = 0

    def verdict(self, payload: bytes, message: DataMessage, asked_s: float) -> tuple[str, str]:
        """Return which count a first reply belongs to, and the complaint if it is not "answered"."""
        is_error = message.kind != KIND_REPLY
        self._seen += 1
        if not is_error and self._seen % self._every:
            return "answered", ""
        self.checked += 1
        if self._oracle is not None:
            complaint = self._oracle.complaint(payload, message.payload, is_error, asked_s)
            if complaint is not None:
                return "wrong", complaint
        if is_error and self._oracle is None:
            complaint = self._workload.check_error(payload, message.payload.decode(errors="replace"))
            return ("errors", complaint) if complaint is not None else ("answered", "")
        if not is_error and (complaint := self._workload.check_reply(payload, message.payload)) is not None:
            return "wrong", complaint
        return "answered", ""
