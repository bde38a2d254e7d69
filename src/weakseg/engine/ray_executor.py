"""Per-photo work on a Ray cluster: the cores of this machine, or those of many."""

import logging
import math
import os
import pickle
import secrets
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self

from weakseg.engine.executor import FEW, made_by, one_by_one, set_up_worker
from weakseg.errors import WeaksegError, quoted, shortened
from weakseg.memory import cores_here, use_huge_pages
from weakseg.methods.base import Executor, Item, Result
from weakseg.version import VERSION

_AHEAD = 2  # batches in flight an actor: none waits for its next one
_SPREAD = 8  # batches an actor that may be done before their turn: so much is held here
_TRIES = 3  # of a batch in which actors end, and of starting actors

_SECONDS, _ITEMS, _BYTES = 1.0, 64, 2**22
"""What a batch takes at most, holds at most, and gives at most."""

_LOOK = 5.0
"""Seconds between two looks at how many nodes there are."""

_STORE = 2**28
"""Bytes of Ray's object store on this machine: it holds what is in flight."""

_LONGEST_PLACE = 24

_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every server listens on loopback alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else Ray writes one into the user's home
    "RAY_worker_niceness": "0",  # as other processes of this run
}
"""What Ray is started with on this machine alone, where the environment says nothing else.

Without the token nobody, on this machine either, can have it run code.
"""

_SILENT = {"RAY_DEDUP_LOGS_SKIP_REGEX": "."}
"""Else Ray prints how a worker has ended on standard output, where results are."""


@dataclass(frozen=True)
class _Place:
    """What an actor asks for: the resource that it takes one of, and Ray's options."""

    resource: str
    options: dict[str, Any]


_CORE = _Place("CPU", {"num_cpus": 1})
_GPU = _Place("GPU", {"num_cpus": 1, "num_gpus": 1, "max_concurrency": _AHEAD})
"""Two threads, as `ThreadExecutor` has them: one reads and writes while the GPU works."""


class RayExecutor:
    """Actors on a Ray cluster, each single-threaded, so that results are `LocalExecutor`'s.

    Items go to them in batches, two at most in flight an actor. What an actor was given that ends,
    or whose node does, others do again: so work has to be such as can be done twice, which writing
    a file whole or not at all is. Few items are done in this process.

    Args:
        workers: number of actors; by default one a core of the cluster, as nodes come and go.
        address: of a cluster that this machine is part of, HOST:PORT or "auto"; by default Ray is
            started on this machine when it is needed, and ended with the executor.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self._cluster = _Cluster(workers, address)
        self._cores = _Actors(self._cluster, _CORE)
        self._gpus = _Actors(self._cluster, _GPU)

    def __enter__(self) -> Self:
        self._cluster.find()
        return self

    def __exit__(self, *_: object) -> None:
        self.rest()
        self._cluster.leave()

    @property
    def workers(self) -> int:
        return self._cores.workers

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        return self._cores.map(make, items)

    def rest(self) -> None:
        self._cores.rest()
        self._gpus.rest()

    def on_gpus(self) -> Executor:
        """Actors of the same cluster that have a GPU each."""
        return self._gpus


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set what the environment has nothing for."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _Cluster:
    """A connection to Ray, made when it is needed."""

    def __init__(self, workers: int | None, address: str | None) -> None:
        self._left = ExitStack()
        self._left.enter_context(_environment({**_SILENT, **({} if address else _ALONE)}))
        import ray  # which looks at the environment

        self.ray: Any = ray
        self.cores = workers
        self._address = address
        self._looked = -math.inf
        self._resources: dict[str, float] = {}
        self._working: _Actors | None = None

    def find(self) -> None:
        """Connect to a cluster that was named: a wrong address is best known early."""
        if self._address is not None:
            self.connect()

    def connect(self) -> None:
        """Connect, or start Ray on this machine; a process that is connected already stays so.

        Raises:
            WeaksegError: there is no such cluster.
        """
        ray = self.ray
        if ray.is_initialized():
            return
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            folder = self._left.enter_context(_folder())
            self._left.callback(ray.shutdown)
            use_huge_pages()
            ray.init(
                "local",
                num_cpus=self.cores or cores_here(),
                include_dashboard=False,
                object_store_memory=_STORE,
                _temp_dir=folder,
                **quiet,
            )
            return
        self._left.callback(ray.shutdown)
        try:
            _knock(self._address)
            ray.init(self._address, **quiet)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise WeaksegError(
                f"There is no Ray cluster to connect to at {quoted(self._address)} "
                f"({shortened(str(error), 200)}). Start one here, ray start --head, or have this "
                "machine join one, ray start --address HOST:PORT, and give --ray-address auto."
            ) from error

    def leave(self) -> None:
        self._left.close()

    def give_to(self, actors: "_Actors") -> None:
        """Have all others end: what they hold, these may wait for."""
        if self._working not in (None, actors):
            self._working.rest()
        self._working = actors

    def count(self, resource: str) -> int:
        """How many cores or GPUs the nodes have that are alive."""
        if time.monotonic() - self._looked >= _LOOK:
            self._resources, self._looked = self.ray.cluster_resources(), time.monotonic()
        return int(self._resources.get(resource, 0))


def _knock(address: str) -> None:
    """Find out at once that nobody is there; Ray tries again for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.removeprefix("ray://").strip("[]"), int(port)), 10).close()


