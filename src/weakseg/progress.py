"""Progress of long steps: bars on a terminal, plain lines every so often elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

Advance = Callable[[int], None]
"""Told how many more items are done."""

LINE_EVERY_SECONDS = 15.0


class Progress(Protocol):
    """What a stage tells of its progress. Pickled, it speaks from the process it arrives in."""

    def say(self, text: str) -> None:
        """Show one line."""

    def track(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Show the progress of `total` items, `done` of which are there already."""


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
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total, completed=done)
            yield lambda count: bar.advance(task, count)


class LineProgress:
    """Lines for logs: at the start, every so often, and at the end of a step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return progress_for, ()

    def say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        start = shown = time.monotonic()
        counted = done

        def line(now: float) -> None:
            rate = (counted - done) / max(now - start, 1e-9)
            left = f", {(total - counted) / rate:.0f} s left" if rate and counted < total else ""
            self.say(f"{name}: {counted}/{total}, {rate:.1f}/s{left}")

        def advance(count: int) -> None:
            nonlocal counted, shown
            counted += count
            now = time.monotonic()
            if now - shown >= LINE_EVERY_SECONDS and counted < total:
                shown = now
                line(now)

        yield advance
        line(time.monotonic())


def progress_for(stream: TextIO | None = None) -> TerminalProgress | LineProgress:
    """Bars where `stream` (standard error) is a terminal, lines elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty():
        return TerminalProgress(Console(file=stream))
    return LineProgress(stream)
