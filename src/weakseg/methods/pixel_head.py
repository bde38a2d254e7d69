"""A small network on a frozen backbone's features of each cell, taught by the masks of any step."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from weakseg.data.masks import read_mask
from weakseg.errors import WeaksegError
from weakseg.files import remove, write_bytes, write_json, written_by_run
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Slot, Step, Tools, made
from weakseg.methods.deeplab import SEGMENTER
from weakseg.methods.features import check_features, check_scales, open_cells
from weakseg.methods.maps import open_masks
from weakseg.methods.settings import MOST_EXAMPLES, Fraction, Scale, Training
from weakseg.names import FIGURES, final

if TYPE_CHECKING:
    from weakseg.networks.pixel_head import PixelHead, PixelHeadShape
    from weakseg.training.pixel_head import Cells

_ROWS = 2**16

_REVIEWED = 5
"""What a cell weighs whose mask a person has mended or accepted."""

_MOST_CELLS = 2**21
"""That are learned from, some 2 GB; of more photos each has fewer."""


class PixelHeadSettings(Training):
    """Training of a pixel head (`weakseg.training.pixel_head`) on the features of a step.

    A cell has 16 by 16 pixels. Its features are those of the step's stages, and of the final map.

    Attributes:
        batch_size: cells a step, of whole photos.
        scale: of the final map, a factor on the photo's size.
        width: of the hidden layer.
        dropout: the share of the hidden layer that is left out at random in training.
        balance: a class weighs as its number of cells to the power of -`balance`.
        q: of the loss: 0 is the cross-entropy, 1 the mean absolute error, which forgives wrong
            labels.
        warmup: the share of the steps, the first ones, that have the cross-entropy, without which a
            class can be lost.
        smoothing: the share of a target that all classes have alike.
        dropped: the share of a batch's cells, those of the highest loss, that is not learned.
        folds: over 1, there are as many heads besides, each taught without the photos of one fold,
            which it labels in a step of kind relabel.
    """

    batch_size: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] = 3072
    scale: Scale = 2.0
    width: Annotated[int, Field(ge=1, le=4096)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    balance: Fraction = 0.5
    q: Fraction = 0.7
    warmup: Fraction = 0.08
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dropped: Annotated[float, Field(ge=0, lt=1)] = 0.0
    folds: Annotated[int, Field(ge=1, le=100)] = 1


def run(step: Step, tools: Tools) -> None:
    """Write `segmenter.safetensors`, taught by all photos, `fold-N.safetensors`, and `scores.json`.

    Raises:
        WeaksegError: no mask has a pixel that is certain, or a training diverges.
    """
    folds = range(step.settings.folds) if step.settings.folds > 1 else ()
    if made(step.folder, FIGURES, SEGMENTER, *map(fold_file, folds)):
        return
    import lightning as L
    import safetensors.torch

    from weakseg.methods.networks import SegmenterCard, build_segmenter, write_segmenter
    from weakseg.networks.pixel_head import PixelSegmenter

    given, classes = step["features"].settings, tools.photos.classes
    card = SegmenterCard(given.backbone, classes, step.long_side, given.precision, _shape(step))
    taught = _gather(step, tools)
    L.seed_everything(step.seed, verbose=False)  # as the backbone was that the features are of
    network = build_segmenter(card.backbone, len(classes), card.pixel_head)
    assert isinstance(network, PixelSegmenter)
    figures = {step.name: _teach(step, tools, step.name, network.head, taught)}
    write_segmenter(step.folder / SEGMENTER, network.state_dict(), card)
    for fold in folds:
        name, without = f"{step.name}-{fold}", taught.without(fold)
        figures[name] = _teach(step, tools, name, network.head.anew(), without)
        content = safetensors.torch.save(network.head.state_dict())
        write_bytes(step.folder / fold_file(fold), content)
    write_json(step.folder / FIGURES, figures)


def fold_file(fold: int) -> str:
    """The head that was taught without the photos of a fold."""
    return f"fold-{fold}.safetensors"


def fold_of(photo: str, folds: int) -> int:
    """The fold of a photo, by its id alone."""
    return crc32(photo.encode()) % folds


def open_scorer(step: Step, features: Step) -> Callable[[PhotoTask], NDArray[np.float32]]:
    """What gives logits (C+1, h, w) of a photo's cells, by the head that did not learn of it.

    Where there are no folds, that is the one that learned of all.

    Args:
        step: of this kind.
        features: what it learned from.
    """
    import torch

    from weakseg.methods.networks import read_segmenter
    from weakseg.networks.pixel_head import PixelSegmenter

    settings = step.settings
    cells = open_cells(features, final(settings.scale))
    network, _ = read_segmenter(step.folder / SEGMENTER, torch.device("cpu"))
    assert isinstance(network, PixelSegmenter)
    heads = [network.head]
    if settings.folds > 1:
        heads = [_read_head(step, fold, network.head) for fold in range(settings.folds)]

    @torch.inference_mode()
    def score(task: PhotoTask) -> NDArray[np.float32]:
        found: NDArray[np.float32] = heads[fold_of(task.id, len(heads))].score(cells(task)).numpy()
        return found

    return score


def _read_head(step: Step, fold: int, like: "PixelHead") -> "PixelHead":
    import safetensors.torch

    path, head = step.folder / fold_file(fold), deepcopy(like)
    with written_by_run(path):
        head.load_state_dict(safetensors.torch.load_file(path))
    return head.eval()


@dataclass(frozen=True)
class _Taught:
    """Cells that are learned from: features (N, D) and classes' shares (N, C+1), photo by photo.

    Of each photo the number of its cells and its fold (P).
    """

    features: NDArray[np.float16]
    shares: NDArray[np.float16]
    lengths: NDArray[np.int64]
    folds: NDArray[np.int64]

    def without(self, fold: int) -> "_Taught":
        photos = self.folds != fold
        kept = photos.repeat(self.lengths)
        return _Taught(
            self.features[kept], self.shares[kept], self.lengths[photos], self.folds[photos]
        )


def _gather(step: Step, tools: Tools) -> _Taught:
    samples, folds = tools.photos.samples, step.settings.folds
    tasks = [tools.photos.task(sample) for sample in samples]
    gatherer = _Gatherer(step, max(1, _MOST_CELLS // len(tasks)), tools.photos.reviewed)
    found = []
    with tools.progress.track(f"{step.name}: cells", len(tasks)) as advance:
        for part in tools.cpu.map(gatherer, tasks):
            found.append(part)
            advance(1)
    features, shares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    lengths = np.array([len(part) for part, _ in found])
    by_photo = np.array([fold_of(sample.id, folds) for sample in samples])
    return _Taught(features, shares, lengths, by_photo)


@dataclass(frozen=True)
class _Gatherer:
    step: Step
    most: int
    reviewed: Mapping[str, Path]

    def __call__(self) -> Callable[[PhotoTask], tuple[NDArray[np.float16], NDArray[np.float16]]]:
        from weakseg.refine.samples import image_rng
        from weakseg.training.pixel_head import shares_of

        step = self.step
        cells = open_cells(step["features"], final(step.settings.scale))
        masks = open_masks(step["masks"])

        def work(task: PhotoTask) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
            features = cells(task)
            own = self.reviewed.get(task.id)
            mask = read_mask(own) if own else masks(task)
            shares = shares_of(mask, task.classes, *features.shape[1:])
            shares *= _REVIEWED if own else 1
            (known,) = np.nonzero(shares.any(axis=1))
            if len(known) > self.most:
                rng = image_rng(step.seed, task.id)
                known = np.sort(rng.choice(known, self.most, replace=False))
            return features.flatten(1).T.half().numpy()[known], shares[known]

        return work


def _teach(
    step: Step, tools: Tools, name: str, head: "PixelHead", taught: _Taught
) -> dict[str, Any]:
    """Train a head; of how many cells, and the figures of its epochs."""
    import torch

    from weakseg.methods.fit import Loop
    from weakseg.training.pixel_head import PixelHeadTraining

    settings, features = step.settings, taught.features
    if not len(features):
        raise WeaksegError(
            f"{name}: no mask of {step['masks'].name} has a pixel that is certain, so there is "
            "nothing to learn from."
        )
    mean, std = (torch.from_numpy(part) for part in _moments(features))
    head.mean.copy_(mean)
    head.std.copy_(std)
    counts = taught.shares.sum(axis=0, dtype=np.float64)
    weights = np.where(counts > 0, np.maximum(counts, 1), np.inf) ** -settings.balance
    weights *= counts.sum() / (weights * counts).sum()
    training = PixelHeadTraining(
        head,
        settings.optimizer,
        settings.decay_power,
        torch.from_numpy(weights).float(),
        settings.q,
        settings.warmup,
        settings.smoothing,
        settings.dropped,
    )
    loop = Loop.of(
        step,
        tools,
        _Examples(taught, settings.batch_size, step.seed),
        name=name,
        folder=step.folder / name,  # a training goes on from its own checkpoints alone
        batch_size=1,
        loaders=False,
        devices=1,
    )
    epochs = loop.fit(training)
    remove(loop.folder)
    return {"cells": len(taught.features), "epochs": epochs}


def _moments(features: NDArray[np.float16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of the columns; 1 for one that doesn't vary."""
    mean = features.mean(axis=0, dtype=np.float64)
    square = np.zeros_like(mean)
    for first in range(0, len(features), _ROWS):
        square += np.square(features[first : first + _ROWS] - mean).sum(axis=0)
    std = np.sqrt(square / len(features))
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


