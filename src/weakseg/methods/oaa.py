"""Online attention accumulation: maps of all that a classifier saw while it was trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field

from weakseg.data.dataset import Sample
from weakseg.data.images import shrunk_size
from weakseg.files import write_bytes, write_json, written_by_run
from weakseg.grid import grid_size, upsample
from weakseg.methods.base import Artefact, File, Kind, Photos, Step, Tools, made
from weakseg.methods.classifier import TAGS
from weakseg.methods.maps import MAPS, SCORES
from weakseg.methods.settings import LARGEST_SIDE, BackboneSection, Precision, Training
from weakseg.names import FIGURES, Head

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset

    from weakseg.training.oaa import Visit

ATTENTION = "accumulated/attention.safetensors"
"""The attention of every photo, by id, on the cells of the classifier's maps."""


class Oaa(Training):
    """Training of a classifier whose attention on the tags is accumulated (Jiang et al. 2019).

    It learns from whole photos, one at a time. All photos are learned from, however `data.balance`
    is set, for each is to be visited in each epoch.

    Attributes:
        batch_size: how many photos' gradients make a step.
        backbone: what it starts from.
        head: as of kind `classifier`.
        long_side: of each photo, in pixels.
        precision: what the network computes in.
    """

    backbone: BackboneSection
    head: Head = "extra_convolutions"
    long_side: Annotated[int, Field(ge=32, le=LARGEST_SIDE)] = 320
    precision: Precision = "32-true"


def run(step: Step, tools: Tools) -> None:
    """Write `accumulated/attention.safetensors`, `scores.json`, and the maps of every photo.

    A training that was cut off goes on from its last whole epoch, with the same maps.
    """
    if not made(step.folder, FIGURES, ATTENTION):
        _train(step, tools)
    path = step.folder / ATTENTION
    with written_by_run(path), safetensors.safe_open(path, "numpy") as file:
        for sample in tools.photos.samples:
            maps = step.folder / f"{sample.id}{MAPS}"
            if not maps.exists():
                size = _grid_of(step, tools.photos, sample)
                scores = _normalised(upsample(file.get_tensor(sample.id).astype(np.float32), *size))
                write_bytes(maps, safetensors.numpy.save({SCORES: scores}))


def _train(step: Step, tools: Tools) -> None:
    import lightning as L

    from weakseg.methods.fit import Loop
    from weakseg.methods.networks import build_classifier
    from weakseg.training.oaa import AttentionTraining

    settings, classes, samples = step.settings, tools.photos.learned, tools.photos.samples
    L.seed_everything(step.seed, verbose=False)
    network = build_classifier(settings.backbone, len(classes), settings.head)
    training = AttentionTraining(
        network, settings.optimizer, settings.decay_power, samples, classes
    )
    loop = Loop.of(
        step,
        tools,
        _Visits(samples, classes, settings.long_side, step.seed),
        accumulate=settings.batch_size,
        every_example=True,
        devices=1,  # one process sees every visit
        memory=f"lower {step.name}.long_side (now {settings.long_side})",
    )
    epochs = loop.fit(training)
    attention = {photo: seen.numpy() for photo, seen in training.attention.items()}
    (step.folder / ATTENTION).parent.mkdir(exist_ok=True)
    write_bytes(step.folder / ATTENTION, safetensors.numpy.save(attention))
    write_json(step.folder / FIGURES, {"photos": len(samples), "epochs": epochs})
    loop.forget()


def _normalised(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    peaks = maps.max(axis=(1, 2), initial=0, keepdims=True)
    found: NDArray[np.float32] = maps / np.maximum(peaks, np.finfo(np.float32).tiny)
    return found


def _grid_of(step: Step, photos: Photos, sample: Sample) -> tuple[int, int]:
    return grid_size(*shrunk_size(*photos.sizes[sample.id], step.long_side))


def _check(step: Step, photos: Photos, device: Any) -> None:
    from weakseg.methods.networks import build_classifier

    build_classifier(step.settings.backbone, 1, step.settings.head)


def _files(step: Step, photos: Photos) -> Iterator[File]:
    yield File(FIGURES)
    yield File(ATTENTION)
    for sample in photos.samples:
        shape = (len(sample.tags), *_grid_of(step, photos, sample))
        yield File(f"{sample.id}{MAPS}", {SCORES: shape})


@dataclass(frozen=True)
class _Visits:
    samples: Sequence[Sample]
    classes: tuple[str, ...]
    long_side: int
    seed: int

    def __call__(self, epoch: int | None) -> "TorchDataset[Visit]":
        from weakseg.training.oaa import WholePhotos

        assert epoch is not None
        return WholePhotos(self.samples, self.classes, self.long_side, self.seed, epoch)


KIND = Kind(
    name="oaa",
    summary="attention of a classifier, accumulated while it is trained (Jiang et al. 2019)",
    settings=Oaa,
    gives=frozenset({Artefact.MAPS}),
    takes=(TAGS,),
    role="seed",
    run=run,
    files=_files,
    photos="all",
    draws=True,
    check=_check,
)
