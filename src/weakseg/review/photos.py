"""A run's photos as they are reviewed: in order of need, with what mends their masks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.dataset import Dataset, Sample
from weakseg.data.images import read_photo
from weakseg.data.masks import BACKGROUND, IGNORE, read_mask
from weakseg.engine.balance import without_dropped
from weakseg.engine.confidence import scores_behind
from weakseg.engine.context import mask_steps
from weakseg.engine.opened import Run
from weakseg.engine.reviewed import Reviewed, Strokes
from weakseg.errors import WeaksegError
from weakseg.methods.base import Artefact, PhotoTask, Step, task_of
from weakseg.methods.features import open_levels
from weakseg.methods.maps import MAPS, open_scores
from weakseg.methods.segment import CRF
from weakseg.names import final
from weakseg.refine.settings import CRFSettings
from weakseg.refine.strokes import Mender

KERNELS = replace(CRF.kernels, iterations=5)
"""Where a run's recipe has no CRF of its own."""


@dataclass(frozen=True)
class Review:
    """The photos of a run, and what mends their masks.

    Attributes:
        run: as it was opened.
        reviewed: what a person has said so far.
        step: the step whose masks are mended.
        dataset: the run's photos under the tags that the data has.
    """

    run: Run
    reviewed: Reviewed
    step: Step
    dataset: Dataset

    @classmethod
    def of(cls, run: Run, step: str | None = None) -> "Review":
        """The review of a run, begun or gone on with.

        Args:
            step: whose masks; by default the last that has made some.

        Raises:
            WeaksegError: the run has no masks yet, or its photos are gone.
        """
        dataset = without_dropped(run.dataset(), run.recipe.data)
        made = [one.name for one in mask_steps(run.steps.values(), held_out=False)]
        names = [step] if step else made[::-1]
        chosen = next((name for name in names if run.photos(name)), None)
        if chosen is None or chosen not in made:
            raise WeaksegError(
                f"{run.folder} has no masks {f'of {step} ' if step else ''}to review yet. Steps "
                f"that make some: {', '.join(made) or 'none'}."
            )
        reviewed = Reviewed.of(run.folder)
        reviewed.retagged(dataset)  # what a run refuses, a page can't show
        return cls(run, reviewed, run.steps[chosen], dataset)

    @cached_property
    def photos(self) -> frozenset[str]:
        """Ids of the photos that have a mask."""
        return frozenset(self.run.photos(self.step.name)) & self._given.keys()

    def sample(self, photo: str) -> Sample:
        """A photo under the tags of the review."""
        given = self._given[photo]
        tags = self.reviewed.tags.get(photo, given.tags)
        return replace(given, tags=tuple(sorted(tags, key=self.run.classes.index)))

    @cached_property
    def order(self) -> list[str]:
        """Ids of the photos, the least certain mask first."""
        sure = self.run.confidence
        return sorted(self.photos, key=lambda photo: (sure.get(photo, 1.0), photo))

    @property
    def crf(self) -> CRFSettings:
        """The CRF's kernels: the recipe's last, or `KERNELS`."""
        own = [one.settings.kernels for one in self.run.steps.values() if one.kind.name == "crf"]
        return own[-1] if own else KERNELS

    def base(self, photo: str) -> NDArray[np.uint8]:
        """A photo's mask before any stroke on it, uint8 (H, W).

        It is the run's, or what strokes on others have taught; a tag that was lost is background.
        """
        taught = self.reviewed.taught_over(photo, self.step.folder)
        return self._kept_to_tags(photo, read_mask(taught) if taught else self._made(photo))

    def made(self, photo: str) -> NDArray[np.uint8]:
        """A photo's mask as the run has made it, uint8 (H, W); a lost tag is background."""
        return self._kept_to_tags(photo, self._made(photo))

    def mender(self, photo: str) -> Mender:
        """What mends a photo's mask, in mask ids."""
        sample, mask = self.sample(photo), self.base(photo)
        labels = np.where(mask == IGNORE, -1, mask.astype(np.int16))
        return Mender(read_photo(sample.image), labels, self.levels(photo), self.scores(photo))

    def mended(self, mender: Mender, strokes: Strokes) -> NDArray[np.uint8]:
        """The mask that strokes make, uint8 (H, W).

        Raises:
            WeaksegError: a stroke is of no class of the run.
        """
        drawn = [stroke.stroke(self.run.classes) for stroke in strokes.strokes]
        return self.mask_of(mender.mend(drawn, self.crf if strokes.crf else None))

    def mask(self, photo: str) -> NDArray[np.uint8]:
        """A photo's mask as it is now, uint8 (H, W)."""
        path = self.reviewed.mask(photo)
        return read_mask(path) if path else self.base(photo)

    @staticmethod
    def mask_of(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
        """Labels of a mender as a mask."""
        return np.where(labels < 0, IGNORE, labels).astype(np.uint8)

    def task(self, photo: str) -> PhotoTask:
        return task_of(self.sample(photo), self.run.classes)

    def named(self, photo: str) -> list[str]:
        """What a stroke on a photo can be of: background, and its tags."""
        return [BACKGROUND, *self.sample(photo).tags]

    def levels(self, photo: str) -> Sequence[NDArray[Any]]:
        """A photo's features, the deepest last; none where the run keeps none."""
        for step in self.run.steps.values():
            if not (step.folder / f"{photo}{MAPS}").is_file():
                continue
            if Artefact.FEATURES in step.gives and (step.settings.stages or step.settings.scales):
                scales = [final(scale) for scale in sorted(step.settings.scales)[-1:]]
                return open_levels(step, *scales)(self.task(photo))
            if step.kind.features(step):
                return open_levels(step)(self.task(photo))
        return []

    def _made(self, photo: str) -> NDArray[np.uint8]:
        return self.run.mask(photo, self.step.name)

    def _kept_to_tags(self, photo: str, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if photo in self.reviewed.tags:
            mask[~np.isin(mask, (0, IGNORE, *self.task(photo).class_ids))] = 0
        return mask

    @cached_property
    def _given(self) -> dict[str, Sample]:
        return {sample.id: sample for sample in self.dataset.samples}

    def scores(self, photo: str) -> dict[int, NDArray[np.float32]]:
        """Scores (h, w) by mask id; none of a photo whose tags are no longer those they are of."""
        step = scores_behind(self.step)
        if step is None or photo in self.reviewed.tags:
            return {}
        if not (step.source.folder / f"{photo}{MAPS}").is_file():
            return {}
        scores = open_scores(step)(self.task(photo))
        ids = (0, *self.task(photo).class_ids)
        return dict(zip(ids, scores, strict=True)) if len(ids) == len(scores) else {}
