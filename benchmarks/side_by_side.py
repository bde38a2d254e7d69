"""What the comparisons with a peer share: photos, peak memory, and the table of their rows.

Each script `measure`s in one run, on the same input, and `record`s a row for each of its lines:
`benchmarks/results.json` keeps the newest row of every (method, case, peer).
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from threadpoolctl import threadpool_limits

from weakseg.files import read_json, write_json

RESULTS = Path(__file__).parent / "results.json"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        method: what is compared, such as "svm".
        case: sizes and settings, and on how many threads or processes.
        peer: what it is compared with.
        agreement: how far the results agree, as `measure` says, taken before anything was timed.
        measure: what `agreement` is, such as "share of equal labels".
        seconds, peer_seconds: for the same work.
        peak_mib, peer_peak_mib: what the work adds to the memory of a process; None: not measured.
    """

    method: str
    case: str
    peer: str
    agreement: float
    measure: str
    seconds: float
    peer_seconds: float
    peak_mib: float | None = None
    peer_peak_mib: float | None = None

    @property
    def ratio(self) -> float:
        return self.peer_seconds / self.seconds


def some_photos(data: Path, count: int) -> list[Path]:
    """`count` photos of a VOC folder, spread evenly over all of them."""
    found = sorted((data / "JPEGImages").glob("*.jpg"))
    if not 1 <= count <= len(found):
        raise SystemExit(f"{count} photos were asked for; {data / 'JPEGImages'} has {len(found)}")
    return found[:: len(found) // count][:count]


def added_mib(warm_up: Callable[[], Any], work: Callable[[], Any]) -> float:
    """Peak resident memory in MiB that `work` adds after `warm_up`, in a process of its own.

    Both must be picklable (a `functools.partial` of a module's function). Linux only.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added_mib, (warm_up, work))


class Measured(NamedTuple):
    """What `measure` gives."""

    result: Any
    seconds: float
    """CPU time, the best of the repeats."""
    mib: float
    """What `added_mib` gives."""


def measure(warm_up: Callable[[], Any], work: Callable[[], Any], repeats: int = 1) -> Measured:
    """Time, memory and result of `work` on one thread, after `warm_up`, in a process of its own.

    Both must be picklable, and the result. Linux only.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (warm_up, work, repeats))


def _added_mib(warm_up: Callable[[], Any], work: Callable[[], Any]) -> float:
    warm_up()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before) / 1024


def _measure(warm_up: Callable[[], Any], work: Callable[[], Any], repeats: int) -> Measured:
    torch.set_num_threads(1)
    results: list[Any] = []
    seconds: list[float] = []

    def timed() -> None:
        start = time.process_time()
        results[:] = [work()]
        seconds.append(time.process_time() - start)

    with threadpool_limits(1):
        mib = _added_mib(warm_up, timed)
        for _ in range(repeats - 1):
            timed()
    return Measured(results[0], min(seconds), mib)


def _status(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{key}:")[1].split()[0])


def record(rows: Sequence[Row]) -> None:
    """Show rows, and keep them in `benchmarks/results.json`."""
    known = read_json(RESULTS) if RESULTS.exists() else []
    kept = {(row["method"], row["case"], row["peer"]): row for row in known}
    for row in rows:
        kept[row.method, row.case, row.peer] = {**asdict(row), "ratio": round(row.ratio, 2)}
    write_json(RESULTS, list(kept.values()))
    show(rows)


def show(rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    print("| method | case | peer | ratio | agreement | s | peer, s | MiB | peer, MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        memory = ("-" if m is None else f"{m:.0f}" for m in (row.peak_mib, row.peer_peak_mib))
        print(
            f"| {row.method} | {row.case} | {row.peer} | {row.ratio:.1f} "
            f"| {row.agreement:.5g} ({row.measure}) | {row.seconds:.3g} | {row.peer_seconds:.3g} "
            f"| {' | '.join(memory)} |",
            flush=True,
        )
