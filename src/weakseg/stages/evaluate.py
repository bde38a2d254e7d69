"""Figures against ground truth."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from weakseg.data.check import mask_fault
from weakseg.data.dataset import Dataset, Sample
from weakseg.data.formats.base import read_classes
from weakseg.data.images import UnreadablePhoto, photo_size
from weakseg.data.masks import CLASSES, IGNORE, MAX_OBJECTS, OneClass, read_mask, read_prediction
from weakseg.errors import WeaksegError, unknown_name
from weakseg.files import write_json
from weakseg.localize.grid import upsampled_bands
from weakseg.metrics import ConfusionMatrix, best_overlaps
from weakseg.names import INSTANCES, IRN
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
    """Write `metrics.json`: what `evaluate_run` gives for the photos that have a mask.

    Where the recipe asks for instances and there are true ones, they have a row of their own.
    """
    rows = evaluate_run(context, stages)
    if context.recipe.irn and context.recipe.irn.instances:
        rows += _instance_rows(context)
    write_json(context.folder / METRICS, {"stages": rows})


def evaluate_run(context: Context, stages: Sequence[MaskStage]) -> list[dict[str, Any]]:
    """A row for every stage, and one for the CAM's oracle; none, which is said, without masks.

    All rows of one split are over the same photos: those whose ground truth can be used.
    """
    data, classes = context.recipe.data, context.dataset.classes
    own = context.recipe.separate.class_name if context.recipe.separate else None
    dropped = [name for name in data.dropped(classes) if name != own]
    rows = []
    faults: dict[str, None] = {}
    found = {held_out: _usable_of(context, held_out) for held_out in {s.held_out for s in stages}}
    for stage in stages:
        tasks, left_out = found[stage.held_out]
        if not tasks:
            continue
        folder, label = context.stage_folder(stage.name), f"evaluate {stage.name}"
        pairs = [(task, folder / f"{task.id}.png") for task in tasks]
        matrix = _confusion(pairs, classes, context.executor, context.progress, label)
        split = data.held_out or data.split if stage.held_out else data.split
        if fault := _nothing_to_measure(matrix, split):
            faults[fault] = None
            continue
        rows.append(_row(stage.name, split, matrix, stage.protocol, left_out, dropped))
        if stage.name == localize.CAM:
            rows.append(_oracle_row(context, tasks, left_out, dropped))
    if not rows and not faults:
        faults["There are no masks to compare with."] = None
    for fault in faults:
        context.progress.say(f"evaluate: no figures. {fault}")
    return rows


def _usable_of(context: Context, held_out: bool) -> tuple[list[PhotoTask], int]:
    """Photos with ground truth that can be used, and how many have one that can't."""
    samples = context.tried_on() if held_out else context.masked_samples()
    masked = [context.task(sample) for sample in samples if sample.mask]
    usable = _usable(masked, len(context.dataset.classes), context.executor, context.progress)
    return usable, len(masked) - len(usable)


