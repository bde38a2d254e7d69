"""Progress of long steps: bars on a terminal, plain lines every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from weakseg.errors import printable

Advance = Callable[[int], None]
"""Told how many more items are done."""

LINE_EVERY_SECONDS = 15.0

_SETTLED_ITEMS, _SETTLED_SECONDS = 10, 3.0
"""After so many items, and so long, a rate tells what the others will take."""


class Progress(Protocol):
    """What a step tells of its progress. Pickled, it speaks from the process it arrives in."""

    def say(self, text: str) -> None:
        """Show one line."""

    def track(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Show the progress of `total` items, `done` of which are there already."""


class _Pace:
    """How fast items are done.

    The clock starts at the first that is done: until then workers start and networks load, which
    says nothing of the others.

    Args:
        left: how many items are to be done.
    """

    def __init__(self, left: int) -> None:
        self._left = left
        self._start: float | None = None
        self._since = 0
        self._seconds = 0.0

    def advance(self, count: int) -> None:
        now = time.monotonic()
        self._left -= count
        if self._start is None:
            self._start = now
        else:
            self._since += count
            self._seconds = now - self._start

    @property
    def rate(self) -> float | None:
        """Items a second; None until that has settled."""
        settled = self._since >= _SETTLED_ITEMS and self._seconds >= _SETTLED_SECONDS
        return self._since / self._seconds if settled else None

    @property
    def seconds_left(self) -> float | None:
        """None until that is known."""
        return self._left / self.rate if self.rate else None


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


class TerminalProgress:
    """Bars with rate and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __reduce__(self) -> tuple[Any, ...]:
        return progress_for, ()

    def say(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        pace = _Pace(total - done)

        def advance(count: int) -> None:
            pace.advance(count)
            seconds = pace.seconds_left
            left = "" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
            bar.update(task, advance=count, left=left)

        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total, completed=done, left="")
            yield advance


class LineProgress:
    """Lines for logs: at the start, every so often, and at the end of a step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return progress_for, ()

    def say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        start = shown = time.monotonic()
        counted, pace = done, _Pace(total - done)

        def advance(count: int) -> None:
            nonlocal counted, shown
            counted += count
            pace.advance(count)
            now = time.monotonic()
            if now - shown >= LINE_EVERY_SECONDS and counted < total:
                shown = now
                known = pace.rate and f", {pace.rate:.1f}/s, {pace.seconds_left:.0f} s left"
                self.say(f"{name}: {counted}/{total}{known or ''}")

        yield advance
        rate = (counted - done) / max(time.monotonic() - start, 1e-9)
        self.say(f"{name}: {counted}/{total}, {rate:.1f}/s")


class Silence:
    """Shows nothing."""

    def say(self, text: str) -> None:
        pass

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        yield lambda count: None


def progress_for(stream: TextIO | None = None) -> TerminalProgress | LineProgress:
    """Bars where `stream` (standard error) is a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty():
        return TerminalProgress(Console(file=stream))
    return LineProgress(stream)
