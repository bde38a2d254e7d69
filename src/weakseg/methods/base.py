"""What a kind of step is, and what it is given: its settings, its inputs, its folder."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample
from weakseg.data.images import UnreadablePhoto, photo_size, read_photo, shrink
from weakseg.data.masks import MAX_CLASSES
from weakseg.errors import WeaksegError
from weakseg.grid import GRID_STRIDE
from weakseg.progress import Progress

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_WINDOW = 1024
"""Photos whose sizes are looked up at a time: all of a million would be before work begins."""


class Artefact(Enum):
    """What a step gives to others."""

    POOLED = "pooled features"
    FEATURES = "features"
    TAGS = "tags"
    CLASSIFIER = "a classifier"
    SIDES = "side convolutions"
    IRNET = "an IRNet"
    SEGMENTER = "a segmentation network"
    MAPS = "maps"
    MASKS = "masks"
    OBJECTS = "masks of objects"
    LEVELS = "levels of maps"


NETWORKS = frozenset({Artefact.CLASSIFIER, Artefact.SIDES, Artefact.IRNET, Artefact.SEGMENTER})
Gives = frozenset[Artefact]


@dataclass(frozen=True)
class Slot:
    """An input of a kind of step.

    Attributes:
        name: what the step knows it by.
        accepts: any of these will do.
        optional: whether there need be none.
        several: whether there may be more than one, two at least.
    """

    name: str
    accepts: Gives
    optional: bool = False
    several: bool = False


Shape = tuple[int | None, ...]
"""Of a picture (height, width), or of a tensor; None is any."""

PICTURE = ""
"""The name of a picture's shape, where tensors have names."""


class File(NamedTuple):
    """A file that a step writes.

    Attributes:
        name: in the step's folder.
        shapes: what it holds, by name; what isn't named may have any shape.
    """

    name: str
    shapes: Mapping[str, Shape] = {}


class PhotoMaps(NamedTuple):
    """Maps of one photo.

    Attributes:
        scores: float32 (K, h, w), of the photo's tags; or (K + 1, h, w), row 0 the background.
        features: (D, h, w), levels (`weakseg.grid.as_levels`); None: not asked for.
        confidence: float32 (K) in [0, 1], how sure a classifier is of each tag; None likewise.
    """

    scores: NDArray[np.float32]
    features: NDArray[np.uint8] | None = None
    confidence: NDArray[np.float32] | None = None


class PhotoMask(NamedTuple):
    """A mask of one photo.

    Attributes:
        ids: uint8 (H, W), of the photo's own size.
        said: a line for the user.
    """

    ids: NDArray[np.uint8]
    said: str | None = None


@dataclass(frozen=True, slots=True)
class PhotoTask:
    """One photo's share of a step: small, and picklable.

    Attributes:
        sample: the photo.
        class_ids: mask ids of its tags, ascending.
        names: the data set's classes, those of the mask ids 1 to C; none where it has not said.
    """

    sample: Sample
    class_ids: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many the data set has, at most."""
        return len(self.names) or MAX_CLASSES

    @property
    def id(self) -> str:
        return self.sample.id


def task_of(sample: Sample, classes: Sequence[str]) -> PhotoTask:
    """A photo's share of the work, where mask ids 1 to C are those of `classes`."""
    ids = sorted(classes.index(tag) + 1 for tag in sample.tags)
    return PhotoTask(sample, tuple(ids), tuple(classes))


PhotoWork = Callable[[PhotoTask], PhotoMaps | PhotoMask]


def _no(step: "Step") -> bool:
    return False


def with_confidence(step: "Step") -> bool:
    """That maps come with a classifier's confidence."""
    return True


def _no_background(step: "Step") -> float | None:
    return None


def _on_grid(step: "Step") -> int | None:
    return GRID_STRIDE


def first_cell(step: "Step") -> int | None:
    """The cell of maps that are like those of a step's first input."""
    first = step.inputs[0][1].source
    return first.kind.cell(first) if Artefact.MAPS in first.gives else None


def photo_cell(step: "Step") -> int | None:
    """The cell of maps that are as fine as a photo, or as another tool or a network has them."""
    return None


