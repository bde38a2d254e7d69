"""Feeds spoilt inputs of every kind to the package's readers, and counts what comes of them.

    make fuzz INPUTS=10000 SEED=0
    python fuzz/fuzz.py --inputs 500 --only photos
    python fuzz/fuzz.py --replay "0 photos 117"

An input is spoilt by its seed: the run's, the kind's name and a number. What is neither read nor
refused in a line is printed with its seed, and makes the exit code 1. Linux alone.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CAME = ("fine", "refused", "traceback", "hang", "memory", "escape")
DONE = "done"
"""A file of a corpus that is whole."""

GOOD = frozenset({"fine", "refused"})

_WAIT = 6.0
"""After so many times the seconds that an input may take, without a word, a worker is ended: other
programs may have the cores."""

_LIVES = 3000
"""Inputs after which a worker is replaced, since each leaves some memory behind."""


class Worker:
    """A process that reads inputs; started again where one has ended it."""

    def __init__(self, corpus: Path, scratch: Path) -> None:
        self._corpus, self._scratch = corpus, scratch
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def read(self, name: str, seed: str, seconds: float) -> dict[str, Any]:
        """What came of an input, which may take some seconds of the processor."""
        if self._process is None or self._done >= _LIVES:
            self._start()
        assert self._process and self._process.stdin
        self._done += 1
        self._process.stdin.write(json.dumps([name, seed]) + "\n")
        self._process.stdin.flush()
        answer = self._answer(_WAIT * seconds)
        if answer is None:
            code = self._process.poll()
            self.end()
            said = "no answer" if code is None else f"the process ended with {code}"
            return {"came": "hang" if code is None else "traceback", "said": said, "spoilt": []}
        return answer

    def end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> None:
        self.end()
        self._done = 0
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), str(self._corpus), str(self._scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._answer(300) is None:
            raise SystemExit("a worker can't be started: run fuzz/worker.py to see why")

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        assert self._process and self._process.stdout
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            return None
        found: dict[str, Any] = json.loads(line)
        return found


def seeds(inputs: int, seed: int, only: list[str] | None, first: int) -> Iterator[tuple[str, str]]:
    """Kind and seed of each input, kinds in turn by their shares."""
    from targets import TARGETS

    shares = {name: t.share for name, t in TARGETS.items() if not only or name in only}
    given = Counter[str]()
    for number in range(inputs):
        name = max(
            shares, key=lambda one: shares[one] * (number + 1) - given[one] * sum(shares.values())
        )
        yield name, f"{seed} {name} {first + given[name]}"
        given[name] += 1


def table(counts: dict[str, Counter[str]], slowest: dict[str, float], most: dict[str, int]) -> str:
    """Counts by kind, as Markdown."""
    head = ("kind", "inputs", *CAME, "slowest, s", "most memory, MiB")
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    total = Counter[str]()
    for name, came in counts.items():
        total += came
        cells = (name, came.total(), *(came[c] for c in CAME), f"{slowest[name]:.1f}")
        lines.append(f"| {' | '.join(map(str, (*cells, most[name] >> 20)))} |")
    cells = ("all", total.total(), *(total[c] for c in CAME), f"{max(slowest.values()):.1f}")
    lines.append(f"| {' | '.join(map(str, (*cells, max(most.values()) >> 20)))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first input")
    parser.add_argument("--only", nargs="*", metavar="KIND")
    parser.add_argument("--replay", metavar="SEED", help="one input, by its seed as it is printed")
    parser.add_argument("--minutes", type=float, help="end after so many")
    parser.add_argument("--corpus", type=Path, default=Path("data/fuzz"), help="valid inputs")
    parser.add_argument("--counts", type=Path, help="a file that counts of several runs add up in")
    arguments = parser.parse_args()
    corpus = arguments.corpus.resolve()
    # What is compiled while an input is read is written there, and not into the package.
    os.environ["NUMBA_CACHE_DIR"] = str(corpus / "compiled")
    from targets import TARGETS

    if unknown := set(arguments.only or ()) - TARGETS.keys():
        parser.error(f"--only: there is no {unknown}; there are {', '.join(TARGETS)}")
    if not (corpus / DONE).exists():
        from corpus import build

        build(corpus)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    slowest: dict[str, float] = defaultdict(float)
    most: dict[str, int] = defaultdict(int)
    if arguments.counts and arguments.counts.exists():
        for name, (came, seconds, memory) in json.loads(arguments.counts.read_text()).items():
            counts[name], slowest[name], most[name] = Counter(came), seconds, memory
    if arguments.replay:
        queue: Iterator[tuple[str, str]] = iter(
            [(arguments.replay.split(" ", 1)[1].rpartition(" ")[0], arguments.replay)]
        )
    else:
        queue = seeds(arguments.inputs, arguments.seed, arguments.only, arguments.first)
    shown: Counter[str] = Counter()
    start, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="weakseg-fuzz-") as scratch:
        worker = Worker(corpus, Path(scratch))
        for name, seed in queue:
            if arguments.minutes and time.monotonic() - start > 60 * arguments.minutes:
                break
            found = worker.read(name, seed, TARGETS[name].seconds)
            came = found["came"]
            counts[name][came] += 1
            slowest[name] = max(slowest[name], found.get("seconds", 0.0))
            most[name] = max(most[name], found.get("memory", 0))
            if arguments.replay or came not in GOOD:
                bad += came not in GOOD
                shown[found["said"]] += 1
                if shown[found["said"]] <= 2:
                    print(f"{came}  seed {seed!r}  {found['spoilt']}  {found['said']}", flush=True)
        worker.end()
    if arguments.counts:
        kept = {name: (counts[name], slowest[name], most[name]) for name in counts}
        arguments.counts.write_text(json.dumps(kept))
    print(table(counts, slowest, most))
    print(f"seed {arguments.seed}, {time.monotonic() - start:.0f} s, {bad} to look at")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
