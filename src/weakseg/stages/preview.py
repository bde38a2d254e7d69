"""The first photos' masks and pictures, long before the others', and what those will take."""

import glob
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
from weakseg.localize.grid import grid_size
from weakseg.progress import Advance, Progress
from weakseg.stages import panels
from weakseg.stages.base import Context, Stage
from weakseg.stages.executor import Executor, Item, Result

NAME = "preview"
_SHORT = 50
"""Of so few photos all have their masks soon."""

_SETTLED = 8
"""So many photos tell what the others will take."""


def run(
    context: Context,
    stages: Sequence[Stage],
    drawn: Sequence[str],
    bring: Callable[[Stage, Context], None],
) -> None:
    """Take the photos that get a panel through some stages, draw them, and say what is to come.

    What is written is what the stages would have written: they go on with the other photos. Where
    there are few photos, or no panels are wanted, nothing is done.

    Args:
        stages: of photo by photo work, one after the other.
        drawn: names of the stages whose masks are drawn.
        bring: runs a stage.
    """
    samples = context.masked_samples()
    chosen = panels.chosen(context, samples)
    if len(samples) <= _SHORT or not chosen:
        return
    seconds = size = 0.0
    with context.progress.track(NAME, len(stages) * len(chosen)) as advance:
        for stage in stages:
            watch = _Stopwatch(context.executor)
            few = replace(
                context.of(chosen), executor=watch, progress=_Within(context.progress, advance)
            )
            start = time.monotonic()
            bring(stage, few)
            alone = (time.monotonic() - start) / len(chosen)  # on a GPU, which is no executor's
            typical = statistics.median(watch.seconds) / watch.workers if watch.seconds else alone
            seconds += typical * (len(samples) - len(chosen))
            written = sum(map(partial(_size, context.stage_folder(stage.name)), chosen))
            size += written * (len(samples) / len(chosen) - 1)
    panels.draw(context, drawn, chosen)
    said = f"{NAME}: {len(chosen)} photos have masks, see {context.stage_folder(panels.NAME)}"
    if len(chosen) >= _SETTLED:
        said += (
            f"; the other {len(samples) - len(chosen)} take some {_duration(seconds)} and "
            f"{_beside_free(size, context.folder)}"
        )
    context.progress.say(f"{said}.")


def say_disk(context: Context, channels: int) -> None:
    """Say what the CAMs, features and scores that are kept of many photos will take.

    Args:
        channels: of the shallow features of a photo.
    """
    recipe, samples = context.recipe, context.masked_samples()
    if len(samples) <= _SHORT or not recipe.localize.keep:
        return
    size = 0
    for sample in samples:
        height, width = grid_size(*shrunk_size(*context.sizes[sample.id], recipe.data.long_side))
        tags = len(sample.tags)
        maps = tags + (tags + 1 if recipe.svm else 0)
        size += height * width * (channels + 4 * maps)
    context.progress.say(f"CAMs and features will take {_beside_free(size, context.folder)}.")


def _beside_free(size: float, folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    said = f"{_gigabytes(size)} of disk, where {_gigabytes(free)} are free"
    if size > free:
        said += ": too few. With localize.keep=false nothing but the last masks is written"
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


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
