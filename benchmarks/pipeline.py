"""From a trained classifier to masks of a folder of photos, against the same made of the peers.

    python benchmarks/pipeline.py --data VOC2012 --run runs/cpu

Ours is the single step that a run takes where no stage's file is kept. The peers are put together
as the other scripts have them: the float32 loop over scales and mirror images (`cam.py`),
scikit-learn's SVC in its loop (`svm.py`) and pydensecrf2 (`crf.py`), with the run's classifier,
settings and samples. They run in as many processes as ours, of one thread each, and as the script
that people write: a photo at a time, in one process, its network on all cores. In the peers'
processes memory is handed out by the C library's and Linux's defaults, as in any script.

First both make masks of all photos, in processes; their mIoU must agree within 0.2 points. (That
of 100 photos moves by 0.3 with the SVM's draws alone.) Then some of the photos are timed: wall
time, of each the best of some turns.
"""

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import cam
import crf
import svm
from side_by_side import Row, record
from weakseg.data.dataset import Dataset, Sample, load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask, write_mask
from weakseg.localize.grid import upsample
from weakseg.metrics import ConfusionMatrix
from weakseg.progress import progress_for
from weakseg.recipe import load_recipe
from weakseg.refine.svm import zscore
from weakseg.stages import classify, localizer, refine
from weakseg.stages.base import Context, PhotoTask
from weakseg.stages.executor import LocalExecutor, available_cores

REQUIRED_POINTS = 0.2
WARM = 4
"""Photos that are done before some are timed, for what is compiled and loaded."""

MakeMasks = Callable[[Sequence[PhotoTask], Path], None]


@dataclass(frozen=True)
class Ours:
    """The step from photo to mask, on a run's executor."""

    context: Context

    def __call__(self, tasks: Sequence[PhotoTask], out: Path) -> None:
        dataset = replace(self.context.dataset, samples=[task.sample for task in tasks])
        classifier = out / classify.NAME
        classifier.mkdir(parents=True)
        shutil.copy(self.context.folder / classify.NAME / classify.CLASSIFIER, classifier)
        context = replace(self.context, folder=out, dataset=dataset)
        refine.run_from_photos(context, refine.SVM_CRF, localizer.by_network)


class Peer:
    """The peers, one after the other, for one photo."""

    def __init__(self, run: Path, threads: int) -> None:
        self._recipe = load_recipe(str(run / "recipe.yaml"))
        self._localizer = cam.Peer(run)
        self._threads = threads

    def mask(self, task: PhotoTask, out: Path) -> None:
        assert self._recipe.svm is not None and self._recipe.crf is not None
        photo = read_photo(task.sample.image)
        torch.set_num_threads(self._threads)
        found = self._localizer.localization(photo, [class_id - 1 for class_id in task.class_ids])
        cams, features = found
        scores = svm.peer_scores(zscore(features), cams, self._recipe.svm, task.id)
        unary = refine.crf_unary(upsample(scores, *photo.shape[:2]), self._recipe.crf)
        marginals = crf.peer_crf(photo, unary, self._recipe.crf.kernels)
        ids = np.array([0, *task.class_ids], np.uint8)
        write_mask(out / f"{task.id}.png", ids[marginals.argmax(axis=0)])


_peer: Peer


def set_up(run: Path, threads: int) -> None:
    global _peer
    threadpool_limits(1)
    _peer = Peer(run, threads)


def mask_by_peer(task: PhotoTask, out: Path) -> None:
    _peer.mask(task, out)


@contextmanager
def peers(run: Path, processes: int, threads: int) -> Iterator[MakeMasks]:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, set_up, (run, threads)) as pool:

        def make(tasks: Sequence[PhotoTask], out: Path) -> None:
            (out / refine.SVM_CRF).mkdir(parents=True)
            pool.starmap(mask_by_peer, [(t, out / refine.SVM_CRF) for t in tasks], chunksize=1)

        yield make


def mious(folders: Sequence[Path], tasks: Sequence[PhotoTask], dataset: Dataset) -> list[float]:
    """Of each folder's masks, in points."""
    matrices = [ConfusionMatrix(dataset.classes) for _ in folders]
    for task in tasks:
        assert task.sample.mask is not None
        truth = task.sample.mask.read()
        for folder, matrix in zip(folders, matrices, strict=True):
            matrix.update(truth, read_mask(folder / refine.SVM_CRF / f"{task.id}.png"))
    return [100 * matrix.summary()["miou"] for matrix in matrices]


def seconds(make: MakeMasks, tasks: Sequence[PhotoTask], out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    make(tasks, out)
    return time.perf_counter() - start


def difference(ours: MakeMasks, peer: MakeMasks, context: Context) -> float:
    """Of the mIoU of both's masks of all photos, in points; an exit where it is too large."""
    tasks = [context.task(sample) for sample in context.dataset.samples]
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary) / "ours", Path(temporary) / "peer"
        for name, make, folder in zip(("ours", "the peers"), (ours, peer), folders, strict=True):
            print(f"{name}: {len(tasks) / seconds(make, tasks, folder):.2f} photos/s", flush=True)
        own, others = mious(folders, tasks, context.dataset)
    print(f"mIoU of {len(tasks)} photos {own:.2f}, the peers' {others:.2f}", flush=True)
    if abs(own - others) > REQUIRED_POINTS:
        sys.exit("they differ too much; nothing timed")
    return abs(own - others)


def times(makers: dict[str, MakeMasks], tasks: Sequence[PhotoTask], turns: int) -> dict[str, float]:
    """Wall seconds of each."""
    best = dict.fromkeys(makers, float("inf"))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        for make in makers.values():
            seconds(make, tasks[:WARM], out)
        for _ in range(turns):
            for name, make in makers.items():
                best[name] = min(best[name], seconds(make, tasks, out))
                print(f"{name}: {len(tasks) / best[name]:.2f} photos/s", flush=True)
    return best


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` of the samples, from all over."""
    return list(samples[:: max(1, len(samples) // count)][:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set with masks")
    parser.add_argument("--run", type=Path, required=True, help="a run that has its classifier")
    parser.add_argument("--images", type=int, help="photos that masks are made of; else all")
    parser.add_argument("--timed", type=int, default=100, help="of these, photos that are timed")
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    recipe = load_recipe(str(arguments.run / "recipe.yaml"))
    dataset = load_dataset(arguments.data, recipe.data.split)
    masked = [sample for sample in dataset.samples if sample.mask]
    dataset = replace(dataset, samples=spread(masked, arguments.images or len(masked)))
    cores = available_cores()
    with (
        LocalExecutor() as executor,
        peers(arguments.run, cores, 1) as as_many,
        peers(arguments.run, 1, cores) as script,
    ):
        device = torch.device("cpu")
        nothing = replace(dataset, samples=[])
        context = Context(arguments.run, recipe, dataset, nothing, executor, progress_for(), device)
        ours = Ours(context)
        points = difference(ours, as_many, context)
        tasks = [context.task(sample) for sample in spread(dataset.samples, arguments.timed)]
        case = f"{len(tasks)} photos, {cores} processes, wall s"
        makers: dict[str, MakeMasks] = {
            case: ours,
            f"the peers in {cores} processes": as_many,
            f"the peers in one process, its network on {cores} threads": script,
        }
        best = times(makers, tasks, arguments.turns)
        measure = f"difference in mIoU, points, {len(dataset.samples)} photos"
        own = best.pop(case)
        record([Row("pipeline", case, name, points, measure, own, best[name]) for name in best])


if __name__ == "__main__":
    main()