def _nothing_to_say(step: "Step") -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """A kind of step: one file in `weakseg.methods`, and a line in its `KINDS`.

    A kind has `work` or `run`. All functions are module-level ones, since workers import them.

    Attributes:
        name: in recipes.
        summary: one line for `weakseg list`.
        settings: the type of its settings, a pydantic model or dataclass that allows no other keys.
        gives: what it gives; with MAPS and MASKS, maps that have a background.
        takes: its inputs, in the order in which `of` names them.
        version: raised when the same settings and inputs give other results than before.
        role: the list that names it.
        work: makes, in a worker, what does one photo.
        run: does everything, for whatever is not done photo by photo.
        files: the files that `run` writes.
        cell: the side of its maps' cells, in pixels of the photo as it is worked on: by default
            that of the grid (`weakseg.grid`); None: it isn't known before, and 1 as a rule.
        photos: on which photos it works: all that have tags, those that get masks, or those held
            out.
        draws: whether it draws random numbers, so that the recipe's seed counts; or of which
            settings that is so.
        network: whether a network looks at the photos, which a GPU can do.
        learns_masks: whether it learns from its input's masks, in whose place stand those that a
            person has mended or accepted.
        untrained: whether the network that it gives has learned nothing from the photos' tags.
        features: whether its maps come with features.
        confidence: whether its maps come with a classifier's confidence.
        background: the constant score that its maps stand against; None: they have a row of it.
        reuses_maps: whether its maps are those of its first input, against its own background.
        cell_bytes: what the features that it keeps of a photo take, in bytes a cell of the grid.
        check: finds out before a run whether a step can be done, and raises WeaksegError.
        then: what of the data the steps see that read its TAGS.
        for_readers: the settings that count for `then` alone: with others its files stay as they
            are, and what is seen is part of its readers' fingerprints.
        protocol: what a row of figures says of its masks, beside what its first input's says.
        compared_as: what its masks are to those at the end of a run, which are judged by the first
            of each (`weakseg.engine.assess`).
    """

    name: str
    summary: str
    settings: Any
    gives: Gives | Callable[["Step"], Gives]
    takes: tuple[Slot, ...] = ()
    version: int = 1
    role: Literal["seed", "refiner", "network"] | None = None
    work: Callable[["Step"], PhotoWork] | None = None
    run: Callable[["Step", "Tools"], None] | None = None
    files: Callable[["Step", "Photos"], Iterable[File]] | None = None
    cell: Callable[["Step"], int | None] = _on_grid
    photos: Literal["all", "masked", "held out"] = "masked"
    draws: bool | Callable[[Any], bool] = False
    network: bool = False
    learns_masks: bool = False
    untrained: bool = False
    features: Callable[["Step"], bool] = _no
    confidence: Callable[["Step"], bool] = _no
    background: Callable[["Step"], float | None] = _no_background
    reuses_maps: bool = False
    cell_bytes: Callable[["Step"], float] | None = None
    check: Callable[["Step", "Photos", "torch.device"], None] | None = None
    then: Callable[["Step", "Photos"], "Photos"] | None = None
    for_readers: frozenset[str] = frozenset()
    protocol: Callable[["Step"], Mapping[str, Any]] = _nothing_to_say
    compared_as: Literal["cam", "seeds"] | None = None


@dataclass(frozen=True)
class Step:
    """A step of a run, as its kind's functions and the steps that read it see it; picklable.

    Attributes:
        name: the step's, and its folder's.
        kind: what it does.
        settings: of the kind's type.
        inputs: by the names of the kind's slots.
        folder: where it writes.
        seed: the recipe's, where the kind draws, else 0.
        long_side: photos with a longer side are worked on at that size, in pixels.
        device: where networks run, as torch names it.
        kept: whether it writes files; else whoever reads it computes what they would hold.
    """

    name: str
    kind: Kind
    settings: Any
    inputs: tuple[tuple[str, "Step"], ...]
    folder: Path
    seed: int
    long_side: int
    device: str
    kept: bool = True

    def __getitem__(self, slot: str) -> "Step":
        """The input of a slot, the first if it has several."""
        return next(step for name, step in self.inputs if name == slot)

    def get(self, slot: str) -> "Step | None":
        """The input of a slot that may have none."""
        return next((step for name, step in self.inputs if name == slot), None)

    @cached_property
    def gives(self) -> Gives:
        return self.kind.gives if isinstance(self.kind.gives, frozenset) else self.kind.gives(self)

    @property
    def background(self) -> float | None:
        """The constant score that its maps stand against, if any."""
        return self.kind.background(self)

    @property
    def source(self) -> "Step":
        """The step that makes its maps."""
        return self.inputs[0][1].source if self.kind.reuses_maps else self

    def behind(self) -> Iterator["Step"]:
        """The step and all that it is made of, the nearest first."""
        found = {self.name: self}
        waiting = [self]
        while waiting:
            yield (one := waiting.pop(0))
            new = {given.name: given for _, given in one.inputs if given.name not in found}
            found |= new
            waiting += new.values()

    @property
    def tags(self) -> "Step | None":
        """The step whose tags it sees: its input that gives some, or its first input's."""
        own = next((step for _, step in self.inputs if Artefact.TAGS in step.gives), None)
        return own or (self.inputs[0][1].tags if self.inputs else None)

    def check_rows(self, slot: str) -> None:
        """Refuse maps whose rows are of other tags than this step's photos have.

        Raises:
            WeaksegError: an input of the slot gives such.
        """
        for name, given in self.inputs:
            if name == slot and Artefact.MAPS in given.gives and given.tags is not self.tags:
                raise WeaksegError(
                    f"{self.name} reads the maps of {given.name}, which sees other tags than "
                    f"{self.inputs[0][1].name}: read masks of it, or have both see the same tags."
                )

    @property
    def has_features(self) -> bool:
        """Whether its maps come with features."""
        return self.source.kind.features(self.source)

    @property
    def has_confidence(self) -> bool:
        """Whether its maps come with a classifier's confidence."""
        return self.source.kind.confidence(self.source)

    @property
    def has_background_row(self) -> bool:
        """Whether row 0 of its maps is the background."""
        return {Artefact.MAPS, Artefact.MASKS} <= self.gives and self.background is None

    @property
    def uses_network(self) -> bool:
        """Whether a network looks at photos for it, or for what isn't kept of its inputs."""
        read = (one for _, step in self.inputs for one in (step, step.source))
        return self.kind.network or any(not one.kept and one.uses_network for one in read)

    def protocol(self) -> dict[str, Any]:
        """How its masks came about, as a row of `metrics.json` says it."""
        follows = self.inputs and not self.gives & NETWORKS
        first = self.inputs[0][1].protocol() if follows else {}
        return {**first, **self.kind.protocol(self)}

    def photo(self, task: PhotoTask) -> NDArray[np.uint8]:
        """A photo as it is worked on: uint8 (H, W, 3), no longer than `long_side`."""
        return shrink(read_photo(task.sample.image), self.long_side)


