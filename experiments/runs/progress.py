"""Shows how far a list of points has come and when it will be done: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

REFRESHES_PER_S = 2.0


def remaining(seconds: float) -> str:
    """Return `seconds` as people say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class PointProgress:
    """`done` of `total` points were there before. What is left is taken to last as long as those of this session."""

    def __init__(self, total: int, done: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, done
        self._clock = clock
        self._took: list[float] = []
        self._began = 0.0

    def begin(self, name: str) -> None:
        self._began = self._clock()
        self.show_begin(name)

    def end(self, name: str) -> None:
        self._took.append(self._clock() - self._began)
        self.done += 1
        self.show_end(name, self._took[-1])

    def left(self) -> str:
        """Return how much time is left, in words."""
        if self.done == self.total:
            return "all done"
        if not self._took:
            return "time left unknown"
        each_s = sum(self._took) / len(self._took)
        return f"about {remaining(each_s * (self.total - self.done))} left"

    def show_begin(self, name: str) -> None:
        """Show that the point `name` is being measured."""

    def show_end(self, name: str, took_s: float) -> None:
        """Show that the point `name` is done."""


class LineProgress(PointProgress):
    """A line for each point that is done."""

    def __init__(self, total: int, done: int, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(total, done, clock)
        self._stream = stream

    def show_end(self, name: str, took_s: float) -> None:
        self._stream.write(f"e3: {self.done} of {self.total}: {name} took {remaining(took_s)}, {self.left()}\n")
        self._stream.flush()


class BarProgress(PointProgress):
    """A bar that names the point at work; other lines for the stream go above it."""

    def __init__(self, total: int, done: int, bar: Progress, task: TaskID) -> None:
        super().__init__(total, done)
        self._bar, self._task = bar, task

    def show_begin(self, name: str) -> None:
        self._bar.update(self._task, point=name, left=self.left())

    def show_end(self, name: str, took_s: float) -> None:
        self._bar.update(self._task, completed=self.done, left=self.left())


@contextmanager
def shown(title: str, total: int, done: int, stream: TextIO | None = None) -> Iterator[PointProgress]:
    """Show the progress of `total` points, `done` of them there already, on `stream` (standard error unless given)."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield LineProgress(total, done, stream)
        return
    columns = (TextColumn(title), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
               TextColumn("{task.fields[point]}", style="dim"))
    with Progress(*columns, console=Console(file=stream), refresh_per_second=REFRESHES_PER_S) as bar:
        yield BarProgress(total, done, bar, bar.add_task(title, total=total, completed=done, point="", left=""))
