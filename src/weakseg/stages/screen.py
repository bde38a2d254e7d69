"""Find tags that are missing: what nobody gave, and a classifier is sure of (paper B)."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, shrink
from weakseg.data.split import folds_by_tags
from weakseg.files import remove_partial_files, write_text, written_by_run
from weakseg.names import FIGURES
from weakseg.networks.cam_classifier import confidences, with_mirror_image
from weakseg.networks.fused import fuse
from weakseg.recipe import MissingTags, Precision
from weakseg.stages import classify, pool
from weakseg.stages.base import Context, made, network_executor
from weakseg.stages.executor import InProcessExecutor
from weakseg.stages.networks import compute_type, read_classifier
from weakseg.stages.outputs import Output
from weakseg.training.pooled import read_pooled

NAME = "screen"
MISSING_TAGS = "missing_tags.csv"


class Found(NamedTuple):
    """A tag that nobody gave."""

    image: str
    tag: str
    confidence: float


def outputs(context: Context) -> Iterator[Output]:
    """The list, and of each fold its share of the list and its network."""
    folder = context.stage_folder(NAME)
    yield Output(folder / MISSING_TAGS)
    for number in range(min(_settings(context).folds, len(context.dataset.samples))):
        for name in (MISSING_TAGS, FIGURES, classify.CLASSIFIER):
            yield Output(folder / f"fold-{number}" / name)


def run(context: Context) -> None:
    """Write `screen/missing_tags.csv`: image, tag and confidence, the surest first.

    The photos are parted into folds, and each is judged by a network that learned from the other
    folds alone: one that had seen the photo would have learned that the tag is absent. The
    confidence is `weakseg.networks.cam_classifier.confidences` of the whole photo. It is not
    calibrated, least of all under a head trained for long on a frozen backbone, and the networks
    learned from tags that lack some themselves: look at the list before you let it be added.
    """
    settings = _settings(context)
    samples = context.dataset.samples
    folds = folds_by_tags(samples, settings.folds, context.recipe.seed)
    found: list[Found] = []
    for number, fold in enumerate(folds):
        folder = context.stage_folder(NAME) / f"fold-{number}"
        if not made(folder, MISSING_TAGS, FIGURES, classify.CLASSIFIER):
            folder.mkdir(exist_ok=True)
            remove_partial_files(folder)
            judged = {sample.id for sample in fold}
            others = [sample for sample in samples if sample.id not in judged]
            name = f"{NAME} {number + 1}/{len(folds)}"
            classify.train_classifier(context, name, folder, others)
            _write(folder / MISSING_TAGS, _judge(context, name, folder, fold))
        found += _read(folder / MISSING_TAGS)
    _write(context.stage_folder(NAME) / MISSING_TAGS, found)
    images = len({row.image for row in found})
    context.progress.say(
        f"{NAME}: {len(found)} tags seem to be missing, in {images} of {len(samples)} photos: see "
        f"{context.stage_folder(NAME) / MISSING_TAGS}"
    )


def with_found_tags(context: Context) -> Context:
    """What later stages see: tags that were found are added, doubtful, or left aside."""
    action = _settings(context).action
    if action == "list":
        return context
    found = defaultdict(set)
    for row in _read(context.stage_folder(NAME) / MISSING_TAGS):
        found[row.image].add(row.tag)

    def with_found(sample: Sample) -> Sample:
        if action == "mask":
            return replace(sample, doubtful=in_order(found[sample.id]))
        return replace(sample, tags=in_order(found[sample.id].union(sample.tags)))

    def in_order(tags: set[str]) -> tuple[str, ...]:
        return tuple(name for name in context.dataset.classes if name in tags)

    samples = tuple(map(with_found, context.dataset.samples))
    return replace(context, dataset=replace(context.dataset, samples=samples))


def _settings(context: Context) -> MissingTags:
    assert context.recipe.missing_tags is not None, "the stage is there only with its section"
    return context.recipe.missing_tags


def _judge(context: Context, name: str, folder: Path, fold: Sequence[Sample]) -> list[Found]:
    recipe = context.recipe
    pooled = recipe.trains_on_pooled_features
    judge = Judge(
        folder / classify.CLASSIFIER,
        context.stage_folder(pool.NAME) if pooled else None,
        recipe.data.long_side,
        recipe.classify.precision,
        str(context.device),
    )
    executor = InProcessExecutor() if pooled else network_executor(context)
    threshold = _settings(context).confidence
    found = []
    with context.progress.track(name, len(fold)) as advance:
        for sample, scores in zip(fold, executor.map(judge, fold), strict=True):
            found += [
                Found(sample.id, tag, score)
                for tag, score in zip(context.dataset.classes, scores, strict=True)
                if score > threshold and tag not in sample.tags
            ]
            advance(1)
    return found


@dataclass(frozen=True)
class Judge:
    """How sure a classifier is of every class, of a photo: in the classes' order, in [0, 1].

    Attributes:
        classifier: its file.
        pooled: the folder of the photos' pooled features; None: they are computed.
    """

    classifier: Path
    pooled: Path | None
    long_side: int
    precision: Precision
    device: str

    def __call__(self) -> Callable[[Sample], list[float]]:
        device = torch.device(self.device)
        network = read_classifier(self.classifier, device)
        dtype = compute_type(self.precision, device)
        network.backbone = fuse(network.backbone, dtype)

        @torch.inference_mode()
        def work(sample: Sample) -> list[float]:
            if self.pooled:
                logits = network.classify(read_pooled(self.pooled, sample.id).to(device))
            else:
                photo = shrink(read_photo(sample.image), self.long_side)
                with torch.autocast(device.type, dtype, enabled=dtype is not None):
                    logits = network(with_mirror_image(photo, device))
            scores: list[float] = confidences(logits).tolist()
            return scores

        return work


def _write(path: Path, found: Iterable[Found]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Found._fields)
    for row in sorted(found, key=lambda row: (-row.confidence, row.image, row.tag)):
        writer.writerow([row.image, row.tag, f"{row.confidence:.4f}"])
    write_text(path, table.getvalue())


def _read(path: Path) -> list[Found]:
    with written_by_run(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [Found(row["image"], row["tag"], float(row["confidence"])) for row in rows]
