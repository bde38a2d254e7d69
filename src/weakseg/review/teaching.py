"""Strokes on some photos teach all: the masks that nobody touched follow those that were."""

import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import read_mask, write_mask
from weakseg.errors import WeaksegError
from weakseg.files import remove
from weakseg.refine.teaching import Lesson, background_trust, cells_of, follow, lesson_of
from weakseg.review.photos import Review

WEIGHT = 20
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
        shown = {name for path in own.values() for name in np.unique(read_mask(path)).tolist()}
        before, after = self._learned(own, shown)
        changed = [
            (photo, share)
            for photo in self.review.order
            if photo not in own and (share := self._follow(photo, before, after, shown))
        ]
        changed.sort(key=lambda found: -found[1])
        return Taught(changed, time.perf_counter() - start)

    def _learned(
        self, own: Mapping[str, Path], shown: Set[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The head of all masks as the run has made them, and of what became of some."""
        made: Lesson | None = None
        right: Lesson | None = None
        classes = len(self.review.run.classes)
        for photo in self.review.order:
            if not (levels := self.review.levels(photo)):
                continue
            mask = self._stored(photo)
            cells = cells_of(levels, *mask.shape)
            lesson = lesson_of(cells, mask, classes, self._trust(photo, mask, shown))
            made = made + lesson if made else lesson
            if photo in own:
                lesson = lesson_of(cells, read_mask(own[photo]), classes) * WEIGHT
            right = right + lesson if right else lesson
        if made is None or right is None:
            raise WeaksegError(
                "Strokes can teach other photos where a run keeps features: of a step of kind "
                "features with stages, or of kind cam with feature_stages. This one keeps none."
            )
        return made.learned(), right.learned()

    def _stored(self, photo: str) -> NDArray[np.uint8]:
        """A photo's mask under the tags that it had when the run made it, whatever came since."""
        return self.review.run.mask(photo, self.review.step.name)

    def _trust(self, photo: str, mask: NDArray[np.uint8], shown: Set[int]) -> float:
        class_ids = self.review.task(photo).class_ids
        return background_trust(mask, [name for name in class_ids if name in shown])

    def _follow(
        self,
        photo: str,
        before: NDArray[np.float32],
        after: NDArray[np.float32],
        shown: Set[int],
    ) -> float:
        """Keep a photo's mask as the head has it now; the share of it that was another."""
        review = self.review
        if not (levels := review.levels(photo)):
            return 0.0
        made, was = review.made(photo), review.base(photo)
        cells, class_ids = cells_of(levels, *made.shape), review.task(photo).class_ids
        trust = self._trust(photo, made, shown)
        found = follow(cells, before, after, made, class_ids, trust)
        if (found == made).all():
            remove(review.reviewed.taught(photo))
        else:
            write_mask(review.reviewed.taught(photo), found)
        return float((found != was).mean())
