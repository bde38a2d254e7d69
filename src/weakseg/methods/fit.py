"""Lightning's training loop, bound to a step's folder: checkpoints, resume, progress."""

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from weakseg import processes
from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.files import remove, write_atomically, written_by_run
from weakseg.memory import cores_here, give_back_freed_memory, keep_freed_memory
from weakseg.methods.base import Executor, Step, Tools
from weakseg.methods.maps import MASK
from weakseg.methods.networks import usable_precision
from weakseg.methods.settings import PhotoTraining
from weakseg.networks.cpu.depthwise import use_fast_gradients
from weakseg.networks.weights import check_inflated_size
from weakseg.progress import Progress
from weakseg.training.segmentation import MaskedPhotos, MaskPair, SeededPhotos

Examples = Callable[[int | None], "TorchDataset[Any]"]
"""What is learned from in an epoch; for epoch `None` what is held out. Picklable."""

OnBest = Callable[[dict[str, Tensor]], None]
"""Given the state of a module after an epoch that is the best so far. Picklable."""

_MAX_LOADERS = 8

_LOOK_EVERY = 16
"""Steps between two looks at the loss: a GPU would wait for each."""

_BEST, _LAST = "best", "last"

_STATE = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step"}
"""What a checkpoint of Lightning has at least."""

_HANDED_OVER = ".temp.ckpt"
"""Lightning's name for the weights alone, as one of several processes gives them back."""

_OF_PROCESS = re.compile(r"\n(weakseg\.[\w.]+|FloatingPointError): (.+)\s*$")
"""How the text ends that an error of another process comes as, its traceback included."""

_LOADER_ENDED, _NO_MEMORY = "DataLoader worker (pid", "can't allocate memory"
_NO_SHARED_MEMORY = ("Bus error", "shared memory", "No space left on device")
"""torch's words, which it has no classes for."""

_EXPLODED = 100
"""How many times the loss of an untrained network the mean loss of an epoch may be."""


