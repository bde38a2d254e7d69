"""How loops are compiled."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


class _Cache(FunctionCache):
    """numba's cache on disk, of which a file that can't be read is one that isn't there.

    numba has no fsync: a power cut leaves empty files, and each later start would fail on them.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a broken pickle raises nearly any type
            try:
                self.flush()  # an index that can't be read can't be added to either
            except OSError:
                self.disable()
            return None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop with numba at its first call; it runs without the GIL.

    The machine code is kept on disk, where a folder for it can be written.
    """
    fast: Any = njit(nogil=True)(function)
    with suppress(RuntimeError):  # no folder for the cache can be written
        fast._cache = _Cache(fast.py_func)  # what `cache=True` sets
    compiled_function: Callable[..., Any] = fast
    return compiled_function
