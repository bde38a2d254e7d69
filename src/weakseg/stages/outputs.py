"""Whether what a step has written is still there, whole, and of its photo.

Headers and ends are looked at, not pixels: what a kill, a power cut or a person does to a file
shows there, and of a million files no more can be read at every start.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import BinaryIO, NamedTuple

Shape = tuple[int | None, ...]
"""Of a picture (height, width), or of a tensor; None is any."""

PICTURE = ""
"""The name of a picture's shape, where tensors have names."""

TABLES = frozenset({".csv", ".json"})
"""Kinds of files whose content is known by its digest."""

_PNG_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_HEADER = 4096  # bytes, read at once; longer ones are read to their end


class Output(NamedTuple):
    """A file that a step writes.

    Attributes:
        path: the file.
        shapes: what it holds, by name; what isn't named may have any shape.
    """

    path: Path
    shapes: Mapping[str, Shape] = {}


class Fault(Enum):
    """What is wrong with a file."""

    MISSING = "missing"
    DAMAGED = "damaged"
    FOREIGN = "of another photo"


def find_faults(outputs: Iterable[Output], digests: Mapping[Path, str]) -> list[tuple[Path, Fault]]:
    """The files that are not as they were written.

    Args:
        digests: of tables, as `digest` gives them; a table without one is looked at no further.
    """
    found = ((output.path, _fault(output, digests.get(output.path))) for output in outputs)
    return [(path, fault) for path, fault in found if fault]


def digest(path: Path) -> str:
    """A short digest of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _fault(output: Output, known: str | None) -> Fault | None:
    path, expected = output
    try:
        if path.suffix in TABLES:
            same = path.is_file() if known is None else digest(path) == known
            return None if same else Fault.DAMAGED if path.exists() else Fault.MISSING
        with path.open("rb", buffering=0) as file:
            shapes = _READERS[path.suffix](file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return Fault.MISSING
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Fault.DAMAGED
    fits = all(name in shapes and _fits(shapes[name], expected[name]) for name in expected)
    return None if fits else Fault.FOREIGN


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (None, side) for side, wanted in zip(shape, expected, strict=True)
    )


def _read_png(file: BinaryIO, size: int) -> dict[str, Shape]:
    header = file.read(len(_PNG_HEADER) + 8)
    file.seek(-len(_PNG_END), os.SEEK_END)
    if not header.startswith(_PNG_HEADER) or file.read() != _PNG_END:
        raise ValueError("no whole PNG")
    return {PICTURE: (int.from_bytes(header[-4:]), int.from_bytes(header[-8:-4]))}


def _read_jpeg(file: BinaryIO, size: int) -> dict[str, Shape]:
    start = file.read(len(_JPEG_START))
    file.seek(-len(_JPEG_END), os.SEEK_END)
    if start != _JPEG_START or file.read() != _JPEG_END:
        raise ValueError("no whole JPEG")
    return {}


def _read_safetensors(file: BinaryIO, size: int) -> dict[str, Shape]:
    start = file.read(_HEADER)
    end_of_header = 8 + int.from_bytes(start[:8], "little")
    if end_of_header > size:
        raise ValueError("no whole header")
    if end_of_header > len(start):
        start += file.read(end_of_header - len(start))
    header = json.loads(start[8:end_of_header])
    header.pop("__metadata__", None)
    if end_of_header + max(tensor["data_offsets"][1] for tensor in header.values()) != size:
        raise ValueError("no whole file")
    return {name: tuple(tensor["shape"]) for name, tensor in header.items()}


_READERS: dict[str, Callable[[BinaryIO, int], dict[str, Shape]]] = {
    ".png": _read_png,
    ".jpg": _read_jpeg,
    ".safetensors": _read_safetensors,
}
