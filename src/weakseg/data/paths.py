"""Paths of very many files."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Place:
    """A file's path in parts, as a million paths would take half a gigabyte.

    Files share the text of their folder and of their suffix, and a photo and its mask that of the
    photo's id.

    Attributes:
        folder: with a separator at its end; empty where the path has none.
        stem: the name without its suffix.
        suffix: the last dot of the name and what follows, if there is a name before it.
    """

    folder: str
    stem: str
    suffix: str

    @classmethod
    def of(cls, path: "str | os.PathLike[str]") -> Self:
        """A path, in whatever form."""
        if isinstance(path, cls):
            return path
        text = os.fspath(path)
        name = os.path.basename(text)  # noqa: PTH119
        return cls.within(text.removesuffix(name), name)

    @classmethod
    def within(cls, folder: str, name: str) -> Self:
        """The place of a name in a folder, which ends with a separator."""
        dot = name.rfind(".")
        if not 0 < dot < len(name) - 1:
            return cls(folder, name, "")
        return cls(folder, name[:dot], sys.intern(name[dot:]))

    def __fspath__(self) -> str:
        return f"{self.folder}{self.stem}{self.suffix}"

    def __str__(self) -> str:
        return os.fspath(self)

    @property
    def name(self) -> str:
        return f"{self.stem}{self.suffix}"

    @property
    def path(self) -> Path:
        return Path(self)