def evaluate_folder(
    predictions: Path,
    dataset: Dataset,
    split: str,
    executor: Executor,
    progress: Progress,
    skip_missing: bool = False,
    dropped: Sequence[str] = (),
    foreground: int | None = None,
) -> dict[str, Any]:
    """A row as in `metrics.json` for any folder of masks.

    A photo's mask is `ID.png`, or has the photo's place in the data set, as `weakseg predict` of
    the data set's folder, or of one in it, gives it.

    Args:
        skip_missing: leave out photos without a prediction, and count them in the protocol.
        dropped: classes that count as background.
        foreground: what stands for the only class in the true masks, if not 1.

    Raises:
        WeaksegError: no ground truth that can be used or that has any class, photos that have it
            and no prediction, masks of other classes, or a class that there is not.
    """
    classes = dataset.classes
    for name in dropped:
        if name not in classes:
            raise unknown_name("class", name, classes)
    _check_classes(predictions / CLASSES, classes)
    masked = [PhotoTask(sample, ()) for sample in dataset.samples if sample.mask]
    if foreground is not None:
        masked = [_of_one_class(task, foreground, classes) for task in masked]
    with_truth = _usable(masked, len(classes), executor, progress)
    if not with_truth:
        raise WeaksegError(f"Split {split!r} has no masks to evaluate against.")
    found = _find_predictions(predictions, with_truth, dataset.root)
    missing = [task.id for task in with_truth if task.id not in found]
    if missing and not (skip_missing and found):
        raise WeaksegError(
            f"{predictions} has no mask for {len(missing)} of {len(with_truth)} photos of split "
            f"{split!r} (the first: {missing[0]}.png). Predict them, name another split, or leave "
            "them out with --missing skip."
        )
    pairs = [(task, found[task.id]) for task in with_truth if task.id in found]
    matrix = _confusion(pairs, classes, executor, progress, NAME)
    if fault := _nothing_to_measure(matrix, split):
        raise WeaksegError(fault)
    protocol: dict[str, Any] = {"crf": None}
    if skip_missing:
        protocol["skipped"] = len(missing)
    if foreground is not None:
        protocol["foreground"] = foreground
    left_out = len(masked) - len(with_truth)
    return _row(predictions.resolve().name, split, matrix, protocol, left_out, dropped)


def _check_classes(path: Path, classes: Sequence[str]) -> None:
    """Compare what ids mean beside the masks, if that is written there, with the data set."""
    named = read_classes(path)
    if named is None or named == tuple(classes):
        return
    pairs = enumerate(zip_longest(named, classes, fillvalue="nothing"), start=1)
    number, (theirs, ours) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    raise WeaksegError(
        f"{path} calls id {number} {theirs!r}, the data set {ours!r}. Compare masks of the same "
        "classes in the same order; classes.txt in the data set's folder sets it."
    )


def _of_one_class(task: PhotoTask, foreground: int, classes: Sequence[str]) -> PhotoTask:
    if len(classes) != 1:
        raise WeaksegError(
            f"--foreground is for a data set of one class, and this one has {len(classes)}. Write "
            "each class as its id."
        )
    assert task.sample.mask is not None
    mask = OneClass(task.sample.mask, foreground)
    return replace(task, sample=replace(task.sample, mask=mask))


def _find_predictions(folder: Path, tasks: Sequence[PhotoTask], root: Path) -> dict[str, Path]:
    """Id -> mask; a file that would be that of several photos is none's."""
    found = {}
    for task in tasks:
        place = task.sample.image.relative_to(root).with_suffix(".png")
        inner = place.relative_to(place.parts[0]) if len(place.parts) > 2 else place
        paths = (folder / name for name in (f"{task.id}.png", place, inner))
        if path := next((path for path in paths if path.exists()), None):
            found[task.id] = path
    claims = Counter(found.values())
    return {image: path for image, path in found.items() if claims[path] == 1}


def _nothing_to_measure(matrix: ConfusionMatrix, split: str) -> str | None:
    """Why figures would mean nothing: no pixel of the ground truth is of a class."""
    if matrix.counts[1:].any():
        return None
    remedy = "Write each class as its id, from 1 on."
    if len(matrix.classes) == 1:
        remedy = f"If 255 stands for {matrix.classes[0]!r}: weakseg evaluate --foreground 255."
    return (
        f"The {matrix.images} true masks of split {split!r} have the ids 0 and 255 (ignored) alone,"
        f" against which empty masks would be perfect. {remedy}"
    )


def truth_fault(sample: Sample, classes: int) -> str | None:
    """Why a photo's ground truth can't be used; None if it can."""
    assert sample.mask is not None
    try:
        return mask_fault(sample.mask, photo_size(sample.image), classes)
    except UnreadablePhoto as error:
        return str(error)


