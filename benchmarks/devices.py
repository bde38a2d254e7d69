"""What a device computes, against the CPU: each kind of step, a recipe's steps, the refiners.

    make gpu DATA=VOC2012
    python benchmarks/devices.py --data VOC2012 --device cuda --images 48

First every step of a recipe that has one of each kind (`tests/tiny.py`), on generated photos; then
those of `svm_irn_three_step` with short trainings, on some of the data set's; at last the refiners
in torch's operators, from its maps and features, against the compiled loops on one thread. A step
that a network has a part in is done on the CPU, and twice on the device, from the same files: what
it gives has to agree, and to have the same bytes both times. Times are wall times, of the device's
second turn: with reading and writing, and what goes to the device and back. The CPU has all of its
cores.

All is done to the end, whatever differs. Rows of what agrees are printed as a table, without those
of generated photos, and go into `benchmarks/results.json` unless the device is the CPU.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from random_walk import example
from side_by_side import Row, record, show
from tiny import EVERY_KIND, tiny_recipe
from weakseg.api import device_named
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask
from weakseg.data.synth import generate
from weakseg.engine import inspect
from weakseg.engine.context import Context
from weakseg.engine.executor import LocalExecutor, network_executor
from weakseg.engine.runner import run_step
from weakseg.grid import upsample
from weakseg.methods.base import NETWORKS, Artefact, Step
from weakseg.methods.crf import unary_of
from weakseg.methods.maps import MAPS, MASK, read_maps
from weakseg.progress import Silence
from weakseg.recipe import Recipe, load_recipe
from weakseg.refine.crf import dense_crf
from weakseg.refine.random_walk import RandomWalkSettings, random_walk
from weakseg.refine.samples import image_rng
from weakseg.refine.svm import refine_many_with_svm, refine_with_svm, zscore

LABELS, MAP, NETWORK, WALK, STEPS = (
    "share of equal labels",
    "largest difference of maps or features, of their maximum",
    "largest difference of weights, of their maximum",
    "largest difference",
    "share of steps that agree",
)
AGREES: dict[str, Callable[[float], bool]] = {
    LABELS: lambda share: share >= 0.995,
    MAP: lambda difference: difference <= 0.01,  # of convolutions in TF32, kept as float16
    NETWORK: lambda difference: difference <= 0.05,  # trainings drift apart
    WALK: lambda difference: difference <= 1e-4,
    STEPS: lambda share: share == 1,
}
CPU = "the CPU, all cores"
RECIPE = "svm_irn_three_step"
GRID = (94, 125)  # a photo of 375x500
SHORT = (
    "data.held_out=null",
    "own-maps.keep=true",
    "classify.epochs=4",
    "irnet.epochs=2",
    "segmenter.epochs=2",
)

Floats = NDArray[np.float32]
Arrays = Sequence[NDArray[np.generic]]


@dataclass(frozen=True)
class Place:
    """Where steps are done: a data set, the recipe's folder, and what works on its photos."""

    dataset: Dataset
    recipe: Recipe
    folder: Path
    executor: LocalExecutor

    def context(self, device: torch.device) -> Context:
        context = Context(
            folder=self.folder,
            recipe=self.recipe,
            steps=self.recipe.build(self.folder, str(device)),
            dataset=self.dataset,
            held_out=self.dataset,
            cpu=self.executor,
            network=network_executor(self.executor, str(device)),
            progress=Silence(),
            device=device,
        )
        inspect.run(context)
        return inspect.readable(context)


def made(step: Step, context: Context, folder: Path) -> float:
    """The seconds in which a step's files are written into a folder."""
    folder.mkdir(parents=True)
    start = time.perf_counter()
    run_step(replace(step, folder=folder), context)
    return time.perf_counter() - start


