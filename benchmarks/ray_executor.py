"""What Ray adds to per-photo work on one machine: the dense CRF by either executor, in turn.

    pip install weakseg[train,ray]
    python benchmarks/ray_executor.py --photos 100 --rounds 5

Generated photos, enlarged to 500 pixels: each is read, the CRF makes a mask of it from three levels
of brightness, and that is written, as a step does. Both executors have as many workers, which are
up and have the CRF compiled before anything is timed; what they write is compared first. Then each
does all photos in turn, and after that items that are no work at all. CPU time is that of this
process and of all below it meanwhile, Ray's own servers included: what Ray costs where other
programs disturb the wall time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from weakseg.data.images import read_photo, resize
from weakseg.data.masks import write_mask
from weakseg.data.synth import generate
from weakseg.engine.executor import LocalExecutor
from weakseg.engine.ray_executor import RayExecutor
from weakseg.memory import cores_here
from weakseg.methods.base import Executor
from weakseg.refine.crf import CRFSettings, dense_crf, unary_from_labels

KERNELS = CRFSettings(3, 3, 50, 5, 10)
SIDE = 500
NOTHINGS = 5_000


@dataclass(frozen=True)
class Refine:
    """Writes a mask of a photo into a folder."""

    folder: Path

    def __call__(self) -> Callable[[Path], None]:
        def work(photo: Path) -> None:
            image = resize(read_photo(photo), SIDE)
            bright = image.mean(axis=2)
            labels = np.digitize(bright, np.quantile(bright, (0.4, 0.8)))
            found = dense_crf(image, unary_from_labels(labels, 3, 0.7), KERNELS)
            write_mask(self.folder / f"{photo.stem}.png", found.argmax(axis=0).astype(np.uint8))

        return work


@dataclass(frozen=True)
class Nothing:
    def __call__(self) -> Callable[[int], None]:
        return lambda item: None


def cpu_seconds() -> float:
    """Of this process, and of those below it that are alive."""
    found: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        found[int(stat.parent.name)] = int(fields[1]), float(fields[11]) + float(fields[12])
    ours = {os.getpid()}
    while more := {one for one, (parent, _) in found.items() if parent in ours} - ours:
        ours |= more
    return sum(found[one][1] for one in ours) / os.sysconf("SC_CLK_TCK")


def timed(executor: Executor, make: Any, items: Sequence[Any]) -> tuple[float, float]:
    """Wall and CPU milliseconds an item."""
    cpu, start = cpu_seconds(), time.monotonic()
    for _ in executor.map(make, items):
        pass
    wall, cpu = time.monotonic() - start, cpu_seconds() - cpu
    return 1000 * wall / len(items), 1000 * cpu / len(items)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=cores_here())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data, local, ray = (Path(place) / name for name in ("data", "local", "ray"))
        generate(data, arguments.photos, 0)
        photos = sorted((data / "JPEGImages").glob("*.jpg"))
        print(f"load {os.getloadavg()[0]:.1f} on {cores_here()} cores")
        with LocalExecutor(arguments.workers) as here, RayExecutor(arguments.workers) as there:
            both: list[tuple[Executor, Path]] = [(here, local), (there, ray)]
            for executor, folder in both:
                timed(executor, Refine(folder), photos)
            differing = [
                path.name
                for path in sorted(local.iterdir())
                if path.read_bytes() != (ray / path.name).read_bytes()
            ]
            print(f"{len(photos)} masks, {len(differing)} differ")
            print("| ms an item, the median | local | Ray | Ray over local, each round |")
            print("|---|---|---|---|")
            for name, items in (("CRF", photos), ("nothing", range(NOTHINGS))):
                rounds = [
                    [
                        timed(executor, Refine(folder) if name == "CRF" else Nothing(), items)
                        for executor, folder in both
                    ]
                    for _ in range(arguments.rounds)
                ]
                for kind, said in enumerate(("wall", "CPU, all processes")):
                    own, rays = ([one[place][kind] for one in rounds] for place in (0, 1))
                    medians = (f"{statistics.median(values):.4g}" for values in (own, rays))
                    ratios = ", ".join(f"{b / a:.3f}" for a, b in zip(own, rays, strict=True))
                    print(f"| {name}: {said} | {' | '.join(medians)} | {ratios} |", flush=True)
        print(f"load {os.getloadavg()[0]:.1f} on {cores_here()} cores")


if __name__ == "__main__":
    main()
