"""How loops are compiled."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop with numba at its first call; it runs without the GIL.

    The machine code is kept on disk, where a folder for it can be written.
    """
    try:
        fast: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for the cache can be written
        fast = njit(nogil=True)(function)
    return fast
