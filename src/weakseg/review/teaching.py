"""Strokes on some photos teach all: the masks that nobody touched follow those that were."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

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
            if levels := self.review.levels(photo):
                right -= self._lesson(levels, self._stored(photo))
                right += self._lesson(levels, read_mask(path)) * WEIGHT
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
            if levels := self.review.levels(photo):
                yield self._lesson(levels, self._stored(photo))

    def _stored(self, photo: str) -> NDArray[np.uint8]:
        """A photo's mask under the tags that it had when the run made it, whatever came since."""
        return self.review.run.mask(photo, self.review.step.name)

    def _lesson(self, levels: Sequence[NDArray[Any]], mask: NDArray[np.uint8]) -> Lesson:
        return lesson_of(cells_of(levels, *mask.shape), mask, len(self.review.run.classes))

    def _follow(self, photo: str, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
        """Keep a photo's mask as the head has it now; the share of it that was another."""
        review = self.review
        if not (levels := review.levels(photo)):
            return 0.0
        made, shown = review.made(photo), review.base(photo)
        cells, class_ids = cells_of(levels, *made.shape), review.task(photo).class_ids
        found = follow(cells, before, after, made, class_ids)
        if (found == made).all():
            remove(review.reviewed.taught(photo))
        else:
            write_mask(review.reviewed.taught(photo), found)
        return float((found != shown).mean())
