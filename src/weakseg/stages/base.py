"""What a stage is, and what it is given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from weakseg.data.dataset import Dataset, Sample
from weakseg.data.images import UnreadablePhoto, photo_size
from weakseg.errors import WeaksegError
from weakseg.progress import Progress
from weakseg.recipe import Recipe
from weakseg.stages.executor import Executor, Item, ThreadExecutor

_WINDOW = 1024
"""Photos whose sizes are looked up at a time: all of a million would be before work begins."""


@dataclass(frozen=True)
class Context:
    """What every stage of a run can use.

    Attributes:
        folder: the run's folder; each stage has the folder of its name in it.
        dataset: the data set, without the photos that can't be read.
        held_out: the photos that the trained segmentation network is tried on, likewise.
        device: where networks run.
    """

    folder: Path
    recipe: Recipe
    dataset: Dataset
    held_out: Dataset
    executor: Executor
    progress: Progress
    device: torch.device

    def stage_folder(self, name: str) -> Path:
        return self.folder / name

    def masked_samples(self) -> Sequence[Sample]:
        """The samples that pseudo masks are made for."""
        return self.dataset.samples[:: self.recipe.localize.every]

    def tried_on(self) -> Sequence[Sample]:
        """The samples that the segmentation network is tried on."""
        return self.held_out.samples if self.recipe.data.held_out else self.masked_samples()

    def task(self, sample: Sample) -> "PhotoTask":
        """A photo's share of a stage."""
        ids = sorted(self.dataset.classes.index(tag) + 1 for tag in sample.tags)
        return PhotoTask(sample, tuple(ids))


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: the stage's name and its folder's.
        needs: names of the stages whose files it reads.
        settings: what of the recipe it depends on; JSON values. With the data and the stages
            it needs, they make its fingerprint.
        run: does the work; files that are there already, whole, need not be made again.
        reads_masks: whether it reads the data set's masks.
        reads_held_out: whether it reads the photos held out.
        then: what later stages see of the data; by default what this one saw.
        output: what it writes, relative to the run's folder; by default the folder of its name.
    """

    name: str
    run: Callable[[Context], None]
    needs: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    reads_masks: bool = False
    reads_held_out: bool = False
    then: Callable[[Context], Context] | None = None
    output: str | None = None


@dataclass(frozen=True)
class PhotoTask:
    """One photo's share of a stage: small, and picklable.

    Attributes:
        sample: the photo.
        class_ids: mask ids of its tags, ascending.
    """

    sample: Sample
    class_ids: tuple[int, ...]

    @property
    def id(self) -> str:
        return self.sample.id


def map_photos(
    context: Context,
    name: str,
    make: Callable[[], Callable[[PhotoTask], str | None]],
    outputs: Sequence[str] = (".png",),
    executor: Executor | None = None,
    samples: Sequence[Sample] | None = None,
    by_size: bool = False,
) -> None:
    """Do a stage's per-photo work for every photo that lacks one of its output files.

    Args:
        name: the stage's name; its outputs are `NAME/ID` + each of `outputs`.
        make: makes the function that does one photo, and may return a line to say; see `Executor`.
        executor: does the work; by default the run's.
        samples: the photos; by default those that masks are made for.
        by_size: whether photos of one size follow each other: for a network, whose convolutions
            are compiled for each size on a CPU.
    """
    folder = context.stage_folder(name)
    samples = context.masked_samples() if samples is None else samples
    tasks = [
        context.task(sample)
        for sample in samples
        if not all((folder / f"{sample.id}{suffix}").exists() for suffix in outputs)
    ]
    with context.progress.track(name, len(samples), len(samples) - len(tasks)) as advance:
        ordered: Iterable[PhotoTask] = tasks
        if by_size:
            groups = same_size(tasks, lambda task: task.sample.image)
            ordered = (task for _, same in groups for task in same)
        for said in (executor or context.executor).map(make, ordered):
            if said:
                context.progress.say(said)
            advance(1)


@contextmanager
def naming(task: PhotoTask) -> Iterator[None]:
    """Name the photo of which an algorithm refuses the numbers.

    Raises:
        WeaksegError: for a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise WeaksegError(f"{task.sample.image}: {error}.") from error


def same_size(
    photos: Sequence[Item], path: Callable[[Item], Path]
) -> Iterator[tuple[tuple[int, int], list[Item]]]:
    """Photos of one size together, out of a window of the sequence.

    Yields:
        Height and width, both 0 where they can't be read, and the photos.
    """
    for first in range(0, len(photos), _WINDOW):
        groups: dict[tuple[int, int], list[Item]] = {}
        for photo in photos[first : first + _WINDOW]:
            groups.setdefault(_size(path(photo)), []).append(photo)
        yield from groups.items()


def _size(path: Path) -> tuple[int, int]:
    try:
        return photo_size(path)
    except UnreadablePhoto:
        return 0, 0  # whoever reads it says why


def network_executor(context: Context) -> Executor:
    """The executor for per-photo work of a network: a GPU is one place, not one a core."""
    return ThreadExecutor() if context.device.type == "cuda" else context.executor
