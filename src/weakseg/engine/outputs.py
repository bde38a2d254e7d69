"""Whether what a step has written is still there, whole, and of its photo.

Headers and ends are looked at, not pixels: what a kill, a power cut or a person does to a file
shows there, and of a million files no more can be read at every start.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from weakseg import stores
from weakseg.data.images import shrunk_size
from weakseg.grid import GRID_STRIDE, grid_size
from weakseg.methods.base import PICTURE, Photos, Shape, Step
from weakseg.methods.maps import MAPS, MASK, SCORES, suffixes

TABLES = frozenset({".csv", ".json"})
"""Kinds of files whose content is known by its digest."""

_PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_SIZE = Struct(">II")  # width and height
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Of a pipe that nobody writes to, opening would not come to an end."""

_HEADER = 4096  # bytes, read at once; longer ones are read to their end


class Output(NamedTuple):
    """A file that a step writes.

    Attributes:
        path: the file.
        shapes: what it holds, by name; what isn't named may have any shape.
    """

    path: Path
    shapes: Mapping[str, Shape] = {}


def outputs_of(step: Step, photos: Photos) -> Iterator[Output]:
    """The files that a step writes for the photos that it sees."""
    if step.kind.files:
        for name, shapes in step.kind.files(step, photos):
            yield Output(step.folder / name, shapes)
        return
    written, rows = suffixes(step), int(step.has_background_row)
    for sample in photos.samples:
        size = photos.sizes.get(sample.id)
        if MAPS in written:
            shape: Shape = (len(sample.tags) + rows, None, None)
            if size and step.kind.cell(step) == GRID_STRIDE:
                shape = (*shape[:1], *grid_size(*shrunk_size(*size, step.long_side)))
            yield Output(step.folder / f"{sample.id}{MAPS}", {SCORES: shape})
        if MASK in written:
            yield Output(step.folder / f"{sample.id}{MASK}", {PICTURE: size} if size else {})


class Fault(Enum):
    """What is wrong with a file."""

    MISSING = "missing"
    DAMAGED = "damaged"
    FOREIGN = "of another photo"


def find_faults(
    outputs: Iterable[Output], digests: Mapping[Path, str], settled: int = 0
) -> Iterator[tuple[Path, Fault]]:
    """The files that are not as they were written.

    Args:
        digests: of tables, as `digest` gives them; a table without one is looked at no further.
        settled: as `last_change` gives it; what has not changed since then is as it was.
    """
    for output in outputs:
        if settled and 0 < _changed(output.path) <= settled:
            continue
        fault = _find_fault(output, digests)
        if fault:
            yield output.path, fault


def last_change(outputs: Iterable[Output]) -> int:
    """When one of the files was last changed or renamed, in ns; 0 where a system can't tell."""
    return max((_changed(output.path) for output in outputs), default=0)


def _changed(path: Path) -> int:
    """Not the time that a copy keeps and anyone can set, but the file system's own."""
    if os.name == "nt":  # there it is that of a file's making
        return 0
    try:
        return os.stat(path).st_ctime_ns  # noqa: PTH116
    except OSError:
        return 0


def digest(path: Path) -> str:
    """A short digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _find_fault(output: Output, digests: Mapping[Path, str]) -> Fault | None:
    path, expected = output
    if stores.is_stand_in(path):  # an object is whole by how it was put
        return None
    name = os.fspath(path)  # of millions of files a Path's own methods take most of the time
    suffix = name[name.rindex(".") :]
    try:
        if suffix in TABLES:
            known = digests.get(path, "")
            same = path.is_file() and (not known or digest(path) == known)
            return None if same else Fault.DAMAGED if path.exists() else Fault.MISSING
        file = os.open(name, _READ)
        try:
            shapes = _READERS[suffix](file)
        finally:
            os.close(file)
    except FileNotFoundError:
        return Fault.MISSING
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Fault.DAMAGED
    for key, shape in expected.items():
        if key not in shapes or not _fits(shapes[key], shape):
            return Fault.FOREIGN
    return None


def _fits(shape: Shape, expected: Shape) -> bool:
    return shape == expected or (
        len(shape) == len(expected)
        and all(want in (None, side) for side, want in zip(shape, expected, strict=True))
    )


def _read_png(file: int) -> dict[str, Shape]:
    header = os.read(file, len(_PNG_HEADER) + 8)
    if not header.startswith(_PNG_HEADER) or _end_of(file, len(_PNG_END)) != _PNG_END:
        raise ValueError("no whole PNG")
    width, height = _PNG_SIZE.unpack_from(header, len(_PNG_HEADER))
    return {PICTURE: (height, width)}


def _read_jpeg(file: int) -> dict[str, Shape]:
    start = os.read(file, len(_JPEG_START))
    if start != _JPEG_START or _end_of(file, len(_JPEG_END)) != _JPEG_END:
        raise ValueError("no whole JPEG")
    return {}


def _read_safetensors(file: int) -> dict[str, Shape]:
    start = os.read(file, _HEADER)
    size = os.lseek(file, 0, os.SEEK_END)
    end_of_header = 8 + int.from_bytes(start[:8], "little")
    if end_of_header > size:
        raise ValueError("no whole header")
    if end_of_header > len(start):
        os.lseek(file, 0, os.SEEK_SET)
        start = os.read(file, end_of_header)
    header = json.loads(start[8:end_of_header])
    header.pop("__metadata__", None)
    if end_of_header + max(tensor["data_offsets"][1] for tensor in header.values()) != size:
        raise ValueError("no whole file")
    return {name: tuple(tensor["shape"]) for name, tensor in header.items()}


def _end_of(file: int, length: int) -> bytes:
    os.lseek(file, -length, os.SEEK_END)
    return os.read(file, length)


_READERS: dict[str, Callable[[int], dict[str, Shape]]] = {
    ".png": _read_png,
    ".jpg": _read_jpeg,
    ".safetensors": _read_safetensors,
}
