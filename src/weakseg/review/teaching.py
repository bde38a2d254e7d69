"""Strokes on some photos teach all: the masks that nobody touched follow those that were."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.files import remove
from weakseg.refine.teaching import Lesson, cells_of, follow, lesson_of
from weakseg.review.photos import Review

WEIGHT = 5
"""What a cell weighs that a person has had before them, beside one of a pseudo mask."""


class Taught(NamedTuple):
    """What has come of it.

    Attributes:
        changed: photos whose mask is another now, and of how much of it, the most first.
        seconds: that it took.
    """

    changed: list[tuple[str, float]]
    seconds: float


@dataclass(frozen=True)
class Teacher:
    """Teaches a review's photos what was drawn on others."""

    review: Review

    def teach(self) -> Taught:
        """Give every photo that nobody touched the mask that the others' teach.

        Raises:
            WeaksegError: nothing was drawn yet, or the run keeps no features.
        """
        start, reviewed = time.perf_counter(), self.review.reviewed
        own = reviewed.masks(self.review.order)
        if not own:
            raise WeaksegError("Nothing is drawn or accepted yet that could teach other photos.")
        before = self._made.learned()
        right = self._made
        for photo, path in own.items():
            cells = self._cells(photo)
            if cells.shape[1] > 1:
                right -= self._lesson(cells, self.review.made(photo))
                right += self._lesson(cells, read_mask(path)) * WEIGHT
        after = right.learned()
        changed = [
            (photo, share)
            for photo in self.review.order
            if photo not in own and (share := self._follow(photo, before, after))
        ]
        changed.sort(key=lambda found: -found[1])
        return Taught(changed, time.perf_counter() - start)

    @cached_property
    def _made(self) -> Lesson:
        """The lesson of all masks as the run has made them."""
        lessons = self._lessons()
        first = next(lessons, None)
        if first is None:
            raise WeaksegError(
                "Strokes can teach other photos where a run keeps features: of a step of kind "
                "features with stages, or of kind cam with feature_stages. This one keeps none."
            )
        return sum(lessons, first)

    def _lessons(self) -> Iterator[Lesson]:
        for photo in self.review.order:
            cells = self._cells(photo)
            if cells.shape[1] > 1:
                yield self._lesson(cells, self.review.made(photo))

    def _lesson(self, cells: NDArray[np.float32], mask: NDArray[np.uint8]) -> Lesson:
        return lesson_of(cells, mask, len(self.review.run.classes))

    def _cells(self, photo: str) -> NDArray[np.float32]:
        return cells_of(self.review.levels(photo), *self.review.made(photo).shape)

    def _follow(self, photo: str, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
        """Keep a photo's mask as the head has it now; the share of it that was another."""
        review = self.review
        made, shown = review.made(photo), review.base(photo)
        cells, class_ids = self._cells(photo), review.task(photo).class_ids
        if cells.shape[1] == 1:
            return 0.0
        found = follow(cells, before, after, made, class_ids)
        if (found == made).all():
            remove(review.reviewed.taught(photo))
        else:
            write_mask(review.reviewed.taught(photo), found)
        return float((found != shown).mean())