def _folder() -> "tempfile.TemporaryDirectory[str]":
    """Where Ray has its logs, and its sockets, whose paths may be no longer than 107 bytes."""
    place = tempfile.gettempdir()
    if len(os.fsencode(place)) > _LONGEST_PLACE and Path("/tmp").is_dir():
        place = "/tmp"
    return tempfile.TemporaryDirectory(prefix="weakseg-", dir=place, ignore_cleanup_errors=True)


@dataclass
class _Batch:
    """Items that follow each other, the place of the batch, and how many actors it has ended."""

    number: int
    items: list[Any]
    tries: int = 0


class _Batches:
    """Cuts items into batches by what those before have taken."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._size = 1
        self._cut = 0
        self.ended = False

    def next(self, most: int) -> _Batch | None:
        """The next one, if fewer than `most` have been cut and there are items."""
        if self._cut >= most:
            return None
        items = list(islice(self._items, self._size))
        if not items:
            self.ended = True
            return None
        self._cut += 1
        return _Batch(self._cut - 1, items)

    def learn(self, items: int, seconds: float, size: int) -> None:
        """Of a batch: how many items, the seconds that they took, and the bytes that they gave."""
        fitting = items * min(_SECONDS / max(seconds, 1e-6), _BYTES / max(size, 1))
        self._size = max(1, min(_ITEMS, int(fitting)))


class _Worker:
    """What an actor is: a process on some node that works on batches of items."""

    def __init__(self) -> None:
        use_huge_pages()
        set_up_worker()
        self._setting_up = threading.Lock()

    def version(self) -> str:
        """Of the package on its node."""
        return VERSION

    def work(
        self, make: Callable[[], Callable[[Any], Any]], items: list[Any]
    ) -> tuple[float, bytes]:
        """Seconds that the items took, and what they gave, pickled."""
        with self._setting_up:
            function = made_by(make)
        start = time.monotonic()
        results = [function(item) for item in items]
        return time.monotonic() - start, pickle.dumps(results, pickle.HIGHEST_PROTOCOL)


class _Actors:
    """An executor of actors of one kind, which are kept from one map to the next."""

    def __init__(self, cluster: _Cluster, place: _Place) -> None:
        self._cluster, self._place = cluster, place
        self._starting: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._failed: list[Exception] = []

    @property
    def workers(self) -> int:
        if self._place is _CORE and self._cluster.cores:
            return self._cluster.cores
        if not self._cluster.ray.is_initialized():
            return cores_here()
        return max(1, self._cluster.count(self._place.resource))

    def rest(self) -> None:
        for actor in (*self._ready, *self._starting.values()):
            self._cluster.ray.kill(actor)
        self._ready.clear()
        self._starting.clear()
        self._failed.clear()

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        items = iter(items)
        if not self._ready:
            first = list(islice(items, FEW + 1))
            if len(first) <= FEW:
                yield from one_by_one(make, first)
                return
            items = chain(first, items)
            self._cluster.connect()
            if self._place is _GPU and not self._cluster.count(_GPU.resource):
                raise WeaksegError(
                    "The device is cuda, and no node of the Ray cluster has a GPU. Start nodes "
                    "that have one (ray start --num-gpus 1), or name the device cpu."
                )
        self._cluster.give_to(self)
        for results in self._in_order(make, _Batches(items)):
            yield from results

    def _in_order(self, make: Any, batches: _Batches) -> Iterator[list[Any]]:
        """What batches give, in their order."""
        ray = self._cluster.ray
        shared = ray.put(make)
        again: list[_Batch] = []
        running: dict[Any, tuple[Any, _Batch]] = {}
        done: dict[int, list[Any]] = {}
        due = 0
        try:
            while True:
                self._start_missing()
                most = due + _SPREAD * len(self._ready)
                for actor in self._free(running):
                    batch = again.pop(0) if again else batches.next(most)
                    if batch is None:
                        break
                    running[actor.work.remote(shared, batch.items)] = actor, batch
                if batches.ended and not again and not running:
                    return
                ended, _ = ray.wait([*running, *self._starting], timeout=_LOOK)
                for work in ended:
                    if work in self._starting:
                        self._welcome(work)
                        continue
                    actor, batch = running.pop(work)
                    try:
                        seconds, given = ray.get(work)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error
                    except ray.exceptions.RayError as error:
                        again += [batch, *self._lose(actor, running)]
                        again.sort(key=lambda one: one.number)
                        batch.tries += 1
                        if batch.tries == _TRIES:
                            raise WeaksegError(_why_ended(error)) from error
                    else:
                        batches.learn(len(batch.items), seconds, len(given))
                        done[batch.number] = pickle.loads(given)
                while due in done:
                    yield done.pop(due)
                    due += 1
        finally:
            if again or running:
                self.rest()

    def _free(self, running: dict[Any, tuple[Any, _Batch]]) -> list[Any]:
        """Whom to give a batch each: an actor that has none yet comes twice."""
        held = Counter(actor for actor, _ in running.values())
        return [one for count in range(_AHEAD) for one in self._ready if held[one] <= count]

    def _lose(self, actor: Any, running: dict[Any, tuple[Any, _Batch]]) -> list[_Batch]:
        """Do without an actor that has ended; the other batches that it had."""
        self._ready.remove(actor)
        self._cluster.ray.kill(actor)
        lost = [work for work, (its, _) in running.items() if its is actor]
        return [running.pop(work)[1] for work in lost]

    def _start_missing(self) -> None:
        """Start as many actors as there are places for.

        They get work when they are ready: what Ray has no place for may wait for ever.
        """
        if len(self._failed) >= _TRIES:
            if not self._ready and not self._starting:
                raise WeaksegError(
                    "Ray starts no worker, "
                    f"{_said(self._failed[-1])}. All nodes need this version of weakseg, with "
                    "the extras that the recipe asks for here."
                )
            return
        ray = self._cluster.ray
        worker = ray.remote(**self._place.options)(_Worker)
        for _ in range(self.workers - len(self._ready) - len(self._starting)):
            actor = worker.remote()
            self._starting[actor.version.remote()] = actor

    def _welcome(self, started: Any) -> None:
        actor = self._starting.pop(started)
        try:
            version = self._cluster.ray.get(started)
        except self._cluster.ray.exceptions.RayError as error:
            self._failed.append(error)
            return
        if version != VERSION:
            raise WeaksegError(
                f"A node of the Ray cluster has weakseg {version}, and this one {VERSION}: install "
                "the same on all."
            )
        self._failed.clear()
        self._ready.append(actor)


def _why_ended(error: Exception) -> str:
    return (
        f"{_TRIES} workers of Ray have ended over the same photos, most likely for want of memory: "
        f"{_said(error)}. Run the same command with fewer workers (--workers): it goes on where it "
        "stopped."
    )


def _said(error: Exception) -> str:
    """What Ray says of an error, on one line."""
    text = str(error).strip()
    if getattr(error, "actor_init_failed", False):  # told by a traceback
        text = text.splitlines()[-1]
    return quoted(" ".join(text.split()), 300)
