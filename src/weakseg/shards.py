"""Files within tar files, read where they lie.

`SHARD.tar/512+20480/0001.jpg` are 20,480 bytes of the tar file from byte 512 on: a path says where
its content is, so that whoever reads it, in whatever process and order, needs no table of a million
files.
"""

import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from weakseg import stores
from weakseg.errors import WeaksegError

SUFFIX = ".tar"

_PLACE = re.compile(r"(.+\.tar)[/\\](\d+)\+(\d+)[/\\][^/\\]+", re.DOTALL)


class Member(NamedTuple):
    """A file within a tar file: `size` bytes from byte `start` on."""

    tar: Path
    start: int
    size: int


def member_of(path: Path) -> Member | None:
    """Where a file lies in a tar file; None for a file of its own."""
    found = _PLACE.fullmatch(os.fspath(path))
    return Member(Path(found[1]), int(found[2]), int(found[3])) if found else None


def members(tar: Path) -> Iterator[Path]:
    """The regular files in a tar file that is not compressed, under the last part of their names.

    Raises:
        WeaksegError: it is no such file, or ends too early.
    """
    stores.bring(tar)
    try:
        with tarfile.open(tar, "r:") as opened:
            while (entry := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # else it keeps all
                if entry.isreg() and not entry.issparse():
                    name = re.split(r"[/\\]", entry.name)[-1]
                    yield tar / f"{entry.offset_data}+{entry.size}" / name
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise WeaksegError(
            f"{tar} can't be read as a tar file: {error}. Write it anew, uncompressed."
        ) from error


def content(member: Member) -> bytes:
    """The bytes of a file within a tar file; fewer, where that was cut off.

    Raises:
        OSError: it can't be read.
    """
    stores.bring(member.tar)
    with member.tar.open("rb") as file:
        file.seek(member.start)
        return file.read(member.size)


def source(path: Path) -> Path | io.BytesIO:
    """What a file is read from: itself, or its content."""
    member = member_of(path)
    return io.BytesIO(content(member)) if member else stores.source(path)
