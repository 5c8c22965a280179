"""What is wrong with what clients were told while parts of a rack failed. Pure.

The judges know nothing of replication: each writer of the store knows what every reply must be, and reads back all that
it has written; what clients of shared keys saw must be linearizable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.clients.load import ClientResult
from experiments.clients.shared_store import judged

BAD = ("errors", "wrong", "lost", "late", "duplicated", "foreign")
# What may come of requests that went down with an instance without a replica: what it had acknowledged is never
# answered, what it had handed on without acknowledging it is done again.
EXCUSED = ("lost", "late", "unfinished", "duplicated")
LAST_S = 0.5  # of the time in which a part is broken: there must be service then


def of_writers(wrote: Sequence[ClientResult], read: Sequence[ClientResult]) -> list[str]:
    """Return what is wrong with writers of keys of their own, and with what each read back of them afterwards."""
    found = [f"writing: {said}" for result in wrote for said in of_client(result)]
    found += [f"reading back: {said}" for result in read for said in of_client(result)]
    if len(read) != len(wrote):
        found.append(f"{len(read)} of {len(wrote)} writers have read back what they wrote")
    return found


def of_shared(shared: Iterable[ClientResult], vanished: Iterable[ClientResult] = ()) -> list[str]:
    """Return what is wrong with clients of shared keys; without a reply, a request may have been done or not.

    Those that `vanished` may lack replies, but what they were told counts.
    """
    shared = list(shared)
    verdict = judged([*shared, *vanished])
    found = [f"sharing: {said}" for result in shared for said in of_client(result)]
    return found if verdict else [*found, f"shared keys: {verdict}"]


def of_client(result: ClientResult, excused: Sequence[str] = ()) -> list[str]:
    """Return what is wrong with the replies to a client, but for what is `excused`, and one of them in full."""
    found = [f"{count} {kind}" for kind in (*BAD, "unfinished")
             if kind not in excused and (count := getattr(result, kind))]
    if not result.answered:
        found.append("no reply at all")
    return [", ".join([*found, *result.complaints[:1]])] if found else []


def outage_s(result: ClientResult, broken_s: float, until_s: float) -> float:
    """Return the longest time without a reply to a client from `broken_s` to `until_s`, in emulated seconds."""
    times, _ = result.replies()
    within = np.sort(times[(times > broken_s) & (times < until_s)])
    return float(np.diff(np.concatenate(([broken_s], within, [until_s]))).max())


def without_service(result: ClientResult, broken_s: float, mended_s: float, cut_off: bool = False,
                    last_s: float = LAST_S) -> list[str]:
    """Say where service was to be and was not: before the part was mended, unless that `cut_off` the client, and after.

    The client must have had a reply in the last `last_s` of the time in which the part was broken.
    """
    times, _ = result.replies()
    found = []
    if not cut_off and not np.any((times > max(broken_s, mended_s - last_s)) & (times < mended_s)):
        found.append("no service while it was broken")
    if not np.any(times > mended_s):
        found.append("no service after it was mended")
    return found
