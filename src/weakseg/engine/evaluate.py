"""Figures against ground truth."""

from array import array
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
from weakseg.methods.base import Artefact, Executor, PhotoTask, Step, task_of
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
        samples, left_out = found[held_out]
        if not samples:
            continue
        place = partial(_mask_of, step)
        label = f"evaluate {step.name}"
        also = told.add if step.name == told.step else None
        matrix = _confusion(samples, place, classes, context.cpu, context.progress, label, also)
        its_split = (context.recipe.data.held_out or split) if held_out else split
        if fault := _nothing_to_measure(matrix, its_split):
            faults[fault] = None
            continue
        rows.append(_row(step.name, its_split, matrix, step.protocol(), left_out, dropped))
        if step.kind.reuses_maps:
            rows.append(_oracle_row(context, step, samples, left_out, dropped))
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


def _usable_of(context: Context, held_out: bool) -> tuple[list[Sample], int]:
    """Photos with ground truth that can be used, and how many have one that can't."""
    samples = context.tried_on() if held_out else context.masked_samples()
    masked = [sample for sample in samples if sample.mask]
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
    masked = [sample for sample in dataset.samples if sample.mask]
    if foreground is not None:
        masked = [_of_one_class(sample, foreground, classes) for sample in masked]
    with_truth = _usable(masked, len(classes), executor, progress)
    if not with_truth:
        raise WeaksegError(f"Split {split!r} has no masks to evaluate against.")
    found = with_files(with_truth, partial(mask_files, predictions))
    missing = [sample.id for sample in with_truth if sample.id not in found]
    if missing and not (skip_missing and found):
        raise WeaksegError(
            f"{predictions} has no mask for {len(missing)} of {len(with_truth)} photos of split "
            f"{split!r} (the first: {missing[0]}.png). Predict them, name another split, or leave "
            "them out with --missing skip."
        )
    compared = [sample for sample in with_truth if sample.id in found]

    def predicted(sample: Sample) -> Path:
        return mask_files(predictions, sample)[0]

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


def _of_one_class(sample: Sample, foreground: int, classes: Sequence[str]) -> Sample:
    if len(classes) != 1:
        raise WeaksegError(
            f"--foreground is for a data set of one class, and this one has {len(classes)}. Write "
            "each class as its id."
        )
    assert sample.mask is not None
    return replace(sample, mask=OneClass(sample.mask, foreground))


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
    samples: Sequence[Sample], classes: int, executor: Executor, progress: Progress
) -> list[Sample]:
    """The photos whose ground truth can be used; says what is left out."""
    faults = list(executor.map(Each(_fault, (classes,)), samples))
    reasons = [fault for fault in faults if fault]
    if reasons:
        progress.say(
            f"left out: {len(reasons)} of {len(samples)} true masks, such as: {reasons[0]}"
        )
    return [sample for sample, fault in zip(samples, faults, strict=True) if not fault]


def _fault(classes: int, sample: Sample) -> str | None:
    return truth_fault(sample, classes)


_Pair = tuple[Sample, Path]
"""A photo, and the mask that was predicted for it."""


def _mask_of(step: Step, sample: Sample) -> Path:
    return step.folder / f"{sample.id}{MASK}"


def _confusion(
    samples: Sequence[Sample],
    predicted: Callable[[Sample], Path],
    classes: Sequence[str],
    executor: Executor,
    progress: Progress,
    label: str,
    also: Callable[[Sample, NDArray[np.int64]], None] | None = None,
) -> ConfusionMatrix:
    total = ConfusionMatrix(classes)
    pairs = ((sample, predicted(sample)) for sample in samples)
    found = executor.map(Each(_compare, (tuple(classes),)), pairs)
    with progress.track(label, len(samples)) as advance:
        for sample, counts in zip(samples, found, strict=True):
            total.counts += counts
            total.images += 1
            if also:
                also(sample, counts)
            advance(1)
    return total


