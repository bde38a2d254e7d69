"""What an exporter is, and what it is given: photos with their masks, and workers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from weakseg.data.check import read_usable
from weakseg.data.images import photo_size
from weakseg.data.masks import IGNORE, MaskFile, UnreadableMask
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError
from weakseg.files import stamp
from weakseg.methods.base import Executor
from weakseg.progress import Progress

Result = TypeVar("Result")

_SHARD = 2**28  # bytes


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that is exported: small, and picklable.

    Attributes:
        id: the photo's, in the data set.
        number: its place among those exported, from 1.
        image: its file.
        mask: the file of its mask.
        objects: the file in which the objects of its mask are numbered, if they are told apart.
        confidence: of its mask, in [0, 1], where a run says so.
        accepted: whether a person has accepted its mask.
    """

    id: str
    number: int
    image: Path
    mask: Path
    objects: Path | None = None
    confidence: float | None = None
    accepted: bool = False


class Masked(NamedTuple):
    """A photo and its mask, read.

    Attributes:
        ids: uint8 (H, W), of the upright photo's size: 0 background, class ids, 255 uncertain.
        objects: uint8 (H, W), numbers of objects from 1, 0 elsewhere; None if not told apart.
    """

    photo: Photo
    ids: NDArray[np.uint8]
    objects: NDArray[np.uint8] | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.ids.shape
        return height, width

    def regions(self) -> tuple[NDArray[np.uint16], list[int]]:
        """The regions of the mask: a class's pixels, or those of one of its objects.

        Returns:
            uint16 (H, W), each pixel's region from 1, 0 where there is none (background and
            uncertain pixels), and the class ids of regions 1, 2, ..., ascending.
        """
        key = self.ids.astype(np.uint16) << 8
        if self.objects is not None:
            key |= self.objects
        key[(self.ids == 0) | (self.ids == IGNORE)] = 0
        used = np.flatnonzero(np.bincount(key.ravel(), minlength=1))
        used = used[used > 0]
        number = np.zeros(2**16, np.uint16)
        number[used] = np.arange(1, len(used) + 1)
        return number[key], (used >> 8).tolist()


Work = Callable[..., Result]
"""What is done of one photo in a worker, `work(*given, masked)`: a module's own function."""


@dataclass
class Job:
    """One export: of which run, which photos, by whom.

    Attributes:
        run: what is exported.
        step: whose masks, or which network; None: the last.
        choose: makes the list of photos, once one is asked for.
        executor: does what `map` is given.
        uncertain: how many of the photos mapped so far have uncertain pixels.
    """

    run: Run
    step: str | None
    choose: Callable[[], Sequence[Photo]]
    executor: Executor
    progress: Progress
    uncertain: int = field(default=0, init=False)

    @cached_property
    def photos(self) -> Sequence[Photo]:
        """What is exported, by id; one at least."""
        return self.choose()

    @cached_property
    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """The photos' tags by id, but for those that nobody tagged."""
        return self.run.tags()

    @property
    def split(self) -> str:
        """Name of the split, as files have it."""
        return str(self.run.record.data["split"])

    def map(self, work: Work[Result], *given: Any) -> Iterator[tuple[Photo, Result]]:
        """Do what is to be done of each photo, in the order of `photos`, on all cores.

        Raises:
            WeaksegError: a photo or a mask can't be read, or they don't fit each other.
        """
        with self.progress.track("export", len(self.photos)) as advance:
            yield from self._map(self.photos, advance, work, given)

    def map_shards(
        self, path: Callable[[int], Path], work: Work[Result], *given: Any
    ) -> Iterator[tuple[Path, Iterator[tuple[Photo, Result]]]]:
        """What `map` gives, in parts of some 256 MB, but for those whose file is there.

        Args:
            path: the file of a part, by its number from 0; written whole or not at all.
        """
        shards = [(path(number), photos) for number, photos in enumerate(_shards(self.photos))]
        done = sum(len(photos) for file, photos in shards if file.exists())
        with self.progress.track("export", len(self.photos), done) as advance:
            for file, photos in shards:
                if not file.exists():
                    yield file, self._map(photos, advance, work, given)

    def _map(
        self,
        photos: Sequence[Photo],
        advance: Callable[[int], None],
        work: Work[Result],
        given: Sequence[Any],
    ) -> Iterator[tuple[Photo, Result]]:
        make = _Reader(work, tuple(given), len(self.run.classes))
        results = self.executor.map(make, photos)
        for photo, (result, uncertain) in zip(photos, results, strict=True):
            self.uncertain += uncertain
            yield photo, result
            advance(1)


def _shards(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    """Photos that follow each other, whose files have some 256 MB together."""
    start = size = 0
    for number, photo in enumerate(photos):
        size += stamp(photo.image)[0]
        if size > _SHARD:
            yield photos[start : number + 1]
            start, size = number + 1, 0
    if start < len(photos):
        yield photos[start:]


@dataclass(frozen=True)
class _Reader:
    work: Work[Any]
    given: tuple[Any, ...]
    classes: int

    def __call__(self) -> Callable[[Photo], tuple[Any, bool]]:
        def do(photo: Photo) -> tuple[Any, bool]:
            size = photo_size(photo.image)
            ids = _read(photo.mask, size, self.classes)
            objects = _read(photo.objects, size, IGNORE) if photo.objects else None
            if objects is not None:
                objects[objects == IGNORE] = 0
            found = self.work(*self.given, Masked(photo, ids, objects))
            return found, bool((ids == IGNORE).any())

        return do


def _read(mask: Path, size: tuple[int, int], ids: int) -> NDArray[np.uint8]:
    try:
        return read_usable(MaskFile.of(mask), size, ids)
    except UnreadableMask as error:
        raise WeaksegError(
            f"{error} The same `weakseg run` again makes a step's masks anew; one accepted in "
            "review has to be drawn again."
        ) from error


@dataclass(frozen=True)
class Exporter:
    """A format to export to: one file in `weakseg.export`, and a line in its `EXPORTERS`.

    Attributes:
        name: on the command line.
        summary: one line for `weakseg list exports`.
        write: fills an empty folder, or writes the one file. Functions that it maps over photos
            have to be importable, since workers import them. What an extra of `pyproject.toml`
            brings is imported here.
        file: the name of the one file that it writes of a run, and not of its photos; None: it
            fills a folder.
        uncertain: what becomes of uncertain pixels, where the format can't say so; a sentence's end
            after "photos have uncertain pixels (255), which".
        check: finds out before anything is written whether it can be done, and raises WeaksegError.
        sharded: whether it is in shards (`Job.map_shards`), so that after a kill the same export
            goes on behind those that are whole.
    """

    name: str
    summary: str
    write: Callable[[Job, Path], None]
    file: str | None = None
    uncertain: str | None = None
    check: Callable[[Run], None] | None = None
    sharded: bool = False
