"""Kills a run again and again, and compares what it comes to with a run that nothing disturbed.

    make kills KILLS=100 SEED=0 ON=folder

The recipe has a step of every kind (`tests/tiny.py`), the photos are generated. Half of the kills
come at a change of the file system that is drawn, between a file's making and its name; the others
after a time of the processor's that is drawn. Neither leaves the process a last word: SIGKILL, and
SIGPROF without a handler. A run that ended is begun anew, until there were so many kills. At its
end every mask, map and picture has to have the bytes of the undisturbed run, which is in a folder
and one process. Linux alone.

With ON=store the run is in a bucket of moto's server, and every third start finds none of its files
here, as on another machine. With ON=ray actors work photo by photo, and two of a start are killed
as well, at moments that are drawn: the run itself has to outlast that.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import torch
from threadpoolctl import threadpool_limits

from tiny import EVERY_KIND, Lines, masks, tiny_recipe
from weakseg import stores
from weakseg.data.synth import generate
from weakseg.engine import ray_executor, runner
from weakseg.engine.executor import InProcessExecutor, executor_named
from weakseg.engine.record import RECORD
from weakseg.files import absolute
from weakseg.names import RAY
from weakseg.recipe import Recipe

_IMAGES = 10
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
_NOTHING = "between steps"
_AN_ACTOR = "an actor of Ray"


class Cost(NamedTuple):
    """Of a start to its end: changes of the file system, the processor's seconds, and seconds."""

    changes: int
    processor: float
    seconds: float


