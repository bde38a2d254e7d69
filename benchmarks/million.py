"""What photos cost in themselves: a thousand to a million rows, with next to no work on each.

    python benchmarks/million.py --folder FOLDER

FOLDER gets data sets of 1,000 to 1,000,000 rows of `tags.csv`, whose photos are hard links to 4,096
small ones. Each part is timed in a process of its own, with its peak memory (VmHWM, Linux only);
what imports PyTorch starts at some 700 MiB, so that growth with the number of photos tells:

- list: `load_dataset`; check: `weakseg data check`, which decodes every photo;
- balance: the photos left of classes with many; digests: those of all photos, tags and masks;
- first: a run of kind `folder` whose work is done once for each of the 4,096 photos and linked for
  the others, so that what is left is the engine's own;
- second: the same command again, with nothing to do;
- open: `open_run` and the photos of its masks, as the report and the exporters start.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import weakseg
from weakseg.data.balance import down_sample
from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import write_mask
from weakseg.engine.fingerprints import Digests
from weakseg.methods.base import Item, Result
from weakseg.methods.maps import MASK, Writer
from weakseg.progress import Silence
from weakseg.recipe import check_recipe

DISTINCT = 4096
CLASSES = tuple(f"class{index:02}" for index in range(20))
HEIGHT, WIDTH = 48, 64
COUNTS = (1_000, 10_000, 100_000, 1_000_000)


def write_data(folder: Path, count: int) -> None:
    """Photos of noise and their masks, linked under `count` names, with 1 to 3 tags each."""
    images, masks = folder / "images", folder / "masks"
    for part in (images, masks):
        part.mkdir(parents=True)
    cells = []
    for index in range(min(count, DISTINCT)):
        rng = np.random.default_rng(index)
        tags = np.sort(rng.choice(len(CLASSES), rng.integers(1, 4), replace=False))
        cells.append(";".join(CLASSES[tag] for tag in tags))
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{index:07}.jpg")
        stripes = (tags + 1).astype(np.uint8)[np.arange(WIDTH) * len(tags) // WIDTH]
        write_mask(masks / f"{index:07}{MASK}", np.tile(stripes, (HEIGHT, 1)))
    with (folder / "tags.csv").open("w") as table:
        table.write("image,tags\n")
        for index in range(count):
            same = index % DISTINCT
            if index != same:
                os.link(f"{images}/{same:07}.jpg", f"{images}/{index:07}.jpg")
                os.link(f"{masks}/{same:07}{MASK}", f"{masks}/{index:07}{MASK}")
            table.write(f"{index:07}.jpg,{cells[same]}\n")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


class Linking:
    """An executor that does work once for each of the `DISTINCT` photos."""

    workers = 1

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        work, results, first = make(), dict[int, Result](), dict[int, str]()
        inner = getattr(make, "make", make)
        for item in items:
            photo: Any = item[0] if isinstance(item, tuple) else item
            key = int(photo.id) % DISTINCT
            if key not in results:
                results[key], first[key] = work(item), photo.id
            elif isinstance(inner, Writer):
                folder = inner.step.folder
                os.link(folder / f"{first[key]}{MASK}", folder / f"{photo.id}{MASK}")
            yield results[key]

    def rest(self) -> None:
        pass


def _run(folder: Path) -> None:
    import torch

    from weakseg.engine import runner

    steps = {"masks": {"kind": "folder", "path": str(folder / "data/masks"), "holds": "masks"}}
    recipe = check_recipe({"data": {"split": "all"}, "steps": steps}, "million")
    device = torch.device("cpu")
    runner.run(recipe, folder / "data", folder / "run", Linking(), Silence(), device)


def _check(folder: Path) -> None:
    print(*check_dataset(folder / "data").lines(), sep="\n", file=sys.stderr)


def _balance(folder: Path) -> None:
    samples = load_dataset(folder / "data").samples
    assert len(down_sample(samples, len(samples) // 20, seed=0)) < len(samples)


def _digests(folder: Path) -> None:
    samples = load_dataset(folder / "data").samples
    digests = Digests()
    for digest in (digests.files, digests.tags, digests.masks):
        digest(samples)


def _open(folder: Path) -> None:
    run = weakseg.open_run(folder / "run")
    assert len(run.photos(run.masks)) == len(run.dataset("all").samples)


PARTS: dict[str, Callable[[Path], object]] = {
    "list": lambda folder: load_dataset(folder / "data"),
    "check": _check,
    "balance": _balance,
    "digests": _digests,
    "first": _run,
    "second": _run,
    "open": _open,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the data; some 10 GB")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.within:
        before, start = time.process_time(), time.monotonic()
        PARTS[arguments.parts[0]](arguments.folder)
        seconds = time.process_time() - before, time.monotonic() - start
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peak
        print(json.dumps([*seconds, int(peak[1]) / 1024]))
        return
    print("| photos | part | CPU, s | wall, s | peak, MiB |\n|---|---|---|---|---|")
    for count in arguments.counts:
        folder = arguments.folder / str(count)
        if not folder.exists():
            write_data(folder / "data", count)
        for part in arguments.parts:
            command = [sys.executable, __file__, "--within", "--folder", str(folder)]
            done = subprocess.run([*command, "--parts", part], capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            cpu, wall, peak = json.loads(done.stdout)
            print(f"| {count:,} | {part} | {cpu:.1f} | {wall:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