def _usable(
    tasks: Sequence[PhotoTask], classes: int, executor: Executor, progress: Progress
) -> list[PhotoTask]:
    """The photos whose ground truth can be used; says what is left out."""
    faults = list(executor.map(_Faults(classes), tasks))
    reasons = [fault for fault in faults if fault]
    if reasons:
        progress.say(f"left out: {len(reasons)} of {len(tasks)} true masks, such as: {reasons[0]}")
    return [task for task, fault in zip(tasks, faults, strict=True) if not fault]


@dataclass(frozen=True)
class _Faults:
    classes: int

    def __call__(self) -> Callable[[PhotoTask], str | None]:
        return lambda task: truth_fault(task.sample, self.classes)


_Pair = tuple[PhotoTask, Path]
"""A photo, and the mask that was predicted for it."""


def _confusion(
    pairs: Sequence[_Pair],
    classes: Sequence[str],
    executor: Executor,
    progress: Progress,
    label: str,
) -> ConfusionMatrix:
    total = ConfusionMatrix(classes)
    with progress.track(label, len(pairs)) as advance:
        for counts in executor.map(_Comparison(tuple(classes)), pairs):
            total.counts += counts
            total.images += 1
            advance(1)
    return total


@dataclass(frozen=True)
class _Comparison:
    classes: tuple[str, ...]

    def __call__(self) -> Callable[[_Pair], NDArray[np.int64]]:
        def work(pair: _Pair) -> NDArray[np.int64]:
            task, path = pair
            matrix = ConfusionMatrix(self.classes)
            try:
                matrix.update(_truth(task), read_prediction(path))
            except ValueError as error:
                raise WeaksegError(
                    f"{path} can't be compared with {task.sample.mask}: {error}."
                ) from error
            return matrix.counts

        return work


def _truth(task: PhotoTask) -> NDArray[np.uint8]:
    assert task.sample.mask is not None
    return task.sample.mask.read()


def _oracle_row(
    context: Context, tasks: Sequence[PhotoTask], left_out: int, dropped: Sequence[str]
) -> dict[str, Any]:
    """The CAM at the threshold that is best by ground truth, over the whole set."""
    totals = [ConfusionMatrix(context.dataset.classes) for _ in _THRESHOLDS]
    make = _ThresholdSweep(context.stage_folder(localize.NAME))
    with context.progress.track(f"evaluate {CAM_ORACLE}", len(tasks)) as advance:
        for task, (ids, counts) in zip(tasks, context.executor.map(make, tasks), strict=True):
            cells = np.ix_(ids, np.array((0, *task.class_ids)))
            for total, at_threshold in zip(totals, counts, strict=True):
                total.counts[cells] += at_threshold
                total.images += 1
            advance(1)
    best = max(range(len(totals)), key=lambda i: np.nanmean(totals[i].without(dropped).iou()))
    protocol = {
        "threshold": round(float(_THRESHOLDS[best]), 2),
        "threshold_source": "ground truth (oracle)",
        "crf": False,
    }
    split = context.recipe.data.split
    return _row(CAM_ORACLE, split, totals[best], protocol, left_out, dropped)


def _instance_rows(context: Context) -> list[dict[str, Any]]:
    """The Average Best Overlap of the instances, if any photo has true ones that can be used."""
    of_objects = [
        context.task(replace(sample, mask=sample.objects))
        for sample in context.masked_samples()
        if sample.objects
    ]
    tasks = _usable(of_objects, MAX_OBJECTS, context.executor, context.progress)
    if not tasks:
        return []
    best = []
    with context.progress.track(f"evaluate {INSTANCES}", len(tasks)) as advance:
        make = _BestOverlaps(context.stage_folder(INSTANCES))
        for overlaps in context.executor.map(make, tasks):
            best += overlaps.tolist()
            advance(1)
    return [
        {
            "name": INSTANCES,
            "split": context.recipe.data.split,
            "images": len(tasks),
            **dict.fromkeys(("miou", "mean_accuracy", "pixel_accuracy")),
            "per_class": {},
            "abo": float(np.mean(best)) if best else None,
            "objects": len(best),
            "protocol": {"masks": IRN, "crf": False, "ignore": IGNORE},
            "left_out": len(of_objects) - len(tasks),
        }
    ]


