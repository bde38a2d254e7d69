"""Figures against ground truth."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.data.masks import IGNORE, read_mask
from weakseg.errors import WeaksegError
from weakseg.files import write_json
from weakseg.metrics import ConfusionMatrix
from weakseg.progress import Progress
from weakseg.stages import localize
from weakseg.stages.base import Context, PhotoTask
from weakseg.stages.executor import Executor

NAME = "evaluate"
METRICS = "metrics.json"
CAM_ORACLE = "cam-oracle"
_THRESHOLDS = np.linspace(0, 1, 101, dtype=np.float32)


@dataclass(frozen=True)
class MaskStage:
    """A stage whose masks are measured.

    Attributes:
        name: the stage's.
        protocol: how its masks came about, as in `metrics.json`.
        held_out: whether it makes masks of the photos held out, rather than of the split's.
    """

    name: str
    protocol: dict[str, Any]
    held_out: bool = False


def run(context: Context, stages: Sequence[MaskStage]) -> None:
    """Write `metrics.json`: what `evaluate_run` gives for the photos that have a mask."""
    rows = evaluate_run(context, stages)
    if not rows:
        context.progress.say("evaluate: the data set has no masks, so there are no figures.")
    write_json(context.folder / METRICS, {"stages": rows})


def evaluate_run(context: Context, stages: Sequence[MaskStage]) -> list[dict[str, Any]]:
    """A row for every stage, and one for the CAM's oracle; none where there are no masks."""
    rows = []
    for stage in stages:
        samples = context.held_out.samples if stage.held_out else context.masked_samples()
        tasks = [context.task(sample) for sample in samples if sample.mask]
        if not tasks:
            continue
        folder, label = context.stage_folder(stage.name), f"evaluate {stage.name}"
        classes = context.dataset.classes
        matrix = _confusion(folder, tasks, classes, context.executor, context.progress, label)
        data = context.recipe.data
        split = data.held_out or data.split if stage.held_out else data.split
        rows.append(_row(stage.name, split, matrix, stage.protocol))
        if stage.name == localize.CAM:
            rows.append(_oracle_row(context, tasks))
    return rows


def evaluate_folder(
    predictions: Path,
    tasks: Sequence[PhotoTask],
    classes: Sequence[str],
    split: str,
    executor: Executor,
    progress: Progress,
) -> dict[str, Any]:
    """A row as in `metrics.json` for any folder of masks `ID.png`.

    Raises:
        WeaksegError: no ground truth, or photos that have it and no prediction.
    """
    with_truth = [task for task in tasks if task.sample.mask]
    if not with_truth:
        raise WeaksegError(f"Split {split!r} has no masks to evaluate against.")
    missing = [task.id for task in with_truth if not (predictions / f"{task.id}.png").exists()]
    if missing:
        raise WeaksegError(
            f"{predictions} has no mask for {len(missing)} of {len(with_truth)} photos of split "
            f"{split!r} (the first: {missing[0]}.png). Predict them, or name another split."
        )
    matrix = _confusion(predictions, with_truth, classes, executor, progress, NAME)
    return _row(predictions.resolve().name, split, matrix, {"crf": None})


def _confusion(
    folder: Path,
    tasks: Sequence[PhotoTask],
    classes: Sequence[str],
    executor: Executor,
    progress: Progress,
    label: str,
) -> ConfusionMatrix:
    total = ConfusionMatrix(classes)
    with progress.track(label, len(tasks)) as advance:
        for counts in executor.map(_Comparison(folder, tuple(classes)), tasks):
            total.counts += counts
            total.images += 1
            advance(1)
    return total


@dataclass(frozen=True)
class _Comparison:
    folder: Path
    classes: tuple[str, ...]

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.int64]]:
        def work(task: PhotoTask) -> NDArray[np.int64]:
            matrix = ConfusionMatrix(self.classes)
            path = self.folder / f"{task.id}.png"
            try:
                matrix.update(_truth(task), read_mask(path))
            except ValueError as error:
                raise WeaksegError(
                    f"{path} can't be compared with {task.sample.mask}: {error}."
                ) from error
            return matrix.counts

        return work


