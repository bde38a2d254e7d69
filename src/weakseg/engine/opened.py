"""A run's folder, read: its classes, steps, figures, masks and maps."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, RootModel, ValidationError

from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.formats import find_format
from weakseg.data.masks import read_mask
from weakseg.engine.assess import ASSESSMENT
from weakseg.engine.confidence import read_confidence
from weakseg.engine.context import mask_steps
from weakseg.engine.evaluate import METRICS
from weakseg.engine.record import RECORD, Record, read_record
from weakseg.engine.reviewed import Reviewed
from weakseg.errors import WeaksegError, mismatch, unknown_name
from weakseg.files import absolute, read_written
from weakseg.methods.base import PhotoMaps, Step
from weakseg.methods.maps import MAPS, MASK, read_maps, suffixes
from weakseg.recipe import RECIPE, Recipe, load_recipe

FILES = "photos.json"
"""Id -> file of the photos of a run that has no data set's folder."""


class _Read(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class _Data(_Read):
    """What a run's record has to say of its data; what is in its other files follows."""

    folder: str
    format: str
    split: str
    photos: NonNegativeInt
    classes: tuple[str, ...]


class _Protocol(_Read):
    of: list[str] = []
    dropped: list[str] = []


class _Row(_Read):
    name: str
    split: str
    images: NonNegativeInt
    miou: float | None
    mean_accuracy: float | None
    pixel_accuracy: float | None
    per_class: dict[str, float | None]
    protocol: _Protocol
    abo: float | None = None


class _Surer(_Read):
    left_out: float
    images: NonNegativeInt
    miou: float | None


class _Reliability(_Read):
    step: str
    pairs: NonNegativeInt
    spearman: float | None
    spearman_within_class: float | None
    surer: Annotated[list[_Surer], Field(min_length=1)]


class _Metrics(_Read):
    stages: list[_Row]
    confidence: _Reliability | None = None


class _Class(_Read):
    name: str
    photos: NonNegativeInt
    masks: NonNegativeInt
    average_precision: float | None
    base_rate: float | None
    coverage: float | None
    nearly_empty: NonNegativeInt
    nearly_full: NonNegativeInt
    without_seeds: NonNegativeInt | None
    cam_agreement: float | None
    remarks: list[str]


class _Assessment(_Read):
    classes: list[_Class]


class _Files(RootModel[dict[str, str]]):
    pass


@dataclass(frozen=True)
class Run:
    """A run's folder, as far as the run is; `open_run` opens one.

    Attributes:
        folder: where it is.
        recipe: what was run, resolved.
    """

    folder: Path
    recipe: Recipe

    @cached_property
    def record(self) -> Record:
        """What `run.json` holds: version, seed, device, data, and how far each step is."""
        return read_record(self.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask ids 1 to C."""
        return tuple(self.record.data["classes"])

    @cached_property
    def steps(self) -> Mapping[str, Step]:
        """The recipe's steps by name, each after those that it reads."""
        return {step.name: step for step in self.recipe.build(self.folder)}

    @property
    def masks(self) -> str:
        """Name of the last step that makes masks of the photos that were learned from."""
        made = mask_steps(self.steps.values(), held_out=False)
        if not made:
            raise WeaksegError(f"The recipe of {self.folder} makes no masks.")
        return made[-1].name

    @property
    def figures(self) -> list[dict[str, Any]]:
        """The rows of `metrics.json`; none before the run has come so far."""
        return list(self._metrics.get("stages", []))

    @property
    def reliability(self) -> dict[str, Any]:
        """How well `confidence` tells the true IoU, where there are true masks; else nothing."""
        return dict(self._metrics.get("confidence") or {})

    @property
    def assessment(self) -> list[dict[str, Any]]:
        """What is said of each class without ground truth; nothing before the run is so far."""
        path = self.folder / ASSESSMENT
        return list(read_written(path, _Assessment)["classes"]) if path.exists() else []

    @cached_property
    def confidence(self) -> dict[str, float]:
        """How sure each of the last masks is, in [0, 1], by photo; see `weakseg.confidence`.

        Empty before the run has come so far, and where nothing tells.
        """
        _, entries = read_confidence(self.folder)
        return {photo: entry.confidence for photo, entry in entries}

    def photos(self, step: str) -> list[str]:
        """Ids of the photos that a step has made masks or maps of, so far."""
        made = self._step(step)
        found = set()
        for place, _, names in os.walk(made.folder):
            within = Path(place).relative_to(made.folder).as_posix()
            before = "" if within == "." else f"{within}/"
            for name in names:
                photo, suffix = os.path.splitext(name)  # noqa: PTH122
                if suffix in suffixes(made) and name[0] != ".":  # not what is just being written
                    found.add(f"{before}{photo}")
        return sorted(found)

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The photos' own files, by id: all of the data set's folder, whatever the split.

        Raises:
            WeaksegError: the folder is no longer there, or no longer a data set's.
        """
        if (known := self.folder / FILES).is_file():
            return {name: Path(place) for name, place in read_written(known, _Files).items()}
        root = absolute(self.record.data["folder"])
        return find_format(root, self.record.data["format"]).photos(root).paths

    def dataset(self, split: str | None = None, untagged: bool = False) -> Dataset:
        """The data that the run is of, as they are now.

        Args:
            split: a split's name; None: that which was learned from.
            untagged: see `weakseg.data.dataset.load_dataset`.

        Raises:
            WeaksegError: as `load_dataset`.
        """
        data = self.record.data
        root = absolute(data["folder"])
        if (self.folder / FILES).is_file():
            samples = (Sample(name, path, self.classes, None) for name, path in self.files.items())
            there = tuple(sample for sample in samples if sample.image.is_file())
            return Dataset(root, data["format"], self.classes, there, untagged=(), missing=())
        return load_dataset(root, split or data["split"], data["format"], untagged)

    def tags(self) -> dict[str, tuple[str, ...]]:
        """The tags of the run's photos, those held out as well, by id; none that nobody tagged.

        They are those of the data as they are now, or what a review has made of them.

        Raises:
            WeaksegError: as `dataset`.
        """
        splits = (self.record.data["split"], self.recipe.data.held_out)
        reviewed = Reviewed.of(self.folder)
        found: dict[str, tuple[str, ...]] = {}
        for split in dict.fromkeys(split for split in splits if split):
            dataset = reviewed.retagged(self.dataset(split, untagged=True))
            unknown = set(dataset.untagged) - reviewed.tags.keys()
            found |= {one.id: one.tags for one in dataset.samples if one.id not in unknown}
        return found

    def mask(self, photo: str, step: str | None = None) -> NDArray[np.uint8]:
        """A photo's mask, uint8 (H, W): 0 background, ids of `classes` from 1, 255 uncertain.

        Args:
            photo: its id.
            step: whose mask; by default that of `masks`, unless it was mended in a review.

        Raises:
            WeaksegError: there is none.
        """
        path = self.mask_file(photo, step)
        if not path.is_file():
            name = step or self.masks
            raise WeaksegError(
                f"{name} has no mask of {photo!r} in {self.folder}. See its photos({name!r})."
            )
        return read_mask(path)

    def mask_file(self, photo: str, step: str | None = None) -> Path:
        """Where the mask lies that `mask` reads, or would."""
        folder, reviewed = self._step(step or self.masks).folder, Reviewed.of(self.folder)
        made = folder / f"{photo}{MASK}"
        if step is not None:
            return made
        return reviewed.mask(photo) or reviewed.taught_over(photo, folder) or made

    def maps(self, photo: str, step: str, *parts: str) -> PhotoMaps:
        """A photo's maps on their grid; see `weakseg.methods.base.PhotoMaps`.

        Args:
            photo: its id.
            step: whose maps.
            parts: what is read beside the scores: "features", "confidence".

        Raises:
            WeaksegError: there are none.
        """
        source = self._step(step).source
        if not (source.folder / f"{photo}{MAPS}").is_file():
            raise WeaksegError(f"{step} has no maps of {photo!r} in {self.folder}.")
        return read_maps(source, photo, *parts)

    @property
    def _metrics(self) -> dict[str, Any]:
        path = self.folder / METRICS
        return dict(read_written(path, _Metrics)) if path.exists() else {}

    def _step(self, name: str) -> Step:
        if name not in self.steps:
            raise unknown_name("step", name, self.steps)
        return self.steps[name]


def open_run(folder: str | Path) -> Run:
    """Open a run's folder, whether the run has ended or not; nothing in it is changed.

    Raises:
        WeaksegError: it is no run's folder, or what it says of itself is damaged.

    Examples:
        >>> import weakseg
        >>> run = weakseg.open_run("out")
        >>> run.classes
        ('car', 'cat', 'fish', 'flower', 'owl', 'snail')
        >>> photo = run.photos("svm+crf")[0]
        >>> run.mask(photo).dtype
        dtype('uint8')
        >>> run.maps(photo, "svm").scores.dtype
        dtype('float32')
    """
    place = absolute(folder)
    if not (place / RECORD).is_file() or not (place / RECIPE).is_file():
        raise WeaksegError(f"{place} is no run's folder (it has no {RECORD} and {RECIPE}).")
    run = Run(place, load_recipe(str(place / RECIPE)))
    try:
        _Data.model_validate(run.record.data)
    except ValidationError as error:
        raise WeaksegError(
            f"{place / RECORD} says too little of its data ({mismatch(error)}). The same `weakseg "
            "run` again writes it anew."
        ) from error
    return run
