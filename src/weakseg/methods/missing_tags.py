"""Find tags that are missing: what nobody gave, and a classifier is sure of (Dobko et al. 2020)."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from weakseg.data.dataset import Sample
from weakseg.data.split import folds_by_tags
from weakseg.errors import WeaksegError
from weakseg.files import remove_partial_files, write_csv, written_by_run
from weakseg.methods import classifier
from weakseg.methods.base import Artefact, File, Kind, Photos, PhotoTask, Slot, Step, Tools, made
from weakseg.methods.classifier import CLASSIFIER, learned_from
from weakseg.methods.features import open_tensors
from weakseg.methods.settings import Section, Share
from weakseg.names import FIGURES

MISSING_TAGS = "missing_tags.csv"


class MissingTags(Section):
    """What becomes of tags that nobody gave and a classifier is sure of.

    Attributes:
        action: `list` only lists what is found; `add` has the steps that read it see it as given;
            with `mask` it counts neither as there nor as absent when a classifier is trained and
            judged: another than that of `of`, which comes before.
        confidence: a tag is found where a network is surer than this that it is there.
        folds: as many networks are trained as the classifier that `of` names is, each without the
            photos that it then looks at.
    """

    action: Literal["list", "add", "mask"] = "list"
    confidence: Share = 0.9
    folds: Annotated[int, Field(ge=2, le=100)] = 3


class Found(NamedTuple):
    """A tag that nobody gave."""

    image: str
    tag: str
    confidence: float


def run(step: Step, tools: Tools) -> None:
    """Write `missing_tags.csv`: image, tag and confidence, the surest first.

    The photos are parted into folds, and each is judged by a network that learned from the other
    folds alone: one that had seen the photo would have learned that the tag is absent. The
    confidence is `weakseg.networks.cam_classifier.confidences` of the whole photo. It is not
    calibrated, least of all under a head trained for long on a frozen backbone, and the networks
    learned from tags that lack some themselves: look at the list before you let it be added.
    """
    samples = tools.photos.samples
    folds = folds_by_tags(samples, step.settings.folds, step.seed)
    found: list[Found] = []
    for number, fold in enumerate(folds):
        folder = step.folder / f"fold-{number}"
        if not made(folder, MISSING_TAGS, FIGURES, CLASSIFIER):
            folder.mkdir(exist_ok=True)
            remove_partial_files(folder)
            judged = {sample.id for sample in fold}
            others = [sample for sample in samples if sample.id not in judged]
            name = f"{step.name} {number + 1}/{len(folds)}"
            classifier.train_classifier(step["classifier"], tools, name, folder, others)
            _write(folder / MISSING_TAGS, _judge(step, tools, name, folder, fold))
        found += _read(folder / MISSING_TAGS)
    _write(step.folder / MISSING_TAGS, found)
    images = len({row.image for row in found})
    tools.progress.say(
        f"{step.name}: {len(found)} tags seem to be missing, in {images} of {len(samples)} photos: "
        f"see {step.folder / MISSING_TAGS}"
    )


def with_found_tags(step: Step, photos: Photos) -> Photos:
    """What is seen by the steps that read it: tags that were found are added, doubtful, or left."""
    action = step.settings.action
    if action == "list":
        return photos
    found = defaultdict(set)
    for row in _read(step.folder / MISSING_TAGS):
        found[row.image].add(row.tag)

    def with_found(sample: Sample) -> Sample:
        if action == "mask":
            return replace(sample, doubtful=in_order(found[sample.id]))
        return replace(sample, tags=in_order(found[sample.id].union(sample.tags)))

    def in_order(tags: set[str]) -> tuple[str, ...]:
        return tuple(name for name in photos.classes if name in tags)

    return replace(photos, samples=tuple(map(with_found, photos.samples)))


def _judge(
    step: Step, tools: Tools, name: str, folder: Path, fold: Sequence[Sample]
) -> list[Found]:
    trained = step["classifier"]
    executor = tools.cpu if trained.get("features") else tools.network
    tasks = [tools.photos.task(sample) for sample in fold]
    found = []
    with tools.progress.track(name, len(fold)) as advance:
        judged = executor.map(Judge(trained, folder / CLASSIFIER), tasks)
        for sample, scores in zip(fold, judged, strict=True):
            found += [
                Found(sample.id, tag, score)
                for tag, score in zip(tools.photos.learned, scores, strict=True)
                if score > step.settings.confidence and tag not in sample.tags
            ]
            advance(1)
    return found


@dataclass(frozen=True)
class Judge:
    """How sure a network is of every class, of a photo: in the classes' order, in [0, 1].

    Attributes:
        step: the classifier as whose it was trained.
        network: its file.
    """

    step: Step
    network: Path

    def __call__(self) -> Callable[[PhotoTask], list[float]]:
        import torch

        from weakseg.methods.networks import prepare, read_classifier
        from weakseg.networks.cam_classifier import confidences, with_mirror_image

        step, features = self.step, self.step.get("features")
        device = torch.device(step.device)
        network, computing = prepare(
            read_classifier(self.network, device), step.settings.precision, device
        )
        kept = open_tensors(features, learned_from(step.settings)) if features else None

        @torch.inference_mode()
        def work(task: PhotoTask) -> list[float]:
            if kept:
                (learned,) = kept(task)
                logits = network.classify_kept(torch.from_numpy(learned).float().to(device))
            else:
                with computing():
                    logits = network(with_mirror_image(step.photo(task), device))
            scores: list[float] = confidences(logits).tolist()
            return scores

        return work


def _check(step: Step, photos: Photos, device: Any) -> None:
    trained = step["classifier"]
    if trained.kind.name != classifier.KIND.name:
        raise WeaksegError(
            f"{step.name} trains networks of kind {classifier.KIND.name} alone, and {trained.name} "
            f"is of kind {trained.kind.name}: name one of that kind in `of`."
        )
    folds = step.settings.folds
    if folds > len(photos.samples):
        raise WeaksegError(
            f"{step.name}.folds is {folds}, and there are {len(photos.samples)} photos. Lower it."
        )


def _files(step: Step, photos: Photos) -> Iterator[File]:
    yield File(MISSING_TAGS)
    for number in range(min(step.settings.folds, len(photos.samples))):
        for name in (MISSING_TAGS, FIGURES, CLASSIFIER):
            yield File(f"fold-{number}/{name}")


def _write(path: Path, found: Iterable[Found]) -> None:
    ordered = sorted(found, key=lambda row: (-row.confidence, row.image, row.tag))
    rows = ((row.image, row.tag, f"{row.confidence:.4f}") for row in ordered)
    write_csv(path, (Found._fields, *rows))


def _read(path: Path) -> list[Found]:
    with written_by_run(path), path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        return [Found(row["image"], row["tag"], float(row["confidence"])) for row in rows]


KIND = Kind(
    name="missing_tags",
    summary="tags that nobody gave and classifiers are sure of: listed, added, or left aside",
    settings=MissingTags,
    gives=frozenset({Artefact.TAGS}),
    takes=(Slot("classifier", frozenset({Artefact.CLASSIFIER})),),
    version=3,
    run=run,
    files=_files,
    photos="all",
    draws=True,
    check=_check,
    then=with_found_tags,
    for_readers=frozenset({"action"}),
)
