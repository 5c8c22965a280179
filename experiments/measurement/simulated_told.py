"""What a client in virtual time was told, in the form in which a client on packets says it, so that one judge does.

A simulated client does not time out: what has no reply is `unfinished`.
"""

from __future__ import annotations

from array import array
from itertools import pairwise

from experiments.clients.latencies import summary_of
from experiments.clients.linearizability import NEVER
from experiments.clients.load import ClientResult, Exchange
from nodes.simulated import SimulatedClient


def told_by(client: SimulatedClient) -> ClientResult:
    """Return what came of a client's requests, each with its reply in `history`. To be called once: checkers count."""
    replies = client.replies()
    first = [answers[0] for answers in replies.values() if answers]
    first.sort(key=lambda answer: answer.answered_s)
    complaints, wrong = [], 0
    for answer in first:
        asked = client.asked.get(answer.request_id)
        if answer.is_error or asked is None:
            complaints.append(f"request {answer.request_id:#x}: {answer.payload.decode(errors='replace')}")
            continue
        said = client.workload.check_reply(asked.payload, answer.payload)
        if said is not None:
            complaints.append(f"request {answer.request_id:#x}: {said}")
            wrong += 1
    history = []
    for i, asked in client.asked.items():
        answered = bool(replies[i]) and not replies[i][0].is_error
        history.append(Exchange(asked.payload, asked.sent_s, replies[i][0].payload if answered else None,
                                replies[i][0].answered_s if answered else NEVER))
    times = array("d", (answer.answered_s for answer in first))
    latencies = array("d", (answer.answered_s - answer.sent_s for answer in first))
    errors = sum(answer.is_error for answer in first)
    foreign = len(replies) - len(client.asked)
    gaps = [later - sooner for sooner, later in pairwise(times)]
    return ClientResult(len(client.asked), len(first) - errors - wrong - foreign, errors, wrong, 0, 0,
                        sum(len(answers) > 1 for answers in replies.values()), foreign,
                        times[-1] - times[0] if times else 0.0, max(gaps, default=0.0),
                        summary_of(latencies or [0.0]), complaints, unfinished=len(client.asked) - len(first) + foreign,
                        resent=sum(flow.transport.counters()["channel_resent"] for flow in client.flows),
                        answered_s=times.tobytes(), latencies_s=latencies.tobytes(), history=tuple(history))