def step_rows(place: Place, device: torch.device, part: str) -> Iterator[Row]:
    """Do all steps on the CPU; a row of each that a network has a part in, and one of them all."""
    there, here = place.context(device), place.context(torch.device("cpu"))
    where = f"{part}, {len(place.dataset.samples)} photos, {name_of(device)}, wall s"
    totals, agree = np.zeros(2), []
    for ours, theirs in zip(there.steps, here.steps, strict=True):
        compared = ours.uses_network or ours.kind.role == "network"
        turns = [place.folder / f"{ours.name}.{turn}" for turn in (1, 2)]
        if compared and ours.kind.work:  # by workers, which have to start first
            made(theirs, here, turns[0])
            shutil.rmtree(turns[0])
        seconds = peer_seconds = made(theirs, here, theirs.folder)
        if compared:
            _, seconds = (made(ours, there, turn) for turn in turns)
            measure, agreement = agreement_of(ours, turns[1], theirs.folder)
            case = f"{ours.name} of {where}"
            if contents(turns[0]) != contents(turns[1]):
                print(f"{case}: not the same bytes twice", flush=True)
                agreement = float("nan")
            agree.append(AGREES[measure](agreement))
            yield Row(ours.kind.name, case, CPU, agreement, measure, seconds, peer_seconds)
            for turn in turns:
                shutil.rmtree(turn)
        totals += (seconds, peer_seconds)
        if ours.kind.then:
            seen = ours.kind.then(theirs, here.photos(theirs))
            there, here = (replace(c, seen={**c.seen, ours.name: seen}) for c in (there, here))
    yield Row("recipe", f"all of {where}", CPU, float(np.mean(agree)), STEPS, *totals)


def contents(folder: Path) -> dict[str, bytes]:
    """The masks, maps and networks in a step's folder."""
    paths = (path for path in folder.iterdir() if path.suffix in (MAPS, MASK))
    return {path.name: path.read_bytes() for path in sorted(paths)}


def agreement_of(step: Step, found: Path, expected: Path) -> tuple[str, float]:
    """How far what a step wrote agrees with what it wrote elsewhere, and in which measure."""
    names = sorted(contents(expected))
    if step.gives & {Artefact.MASKS, Artefact.OBJECTS}:
        masks = [name for name in names if name.endswith(MASK)]
        return LABELS, equal_labels(*([read_mask(f / n) for n in masks] for f in (found, expected)))
    largest = 0.0
    for name in names:
        ours, theirs = (safetensors.numpy.load_file(folder / name) for folder in (found, expected))
        for key, tensor in theirs.items():
            scale = float(np.abs(tensor.astype(np.float64)).max(initial=0)) or 1.0
            largest = max(largest, largest_difference([ours[key]], [tensor]) / scale)
    return (NETWORK if step.gives & NETWORKS else MAP), largest


def equal_labels(found: Arrays, expected: Arrays) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([(one == other).mean() for one, other in pairs]))


def largest_difference(found: Arrays, expected: Arrays) -> float:
    pairs = zip(found, expected, strict=True)
    return max(
        float(np.abs(np.subtract(one, other, dtype=np.float64)).max(initial=0))
        for one, other in pairs
    )