@dataclass(frozen=True)
class Loop:
    """How a network is trained.

    Attributes:
        name: for messages.
        section: the step that has the numbers of this training, for messages.
        folder: checkpoints are kept in it till the training has ended and `forget` is called.
        examples: what it learns from.
        epochs: how many times.
        batch_size: examples a step, over all devices.
        seed: of what a network draws while it is trained, in each step anew.
        precision: Lightning's.
        device: where.
        executor: the run's; it rests while photos are trained on.
        progress: shows steps and epochs.
        monitor: name of the logged figure whose highest value marks the epoch that is kept; by
            default the last epoch is.
        loaders: whether examples are made in processes of their own.
        devices: how many at most; by default all GPUs, or the one CPU.
        accumulate: in how many parts a batch goes through the module, their gradients added up;
            fewer where there are fewer examples than a batch has.
        every_example: whether an epoch ends with a smaller batch where examples are left over.
        memory: what to change where memory is short, for messages.
        on_best: with `monitor`, what is done with each epoch's weights that are the best so far.
    """

    name: str
    section: str
    folder: Path
    examples: Examples
    epochs: int
    batch_size: int
    seed: int
    precision: Any
    device: torch.device
    executor: Executor
    progress: Progress
    monitor: str | None = None
    loaders: bool = True
    devices: int | None = None
    accumulate: int = 1
    every_example: bool = False
    memory: str = "lower the batch size"
    on_best: OnBest | None = None

    @classmethod
    def of(cls, step: Step, tools: Tools, examples: Examples, **others: Any) -> "Loop":
        """The training of a step, with its settings and in its folder.

        Args:
            others: attributes that are not the step's.
        """
        settings = step.settings
        own = {
            "name": step.name,
            "section": step.name,
            "folder": step.folder,
            "epochs": settings.epochs,
            "batch_size": settings.batch_size,
            "accumulate": getattr(settings, "accumulate", 1),
            "memory": settings.less_memory(step.name),
            "seed": step.seed,
            "precision": getattr(settings, "precision", "32-true"),
            "device": tools.device,
            "executor": tools.cpu,
            "progress": tools.progress,
        }
        return cls(examples=examples, **{**own, **others})

    def fit(self, training: L.LightningModule) -> list[dict[str, float]]:
        """Train a module, or go on from the last whole epoch, with the same result.

        The module ends with the weights that are kept. Several devices are processes of their own
        (spawned, so that only the training runs in them), each with its share of every batch: the
        steps are those of one device, and so another number of them may go on with a training.

        Returns:
            The figures that the module logged, epoch by epoch.

        Raises:
            WeaksegError: a checkpoint that can't be read; a training that diverges; an example that
                can't be read; want of memory.
        """
        if self.loaders:
            self.executor.rest()
        devices = self._count_devices()
        if devices > 1:
            self.progress.say(
                f"{self.name}: {self.batch_size} examples a step, parted among {devices} devices; "
                "learning rates are as the recipe has them"
            )
        if self.device.type == "cpu":
            keep_freed_memory()
            use_fast_gradients(training)
        accumulate = self._count_parts()
        batches = _Batches(
            self.examples, self.batch_size, self.loaders, accumulate, self.every_example
        )
        best = _BEST if self.monitor else _LAST
        _hush()
        trainer = L.Trainer(
            accelerator=self.device.type,
            devices=devices,
            strategy="ddp_spawn" if devices > 1 else "auto",
            max_epochs=self.epochs,
            accumulate_grad_batches=accumulate,
            precision=usable_precision(self.precision, self.device),
            callbacks=[
                *([_Keep(self.folder / f"{best}.ckpt", self.monitor)] if self.monitor else []),
                _Keep(self.folder / f"{_LAST}.ckpt", None),
                _Seeds(self.seed),
                _Divergence(),
                _OneStatistic(),
                _Unfilled(),
                _Reporter(self.name, self.progress),
            ],
            plugins=[_AtomicCheckpoints(self.on_best)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if self.monitor else 0,
            deterministic="warn",
        )
        last = self.folder / f"{_LAST}.ckpt"
        self._leave_damaged(self._checkpoints())
        with _quiet():
            try:
                trainer.fit(training, batches, ckpt_path=last if last.exists() else None)
            except SystemExit:  # what Lightning makes of Ctrl-C
                raise KeyboardInterrupt from None
            except Exception as error:
                reason = self._reason(error, trainer)
                if reason is None:
                    raise
                raise WeaksegError(reason) from error
        training.load_state_dict(_read_checkpoint(self.folder / f"{best}.ckpt")["state_dict"])
        callbacks = _read_checkpoint(last)["callbacks"]
        epochs: list[dict[str, float]] = callbacks[_Reporter.__qualname__]["epochs"]
        return epochs

    def validate(self, training: L.LightningModule) -> dict[str, float]:
        """The figures that the module logs of what is held out."""
        _hush()
        trainer = L.Trainer(
            accelerator=self.device.type,
            devices=1,
            precision=usable_precision(self.precision, self.device),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches = _Batches(self.examples, self.batch_size, self.loaders)
        with _quiet():
            return dict(trainer.validate(training, batches, verbose=False)[0])

    def forget(self) -> None:
        """Remove the checkpoints of a training that has ended."""
        for path in self._checkpoints():
            remove(path)

    def _count_devices(self) -> int:
        """As many as there are, and no more than there are examples for, in any batch."""
        most = self.devices or _count(self.device)
        if most == 1:
            return 1
        epochs = (0, None) if self.monitor else (0,)
        counts = (len(self.examples(epoch)) for epoch in epochs)  # type: ignore[arg-type]
        return min(most, self.batch_size // self.accumulate, *counts)

    def _count_parts(self) -> int:
        count = len(self.examples(0))  # type: ignore[arg-type]
        return max(1, min(self.accumulate, count * self.accumulate // self.batch_size))

    def _checkpoints(self) -> set[Path]:
        best = _BEST if self.monitor else _LAST
        return {self.folder / f"{name}.ckpt" for name in (best, _LAST)}

    def _reason(self, error: Exception, trainer: L.Trainer) -> str | None:
        """Why a training ended, in one line; None where only a traceback can tell."""
        said = str(error)
        if from_process := _OF_PROCESS.search(said):
            kind, said = from_process.groups()
            diverged = kind == FloatingPointError.__name__
        else:
            diverged = isinstance(error, FloatingPointError)
        if diverged:
            return f"{self.name} diverged: {said}. {self._lower_rates(trainer)}"
        if from_process or isinstance(error, WeaksegError):
            return said
        if any(sign in said for sign in _NO_SHARED_MEMORY):
            return (
                f"{self.name}: /dev/shm is too small to pass photos between processes. Give it "
                f"more (docker run --shm-size=1g), or {self.memory}."
            )
        if _LOADER_ENDED in said or isinstance(error, ProcessExitedException):
            return (
                f"{self.name}: a process of the training was ended from outside, most likely for "
                "want of memory. The same command goes on from the last whole epoch; if it happens "
                f"again, {self.memory}."
            )
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or _NO_MEMORY in said:
            return f"{self.name} runs out of memory: {self.memory}."
        return None

    def _lower_rates(self, trainer: L.Trainer) -> str:
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        rates = (
            f"{self.section}.optimizer.{group.get('name', 'lr')} (now {rate:g})"
            for group in groups
            for rate in [group.get("initial_lr", group["lr"])]
        )
        return f"Lower {' or '.join(rates) or f'{self.section}.optimizer.lr'}."

    def _leave_damaged(self, checkpoints: set[Path]) -> None:
        """Have a training start anew that has checkpoints which can't all be read."""
        if not any(path.exists() for path in checkpoints):
            return
        try:
            for path in checkpoints:
                _read_checkpoint(path)
        except WeaksegError:
            self.progress.say(f"{self.name}: starts anew, for want of whole checkpoints")
            for path in checkpoints:
                remove(path)


def fill_of(network: Any) -> tuple[float, ...]:
    """RGB in [0, 1] of what a photo leaves of a crop: the mean that a backbone expects."""
    return tuple(network.backbone.mean.flatten().tolist())


def mask_pairs(
    samples: Sequence[Sample], folders: Sequence[Path], reviewed: Mapping[str, Path] | None = None
) -> list[MaskPair]:
    """Photos, and their masks: those that were reviewed, by id, else one of each folder."""
    own = {photo: (mask,) for photo, mask in (reviewed or {}).items()}
    return [
        (s.image, own.get(s.id) or tuple(folder / f"{s.id}{MASK}" for folder in folders))
        for s in samples
    ]


@dataclass(frozen=True)
class MaskedExamples:
    """What is learned from photos with masks.

    Attributes:
        kept, held_out: photos and masks, of epochs and of what is held out from them.
        fill: RGB in [0, 1] of what a photo leaves of a crop.
    """

    kept: Sequence[MaskPair]
    held_out: Sequence[MaskPair]
    settings: PhotoTraining
    seed: int
    fill: tuple[float, ...]

    def __call__(self, epoch: int | None) -> "TorchDataset[Any]":
        return MaskedPhotos(*self._arguments(epoch))

    def _arguments(self, epoch: int | None) -> tuple[Any, ...]:
        return (
            self.held_out if epoch is None else self.kept,
            self.settings.long_side,
            self.settings.crop,
            self.fill,
            self.settings.augmentation,
            self.seed,
            epoch,
        )


@dataclass(frozen=True)
class SeededExamples(MaskedExamples):
    """What is learned from photos with seeds and tags; what is held out has masks alone.

    Attributes:
        samples: the photos of `kept`.
        classes: names of the mask ids 1 to C.
    """

    samples: Sequence[Sample]
    classes: Sequence[str]

    def __call__(self, epoch: int | None) -> "TorchDataset[Any]":
        if epoch is None:
            return super().__call__(epoch)
        return SeededPhotos(self.samples, self.classes, *self._arguments(epoch))


class _Batches(L.LightningDataModule):
    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        loaders: bool,
        accumulate: int = 1,
        every_example: bool = False,
    ) -> None:
        super().__init__()
        self._examples, self._batch_size = examples, batch_size
        self._loaders = loaders
        self._accumulate, self._every_example = accumulate, every_example

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        examples = self._examples(self.trainer.current_epoch)
        return self._loader(examples, not self._every_example, self._accumulate)

    def val_dataloader(self) -> Any:
        return self._loader(self._examples(None), drop_last=False, parts=1)

    def _loader(self, examples: "TorchDataset[Any]", drop_last: bool, parts: int) -> Any:
        assert self.trainer is not None
        devices, device = self.trainer.world_size, self.trainer.global_rank
        fresh = None
        if self._loaders and processes.forks_fail():
            fresh = processes.FreshProcesses(type(examples).__module__)
        elif self._loaders:
            give_back_freed_memory()  # the loaders are forks
        return DataLoader(
            examples,
            batch_sampler=_Shares(
                batches_of(len(examples), self._batch_size, devices, drop_last),  # type: ignore[arg-type]
                parts,
                device,
                devices,
            ),
            num_workers=min(_MAX_LOADERS, -(-cores_here() // devices)) if self._loaders else 0,
            multiprocessing_context=fresh,
            worker_init_fn=None if fresh else processes.end_with_parent,
            collate_fn=getattr(examples, "collate", None),
        )


class _Shares(Sampler[list[int]]):
    """A device's examples of each part of each batch, every n-th for n devices.

    All devices have as many parts, and examples of each. Lightning's own sampler fills up what does
    not come out even with examples that count twice.
    """

    def __init__(self, batches: Sequence[range], parts: int, device: int, devices: int) -> None:
        self._parts = [batch[i::parts] for batch in batches for i in range(min(parts, len(batch)))]
        self._device, self._devices = device, devices

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[list[int]]:
        for part in self._parts:
            yield list(part[self._device :: self._devices])


def batches_of(count: int, size: int, least: int, drop_last: bool) -> list[range]:
    """Batches of `size` of some examples; one batch of all where there are fewer.

    Args:
        least: a last batch with fewer joins the one before it.
        drop_last: whether what comes behind the last whole batch is left out.
    """
    if drop_last and count >= size:
        return [range(first, first + size) for first in range(0, count - size + 1, size)]
    firsts = list(range(0, count, size))
    if len(firsts) > 1 and count - firsts[-1] < least:
        firsts.pop()
    return [range(*ends) for ends in pairwise((*firsts, count))]


class _Keep(Checkpoint):
    """Writes a checkpoint after each whole epoch, or after each that is better than all before.

    Lightning's own takes `a::b` in a folder's name for two addresses.
    """

    def __init__(self, path: Path, monitor: str | None) -> None:
        self._path, self._monitor = path, monitor
        self._best = -math.inf

    @property
    def state_key(self) -> str:
        return f"{type(self).__qualname__} {self._path.stem}"

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._monitor is not None:
            figure = float(trainer.callback_metrics[self._monitor])
            if self._path.exists() and not figure > self._best:
                return
            self._best = max(self._best, figure)
        trainer.save_checkpoint(self._path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best = state["best"]


class _Seeds(Callback):
    """Seeds each pass by itself: a resumed training draws what an uninterrupted one does."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        part = index % trainer.accumulate_grad_batches
        drawn = np.random.SeedSequence((self._seed, trainer.global_step, trainer.global_rank, part))
        torch.manual_seed(int(drawn.generate_state(1)[0]))


class _Divergence(Callback):
    """Ends a training whose loss or weights are no numbers any more, or whose loss explodes.

    Before its epoch is judged or kept.
    """

    def __init__(self) -> None:
        self._first = math.nan

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        if index % _LOOK_EVERY == 0:
            loss = float(outputs["loss"])
            self._check(loss, trainer)
            if math.isnan(self._first):
                self._first = loss

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._check_weights(trainer, module)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._check_weights(trainer, module)
        loss = float(trainer.callback_metrics["loss"])
        self._check(loss, trainer)
        if loss > _EXPLODED * max(1, self._first):
            raise FloatingPointError(
                f"its mean loss in {_epoch(trainer)} is {loss:.3g}, at the start {self._first:.3g}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first = state["first"]

    @staticmethod
    def _check(loss: float, trainer: L.Trainer) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(f"its loss in {_epoch(trainer)} is {loss}")

    @staticmethod
    def _check_weights(trainer: L.Trainer, module: L.LightningModule) -> None:
        if not all(bool(weights.isfinite().all()) for weights in module.parameters()):
            raise FloatingPointError(f"{_epoch(trainer)} leaves NaN or infinity in its weights")


def _epoch(trainer: L.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"


class _OneStatistic(Callback):
    """Has GPUs normalise by the mean and variance of the whole batch.

    torch has it for GPUs alone, and would take an activation away that timm has in the same layer:
    but a backbone's statistics stay as they are, so that its layers need none.
    """

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and trainer.strategy.root_device.type == "cuda":
            synchronize_statistics(module)


def synchronize_statistics(module: torch.nn.Module) -> None:
    """Make every layer a `SyncBatchNorm` that learns statistics in training mode."""
    for parent in module.train().modules():
        for name, layer in parent.named_children():
            if type(layer) is torch.nn.BatchNorm2d and layer.training:
                setattr(parent, name, torch.nn.SyncBatchNorm.convert_sync_batchnorm(layer))


class _Unfilled(Callback):
    """Keeps `deterministic` from filling every tensor that nothing has written yet."""

    def setup(self, *_: Any, **__: Any) -> None:
        self._before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def teardown(self, *_: Any, **__: Any) -> None:
        torch.utils.deterministic.fill_uninitialized_memory = self._before  # type: ignore[attr-defined]


class _Reporter(Callback):
    """Shows steps, and says each epoch's figures, from the first of the devices."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name, self._progress = name, progress
        self.epochs: list[dict[str, float]] = []

    @property
    def state_key(self) -> str:
        return type(self).__qualname__

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._shown = ExitStack()
            steps = int(trainer.estimated_stepping_batches)
            track = self._progress.track(self._name, steps, trainer.global_step)
            self._advance, self._steps = self._shown.enter_context(track), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            self._advance(trainer.global_step - self._steps)
            self._steps = trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **figures})
        if trainer.is_global_zero:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self._progress.say(
                f"{self._name}: epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, {shown}"
            )

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._close()
        if torch.distributed.is_initialized():
            # Lightning leaves gloo's group as it is, whose threads can abort a process that ends.
            torch.distributed.destroy_process_group()

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def _close(self) -> None:
        if hasattr(self, "_shown"):
            self._shown.close()
            del self._shown, self._advance

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]


class _AtomicCheckpoints(TorchCheckpointIO):
    def __init__(self, on_best: OnBest | None) -> None:
        self._on_best = on_best

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        with write_atomically(Path(path), durable=True) as temporary, temporary.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # what torch makes of a full disk
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from error
                raise
        if self._on_best and Path(path).stem == _BEST:
            self._on_best(checkpoint["state_dict"])

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return _read_checkpoint(Path(path))


def _count(device: torch.device) -> int:
    return torch.cuda.device_count() if device.type == "cuda" else 1


def _hush() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's hints, and torchmetrics' on tags that no held-out photo has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message="No positive samples")
        yield


def _read_checkpoint(path: Path) -> dict[str, Any]:
    with written_by_run(path):
        check_inflated_size(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        needed = set() if path.name == _HANDED_OVER else _STATE
        if not isinstance(checkpoint, dict) or not checkpoint.keys() >= needed:
            raise ValueError("it is no checkpoint of a training")
    return checkpoint
