"""Train the classifier on tags."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import safetensors
import safetensors.torch
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from weakseg.data.dataset import Sample
from weakseg.data.split import split_by_tags
from weakseg.errors import WeaksegError
from weakseg.files import write_atomically, write_json
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.networks.weights import SOURCES, read_tensors
from weakseg.recipe import BackboneSection, Recipe
from weakseg.stages.base import Context
from weakseg.stages.executor import available_cores
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.photos import TaggedPhotos

NAME = "classify"
CLASSIFIER = "classifier.safetensors"
_MAX_LOADERS = 8
_MADE_OF = "made_of"


def train(context: Context) -> None:
    """Write `classify/classifier.safetensors`, the best by F1, and `classify/scores.json`.

    A training that was cut off goes on from its last whole epoch, with the same result.
    """
    folder = context.stage_folder(NAME)
    if (folder / CLASSIFIER).exists():
        return
    recipe, settings = context.recipe, context.recipe.classify
    classes = context.dataset.classes
    L.seed_everything(recipe.seed, verbose=False)
    network = build_classifier(recipe.backbone, len(classes))
    training = ClassifierTraining(network, settings.optimizer, settings.decay_power)
    kept, held_out = split_by_tags(
        context.dataset.samples, settings.validation_fraction, recipe.seed
    )
    batches = _Batches(kept, held_out, classes, recipe, network.backbone.mean.flatten().tolist())
    steps = settings.epochs * max(1, len(kept) // settings.batch_size)
    best = ModelCheckpoint(folder, "best", monitor="f1", mode="max", save_last=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with context.progress.track(NAME, steps) as advance:
        trainer = L.Trainer(
            accelerator=context.device.type,
            devices="auto" if context.device.type == "cuda" else 1,
            max_epochs=settings.epochs,
            precision=settings.precision,
            callbacks=[best, _Reporter(advance, context.progress.say)],
            plugins=[_AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
        )
        with _quiet():
            trainer.fit(training, batches, ckpt_path=_last_checkpoint(folder))
    _restore(training, Path(best.best_model_path))
    write_classifier(folder / CLASSIFIER, network, recipe.backbone, classes)
    write_json(folder / "scores.json", _scores(training, trainer, batches, classes))


def check_backbone(recipe: Recipe) -> None:
    """Find out, before anything runs, whether the recipe's backbone can be had.

    Raises:
        WeaksegError: if not, or if it lacks a stage that is wanted as a feature.
    """
    section = recipe.backbone
    if section.weights not in SOURCES:
        read_tensors(Path(section.weights))
    stages = build_classifier(section.model_copy(update={"weights": "none"}), 1).backbone.stages
    missing = [i for i in recipe.localize.feature_stages if i >= len(stages)]
    if missing:
        raise WeaksegError(
            f"localize.feature_stages has {missing}; {section.name} has the stages 0 to "
            f"{len(stages) - 1}, with strides {[stage.stride for stage in stages]}."
        )


def build_classifier(backbone: BackboneSection, classes: int) -> CamClassifier:
    """The network that a recipe asks for, with its ImageNet weights."""
    return CamClassifier(
        Backbone(
            backbone.name,
            backbone.weights,
            backbone.output_stride,
            backbone.dilated,
            backbone.head_convolution,
            backbone.frozen_stages,
        ),
        classes,
    )


def write_classifier(
    path: Path, network: CamClassifier, backbone: BackboneSection, classes: tuple[str, ...]
) -> None:
    """Write a classifier with all that it takes to build it again."""
    made_of = json.dumps({"backbone": backbone.model_dump(), "classes": classes})
    # One entry: safetensors writes several in an order of its own each time.
    metadata = {_MADE_OF: made_of}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    with write_atomically(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)


def read_classifier(path: Path, device: torch.device) -> CamClassifier:
    """Read what `write_classifier` wrote, in eval mode.

    Raises:
        WeaksegError: if the file is missing or corrupt.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            made_of = json.loads(file.metadata()[_MADE_OF])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        section = BackboneSection.model_validate(made_of["backbone"] | {"weights": "none"})
        network = build_classifier(section, len(made_of["classes"]))
        network.load_state_dict(tensors)
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        raise WeaksegError(
            f"{path} is no whole classifier. Remove the folder {path.parent} and run again to "
            "train it anew."
        ) from None
    return network.to(device).eval()


class _Batches(L.LightningDataModule):
    def __init__(
        self,
        kept: list[Sample],
        held_out: list[Sample],
        classes: tuple[str, ...],
        recipe: Recipe,
        fill: list[float],
    ) -> None:
        super().__init__()
        self._kept, self._held_out, self._classes = kept, held_out, classes
        self._recipe, self._fill = recipe, fill

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return self._loader(self._kept, self.trainer.current_epoch)

    def val_dataloader(self) -> Any:
        return self._loader(self._held_out, None)

    def _loader(self, samples: list[Sample], epoch: int | None) -> Any:
        settings = self._recipe.classify
        photos = TaggedPhotos(
            samples,
            self._classes,
            settings.long_side,
            settings.crop,
            self._fill,
            self._recipe.seed,
            epoch,
        )
        return DataLoader(
            photos,
            settings.batch_size,
            drop_last=epoch is not None and len(samples) >= settings.batch_size,
            num_workers=min(_MAX_LOADERS, available_cores()),
        )


class _Reporter(Callback):
    def __init__(self, advance: Callable[[int], None], say: Callable[[str], None]) -> None:
        self._advance, self._say = advance, say
        self.epochs: list[dict[str, float]] = []

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._advance(trainer.global_step)

    def on_train_batch_end(self, *_: Any) -> None:
        self._advance(1)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **figures})
        self._say(
            f"{NAME}: epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, "
            f"loss {figures['loss']:.4f}, held-out tags: F1 {figures['f1']:.3f}, "
            f"mAP {figures['map']:.3f}"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class _AtomicCheckpoints(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        with write_atomically(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hints, and torchmetrics' on tags that no held-out photo has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message="No positive samples")
        yield


def _last_checkpoint(folder: Path) -> Path | None:
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    _read_checkpoint(path)
    return path


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeaksegError(
            f"{path} is no whole checkpoint. Remove the folder {path.parent} and run again to "
            "train anew."
        ) from error
    return checkpoint


def _restore(training: ClassifierTraining, checkpoint: Path) -> None:
    training.load_state_dict(_read_checkpoint(checkpoint)["state_dict"])


def _scores(
    training: ClassifierTraining, trainer: L.Trainer, batches: _Batches, classes: tuple[str, ...]
) -> dict[str, Any]:
    """F1 and average precision of the network that is kept, on the held-out tags."""
    with _quiet():
        figures = trainer.validate(training, batches, verbose=False)[0]
    reporter = next(c for c in trainer.callbacks if isinstance(c, _Reporter))
    per_class = {
        name: dict(zip(classes, values, strict=True)) for name, values in training.per_class.items()
    }
    return {**figures, "per_class": per_class, "epochs": reporter.epochs}
