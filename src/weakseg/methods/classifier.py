"""A classifier that learns tags, on photos or on a frozen backbone's pooled features of them."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from weakseg.data.balance import balanced_split
from weakseg.data.dataset import Sample
from weakseg.data.tag_faults import find_tag_faults
from weakseg.errors import WeaksegError
from weakseg.files import write_json
from weakseg.methods.base import Artefact, File, Kind, Photos, Slot, Step, Tools, made
from weakseg.methods.features import check_scales
from weakseg.methods.settings import (
    BackboneSection,
    CropTraining,
    Scale,
    Share,
)
from weakseg.names import FIGURES, Head, final
from weakseg.networks.pooling import AVERAGE, Pooling

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset

    from weakseg.methods.fit import Loop
    from weakseg.training.classifier import ClassifierTraining
    from weakseg.training.photos import Example

CLASSIFIER = "classifier.safetensors"


class Classifier(CropTraining):
    """Training of the classifier on tags.

    It learns from the features of a step that `of` names, whose backbone it has: from pooled ones,
    or, with a `pooling` other than the mean, from the final map at `scale`. Or else, with a
    `backbone` of its own, it learns from photos; `head`, `long_side`, `crop`, `augmentation`,
    `precision` and `accumulate` are for that alone.

    Attributes:
        backbone: what it starts from; none where it learns from a step's features.
        head: `linear`, one convolution, or `extra_convolutions` before it; what is added to the
            backbone has `head_lr`. See `weakseg.networks.cam_classifier.CamClassifier`.
        pooling: how a class's map becomes one number.
        scale: of the features' final map, where it is that which is pooled.
        validation_fraction: the share of the photos that it is judged by: the best epoch by F1 is
            kept.
    """

    head: Head = "linear"
    pooling: Pooling = AVERAGE
    scale: Scale = 1.0
    validation_fraction: Share = 0.1

    @model_validator(mode="after")
    def _whole(self) -> "Classifier":
        if self.backbone is None:
            beside = ("head", "long_side", "crop", "augmentation", "precision", "accumulate")
            for key in beside:
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is for training on photos; name a backbone as well")
        return self


FEATURES = Slot("features", frozenset({Artefact.POOLED}), optional=True)
TAGS = Slot("tags", frozenset({Artefact.TAGS}), optional=True)


def run(step: Step, tools: Tools) -> None:
    """Write `classifier.safetensors`, the best by F1, and `scores.json`."""
    train_classifier(step, tools, step.name, step.folder, tools.photos.samples)


def train_classifier(
    step: Step, tools: Tools, name: str, folder: Path, samples: Sequence[Sample]
) -> None:
    """Train on some photos; write `classifier.safetensors` and `scores.json` into a folder.

    A training that was cut off goes on from its last whole epoch, with the same result; a network
    that is there already stays.

    Args:
        step: has the settings of a `Classifier`.
        name: for messages.

    Raises:
        WeaksegError: fewer than two photos.
    """
    if made(folder, FIGURES, CLASSIFIER):
        return
    import lightning as L

    from weakseg.methods.fit import Loop, fill_of
    from weakseg.methods.networks import build_classifier, write_classifier
    from weakseg.training.classifier import ClassifierTraining

    settings, classes, features = step.settings, tools.photos.learned, step.get("features")
    backbone = backbone_of(step)
    L.seed_everything(step.seed, verbose=False)
    network = build_classifier(backbone, len(classes), settings.head, settings.pooling)
    training = ClassifierTraining(
        network, settings.optimizer, settings.decay_power, features is not None
    )
    kept, held_out = part(step, tools, samples)
    for row, tag in enumerate(classes):
        if all(tag in sample.doubtful for sample in kept):
            network.head.weight.data[row] = 0  # behind extra convolutions it would stay as drawn
    examples: Any = (
        _Kept(kept, held_out, classes, step.seed, features.folder, learned_from(settings))
        if features
        else TaggedExamples(kept, held_out, classes, settings, step.seed, fill_of(network))
    )
    loop = Loop.of(
        step,
        tools,
        examples,
        name=name,
        folder=folder,
        monitor="f1",
        loaders=features is None,
        devices=1 if features else None,
    )
    learn(loop, training, classes, folder)
    write_classifier(folder / CLASSIFIER, network, backbone, settings.head, classes)
    loop.forget()


def part(
    step: Step, tools: Tools, samples: Sequence[Sample]
) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Photos that a classifier learns from, and those that it is judged by.

    Tags on nearly all of them count neither way: their maps would cover what all photos share.

    Raises:
        WeaksegError: fewer than two photos.
    """
    unlearned = set(find_tag_faults([sample.tags for sample in samples]).unlearned)
    kept, held_out = balanced_split(
        [_doubting(sample, unlearned) for sample in samples],
        tools.photos.balance,
        step.settings.validation_fraction,
        step.seed,
    )
    if not held_out:
        raise WeaksegError(
            "There is one tagged photo; a classifier needs two at least, one to learn from and one "
            "to be judged by. Tag more photos."
        )
    return kept, held_out


