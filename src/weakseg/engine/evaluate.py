"""Figures against ground truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weakseg.confidence import reliability
from weakseg.data.check import mask_fault
from weakseg.data.dataset import Dataset, Sample
from weakseg.data.formats.base import check_classes
from weakseg.data.images import UnreadablePhoto, photo_size
from weakseg.data.masks import CLASSES, IGNORE, MAX_OBJECTS, OneClass, read_mask, read_prediction
from weakseg.data.places import mask_files, with_files
from weakseg.engine.confidence import read_confidence
from weakseg.engine.context import Context
from weakseg.engine.executor import Each
from weakseg.engine.outputs import Output
from weakseg.errors import WeaksegError, unknown_name
from weakseg.files import write_json
from weakseg.methods.base import Artefact, Executor, PhotoTask, Step
from weakseg.methods.maps import MASK, open_class_maps
from weakseg.metrics import ConfusionMatrix, ThresholdCounts, best_overlaps, sweep_thresholds
from weakseg.progress import Progress

NAME = "evaluate"
PLACE = METRICS = "metrics.json"
_THRESHOLDS = np.linspace(0, 1, 101, dtype=np.float32)
_LEFT_OUT = (0.0, 0.1, 0.2, 0.3)
"""Shares of the photos, the least sure, without which the last masks are measured."""


def run(context: Context) -> None:
    """Write `metrics.json`: a row for every step that makes masks of photos with true ones.

    Maps that a step takes over against its own background (kind threshold) have a second one, of
    the threshold that is best by ground truth; objects that are told
    apart have a row of their own, where there are true ones. All rows of one split are over the
    same photos: those whose ground truth can be used. What can't be measured is said. Beside the
    rows stands how well the confidence of the last masks tells their true IoU (`_Reliability`).
    """
    told = _Reliability(context)
    rows = _rows(context, told)
    reliable = told.figures() if told.step in [row["name"] for row in rows] else {}
    for step in object_steps(context):
        rows += _object_rows(context, step)
    write_json(context.folder / METRICS, {"stages": rows, **reliable})


def outputs(context: Context) -> list[Output]:
    return [Output(context.folder / METRICS)]


def object_steps(context: Context) -> tuple[Step, ...]:
    """The steps that make masks of objects."""
    return tuple(s for s in context.steps if s.kept and Artefact.OBJECTS in s.gives)


def _rows(context: Context, told: "_Reliability") -> list[dict[str, Any]]:
    classes, split = context.dataset.classes, context.recipe.data.split
    dropped = _dropped(context)
    rows = []
    faults: dict[str, None] = {}
    steps = context.mask_steps()
    groups = {step.kind.photos == "held out" for step in steps}
    found = {held_out: _usable_of(context, held_out) for held_out in groups}
    for step in steps:
        held_out = step.kind.photos == "held out"
        tasks, left_out = found[held_out]
        if not tasks:
            continue
        place = partial(_mask_of, step)
        label = f"evaluate {step.name}"
        also = told.add if step.name == told.step else None
        matrix = _confusion(tasks, place, classes, context.cpu, context.progress, label, also)
        its_split = (context.recipe.data.held_out or split) if held_out else split
        if fault := _nothing_to_measure(matrix, its_split):
            faults[fault] = None
            continue
        rows.append(_row(step.name, its_split, matrix, step.protocol(), left_out, dropped))
        if step.kind.reuses_maps:
            rows.append(_oracle_row(context, step, tasks, left_out, dropped))
    if not rows and not faults:
        faults["There are no masks to compare with."] = None
    for fault in faults:
        context.progress.say(f"evaluate: no figures. {fault}")
    return rows


def _dropped(context: Context) -> list[str]:
    """Classes that are left out, and that no step has a classifier of its own for."""
    own = {name for photos in context.seen.values() for name in photos.learned}
    own = own if any(p.learned != p.classes for p in context.seen.values()) else set()
    return [
        name for name in context.recipe.data.dropped(context.dataset.classes) if name not in own
    ]


def _usable_of(context: Context, held_out: bool) -> tuple[list[PhotoTask], int]:
    """Photos with ground truth that can be used, and how many have one that can't."""
    samples = context.tried_on() if held_out else context.masked_samples()
    masked = [context.task(sample) for sample in samples if sample.mask]
    usable = _usable(masked, len(context.dataset.classes), context.cpu, context.progress)
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
    the data set's folder, or of one in it, gives it (`weakseg.data.places`).

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
    check_classes(predictions / CLASSES, classes)
    masked = [PhotoTask(sample, ()) for sample in dataset.samples if sample.mask]
    if foreground is not None:
        masked = [_of_one_class(task, foreground, classes) for task in masked]
    with_truth = _usable(masked, len(classes), executor, progress)
    if not with_truth:
        raise WeaksegError(f"Split {split!r} has no masks to evaluate against.")
    samples = [task.sample for task in with_truth]
    found = with_files(samples, partial(mask_files, predictions))
    missing = [task.id for task in with_truth if task.id not in found]
    if missing and not (skip_missing and found):
        raise WeaksegError(
            f"{predictions} has no mask for {len(missing)} of {len(with_truth)} photos of split "
            f"{split!r} (the first: {missing[0]}.png). Predict them, name another split, or leave "
            "them out with --missing skip."
        )
    compared = [task for task in with_truth if task.id in found]

    def predicted(task: PhotoTask) -> Path:
        return mask_files(predictions, task.sample)[0]

    matrix = _confusion(compared, predicted, classes, executor, progress, NAME)
    if fault := _nothing_to_measure(matrix, split):
        raise WeaksegError(fault)
    protocol: dict[str, Any] = {"crf": None}
    if skip_missing:
        protocol["skipped"] = len(missing)
    if foreground is not None:
        protocol["foreground"] = foreground
    left_out = len(masked) - len(with_truth)
    return _row(predictions.resolve().name, split, matrix, protocol, left_out, dropped)