class Run:
    """A run in a folder, and its starts, each in a process of its own."""

    def __init__(self, recipe: Recipe, data: Path, out: Path | str, on_ray: bool = False) -> None:
        self.out = out
        self._recipe, self._data, self._on_ray = recipe, data, on_ray

    def whole(self) -> Cost:
        """Start it, and let it come to its end."""
        begun = time.monotonic()
        reading, writing = os.pipe()
        if not (child := os.fork()):
            counter = _Counter(-1)
            self._go()
            used = os.times()
            os.write(writing, json.dumps([counter.changes, used.user + used.system]).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            said = told.read()
        os.waitpid(child, 0)
        if not said:
            raise SystemExit("the undisturbed run did not come to its end: see above")
        changes, processor = json.loads(said)
        return Cost(changes, processor, time.monotonic() - begun)

    def killed(self, rng: random.Random, cost: Cost) -> tuple[bool, int]:
        """Start it, and kill it if it does not end before; whether it was, and how many actors."""
        by_change = rng.random() < 0.5
        change = rng.randrange(1, max(2, cost.changes // 4)) if by_change else -1
        processor = 0 if by_change else rng.uniform(0.01, cost.processor / 4)
        reading, writing = os.pipe()
        if not (child := os.fork()):
            _Counter(change)
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_PROF, processor)
            if self._on_ray:
                killing = (rng, cost.seconds / 4, writing)
                threading.Thread(target=_kill_actors, args=killing, daemon=True).start()
            self._go()
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        os.set_blocking(reading, False)  # what the killed one has started may hold the other end
        with os.fdopen(reading, "rb", buffering=0) as told:
            actors = len(told.read() or b"")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise SystemExit("a run that was killed can't be gone on with: see above")
        return os.WIFSIGNALED(status), actors

    def _go(self) -> None:
        ray_executor.FEW = 0  # type: ignore[attr-defined]
        working = executor_named(RAY, 2, None) if self._on_ray else nullcontext(InProcessExecutor())
        try:
            with working as executor:
                out, device = absolute(self.out), torch.device("cpu")
                runner.run(self._recipe, self._data, out, executor, Lines(), device)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def under_way(self) -> str:
        """The step that it was at when it was killed."""
        text = self._record()
        steps = json.loads(text)["steps"] if text else {}
        unfinished = [name for name, step in steps.items() if not step["finished"]]
        return unfinished[-1] if unfinished else _NOTHING

    def files(self) -> dict[str, bytes]:
        """Every mask, map and picture."""
        return masks(Path(self.out))

    def forget(self) -> None:
        """As on another machine: without what is here of a run that is elsewhere."""

    def remove(self) -> None:
        shutil.rmtree(self.out)

    def _record(self) -> str | None:
        path = Path(self.out, RECORD)
        return path.read_text(encoding="utf-8") if path.exists() else None


class StoredRun(Run):
    """The same in a bucket, whose objects are read here by another client."""

    def __init__(self, recipe: Recipe, data: Path, cache: Path, server: str) -> None:
        os.environ |= {
            stores.CACHE: str(cache),
            "AWS_ENDPOINT_URL": server,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        super().__init__(recipe, data, "s3://kills/out")
        self._cache = cache
        self._bucket = boto3.resource("s3").create_bucket(Bucket="kills")

    def files(self) -> dict[str, bytes]:
        return {
            found.key.removeprefix("out/"): found.get()["Body"].read()
            for found in self._bucket.objects.filter(Prefix="out/")
            if found.key.endswith((".png", ".safetensors"))
        }

    def forget(self) -> None:
        shutil.rmtree(self._cache, ignore_errors=True)

    def remove(self) -> None:
        self._bucket.objects.filter(Prefix="out/").delete()

    def _record(self) -> str | None:
        found = list(self._bucket.objects.filter(Prefix=f"out/{RECORD}"))
        return found[0].get()["Body"].read().decode() if found else None


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


def _kill_actors(rng: random.Random, most: float, tell: int) -> None:
    """Kill two of this process's actors, and tell each by a byte; a third may be one too many.

    Args:
        most: seconds before each.
    """
    for _ in range(2):
        time.sleep(rng.uniform(1, most))
        if actors := _actors():
            os.kill(rng.choice(actors), signal.SIGKILL)
            os.write(tell, b".")


def _actors() -> list[int]:
    """Processes of Ray's actors that this one has started."""
    parents, actors = dict[int, int](), list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            process = int(folder.name)
            parents[process] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Worker"):
                actors.append(process)

    def is_own(process: int) -> bool:
        while process and process != os.getpid():
            process = parents.get(process, 0)
        return process != 0

    return sorted(filter(is_own, actors))


@contextmanager
def _served() -> Iterator[str]:
    """The address of a server of S3, in a process of its own."""
    program = (
        "import logging, signal; from moto.server import ThreadedMotoServer as Server;"
        "logging.getLogger('werkzeug').setLevel('ERROR');"
        "server = Server(ip_address='127.0.0.1', port=0, verbose=False); server.start();"
        "print('http://%s:%d' % server.get_host_and_port(), flush=True); signal.pause()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _try(run: Run, expected: dict[str, bytes], kills: int, seed: int) -> None:
    cost = run.whole()
    print(f"{cost.changes} changes, {cost.processor:.0f} s, {len(expected)} files of a whole run")
    counts = Counter[str]()
    compared = 0
    while True:
        found = run.files()
        differing = sorted(n for n in expected | found if expected.get(n) != found.get(n))
        if differing:
            raise SystemExit(
                f"after {counts.total()} kills (seed {seed}) other bytes: "
                f"{', '.join(differing[:5])} of {run.out}"
            )
        compared += 1
        if counts.total() >= kills:
            break
        run.remove()
        killed, starts = True, 0
        while killed:
            rng = random.Random(f"{seed} {compared} {(starts := starts + 1)}")
            if rng.random() < 1 / 3:
                run.forget()
            killed, actors = run.killed(rng, cost)
            counts.update([_AN_ACTOR] * actors + [run.under_way()] * killed)
    print("| step under way | kills |\n|---|---:|")
    for name, count in sorted(counts.items()):
        print(f"| {name} | {count} |")
    print(f"\n{counts.total()} kills, {compared} runs to their ends, all of the same bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--on", choices=("folder", "store", "ray"), default="folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    on_store = arguments.on == "store"
    with (
        threadpool_limits(1),  # as workers have it: sums of another number may round differently
        tempfile.TemporaryDirectory(prefix="kills-") as temporary,
        _served() if on_store else nullcontext("") as server,
    ):
        place = Path(temporary)
        tempfile.tempdir = os.environ["TMPDIR"] = temporary  # what killed processes leave
        data = place / "data"
        generate(data, _IMAGES, seed=3)
        given = {**EVERY_KIND["given"], "path": str(data / "SegmentationClass")}
        recipe = tiny_recipe(**{**EVERY_KIND, "given": given})
        undisturbed = Run(recipe, data, place / "whole")
        undisturbed.whole()
        run = (
            StoredRun(recipe, data, place / "cache", server)
            if on_store
            else Run(recipe, data, place / "out", on_ray=arguments.on == "ray")
        )
        _try(run, undisturbed.files(), arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()
