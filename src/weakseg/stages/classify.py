"""Train the classifier on tags."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.data.split import split_by_tags
from weakseg.errors import WeaksegError
from weakseg.files import write_atomically, write_json
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.stages import pool
from weakseg.stages.base import Context
from weakseg.stages.executor import available_cores
from weakseg.stages.networks import build_classifier, write_classifier
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.photos import Example, TaggedPhotos
from weakseg.training.pooled import PooledPhotos

NAME = "classify"
CLASSIFIER = "classifier.safetensors"
_MAX_LOADERS = 8


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
    frozen = recipe.backbone.frozen
    training = ClassifierTraining(network, settings.optimizer, settings.decay_power, pooled=frozen)
    kept, held_out = split_by_tags(
        context.dataset.samples, settings.validation_fraction, recipe.seed
    )
    if not held_out:
        raise WeaksegError(
            "There is one tagged photo; a classifier needs two at least, one to learn from and one "
            "to be judged by. Tag more photos."
        )
    batches = _Batches(kept, held_out, settings.batch_size, _examples(context, network))
    steps = settings.epochs * max(1, len(kept) // settings.batch_size)
    best = ModelCheckpoint(folder, "best", monitor="f1", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with context.progress.track(NAME, steps) as advance:
        trainer = L.Trainer(
            accelerator=context.device.type,
            devices=1,
            max_epochs=settings.epochs,
            precision="32-true" if frozen else settings.precision,
            callbacks=[best, last, _Reporter(advance, context.progress.say)],
            plugins=[_AtomicCheckpoints()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            deterministic="warn",
        )
        with _quiet():
            try:
                trainer.fit(training, batches, ckpt_path=_last_checkpoint(folder))
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
    _restore(training, folder / "best.ckpt")
    write_json(folder / "scores.json", _scores(training, trainer, batches, classes))
    write_classifier(folder / CLASSIFIER, network, recipe.backbone, classes)


_Examples = Callable[[Sequence[Sample], int | None], "TorchDataset[Example]"]


def _examples(context: Context, network: CamClassifier) -> _Examples:
    """What the classifier learns from in an epoch; epoch `None` is without draws."""
    recipe, classes = context.recipe, context.dataset.classes
    if recipe.backbone.frozen:
        folder = context.stage_folder(pool.NAME)
        return lambda samples, epoch: PooledPhotos(samples, classes, folder, recipe.seed, epoch)
    long_side, crop = recipe.classify.long_side, recipe.classify.crop
    fill = network.backbone.mean.flatten().tolist()
    return lambda samples, epoch: TaggedPhotos(
        samples, classes, long_side, crop, fill, recipe.seed, epoch
    )


class _Batches(L.LightningDataModule):
    def __init__(
        self,
        kept: Sequence[Sample],
        held_out: Sequence[Sample],
        batch_size: int,
        examples: _Examples,
    ) -> None:
        super().__init__()
        self._kept, self._held_out = kept, held_out
        self._batch_size, self._examples = batch_size, examples

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return self._loader(self._kept, self.trainer.current_epoch)

    def val_dataloader(self) -> Any:
        return self._loader(self._held_out, None)

    def _loader(self, samples: Sequence[Sample], epoch: int | None) -> Any:
        photos = self._examples(samples, epoch)
        return DataLoader(
            photos,
            self._batch_size,
            drop_last=epoch is not None and len(samples) >= self._batch_size,
            num_workers=(
                min(_MAX_LOADERS, available_cores()) if isinstance(photos, TaggedPhotos) else 0
            ),
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
