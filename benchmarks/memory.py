"""Memory of a whole run against its number of photos.

    python benchmarks/memory.py

Runs of refined pixel-labeling, with everything made small but the number of photos: generated
photos of 48 by 64 pixels with masks, a tiny network, one scale. While `weakseg run` works, VmHWM
(the peak of a process) and VmRSS (what it holds now) are read from /proc for it and its workers, so
Linux only. Pages that processes share count once in each.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

from side_by_side import Row, record
from weakseg.memory import cores_here

CLASSES = ("red", "green", "blue")
HEIGHT, WIDTH = 48, 64
CRF = {
    "kind": "crf",
    "unary": "labels",
    "kernels": {
        "gaussian_sxy": 3,
        "gaussian_compat": 3,
        "bilateral_sxy": 20,
        "bilateral_srgb": 10,
        "bilateral_compat": 5,
        "iterations": 3,
    },
}
THRESHOLDS = {"foreground_threshold": 0.5, "background_threshold": 0.2}
RECIPE = {
    "data": {"split": "all"},
    "steps": {
        "pool": {
            "kind": "features",
            "backbone": {"name": "test_efficientnet", "weights": "none", "frozen_stages": -1},
        },
        "classify": {
            "kind": "classifier",
            "of": "pool",
            "epochs": 2,
            "batch_size": 64,
            "optimizer": {"name": "adamw", "lr": 0.01, "head_lr": 0.01, "weight_decay": 0},
        },
        "localize": {"kind": "cam", "of": "classify", "scales": [1.0], "feature_stages": [0, 1]},
        "cam": {"kind": "threshold", "of": "localize", "background": 0.4},
        "cam+crf": {**CRF, "of": "cam"},
        "seed": {"kind": "seed", "of": "localize", **THRESHOLDS},
        "svm": {
            "kind": "svm",
            "of": "localize",
            **THRESHOLDS,
            "samples_per_class": 20,
            "cycles": 1,
        },
        "svm+crf": {**CRF, "of": "svm"},
    },
}
POLL = 0.1
"""Seconds between two looks at the processes; a process's peak is kept by the kernel."""


class Peaks(NamedTuple):
    """What a run took: MiB, and CPU seconds of all its processes."""

    parent: float
    worker: float
    """The largest of the other processes."""
    together: float
    """The most that all held at one time."""
    seconds: float


@dataclass
class Watch:
    """What the processes of a tree were seen to hold, in KiB."""

    root: int
    together: int = 0

    def __post_init__(self) -> None:
        self.peaks: dict[int, int] = {}

    def look(self) -> None:
        now = 0
        for pid in tree(self.root):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                self.peaks[pid] = max(self.peaks.get(pid, 0), _kib(status, "VmHWM"))
                now += _kib(status, "VmRSS")
            except (OSError, IndexError):  # it has ended
                continue
        self.together = max(self.together, now)


def cpu_seconds_of_children() -> float:
    """Of all processes that this one started and that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += tree(int(child))
    return found


def _kib(status: str, key: str) -> int:
    return int(status.split(f"{key}:")[1].split()[0])


def write_photos(folder: Path, count: int) -> None:
    """Photos of coloured rectangles on noise, their tags and masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["image,tags"]
    for index in range(count):
        rng = np.random.default_rng(index)
        photo = rng.integers(60, 120, (HEIGHT, WIDTH, 3), np.uint8)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        tags = sorted(rng.choice(len(CLASSES), rng.integers(1, 3), replace=False).tolist())
        for place, tag in enumerate(tags):
            left = place * WIDTH // 2 + rng.integers(0, 8)
            box = np.s_[rng.integers(0, 16) : rng.integers(28, 48), left : left + 20]
            photo[box][..., tag] = 230
            mask[box] = tag + 1
        name = f"{index:07d}"
        Image.fromarray(photo).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
        rows.append(f"{name},{';'.join(CLASSES[tag] for tag in tags)}")
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def run_peaks(count: int) -> Peaks:
    """The peaks of a run on `count` photos."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "data", count)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        command = [sys.executable, "-m", "weakseg", "run", str(folder / "recipe.yaml")]
        command += ["--data", str(folder / "data"), "--out", str(folder / "run")]
        before = cpu_seconds_of_children()
        with (folder / "log").open("w+") as log:
            run = subprocess.Popen(
                [*command, "--device", "cpu"], stdout=log, stderr=subprocess.STDOUT
            )
            watch = Watch(run.pid)
            while run.poll() is None:
                watch.look()
                time.sleep(POLL)
            if run.returncode:
                sys.exit(f"the run failed:\n{(folder / 'log').read_text()}")
        seconds = cpu_seconds_of_children() - before
    parent = watch.peaks.pop(run.pid)
    return Peaks(parent / 1024, max(watch.peaks.values()) / 1024, watch.together / 1024, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs=2, default=(500, 10000), help="few and many")
    few, many = parser.parse_args().images
    small, large = run_peaks(few), run_peaks(many)
    processes = cores_here()
    record(
        [
            Row(
                "memory of a run",
                f"{many} photos, {what}",
                f"{few} photos",
                peak / reference - 1,
                "growth of the peak",
                large.seconds,
                small.seconds,
                peak,
                reference,
            )
            for what, peak, reference in (
                ("the run's own process", large.parent, small.parent),
                (f"the largest of {processes} workers", large.worker, small.worker),
                ("all together", large.together, small.together),
            )
        ]
    )


if __name__ == "__main__":
    main()