def _doubting(sample: Sample, names: Set[str]) -> Sample:
    """A photo, some of whose tags nobody can be sure of."""
    if not names:
        return sample
    tags = tuple(tag for tag in sample.tags if tag not in names)
    return replace(sample, tags=tags, doubtful=tuple(sorted({*sample.doubtful, *names})))


def learn(
    loop: "Loop", training: "ClassifierTraining", classes: Sequence[str], folder: Path
) -> None:
    """Train, with the weights of the best epoch at the end, and write `scores.json`."""
    epochs = loop.fit(training)
    figures = loop.validate(training)
    per_class = {
        name: dict(zip(classes, values, strict=True)) for name, values in training.per_class.items()
    }
    write_json(folder / FIGURES, {**figures, "per_class": per_class, "epochs": epochs})


def backbone_of(step: Step) -> BackboneSection:
    """The backbone of a classifier: its own, or that of the features that it learns from."""
    features = step.get("features")
    found = features.settings.backbone if features else step.settings.backbone
    assert isinstance(found, BackboneSection)
    return found


def check(step: Step, photos: Photos, device: Any) -> None:
    """Refuse a classifier without a backbone, or with two, and batches that no memory holds."""
    settings, features = step.settings, step.get("features")
    if (settings.backbone is None) == (features is None):
        raise WeaksegError(
            f"{step.name} learns from photos, with a backbone of its own, or from the features of "
            "a step of that kind, which `of` names, with that step's: give one of the two."
        )
    if features and settings.pooling != AVERAGE:
        check_scales(step, features, [settings.scale])
    if features is None:
        from weakseg.methods.networks import build_classifier, check_memory

        network = build_classifier(settings.backbone, 1, settings.head)
        check_memory(step.name, network, settings, len(photos.samples), device)


def learned_from(settings: Classifier) -> str:
    """The tensor that is learned from, of features that are kept."""
    from weakseg.networks.features import POOLED

    return POOLED if settings.pooling == AVERAGE else final(settings.scale)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return File(FIGURES), File(CLASSIFIER)


@dataclass(frozen=True)
class _Kept:
    kept: Sequence[Sample]
    held_out: Sequence[Sample]
    classes: tuple[str, ...]
    seed: int
    folder: Path
    name: str

    def __call__(self, epoch: int | None) -> "TorchDataset[Example]":
        from weakseg.training.features import KeptFeatures

        samples = self.held_out if epoch is None else self.kept
        return KeptFeatures(samples, self.classes, self.folder, self.name, self.seed, epoch)


@dataclass(frozen=True)
class TaggedExamples:
    """What a classifier learns from photos.

    Attributes:
        kept, held_out: photos of epochs, and those held out from them.
        fill: RGB in [0, 1] of what a photo leaves of a crop.
        covered: whether an epoch's crops come with which of their pixels are the photo's.
    """

    kept: Sequence[Sample]
    held_out: Sequence[Sample]
    classes: tuple[str, ...]
    settings: CropTraining
    seed: int
    fill: tuple[float, ...]
    covered: bool = False

    def __call__(self, epoch: int | None) -> "TorchDataset[Any]":
        from weakseg.training.augment import AUGMENTATIONS
        from weakseg.training.photos import CoveredPhotos, TaggedPhotos

        kind = CoveredPhotos if self.covered and epoch is not None else TaggedPhotos
        return kind(
            self.held_out if epoch is None else self.kept,
            self.classes,
            self.settings.long_side,
            self.settings.crop,
            self.fill,
            self.seed,
            epoch,
            AUGMENTATIONS[self.settings.augmentation],
        )


KIND = Kind(
    name="classifier",
    summary="a classifier of tags, on photos or on a frozen backbone's features of them",
    settings=Classifier,
    gives=frozenset({Artefact.CLASSIFIER}),
    takes=(FEATURES, TAGS),
    role="network",
    version=3,
    run=run,
    files=_files,
    photos="all",
    draws=True,
    check=check,
)