@dataclass(frozen=True)
class _Examples:
    taught: _Taught
    batch_size: int
    seed: int

    def __call__(self, epoch: int | None) -> "Cells":
        from weakseg.training.pixel_head import Cells

        taught = self.taught
        return Cells(
            taught.features,
            taught.shares,
            taught.lengths,
            self.batch_size,
            self.seed,
            epoch or 0,
        )


def _shape(step: Step) -> "PixelHeadShape":
    from weakseg.networks.pixel_head import PixelHeadShape

    settings = step.settings
    stages = tuple(sorted(step["features"].settings.stages))
    return PixelHeadShape(stages, settings.scale, settings.width, settings.dropout)


def _check(step: Step, photos: Photos, device: Any) -> None:
    check_features(step, step["features"])
    check_scales(step, step["features"], [step.settings.scale])


def _files(step: Step, photos: Photos) -> Iterator[File]:
    yield File(FIGURES)
    yield File(SEGMENTER)
    if step.settings.folds > 1:
        yield from (File(fold_file(fold)) for fold in range(step.settings.folds))


def _protocol(step: Step) -> dict[str, Any]:
    return {"masks": step["masks"].name}


KIND = Kind(
    name="pixel_head",
    summary="a small network on a frozen backbone's features of each cell, learned from masks",
    settings=PixelHeadSettings,
    gives=frozenset({Artefact.SEGMENTER}),
    takes=(
        Slot("features", frozenset({Artefact.FEATURES})),
        Slot("masks", frozenset({Artefact.MASKS})),
    ),
    role="network",
    version=2,
    run=run,
    learns_masks=True,
    files=_files,
    draws=True,
    check=_check,
    protocol=_protocol,
)
