"""A word that must be one of some names: which was meant, or which there are."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from experiments.errors import ExperimentError

SHOWN_CHOICES = 24


def chosen(word: str, names: Collection[str], what: str) -> str:
    """Return `word` if it is one of `names`; raises ExperimentError with the nearest and all there are."""
    if word in names:
        return word
    if not names:
        raise ExperimentError(f"no {what} {word!r}: there is none here")
    near = difflib.get_close_matches(word, names, 1)
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN_CHOICES else ""
    listed = ", ".join(list(names)[:SHOWN_CHOICES]) + more
    raise ExperimentError(f"no {what} {word!r}{f' (did you mean {near[0]}?)' if near else ''}; there are {listed}")