@dataclass(frozen=True)
class _BestOverlaps:
    folder: Path

    def __call__(self) -> Callable[[PhotoTask], NDArray[np.float64]]:
        return lambda task: best_overlaps(_truth(task), read_mask(self.folder / f"{task.id}.png"))


class ThresholdCounts(NamedTuple):
    """One photo's confusion counts at T thresholds: of many classes, a photo has few.

    Attributes:
        ids: the R true ids that occur, ascending.
        counts: int64 (T, R, K+1); column 0 is the background, k the k-th of the photo's tags.
    """

    ids: NDArray[np.intp]
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class _ThresholdSweep:
    localized: Path

    def __call__(self) -> Callable[[PhotoTask], ThresholdCounts]:
        def work(task: PhotoTask) -> ThresholdCounts:
            cam = localize.read_localization(self.localized, task.id).cam
            return sweep_thresholds(_truth(task), cam, _THRESHOLDS)

        return work


def sweep_thresholds(
    truth: NDArray[np.uint8], cam: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> ThresholdCounts:
    """Confusion counts of a CAM's mask at every threshold, in one pass over the pixels.

    Args:
        truth: uint8 (H, W), 255 ignored.
        cam: float32 (K, h, w), on the grid.
        thresholds: ascending, T of them; a pixel is background where its CAM is not over it.
    """
    shape = IGNORE + 1, len(cam) + 1, len(thresholds) + 1
    by_bin = np.zeros(shape, np.int64)
    for rows, band in upsampled_bands(cam, *truth.shape):
        winner = band.argmax(axis=0) + 1 if len(band) else 0
        exceeded = np.searchsorted(thresholds, band.max(axis=0, initial=0), side="left")
        cells = (truth[rows].astype(np.intp) * shape[1] + winner) * shape[2] + exceeded
        by_bin += np.bincount(cells.ravel(), minlength=by_bin.size).reshape(shape)
    ids = np.flatnonzero(by_bin[:IGNORE].any(axis=(1, 2)))
    by_bin = by_bin[ids]
    at_least = by_bin[..., ::-1].cumsum(axis=-1)[..., ::-1]
    counts = np.moveaxis(at_least[..., 1:], -1, 0).copy()
    counts[..., 0] += by_bin.sum(axis=(1, 2)) - counts.sum(axis=2)
    return ThresholdCounts(ids, counts)


def _row(
    name: str,
    split: str,
    matrix: ConfusionMatrix,
    protocol: dict[str, Any],
    left_out: int,
    dropped: Sequence[str],
) -> dict[str, Any]:
    as_background = {"dropped": list(dropped)} if dropped else {}
    return {
        "name": name,
        "split": split,
        **matrix.without(dropped).summary(),
        "protocol": {**protocol, **as_background, "ignore": IGNORE},
        "left_out": left_out,
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
    if protocol.get("skipped"):
        parts.append(f"{protocol['skipped']} photos without a prediction skipped")
    if "dropped" in protocol:
        parts.append(f"dropped, so background: {', '.join(protocol['dropped'])}")
    if "foreground" in protocol:
        parts[1] = f"{protocol['foreground']} is the class"
    if "threshold" in protocol:
        parts.append(f"threshold {protocol['threshold']} by {protocol['threshold_source']}")
    parts += [
        f"{key} {protocol[key]}"
        for key in ("uncertain", "start", "masks", "tta")
        if key in protocol
    ]
    if row.get("abo") is not None:
        parts.append(f"ABO {100 * row['abo']:.1f} of {row['objects']} objects")
    return ", ".join(parts)