def refiner_rows(place: Place, device: torch.device) -> Iterator[Row]:
    """Rows of the SVM, which gets all photos at once, the CRF and the walk, one after the other."""
    steps = {step.name: step for step in place.context(device).steps}
    seed, svm, crf = (place.recipe.seed, *(steps[n].settings for n in ("svm", "svm+crf")))
    images, photos, unaries = [], [], []
    for sample in place.dataset.samples:
        found = read_maps(steps["localize"], sample.id, "features")
        assert found.features is not None
        features, photo = zscore(found.features.astype(np.float32)), read_photo(sample.image)
        scores = refine_with_svm(features, found.scores, svm, image_rng(seed, sample.id)).scores
        images.append((features, found.scores, sample.id))
        photos.append(photo)
        unaries.append(unary_of(upsample(scores, *photo.shape[:2]), crf))
    walks = [example(*GRID, seed=number) for number in range(len(photos))]

    def svm_labels(where: torch.device | None) -> Callable[[slice], Arrays]:
        def work(some: slice) -> Arrays:
            drawn = [(f, c, image_rng(seed, name)) for f, c, name in images[some]]
            if where is None:
                return [refine_with_svm(f, c, svm, rng).labels for f, c, rng in drawn]
            return [refined.labels for refined in refine_many_with_svm(drawn, svm, where)]

        return work

    def crf_labels(where: torch.device | None) -> Callable[[slice], Arrays]:
        return lambda some: [
            dense_crf(photo, unary, crf.kernels, where).argmax(axis=0)
            for photo, unary in zip(photos[some], unaries[some], strict=True)
        ]

    def walked(where: torch.device | None) -> Callable[[slice], Arrays]:
        return lambda some: [
            random_walk(*walk, RandomWalkSettings(), where) for walk in walks[some]
        ]

    with threadpool_limits(1):
        for method, make in (("svm", svm_labels), ("crf", crf_labels), ("random walk", walked)):
            ours, taken = seconds(make(device), len(photos))
            again, _ = seconds(make(device), len(photos))
            theirs, peer_taken = seconds(make(None), len(photos))
            if method == "random walk":
                measure, agreement = WALK, largest_difference(ours, theirs)
            else:
                measure, agreement = LABELS, equal_labels(ours, theirs)
            case = f"{len(ours)} photos, torch's operators on {name_of(device)}, wall s"
            if largest_difference(ours, again):
                print(f"{method}, {case}: not the same bytes twice", flush=True)
                agreement = float("nan")
            peer = "compiled loops, 1 thread"
            yield Row(method, case, peer, agreement, measure, taken, peer_taken)


def seconds(work: Callable[[slice], Arrays], count: int) -> tuple[Arrays, float]:
    """What `work` makes of all but the first quarter, and its time; it does that quarter first."""
    first = max(1, count // 4)
    work(slice(0, first))
    start = time.perf_counter()
    results = work(slice(first, count))
    return results, time.perf_counter() - start


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def every_kind(folder: Path, executor: LocalExecutor) -> Place:
    """Generated photos, and a recipe of all kinds."""
    data = folder / "photos"
    generate(data, images=10, seed=3)
    given = {**EVERY_KIND["given"], "path": str(data / "SegmentationClass")}
    recipe = tiny_recipe(**{**EVERY_KIND, "given": given})
    return Place(load_dataset(data, "all"), recipe, folder / "every-kind", executor)


def some_photos(data: Path, count: int, folder: Path, executor: LocalExecutor) -> Place:
    """Some of a data set's photos, and a recipe whose trainings are short."""
    recipe = load_recipe(RECIPE, SHORT)
    dataset = load_dataset(data, recipe.data.split)
    samples = dataset.samples[:: max(1, len(dataset.samples) // count)][:count]
    return Place(replace(dataset, samples=samples), recipe, folder / "run", executor)


def said(rows: Iterable[Row]) -> list[Row]:
    """The rows, each of which is printed as it comes."""
    found = []
    for row in rows:
        print(f"{row.method}, {row.case}: {row.agreement:.3g} {row.measure}", flush=True)
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu")
    parser.add_argument("--images", type=int, default=48)
    arguments = parser.parse_args()
    if arguments.images < 4:
        parser.error("--images: 4 at least")
    device = device_named(arguments.device)
    with LocalExecutor() as executor, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        kinds = said(step_rows(every_kind(folder, executor), device, "every kind"))
        place = some_photos(arguments.data, arguments.images, folder, executor)
        rows = said(chain(step_rows(place, device, RECIPE), refiner_rows(place, device)))
    agreeing = [row for row in rows if AGREES[row.measure](row.agreement)]
    if device.type == "cpu":
        show(agreeing)
    else:
        record(agreeing)
    wrong = [row for row in (*kinds, *rows) if not AGREES[row.measure](row.agreement)]
    if wrong:
        names = "; ".join(f"{row.method}, {row.case}" for row in wrong)
        sys.exit(f"{len(wrong)} of {len(kinds) + len(rows)} differ: {names}")


if __name__ == "__main__":
    main()
