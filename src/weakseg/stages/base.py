"""What a stage is, and what it is given."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weakseg.data.dataset import Dataset, Sample
from weakseg.data.images import UnreadablePhoto, photo_size, shrunk_size
from weakseg.errors import WeaksegError
from weakseg.localize.grid import grid_size
from weakseg.progress import Progress
from weakseg.recipe import Recipe
from weakseg.stages.executor import Executor, Item, ThreadExecutor
from weakseg.stages.outputs import PICTURE, Output, Shape

if TYPE_CHECKING:
    import torch

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
        left_out: why photos of the split are left out -> how many.
        sizes: height and width of each photo, by id, once they have been looked at.
    """

    folder: Path
    recipe: Recipe
    dataset: Dataset
    held_out: Dataset
    executor: Executor
    progress: Progress
    device: "torch.device"
    left_out: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def leaving_out(
        self, left_out: Mapping[str, int], dataset: Dataset, held_out: Dataset
    ) -> "Context":
        """The context with fewer photos, and why, which is said."""
        counted = {why: number for why, number in left_out.items() if number}
        for why, number in counted.items():
            self.progress.say(f"left out: {number} photos {why}")
        return replace(
            self, dataset=dataset, held_out=held_out, left_out={**self.left_out, **counted}
        )

    def stage_folder(self, name: str) -> Path:
        return self.folder / name

    def masked_samples(self) -> Sequence[Sample]:
        """The samples that pseudo masks are made for."""
        return self.dataset.samples[:: self.recipe.localize.every]

    def tried_on(self) -> Sequence[Sample]:
        """The samples that the segmentation network is tried on."""
        return self.held_out.samples if self.recipe.data.held_out else self.masked_samples()

    def of(self, samples: Sequence[Sample]) -> "Context":
        """The same for some of the photos, all of which get masks."""
        localize = self.recipe.localize.model_copy(update={"every": 1})
        return replace(
            self,
            recipe=self.recipe.model_copy(update={"localize": localize}),
            dataset=replace(self.dataset, samples=tuple(samples)),
        )

    def task(self, sample: Sample) -> "PhotoTask":
        """A photo's share of a stage."""
        ids = sorted(self.dataset.classes.index(tag) + 1 for tag in sample.tags)
        return PhotoTask(sample, tuple(ids))


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: the stage's name and its folder's.
        run: does the work; files that are there already, whole, need not be made again.
        outputs: the files that it writes.
        needs: names of the stages whose files it reads.
        settings: what of the recipe it depends on; JSON values. With the data and the stages
            it needs, they make its fingerprint.
        version: raised when the same settings and data give other results than before.
        reads_masks: whether it reads the data set's masks.
        reads_held_out: whether it reads the photos held out.
        then: what later stages see of the data; by default what this one saw.
        per_photo: whether photos that get masks go through it one by one, so that some of them can
            be first.
        output: what it writes, relative to the run's folder; by default the folder of its name.
    """

    name: str
    run: Callable[[Context], None]
    outputs: "Outputs"
    needs: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    reads_masks: bool = False
    reads_held_out: bool = False
    then: Callable[[Context], Context] | None = None
    per_photo: bool = False
    output: str | None = None


Outputs = Callable[[Context], Iterable[Output]]
"""The files that a stage writes for what a context holds."""


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


def files_of(name: str, *names: str) -> Outputs:
    """A stage's files that are of no photo: NAME/ and each of `names`."""
    return lambda context: [Output(context.stage_folder(name) / file) for file in names]


def masks_of(name: str, held_out: bool = False) -> Outputs:
    """NAME/ID.png of every photo that masks are made for, or of those held out, at its size."""

    def outputs(context: Context) -> Iterator[Output]:
        folder = context.stage_folder(name)
        for sample in context.held_out.samples if held_out else context.masked_samples():
            size = context.sizes.get(sample.id)
            yield Output(folder / f"{sample.id}.png", {PICTURE: size} if size else {})

    return outputs


def maps_of(name: str, tensor: str, suffix: str, background: bool = False) -> Outputs:
    """NAME/ID + `suffix` of every photo that masks are made for.

    `tensor` is in it, on the photo's grid, with a map for each of its tags, and one for the
    background if there is any.
    """

    def outputs(context: Context) -> Iterator[Output]:
        folder, long_side = context.stage_folder(name), context.recipe.data.long_side
        for sample in context.masked_samples():
            shape: Shape = (len(sample.tags) + background, None, None)
            if size := context.sizes.get(sample.id):
                shape = (*shape[:1], *grid_size(*shrunk_size(*size, long_side)))
            yield Output(folder / f"{sample.id}{suffix}", {tensor: shape})

    return outputs


def made(folder: Path, *names: str) -> bool:
    """Whether a folder has all these files."""
    return all((folder / name).is_file() for name in names)


def together(*parts: Outputs) -> Outputs:
    """The files of several."""
    return lambda context: (output for part in parts for output in part(context))


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
