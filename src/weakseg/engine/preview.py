"""The first photos' masks and pictures, long before the others', and what those will take."""

import glob
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from weakseg.data.dataset import Sample
from weakseg.data.images import shrunk_size
from weakseg.engine import panels
from weakseg.engine.context import Context
from weakseg.grid import grid_size
from weakseg.methods.base import Executor, Item, Result, Step
from weakseg.methods.maps import MAPS, suffixes
from weakseg.progress import Advance, Progress

NAME = "preview"
_SHORT = 50
"""Of so few photos all have their masks soon."""

_SETTLED = 8
"""So many photos tell what the others will take."""


def run(
    context: Context,
    steps: Sequence[Step],
    drawn: Sequence[Step],
    bring: Callable[[Step, Context], None],
) -> dict[str, float]:
    """Take the photos that get a panel through some steps, draw them, and say what is to come.

    What is written is what the steps would have written: they go on with the other photos. Where
    there are few photos, or no panels are wanted, nothing is done.

    Args:
        steps: of photo by photo work, one after the other.
        drawn: the steps whose masks are drawn.
        bring: does a step.

    Returns:
        Seconds that each step will take with the other photos, where that can be told.
    """
    samples = context.masked_samples()
    chosen = panels.chosen(context, samples)
    if len(samples) <= _SHORT or not chosen:
        return {}
    size = 0.0
    seconds: dict[str, float] = {}
    few = replace(context, chosen=frozenset(sample.id for sample in chosen))
    with context.progress.track(NAME, len(steps) * len(chosen)) as advance:
        for step in steps:
            cpu = _Stopwatch(context.cpu)
            network = cpu if context.network is context.cpu else _Stopwatch(context.network)
            within = _Within(context.progress, advance)
            start = time.monotonic()
            bring(step, replace(few, cpu=cpu, network=network, progress=within))
            alone = (time.monotonic() - start) / len(chosen)
            watch = network if step.uses_network else cpu
            typical = statistics.median(watch.seconds) / watch.workers if watch.seconds else alone
            seconds[step.name] = typical * (len(samples) - len(chosen))
            written = sum(map(partial(_size, step.folder), chosen))
            size += written * (len(samples) / len(chosen) - 1)
    panels.draw(context, drawn, chosen)
    said = f"{NAME}: {len(chosen)} photos have masks, see {context.folder / panels.NAME}"
    settled = len(chosen) >= _SETTLED
    if settled:
        said += (
            f"; the other {len(samples) - len(chosen)} take some {duration(sum(seconds.values()))} "
            f"and {_beside_free(size, context.folder)}"
        )
    context.progress.say(f"{said}.")
    return seconds if settled else {}


def say_disk(context: Context, cell_bytes: float) -> None:
    """Say what the maps and features that are kept of many photos will take.

    Args:
        cell_bytes: what features take of a photo, in bytes a cell of the grid.
    """
    samples = context.masked_samples()
    maps = [step for step in context.steps if step.kept and MAPS in suffixes(step)]
    if len(samples) <= _SHORT or not maps:
        return
    size = 0.0
    for sample in samples:
        worked_on = shrunk_size(*context.sizes[sample.id], context.recipe.data.long_side)
        cells = math.prod(grid_size(*worked_on))
        size += cells * cell_bytes
        for step in maps:
            cell = step.kind.cell(step) or 1
            pixels = math.prod(-(-side // cell) for side in worked_on)
            size += 4 * pixels * (len(sample.tags) + step.has_background_row)
    context.progress.say(f"Maps and features will take {_beside_free(size, context.folder)}.")


def _beside_free(size: float, folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    said = f"{_gigabytes(size)} of disk, where {_gigabytes(free)} are free"
    if size > free:
        said += ": too few. With keep: false in a step its maps are not written"
    return said


@dataclass(frozen=True)
class _Timed:
    make: Callable[[], Callable[[Any], Any]]

    def __call__(self) -> Callable[[Any], tuple[float, Any]]:
        work = self.make()

        def timed(item: Any) -> tuple[float, Any]:
            start = time.monotonic()
            result = work(item)
            return time.monotonic() - start, result

        return timed


class _Stopwatch:
    """An executor that keeps the seconds of each item, without those in which workers start."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.workers = executor.workers
        self.seconds: list[float] = []

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        for seconds, result in self._executor.map(_Timed(make), items):
            self.seconds.append(seconds)
            yield result

    def rest(self) -> None:
        self._executor.rest()


class _Within:
    """Progress of a step that is part of another."""

    def __init__(self, progress: Progress, advance: Advance) -> None:
        self._progress, self._advance = progress, advance

    def say(self, text: str) -> None:
        self._progress.say(text)

    @contextmanager
    def track(self, name: str, total: int, done: int = 0) -> Iterator[Advance]:
        yield self._advance


def _size(folder: Path, sample: Sample) -> int:
    return sum(file.stat().st_size for file in folder.glob(f"{glob.escape(sample.id)}.*"))


def duration(seconds: float) -> str:
    """For people, rounded."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
