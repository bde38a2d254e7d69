"""What the quick verbs take: seconds of wall clock and of CPU, and memory, each the least of some.

    python benchmarks/startup.py

They answer from what is in a few small files; what they take is what they import.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

VERBS = [
    "--help",
    "--version",
    "list recipes",
    "list backbones",
    "list seeds",
    "list formats",
    "data check DATA",
    "run domo --data DATA --out OUT",
    "run demo --data DATA --out OUT svm.cycels=1",
    "run demo --data NOWHERE --out OUT",
    "evaluate --pred DATA/SegmentationClass --data DATA --split all",
]


class Cost(NamedTuple):
    wall: float
    cpu: float
    mebibytes: float


def cost(arguments: list[str]) -> Cost:
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "weakseg", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        places = {"DATA": str(data), "OUT": f"{folder}/out", "NOWHERE": f"{folder}/nowhere"}
        cost(["data", "synth", str(data), "--images", "3"])
        print("| verb | wall, s | CPU, s | memory, MiB |\n|---|---|---|---|")
        for verb in VERBS:
            call = verb
            for name, path in places.items():
                call = call.replace(name, path)
            least = Cost(*map(min, zip(*(cost(call.split()) for _ in range(repeats)), strict=True)))
            print(f"| `{verb}` | {least.wall:.2f} | {least.cpu:.2f} | {least.mebibytes:.0f} |")


if __name__ == "__main__":
    main()
