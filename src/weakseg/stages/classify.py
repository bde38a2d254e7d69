"""Train the classifier on tags."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.files import write_json
from weakseg.names import CLASSIFY, FIGURES
from weakseg.recipe import Recipe
from weakseg.stages import balance, pool
from weakseg.stages.base import Context, files_of, made
from weakseg.stages.fit import Loop
from weakseg.stages.networks import build_classifier, write_classifier
from weakseg.training.augment import AUGMENTATIONS
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.photos import Example, TaggedPhotos
from weakseg.training.pooled import PooledPhotos

NAME = CLASSIFY
CLASSIFIER = "classifier.safetensors"

outputs = files_of(NAME, FIGURES, CLASSIFIER)


def train(context: Context) -> None:
    """Write `classify/classifier.safetensors`, the best by F1, and `classify/scores.json`."""
    train_classifier(context, NAME, context.stage_folder(NAME), context.dataset.samples)


def train_classifier(context: Context, name: str, folder: Path, samples: Sequence[Sample]) -> None:
    """Train on some photos; write `classifier.safetensors` and `scores.json` into a folder.

    A training that was cut off goes on from its last whole epoch, with the same result; a network
    that is there already stays.

    Args:
        name: for messages.

    Raises:
        WeaksegError: fewer than two photos.
    """
    if made(folder, FIGURES, CLASSIFIER):
        return
    recipe, settings = context.recipe, context.recipe.classify
    classes = context.dataset.classes
    L.seed_everything(recipe.seed, verbose=False)
    network = build_classifier(recipe.backbone, len(classes), settings.head)
    pooled = recipe.trains_on_pooled_features
    training = ClassifierTraining(network, settings.optimizer, settings.decay_power, pooled)
    kept, held_out = balance.split(context, samples, settings.validation_fraction)
    if not held_out:
        raise WeaksegError(
            "There is one tagged photo; a classifier needs two at least, one to learn from and one "
            "to be judged by. Tag more photos."
        )
    fill = tuple(network.backbone.mean.flatten().tolist())
    loop = Loop(
        name=name,
        section="classify",
        folder=folder,
        examples=(
            _Pooled(kept, held_out, classes, recipe.seed, context.stage_folder(pool.NAME))
            if pooled
            else _Photos(kept, held_out, classes, recipe, fill)
        ),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=recipe.seed,
        precision="32-true" if pooled else settings.precision,
        device=context.device,
        executor=context.executor,
        progress=context.progress,
        monitor="f1",
        loaders=not pooled,
        devices=1 if pooled else None,
    )
    epochs = loop.fit(training)
    figures = loop.validate(training)
    per_class = {
        name: dict(zip(classes, values, strict=True)) for name, values in training.per_class.items()
    }
    write_json(folder / FIGURES, {**figures, "per_class": per_class, "epochs": epochs})
    write_classifier(folder / CLASSIFIER, network, recipe.backbone, settings.head, classes)


@dataclass(frozen=True)
class _Pooled:
    kept: Sequence[Sample]
    held_out: Sequence[Sample]
    classes: tuple[str, ...]
    seed: int
    folder: Path

    def __call__(self, epoch: int | None) -> TorchDataset[Example]:
        samples = self.held_out if epoch is None else self.kept
        return PooledPhotos(samples, self.classes, self.folder, self.seed, epoch)


@dataclass(frozen=True)
class _Photos:
    kept: Sequence[Sample]
    held_out: Sequence[Sample]
    classes: tuple[str, ...]
    recipe: Recipe
    fill: tuple[float, ...]

    def __call__(self, epoch: int | None) -> TorchDataset[Example]:
        samples = self.held_out if epoch is None else self.kept
        settings = self.recipe.classify
        return TaggedPhotos(
            samples,
            self.classes,
            settings.long_side,
            settings.crop,
            self.fill,
            self.recipe.seed,
            epoch,
            AUGMENTATIONS[settings.augmentation],
        )
