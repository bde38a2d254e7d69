"""How processes start that need nothing of the script or notebook behind them, and how they end."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_THREADED = frozenset({"obstore", "ray"})

_one_hides = threading.Lock()


@contextmanager
def script_unseen() -> Iterator[None]:
    """Have processes that are started not import the script that runs, which may start a run.

    They need nothing of it, unless it defines what they do.
    """
    main = sys.modules["__main__"]
    with _one_hides:
        hidden: dict[str, Any] = {
            name: main.__dict__.pop(name)
            for name in ("__file__", "__spec__")
            if name in main.__dict__
        }
        main.__spec__ = None
        try:
            yield
        finally:
            main.__dict__.update(hidden)


def end_with_parent(*_: object) -> None:
    """Have this process end when its parent does: one that is killed ends no other.

    torch's loaders look after that themselves, but for one whose parent ends before they begin to.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def forks_fail() -> bool:
    """Whether this process uses a library that works by threads, none of which a fork has.

    The client of object storage waits for them for ever; Ray, on Python 3.13, ends the fork.
    """
    return sys.platform != "win32" and not _THREADED.isdisjoint(sys.modules)


if sys.platform != "win32":
    from multiprocessing.context import ForkServerContext, ForkServerProcess

    class _FreshProcess(ForkServerProcess):
        def start(self) -> None:
            self._environment = dict(os.environ)
            with script_unseen():
                super().start()

        def run(self) -> None:
            os.environ.update(self._environment)
            end_with_parent()
            super().run()

    class FreshProcesses(ForkServerContext):
        """Forks of a process that has no threads, which see nothing of the script.

        Args:
            module: what that process imports, so that they need not.
        """

        Process = _FreshProcess

        def __init__(self, module: str) -> None:
            super().__init__()
            self.set_forkserver_preload([module])