def _of_one_class(task: PhotoTask, foreground: int, classes: Sequence[str]) -> PhotoTask:
    if len(classes) != 1:
        raise WeaksegError(
            f"--foreground is for a data set of one class, and this one has {len(classes)}. Write "
            "each class as its id."
        )
    assert task.sample.mask is not None
    mask = OneClass(task.sample.mask, foreground)
    return replace(task, sample=replace(task.sample, mask=mask))


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
    faults = list(executor.map(Each(_fault, (classes,)), tasks))
    reasons = [fault for fault in faults if fault]
    if reasons:
        progress.say(f"left out: {len(reasons)} of {len(tasks)} true masks, such as: {reasons[0]}")
    return [task for task, fault in zip(tasks, faults, strict=True) if not fault]


def _fault(classes: int, task: PhotoTask) -> str | None:
    return truth_fault(task.sample, classes)


_Pair = tuple[PhotoTask, Path]
"""A photo, and the mask that was predicted for it."""


def _mask_of(step: Step, task: PhotoTask) -> Path:
    return step.folder / f"{task.id}{MASK}"


def _confusion(
    tasks: Sequence[PhotoTask],
    predicted: Callable[[PhotoTask], Path],
    classes: Sequence[str],
    executor: Executor,
    progress: Progress,
    label: str,
    also: Callable[[PhotoTask, NDArray[np.int64]], None] | None = None,
) -> ConfusionMatrix:
    total = ConfusionMatrix(classes)
    pairs = ((task, predicted(task)) for task in tasks)
    found = executor.map(Each(_compare, (tuple(classes),)), pairs)
    with progress.track(label, len(tasks)) as advance:
        for task, counts in zip(tasks, found, strict=True):
            total.counts += counts
            total.images += 1
            if also:
                also(task, counts)
            advance(1)
    return total


