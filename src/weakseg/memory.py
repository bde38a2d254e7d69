"""What this process may use: cores, and memory that it keeps."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says what a container may use, by the version of its control groups."""
_CONVOLUTIONS = 256
"""Some four scales of a photo's maps, of a network with 60 convolutions."""


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that are freed, where it is glibc.

    By default it hands each back to the system, which zeroes every page of the next one: on a CPU
    that can take as long as a network's arithmetic. The process stays as large as it once was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)


def use_huge_pages() -> None:
    """Have torch ask Linux for pages of 2 MB behind its large tensors.

    A heap grows in fits, by the largest map of the largest photo so far, and pages of 4 kB come and
    are zeroed one by one. torch reads the environment once, for its first tensor: this works for
    processes that start later, and for this one if torch has not been imported. What the
    environment says already, THP_MEM_ALLOC_ENABLE, stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def give_back_freed_memory() -> None:
    """Hand back to the system all that is freed, where the C library is glibc.

    Before a process forks: a child would hold what its parent has freed for as long as it lives.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def cores_here() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_here() -> int:
    """Bytes that this process may use: the machine's, or less where a container says so."""
    found = [sys.maxsize]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # no container, another system, or "max"
            found.append(int(limit.read_text(encoding="ascii")))
    return min(found)


def keep_few_convolutions() -> None:
    """Have oneDNN keep what it compiled for the last convolutions, 256 rather than 1,024.

    It compiles each for one size of maps, in about a megabyte; photos have many sizes. A number
    that the environment gives, ONEDNN_PRIMITIVE_CACHE_CAPACITY, stays. To be called before a
    process's first convolution.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_CONVOLUTIONS))