@dataclass(frozen=True)
class Photos:
    """What a step sees of the data set.

    Attributes:
        classes: names of the mask ids 1 to C.
        samples: the photos that the step works on.
        learned: the classes that a classifier learns.
        balance: how many photos a class has in training.
        sizes: height and width of each photo, by id.
        reviewed: masks that a person has mended or accepted, by id, of a step that learns masks.
    """

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    learned: tuple[str, ...]
    balance: Balance
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    reviewed: Mapping[str, Path] = field(default_factory=dict)

    def task(self, sample: Sample) -> PhotoTask:
        """A photo's share of a step."""
        return task_of(sample, self.classes)


class Executor(Protocol):
    """Maps a function over items, in any place and order of work, results in the items' order."""

    @property
    def workers(self) -> int:
        """How many items are worked on at a time."""

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        """Apply `make()` to every item.

        Args:
            make: picklable and compared by value (a frozen dataclass with `__call__`); called
                once in each worker, so that what is dear to set up (a network, say) is set up once.
                A worker's threads may call what it made at the same time.
            items: picklable; taken as they are needed.

        Raises:
            WeaksegError: what `make()` raised on an item, or that a worker died.
        """

    def rest(self) -> None:
        """Give up what workers hold, memory above all, before long work that is not theirs.

        The next map sets up what it needs anew.
        """


@dataclass(frozen=True)
class Tools:
    """What a step works with.

    Attributes:
        photos: what it sees of the data.
        cpu: does per-photo work without a network.
        network: does that of a network: a GPU is one place, not one a core.
        progress: is told how far it is.
        device: where networks are trained.
    """

    photos: Photos
    cpu: Executor
    network: Executor
    progress: Progress
    device: "torch.device"


def made(folder: Path, *names: str) -> bool:
    """Whether a folder has all these files."""
    return all((folder / name).is_file() for name in names)


def map_photos(
    tools: Tools,
    name: str,
    make: Callable[[], Callable[[PhotoTask], str | None]],
    is_done: Callable[[Sample], bool],
    executor: Executor,
    by_size: bool = False,
) -> None:
    """Do per-photo work for every photo that is not done yet.

    Args:
        name: shown with the progress.
        make: makes the function that does one photo, and may return a line to say; see `Executor`.
        by_size: whether photos of one size follow each other: for a network, whose convolutions
            are compiled for each size on a CPU.
    """
    samples = tools.photos.samples
    left = [sample for sample in samples if not is_done(sample)]
    with tools.progress.track(name, len(samples), len(samples) - len(left)) as advance:
        ordered: Iterable[Sample] = left
        if by_size:
            groups = same_size(left, lambda sample: sample.image)
            ordered = (sample for _, same in groups for sample in same)
        for said in executor.map(make, map(tools.photos.task, ordered)):
            if said:
                tools.progress.say(said)
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
