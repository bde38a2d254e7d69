"""What it costs that a run's files outlast a power cut, and that they are looked at when believed.

    python benchmarks/files.py

Masks of 500x375 and tensors of a megabyte are written as a step writes them: without fsync, with
one for each file before it has its name, and with one for each of all of them at the step's end.
Then what five steps write of many photos is looked at, and their photos are listed.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy

from weakseg.data.dataset import load_dataset
from weakseg.data.masks import write_mask
from weakseg.engine.outputs import Output, find_faults, last_change
from weakseg.files import stamp, sync_files, write_atomically, write_bytes
from weakseg.methods.base import PICTURE
from weakseg.methods.maps import SCORES

SIZE = 375, 500
GRID = 94, 125
STEPS = ("cam", "seed", "svm", "svm+crf", "cam+crf")


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    work()
    return clock() - start


def write_all(paths: list[Path], content: bytes, how: str) -> None:
    for path in paths:
        with write_atomically(path, durable=how == "each") as temporary:
            temporary.write_bytes(content)
    if how == "together":
        sync_files(paths)


def writing(folder: Path, kind: str, content: bytes, count: int) -> None:
    times: dict[str, list[float]] = {"none": [], "each": [], "together": []}
    for turn in range(3):
        for how, taken in times.items():
            paths = [folder / f"{how}{turn}" / f"{i}{kind}" for i in range(count)]
            taken.append(seconds(partial(write_all, paths, content, how)))
            shutil.rmtree(paths[0].parent)
    shown = ", ".join(f"{how} {1e3 * min(t) / count:.2f} ms" for how, t in times.items())
    print(f"a {kind} of {len(content):,} bytes, fsync: {shown}")


def looking(folder: Path, photos: int) -> None:
    rng = np.random.default_rng(0)
    mask = (rng.random(SIZE) < 0.5).astype(np.uint8)
    write_mask(folder / "one.png", mask)
    write_bytes(
        folder / "one.safetensors",
        safetensors.numpy.save({SCORES: np.zeros((2, *GRID), np.float32)}),
    )
    (folder / "data" / "images").mkdir(parents=True)
    rows = ["image,tags"]
    outputs = []
    for i in range(photos):
        shutil.copy(folder / "one.png", folder / "data" / "images" / f"{i:06}.png")
        rows.append(f"{i:06},thing")
        for step in STEPS:
            path = folder / "run" / step / f"{i:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "one.png", path)
            outputs.append(Output(path, {PICTURE: SIZE}))
        path = folder / "run" / "svm" / f"{i:06}.safetensors"
        shutil.copy(folder / "one.safetensors", path)
        outputs.append(Output(path, {SCORES: (2, *GRID)}))
    (folder / "data" / "tags.csv").write_text("\n".join(rows) + "\n")

    def listing() -> None:
        for sample in load_dataset(folder / "data").samples:
            stamp(sample.image)

    def checking() -> None:
        assert not find_faults(outputs, {})

    settled = last_change(outputs)

    def passing() -> None:
        assert not find_faults(outputs, {}, settled)

    listed, checked, passed = (
        min(seconds(work, time.process_time) for _ in range(3))
        for work in (listing, checking, passing)
    )
    print(
        f"{photos:,} photos, of CPU time: listed in {listed:.2f} s; their {len(outputs):,} files "
        f"looked at in {checked:.3f} s, and in {passed:.3f} s where none has changed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--files", type=int, default=300, help="written of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".files-") as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        write_mask(folder / "a.png", (rng.random(SIZE) < 0.02).astype(np.uint8))
        writing(folder, ".png", (folder / "a.png").read_bytes(), arguments.files)
        writing(folder, ".safetensors", rng.bytes(2**20), arguments.files // 3)
        looking(folder, arguments.photos)


if __name__ == "__main__":
    main()