class _Reliability:
    """How well the confidence of a run's last masks tells their true IoU.

    Attributes:
        step: whose masks the confidence is of.
    """

    def __init__(self, context: Context) -> None:
        content = read_confidence(context.folder)
        self.step: str | None = content["step"] if content["photos"] else None
        self._photos = content["photos"]
        self._classes = context.dataset.classes
        self._pairs: list[tuple[float, float, int]] = []
        self._matrices = [ConfusionMatrix(self._classes) for _ in _LEFT_OUT]
        surest = sorted(self._photos, key=lambda photo: (self._photos[photo]["confidence"], photo))
        self._place = {photo: index / len(surest) for index, photo in enumerate(surest)}

    def add(self, task: PhotoTask, counts: NDArray[np.int64]) -> None:
        """Count a photo of the step's, whose confusion counts are (C+1, C+2)."""
        iou = ConfusionMatrix.of(self._classes, counts).iou()
        for class_id in task.class_ids:
            sure = self._photos[task.id]["classes"].get(self._classes[class_id - 1])
            if sure is not None and not np.isnan(iou[class_id]):
                self._pairs.append((sure, iou[class_id], class_id))
        for share, matrix in zip(_LEFT_OUT, self._matrices, strict=True):
            if self._place[task.id] >= share:
                matrix.counts += counts
                matrix.images += 1

    def figures(self) -> dict[str, Any]:
        """Under "confidence", if it tells anything: correlations, and the mIoU of the surer."""
        if not self._pairs:
            return {}
        sure, iou, ids = (np.array(column) for column in zip(*self._pairs, strict=True))
        overall, within_class = reliability(sure, iou, ids)
        surer = [
            {"left_out": share, "images": matrix.images, "miou": matrix.summary()["miou"]}
            for share, matrix in zip(_LEFT_OUT, self._matrices, strict=True)
        ]
        return {
            "confidence": {
                "step": self.step,
                "pairs": len(ids),
                "spearman": overall,
                "spearman_within_class": within_class,
                "surer": surer,
            }
        }


def _compare(classes: Sequence[str], pair: _Pair) -> NDArray[np.int64]:
    task, path = pair
    matrix = ConfusionMatrix(classes)
    try:
        matrix.update(_truth(task), read_prediction(path))
    except ValueError as error:
        raise WeaksegError(f"{path} can't be compared with {task.sample.mask}: {error}.") from error
    return matrix.counts


def _truth(task: PhotoTask) -> NDArray[np.uint8]:
    assert task.sample.mask is not None
    return task.sample.mask.read()


def _oracle_row(
    context: Context, step: Step, tasks: Sequence[PhotoTask], left_out: int, dropped: Sequence[str]
) -> dict[str, Any]:
    """A step's maps at the threshold that is best by ground truth, over the whole set."""
    name = f"{step.name}-oracle"
    totals = [ConfusionMatrix(context.dataset.classes) for _ in _THRESHOLDS]
    make = _ThresholdSweep(step)
    photos = context.photos(step)  # its maps are of the tags that it saw
    seen = {sample.id: photos.task(sample) for sample in photos.samples}
    tasks = [seen[task.id] for task in tasks]
    executor = context.network if step.uses_network else context.cpu
    with context.progress.track(f"evaluate {name}", len(tasks)) as advance:
        for task, (ids, counts) in zip(tasks, executor.map(make, tasks), strict=True):
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
    return _row(name, split, totals[best], protocol, left_out, dropped)


def _object_rows(context: Context, step: Step) -> list[dict[str, Any]]:
    """The Average Best Overlap of objects, if any photo has true ones that can be used."""
    of_objects = [
        context.task(replace(sample, mask=sample.objects))
        for sample in context.masked_samples()
        if sample.objects
    ]
    tasks = _usable(of_objects, MAX_OBJECTS, context.cpu, context.progress)
    if not tasks:
        return []
    best = []
    with context.progress.track(f"evaluate {step.name}", len(tasks)) as advance:
        for overlaps in context.cpu.map(Each(_best_overlaps, (step.folder,)), tasks):
            best += overlaps.tolist()
            advance(1)
    return [
        {
            "name": step.name,
            "split": context.recipe.data.split,
            "images": len(tasks),
            **dict.fromkeys(("miou", "mean_accuracy", "pixel_accuracy")),
            "per_class": {},
            "abo": float(np.mean(best)) if best else None,
            "objects": len(best),
            "protocol": {"masks": step["masks"].name, "crf": False, "ignore": IGNORE},
            "left_out": len(of_objects) - len(tasks),
        }
    ]


def _best_overlaps(folder: Path, task: PhotoTask) -> NDArray[np.float64]:
    return best_overlaps(_truth(task), read_mask(folder / f"{task.id}.png"))


@dataclass(frozen=True)
class _ThresholdSweep:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], ThresholdCounts]:
        maps = open_class_maps(self.step)

        def work(task: PhotoTask) -> ThresholdCounts:
            return sweep_thresholds(_truth(task), maps(task).scores, _THRESHOLDS)

        return work


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
