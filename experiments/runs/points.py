"""A run as a list of named points, each kept on disk as soon as it is measured, so that it can be resumed.

    points.jsonl   {"point": "ipsec/linux/rep1", "took_s": 4.1, "value": {...}}, one line per point

A line counts once its line feed is on disk. What a `kill -9` leaves of a line is cut off when the run is resumed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import msgspec

from experiments.errors import ExperimentError
from experiments.runs.progress import shown
from experiments.runs.results import Run
from topologies.unreadable import UNREADABLE

POINTS_FILE = "points.jsonl"
T = TypeVar("T")


class Point(msgspec.Struct, frozen=True):
    """A measured point: `value` as JSON, to be read as whatever the experiment measures."""

    point: str
    took_s: float
    value: msgspec.Raw


class PointFile:
    """The points of one run, in the order in which they were measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._points: dict[str, Point] = {}
        content = path.read_bytes() if path.exists() else b""
        whole, _, torn = content.rpartition(b"\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                point = msgspec.json.decode(line, type=Point)
            except UNREADABLE as error:
                raise ExperimentError(f"{path}, line {number}: {error}") from error
            self._points[point.point] = point
        if torn:
            os.truncate(path, len(content) - len(torn))

    def names(self) -> list[str]:
        return list(self._points)

    def add(self, name: str, took_s: float, value: Any) -> None:
        """Keep `value` as the point `name`; when this returns, it is on disk."""
        if name in self._points:
            raise ExperimentError(f"point {name!r} is in {self.path} already")
        point = Point(name, took_s, msgspec.Raw(msgspec.json.encode(value)))
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(point) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._points[name] = point

    def value(self, name: str, kind: type[T]) -> T:
        """Return the point `name`; raises ExperimentError if it is not of `kind`."""
        try:
            return msgspec.json.decode(self._points[name].value, type=kind)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            raise ExperimentError(f"point {name!r} in {self.path} is none of this experiment's: {error}") from error


def measured(run: Run, names: Sequence[str], measure: Callable[[str], T], kind: type[T], say: Callable[[str], None],
             stream: TextIO | None = None) -> dict[str, T]:
    """Measure every point of `names` that `run` does not have yet, and return all of them by name, in that order.

    `kind` is the type of a point's value, which must go through JSON and back. Progress is shown on `stream`. Whatever
    stops the run, Ctrl-C included, leaves what is done to be resumed. Raises ExperimentError for a name that is there
    twice, and for a point in the run that is not among `names`.
    """
    doubled = {name for name in names if list(names).count(name) > 1}
    if doubled:
        raise ExperimentError(f"points with the same name: {', '.join(sorted(doubled))}")
    points = PointFile(run.directory / POINTS_FILE)
    foreign = [name for name in points.names() if name not in set(names)]
    if foreign:
        raise ExperimentError(f"cannot resume {run.directory}: it has {len(foreign)} points that this run does not "
                              f"measure: {', '.join(foreign[:3])}")
    left = [name for name in names if name not in set(points.names())]
    if len(left) < len(names):
        say(f"going on with {run.directory}: {len(names) - len(left)} of {len(names)} points are there")
    try:
        with shown(run.name, len(names), len(names) - len(left), stream) as progress:
            for name in left:
                progress.begin(name)
                began = time.monotonic()
                value = measure(name)
                points.add(name, time.monotonic() - began, value)
                progress.end(name)
    except BaseException:
        run.release()
        say(f"{len(points.names())} of {len(names)} points are kept in {run.directory}; --resume goes on with it")
        raise
    return {name: points.value(name, kind) for name in names}
