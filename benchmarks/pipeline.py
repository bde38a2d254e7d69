"""From a trained classifier to masks of a folder of photos, against the same made of the peers.

    python benchmarks/pipeline.py --data VOC2012 --run runs/cpu

Ours is the step `svm+crf` of the run as it is where no other step is kept: a worker goes from the
photo to the mask. The peers are put together
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
from weakseg import Run, open_run
from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample, load_dataset
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine.executor import LocalExecutor
from weakseg.grid import upsample
from weakseg.memory import cores_here
from weakseg.methods.base import Photos, PhotoTask, Step, Tools, map_photos
from weakseg.methods.crf import unary_of
from weakseg.methods.maps import Writer
from weakseg.metrics import ConfusionMatrix
from weakseg.progress import progress_for
from weakseg.refine.svm import zscore

STEP = "svm+crf"
REQUIRED_POINTS = 0.2
WARM = 4
"""Photos that are done before some are timed, for what is compiled and loaded."""

MakeMasks = Callable[[Photos, Path], None]


@dataclass(frozen=True)
class Ours:
    """The step from photo to mask, on a run's executor."""

    run: Run
    executor: LocalExecutor

    def __call__(self, photos: Photos, out: Path) -> None:
        step = replace(unkept(self.run.steps[STEP]), folder=out, kept=True)
        tools = Tools(photos, self.executor, self.executor, progress_for(), torch.device("cpu"))
        map_photos(tools, STEP, Writer(step), lambda sample: False, self.executor, by_size=True)


def unkept(step: Step) -> Step:
    """A step that reads no file but its networks'."""
    if step.kind.work is None:
        return step
    inputs = tuple((slot, unkept(given)) for slot, given in step.inputs)
    return replace(step, inputs=inputs, kept=False)


class Peer:
    """The peers, one after the other, for one photo."""

    def __init__(self, step: Step, threads: int) -> None:
        self._svm, self._crf = step["maps"].settings, step.settings
        self._localizer = cam.Peer(step["maps"]["maps"])
        self._threads = threads

    def mask(self, task: PhotoTask, out: Path) -> None:
        photo = read_photo(task.sample.image)
        torch.set_num_threads(self._threads)
        found = self._localizer.localization(photo, [class_id - 1 for class_id in task.class_ids])
        cams, features = found
        scores = svm.peer_scores(zscore(features), cams, self._svm, task.id)
        unary = unary_of(upsample(scores, *photo.shape[:2]), self._crf)
        marginals = crf.peer_crf(photo, unary, self._crf.kernels)
        ids = np.array([0, *task.class_ids], np.uint8)
        write_mask(out / f"{task.id}.png", ids[marginals.argmax(axis=0)])


_peer: Peer


def set_up(step: Step, threads: int) -> None:
    global _peer
    threadpool_limits(1)
    _peer = Peer(step, threads)


def mask_by_peer(task: PhotoTask, out: Path) -> None:
    _peer.mask(task, out)


@contextmanager
def peers(step: Step, processes: int, threads: int) -> Iterator[MakeMasks]:
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, set_up, (step, threads)) as pool:

        def make(photos: Photos, out: Path) -> None:
            tasks = map(photos.task, photos.samples)
            pool.starmap(mask_by_peer, [(task, out) for task in tasks], chunksize=1)

        yield make


def mious(folders: Sequence[Path], photos: Photos) -> list[float]:
    """Of each folder's masks, in points."""
    matrices = [ConfusionMatrix(photos.classes) for _ in folders]
    for sample in photos.samples:
        assert sample.mask is not None
        truth = sample.mask.read()
        for folder, matrix in zip(folders, matrices, strict=True):
            matrix.update(truth, read_mask(folder / f"{sample.id}.png"))
    return [100 * matrix.summary()["miou"] for matrix in matrices]


def seconds(make: MakeMasks, photos: Photos, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    start = time.perf_counter()
    make(photos, out)
    return time.perf_counter() - start


def difference(ours: MakeMasks, peer: MakeMasks, photos: Photos) -> float:
    """Of the mIoU of both's masks of all photos, in points; an exit where it is too large."""
    count = len(photos.samples)
    with tempfile.TemporaryDirectory() as temporary:
        folders = Path(temporary) / "ours", Path(temporary) / "peer"
        for name, make, folder in zip(("ours", "the peers"), (ours, peer), folders, strict=True):
            print(f"{name}: {count / seconds(make, photos, folder):.2f} photos/s", flush=True)
        own, others = mious(folders, photos)
    print(f"mIoU of {count} photos {own:.2f}, the peers' {others:.2f}", flush=True)
    if abs(own - others) > REQUIRED_POINTS:
        sys.exit("they differ too much; nothing timed")
    return abs(own - others)


def times(makers: dict[str, MakeMasks], photos: Photos, turns: int) -> dict[str, float]:
    """Wall seconds of each."""
    warm = replace(photos, samples=photos.samples[:WARM])
    best = dict.fromkeys(makers, float("inf"))
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "out"
        for make in makers.values():
            seconds(make, warm, out)
        for _ in range(turns):
            for name, make in makers.items():
                best[name] = min(best[name], seconds(make, photos, out))
                print(f"{name}: {len(photos.samples) / best[name]:.2f} photos/s", flush=True)
    return best


def spread(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """`count` of the samples, from all over."""
    return tuple(samples[:: max(1, len(samples) // count)][:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a data set with masks")
    parser.add_argument("--run", type=Path, required=True, help="a run that has its classifier")
    parser.add_argument("--images", type=int, help="photos that masks are made of; else all")
    parser.add_argument("--timed", type=int, default=100, help="of these, photos that are timed")
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    dataset = load_dataset(arguments.data, run.recipe.data.split)
    masked = [sample for sample in dataset.samples if sample.mask]
    samples = spread(masked, arguments.images or len(masked))
    photos = Photos(dataset.classes, samples, dataset.classes, Balance())
    cores = cores_here()
    with (
        LocalExecutor() as executor,
        peers(run.steps[STEP], cores, 1) as as_many,
        peers(run.steps[STEP], 1, cores) as script,
    ):
        ours = Ours(run, executor)
        points = difference(ours, as_many, photos)
        timed = replace(photos, samples=spread(samples, arguments.timed))
        case = f"{len(timed.samples)} photos, {cores} processes, wall s"
        makers: dict[str, MakeMasks] = {
            case: ours,
            f"the peers in {cores} processes": as_many,
            f"the peers in one process, its network on {cores} threads": script,
        }
        best = times(makers, timed, arguments.turns)
        measure = f"difference in mIoU, points, {len(samples)} photos"
        own = best.pop(case)
        record([Row("pipeline", case, name, points, measure, own, best[name]) for name in best])


if __name__ == "__main__":
    main()