class _Reliability:
    """How well the confidence of a run's last masks tells their true IoU.

    Attributes:
        step: whose masks the confidence is of.
    """

    def __init__(self, context: Context) -> None:
        self._classes = context.dataset.classes
        self._matrices = [ConfusionMatrix(self._classes) for _ in _LEFT_OUT]
        self._pairs = array("d"), array("d"), array("q")  # confidence, IoU, class
        # Columns, as an object for each of a million photos takes a gigabyte.
        ids = {sample.id: sample.id for sample in context.masked_samples()}
        step, entries = read_confidence(context.folder)
        of_photo = array("d")
        self._index: dict[str, int] = {}
        self._starts, self._ids, self._sure = array("q", [0]), array("q"), array("d")
        for photo, entry in entries:
            self._index[ids.get(photo, photo)] = len(of_photo)
            of_photo.append(entry.confidence)
            self._ids.extend(self._classes.index(name) + 1 for name in entry.classes)
            self._sure.extend(entry.classes.values())
            self._starts.append(len(self._sure))
        self.step = step if of_photo else None
        by_id = np.array([self._index[photo] for photo in sorted(self._index)], np.int64)
        surest = by_id[np.argsort(np.asarray(of_photo)[by_id], kind="stable")]
        self._place = np.empty(len(surest))
        self._place[surest] = np.arange(len(surest)) / max(1, len(surest))

    def add(self, sample: Sample, counts: NDArray[np.int64]) -> None:
        """Count a photo of the step's, whose confusion counts are (C+1, C+2)."""
        iou = ConfusionMatrix.of(self._classes, counts).iou()
        index = self._index[sample.id]
        its = slice(self._starts[index], self._starts[index + 1])
        sure = dict(zip(self._ids[its], self._sure[its], strict=True))
        told, ious, ids = self._pairs
        for class_id in task_of(sample, self._classes).class_ids:
            if class_id in sure and not np.isnan(iou[class_id]):
                told.append(sure[class_id])
                ious.append(iou[class_id])
                ids.append(class_id)
        for share, matrix in zip(_LEFT_OUT, self._matrices, strict=True):
            if self._place[index] >= share:
                matrix.counts += counts
                matrix.images += 1

    def figures(self) -> dict[str, Any]:
        """Under "confidence", if it tells anything: correlations, and the mIoU of the surer."""
        sure, iou, ids = map(np.asarray, self._pairs)
        if not len(ids):
            return {}
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
    sample, path = pair
    matrix = ConfusionMatrix(classes)
    try:
        matrix.update(_truth(sample), read_prediction(path))
    except ValueError as error:
        raise WeaksegError(f"{path} can't be compared with {sample.mask}: {error}.") from error
    return matrix.counts


def _truth(sample: Sample) -> NDArray[np.uint8]:
    assert sample.mask is not None
    return sample.mask.read()


def _oracle_row(
    context: Context, step: Step, samples: Sequence[Sample], left_out: int, dropped: Sequence[str]
) -> dict[str, Any]:
    """A step's maps at the threshold that is best by ground truth, over the whole set."""
    name = f"{step.name}-oracle"
    totals = [ConfusionMatrix(context.dataset.classes) for _ in _THRESHOLDS]
    make = _ThresholdSweep(step)
    photos = context.photos(step)  # its maps are of the tags that it saw
    seen = {sample.id: sample for sample in photos.samples}
    samples = [seen[sample.id] for sample in samples]
    executor = context.network if step.uses_network else context.cpu
    swept = executor.map(make, map(photos.task, samples))
    with context.progress.track(f"evaluate {name}", len(samples)) as advance:
        for sample, (ids, counts) in zip(samples, swept, strict=True):
            cells = np.ix_(ids, np.array((0, *photos.task(sample).class_ids)))
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
        replace(sample, mask=sample.objects)
        for sample in context.masked_samples()
        if sample.objects
    ]
    samples = _usable(of_objects, MAX_OBJECTS, context.cpu, context.progress)
    if not samples:
        return []
    best = []
    with context.progress.track(f"evaluate {step.name}", len(samples)) as advance:
        for overlaps in context.cpu.map(Each(_best_overlaps, (step.folder,)), samples):
            best += overlaps.tolist()
            advance(1)
    return [
        {
            "name": step.name,
            "split": context.recipe.data.split,
            "images": len(samples),
            **dict.fromkeys(("miou", "mean_accuracy", "pixel_accuracy")),
            "per_class": {},
            "abo": float(np.mean(best)) if best else None,
            "objects": len(best),
            "protocol": {"masks": step["masks"].name, "crf": False, "ignore": IGNORE},
            "left_out": len(of_objects) - len(samples),
        }
    ]


def _best_overlaps(folder: Path, sample: Sample) -> NDArray[np.float64]:
    return best_overlaps(_truth(sample), read_mask(folder / f"{sample.id}.png"))


@dataclass(frozen=True)
class _ThresholdSweep:
    step: Step

    def __call__(self) -> Callable[[PhotoTask], ThresholdCounts]:
        maps = open_class_maps(self.step)

        def work(task: PhotoTask) -> ThresholdCounts:
            return sweep_thresholds(_truth(task.sample), maps(task).scores, _THRESHOLDS)

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
