"""What the parts of a run share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weakseg.data.balance import Balance
from weakseg.data.dataset import Dataset, Sample
from weakseg.methods.base import Artefact, Executor, Photos, PhotoTask, Step, Tools, task_of
from weakseg.progress import Progress
from weakseg.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Context:
    """A run, as far as it is.

    Attributes:
        folder: the run's folder; each step has the folder of its name in it.
        steps: of the recipe, each after those that it reads.
        dataset: the data set, without the photos that can't be read.
        held_out: the photos that the trained segmentation network is tried on, likewise.
        cpu, network: executors of per-photo work without and with a network.
        device: where networks run.
        left_out: why photos of the split are left out -> how many.
        sizes: height and width of each photo, by id, once they have been looked at.
        seen: what readers of each step that gives tags see of the photos.
        reviewed: masks that a person has mended or accepted, by id.
        chosen: ids of the photos that get masks for now; None: all.
    """

    folder: Path
    recipe: Recipe
    steps: tuple[Step, ...]
    dataset: Dataset
    held_out: Dataset
    cpu: Executor
    network: Executor
    progress: Progress
    device: "torch.device"
    left_out: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    seen: Mapping[str, Photos] = field(default_factory=dict)
    reviewed: Mapping[str, Path] = field(default_factory=dict)
    chosen: frozenset[str] | None = None

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

    def masked_samples(self) -> Sequence[Sample]:
        """The samples that pseudo masks are made for."""
        return self._masked(self.dataset.samples)

    def tried_on(self) -> Sequence[Sample]:
        """The samples that the segmentation network is tried on."""
        return self.held_out.samples if self.recipe.data.held_out else self.masked_samples()

    def task(self, sample: Sample) -> PhotoTask:
        """A photo's share of the work, with the tags of the data set."""
        return task_of(sample, self.dataset.classes)

    def photos(self, step: Step) -> Photos:
        """What a step sees of the data."""
        if step.kind.photos == "held out":
            return self._photos(tuple(self.tried_on()))
        seen = self._seen(step)
        if step.kind.learns_masks:
            seen = replace(seen, reviewed=self.reviewed)
        if step.kind.photos == "all":
            return seen
        return replace(seen, samples=tuple(self._masked(seen.samples)))

    def tools(self, step: Step) -> Tools:
        return Tools(self.photos(step), self.cpu, self.network, self.progress, self.device)

    @property
    def learns_tags(self) -> bool:
        """Whether the tags are learned from, so that some of them may not be fit for it."""
        classifiers = [step for step in self.steps if Artefact.CLASSIFIER in step.gives]
        return not classifiers or not all(step.kind.untrained for step in classifiers)

    def mask_steps(self, held_out: bool | None = None) -> tuple[Step, ...]:
        """The steps whose masks are kept, of the split's photos or of those held out, or both."""
        return mask_steps(self.steps, held_out)

    def _masked(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        every = samples[:: self.recipe.data.every]
        if self.chosen is None:
            return every
        return [sample for sample in every if sample.id in self.chosen]

    def _seen(self, step: Step) -> Photos:
        """The photos under the tags of the step that it has them from, once that has ended."""
        if step.tags and step.tags.name in self.seen:
            return self.seen[step.tags.name]
        return self._photos(self.dataset.samples)

    def _photos(self, samples: tuple[Sample, ...]) -> Photos:
        classes = self.dataset.classes
        balance = self.recipe.data.balance or Balance()
        return Photos(classes, samples, classes, balance, self.sizes)


def mask_steps(steps: Iterable[Step], held_out: bool | None = None) -> tuple[Step, ...]:
    """Those whose masks are kept, of the split's photos or of those held out, or both."""
    return tuple(
        step
        for step in steps
        if step.kept
        and Artefact.MASKS in step.gives
        and held_out in (None, step.kind.photos == "held out")
    )