def _truth(task: PhotoTask) -> NDArray[np.uint8]:
    assert task.sample.mask is not None
    return read_mask(task.sample.mask)


def _oracle_row(context: Context, tasks: Sequence[PhotoTask]) -> dict[str, Any]:
    """The CAM at the threshold that is best by ground truth, over the whole set."""
    classes = context.dataset.classes
    totals = [ConfusionMatrix(classes) for _ in _THRESHOLDS]
    make = _ThresholdSweep(context.stage_folder(localize.NAME), len(classes))
    with context.progress.track(f"evaluate {CAM_ORACLE}", len(tasks)) as advance:
        for counts in context.executor.map(make, tasks):
            for total, at_threshold in zip(totals, counts, strict=True):
                total.counts += at_threshold
                total.images += 1
            advance(1)
    best = max(range(len(totals)), key=lambda i: np.nanmean(totals[i].iou()))
    protocol = {
        "threshold": round(float(_THRESHOLDS[best]), 2),
        "threshold_source": "ground truth (oracle)",
        "crf": False,
    }
    return _row(CAM_ORACLE, context.recipe.data.split, totals[best], protocol)


@dataclass(frozen=True)
class _ThresholdSweep:
    localized: Path
    classes: int

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.int64]]:
        def work(task: PhotoTask) -> NDArray[np.int64]:
            cam = localize.full_size_cam(self.localized, task)
            return sweep_thresholds(_truth(task), cam, task.class_ids, self.classes, _THRESHOLDS)

        return work


def sweep_thresholds(
    truth: NDArray[np.uint8],
    cam: NDArray[np.float32],
    class_ids: tuple[int, ...],
    classes: int,
    thresholds: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Confusion counts of a CAM's mask at every threshold, in one pass over the pixels.

    Args:
        truth: uint8 (H, W), 255 ignored.
        cam: float32 (K, H, W).
        class_ids: mask ids of the CAM's rows.
        classes: number C of classes.
        thresholds: ascending, T of them; a pixel is background where its CAM is not over it.

    Returns:
        int64 (T, C+1, C+2), as `ConfusionMatrix.counts`.
    """
    counted = truth != IGNORE
    true = truth[counted].astype(np.int64)
    columns, bins = classes + 2, len(thresholds) + 1
    if len(cam):
        values = cam[:, counted]
        winner = np.array(class_ids)[values.argmax(axis=0)]
        exceeded = np.searchsorted(thresholds, values.max(axis=0), side="left")
    else:
        winner = exceeded = np.zeros(len(true), np.int64)
    flat = np.bincount(
        (true * columns + winner) * bins + exceeded, minlength=(classes + 1) * columns * bins
    )
    by_bin = flat.reshape(classes + 1, columns, bins)
    at_least = by_bin[..., ::-1].cumsum(axis=-1)[..., ::-1]
    counts = np.ascontiguousarray(np.moveaxis(at_least[..., 1:], -1, 0))
    counts[:, :, 0] += by_bin.sum(axis=(1, 2)) - counts.sum(axis=2)
    return counts


def _row(
    name: str, split: str, matrix: ConfusionMatrix, protocol: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "split": split,
        **matrix.summary(),
        "protocol": {**protocol, "ignore": IGNORE},
    }


def table(rows: Iterable[dict[str, Any]]) -> list[tuple[str, str, str, str, str]]:
    """Rows for people: name, images, mIoU, mean accuracy and pixel accuracy in percent."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    return [
        (
            row["name"],
            str(row["images"]),
            percent(row["miou"]),
            percent(row["mean_accuracy"]),
            percent(row["pixel_accuracy"]),
        )
        for row in rows
    ]


def describe_protocol(row: dict[str, Any]) -> str:
    """How a row's figures came about, for people."""
    protocol = row["protocol"]
    parts = [row["split"], "255 ignored"]
    if "threshold" in protocol:
        parts.append(f"threshold {protocol['threshold']} by {protocol['threshold_source']}")
    parts += [f"{key} {protocol[key]}" for key in ("uncertain", "masks", "tta") if key in protocol]
    return ", ".join(parts)
