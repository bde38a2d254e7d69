"""Per-photo work on all cores of this machine."""

import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import TYPE_CHECKING, Any, Generic

from threadpoolctl import threadpool_limits

from weakseg.errors import WeaksegError
from weakseg.memory import cores_here, keep_few_convolutions, keep_freed_memory, use_huge_pages
from weakseg.methods.base import Executor, Item, Result
from weakseg.names import RAY
from weakseg.processes import end_with_parent, script_unseen

if TYPE_CHECKING:
    from weakseg.engine.ray_executor import RayExecutor

FEW = 8  # a worker is up after the time of some photos: so few are done sooner without
_AHEAD = 4  # tasks in flight a worker: none idles, and memory stays flat
_THREADS = 2  # each holds what it works on in the GPU's memory


class LocalExecutor:
    """Worker processes, each single-threaded, so that results don't depend on their number.

    Few items are done in this process, on one thread as well, unless workers are up already.

    Args:
        workers: number of processes; by default the number of cores this process may use.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores_here()
        self._pool: ProcessPoolExecutor | None = None
        self._knows_script = False

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()

    def rest(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        items = iter(items)
        if self._pool is None:
            first = list(islice(items, FEW + 1))
            if len(first) <= FEW:
                yield from one_by_one(make, first)
                return
            items = chain(first, items)
        own_script = b"__main__" in pickle.dumps(make)
        if own_script and not self._knows_script:
            self.rest()  # processes that work already have not seen the script
        if self._pool is None:
            use_huge_pages()
            self._started = _Starts()
            self._knows_script = own_script
            self._pool = ProcessPoolExecutor(
                self.workers, mp_context=self._started, initializer=_start_worker
            )
        pool, started, knows_script = self._pool, self._started, self._knows_script

        def submit(item: Item) -> Future[Result]:
            with _interrupts_held_back(), nullcontext() if knows_script else script_unseen():
                return pool.submit(_work, make, item)

        try:
            yield from _in_order(submit, items, _AHEAD * self.workers)
        except BrokenProcessPool as error:
            self.rest()
            raise WeaksegError(started.why_ended()) from error


class _Starts(SpawnContext):
    """Spawns processes, and remembers them: a pool doesn't tell how one has ended."""

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        process = SpawnProcess(*args, **kwargs)
        self._processes.append(process)
        return process

    def why_ended(self) -> str:
        """Why a pool broke whose processes have all ended."""
        if any((process.exitcode or 0) > 0 for process in self._processes):
            return (
                "A worker process ended with the error that stands above. What workers are given "
                "has to come from a file that they can import, not from a notebook's cell; where "
                'it is the script itself, that has its work under `if __name__ == "__main__":`.'
            )
        return (
            "A worker process was ended from outside, most likely for want of memory. Run the same "
            "command with fewer workers (--workers 1): it goes on where it stopped."
        )


@dataclass(frozen=True)
class Each(Generic[Result]):
    """Makes `function(*given, item)`, which needs nothing set up, for an executor to map."""

    function: Callable[..., Result]
    given: tuple[Any, ...] = ()

    def __call__(self) -> Callable[[Any], Result]:
        return partial(self.function, *self.given)


class InProcessExecutor:
    """One item after the other in this process."""

    workers = 1

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        return map(make(), items)

    def rest(self) -> None:
        pass


class ThreadExecutor(InProcessExecutor):
    """Two threads of this process, for a GPU: one reads and writes while it works for the other."""

    workers = _THREADS

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        work = make()
        pool = ThreadPoolExecutor(_THREADS)
        try:
            yield from _in_order(lambda item: pool.submit(work, item), items, 2 * _THREADS)
        finally:
            pool.shutdown(cancel_futures=True)


def network_executor(executor: Executor, device: str) -> Executor:
    """What does a network's work where `executor` does all other: a GPU is one place for all."""
    if not device.startswith("cuda"):
        return executor
    from weakseg.engine.ray_executor import RayExecutor

    return executor.on_gpus() if isinstance(executor, RayExecutor) else ThreadExecutor()


def executor_named(
    name: str, workers: int | None, ray_address: str | None
) -> "LocalExecutor | RayExecutor":
    """The executor of a name (`weakseg.names.EXECUTORS`), to be used as a context."""
    if name != RAY:
        return LocalExecutor(workers)
    from weakseg.engine.ray_executor import RayExecutor

    return RayExecutor(workers, ray_address)


def _in_order(
    submit: Callable[[Item], Future[Result]], items: Iterable[Item], most: int
) -> Iterator[Result]:
    """Results in the items' order, of `most` items in flight at a time."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def one_by_one(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]
) -> Iterator[Result]:
    """Results as a worker gives them; in between this process has all of its threads."""
    if not items:
        return
    with _one_thread():
        work = make()
    for item in items:
        with _one_thread():
            result = work(item)
        yield result


@contextmanager
def _one_thread() -> Iterator[None]:
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(threads)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Delay Ctrl-C; a worker that is started meanwhile never gets it, not even while it imports."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_made: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = []
"""What a worker made last, and of what."""


_THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""What libraries read when they are loaded, which work does when it needs them."""


def set_up_worker() -> None:
    """Have this process, which works on photos alone, use one thread, and memory as all do."""
    os.environ.update(dict.fromkeys(_THREAD_COUNTS, "1"))
    keep_freed_memory()
    keep_few_convolutions()


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    end_with_parent()
    set_up_worker()


def _work(make: Callable[[], Callable[[Any], Any]], item: Any) -> Any:
    return made_by(make)(item)


def made_by(make: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
    """What a worker's function is, set up on one thread if it is not the last one's."""
    if not _made or _made[0][0] != make:
        _made.clear()
        _use_one_thread()
        _made.append((make, make()))
        _use_one_thread()  # again: it may have loaded another library
    return _made[0][1]


def _use_one_thread() -> None:
    if "torch" in sys.modules:  # else the work needs none of it, and a worker is up sooner
        sys.modules["torch"].set_num_threads(1)
    threadpool_limits(1)
