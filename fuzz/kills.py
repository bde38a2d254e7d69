"""Kills a run again and again, and compares what it comes to with a run that nothing disturbed.

    make kills KILLS=100 SEED=0

The recipe has a step of every kind (`tests/tiny.py`), the photos are generated. Half of the kills
come at a change of the file system that is drawn, between a file's making and its name; the others
after a time of the processor's that is drawn. Neither leaves the process a last word: SIGKILL, and
SIGPROF without a handler. A run that ended is begun anew, until there were so many kills. At its
end every mask, map and picture has to have the bytes of the undisturbed run. Linux alone.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tiny import EVERY_KIND, Lines, masks, tiny_recipe
from weakseg.data.synth import generate
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.recipe import Recipe

_IMAGES = 10
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
_NOTHING = "between steps"


def start(recipe: Recipe, data: Path, out: Path) -> int:
    """Bring a run up to date in a process of its own; how often it changed the file system."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as told:
            count = told.read()
        os.waitpid(child, 0)
        return int(count or -1)
    os.close(reading)
    counter = _Counter(-1)
    _go(recipe, data, out)
    os.write(writing, str(counter.changes).encode())
    os._exit(0)


def kill(recipe: Recipe, data: Path, out: Path, changes: int, seconds: float) -> bool:
    """Start a run in a process that is killed; whether that came before the run's end.

    Args:
        changes: at which change of the file system; negative: at none.
        seconds: after how many of the processor's; 0: never.
    """
    child = os.fork()
    if not child:
        _Counter(changes)
        if seconds:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, seconds)
        _go(recipe, data, out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit("a run that was killed can't be gone on with: see above")
    return False


class _Counter:
    """Counts this process's changes of the file system, and kills it at one of them."""

    def __init__(self, last: int) -> None:
        self.changes, self._last, self._own = 0, last, os.getpid()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or os.getpid() != self._own:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        self.changes += 1
        if self.changes == self._last:
            os.kill(self._own, signal.SIGKILL)


def _go(recipe: Recipe, data: Path, out: Path) -> None:
    try:
        runner.run(recipe, data, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def under_way(out: Path) -> str:
    """The step that a killed run was at."""
    path = out / "run.json"
    steps = json.loads(path.read_text(encoding="utf-8"))["steps"] if path.exists() else {}
    unfinished = [name for name, step in steps.items() if not step["finished"]]
    return unfinished[-1] if unfinished else _NOTHING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so many")
    parser.add_argument("--work", type=Path, help="a folder to go on in; by default a new one")
    parser.add_argument(
        "--small", action="store_true", help="a classifier, its CAMs, their SVM and CRF alone"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weakseg-kills-") as temporary:
        place = (arguments.work or Path(temporary)).resolve()
        data, whole, out = place / "data", place / "whole", place / "out"
        if not data.exists():
            generate(data, _IMAGES, seed=3)
        given = {**EVERY_KIND["given"], "path": str(data / "SegmentationClass")}
        recipe = tiny_recipe(**({} if arguments.small else {**EVERY_KIND, "given": given}))
        changes_file, counts_file = place / "changes.json", place / "kills.json"
        if not changes_file.exists():
            processor = os.times().children_user
            changes = start(recipe, data, whole)
            if changes < 0:
                raise SystemExit("the undisturbed run did not come to its end: see above")
            seconds = os.times().children_user - processor
            changes_file.write_text(json.dumps([changes, seconds]))
        changes, seconds = json.loads(changes_file.read_text())
        expected = masks(whole)
        counts = Counter(json.loads(counts_file.read_text()) if counts_file.exists() else {})
        print(f"{changes} changes, {seconds:.0f} s, {len(expected)} files of an undisturbed run")
        compared = counts.pop("runs", 0)
        while (
            counts.total() < arguments.kills and time.monotonic() - begun < 60 * arguments.minutes
        ):
            rng = random.Random(f"{arguments.seed} {counts.total()}")
            by_change = rng.random() < 0.5
            killed = kill(
                recipe,
                data,
                out,
                rng.randrange(1, max(2, changes // 4)) if by_change else -1,
                0 if by_change else rng.uniform(0.01, seconds / 4),
            )
            if killed:
                counts[under_way(out)] += 1
            else:
                found = masks(out)
                differing = sorted(n for n in expected | found if expected.get(n) != found.get(n))
                if differing:
                    raise SystemExit(
                        f"after {counts.total()} kills (seed {arguments.seed}) other bytes: "
                        f"{', '.join(differing[:5])}; see {place if arguments.work else 'none'}"
                    )
                compared += 1
                shutil.rmtree(out)
            counts_file.write_text(json.dumps({**counts, "runs": compared}))
        print("| step under way | kills |\n|---|---:|")
        for name, count in sorted(counts.items()):
            print(f"| {name} | {count} |")
        print(f"\n{counts.total()} kills, {compared} runs to their ends, all of the same bytes")


if __name__ == "__main__":
    main()
