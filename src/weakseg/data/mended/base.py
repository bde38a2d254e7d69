"""What is to be known of a tool that gives masks back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weakseg.data.dataset import Sample
from weakseg.data.masks import BACKGROUND, TrueMask
from weakseg.data.places import stems
from weakseg.errors import WeaksegError, unknown_name

Find = Callable[[Sample], Sequence[TrueMask]]
"""A photo's mask, in the ids of a data set's classes; empty where there is none."""


@dataclass(frozen=True)
class Tool:
    """A tool that gives masks back.

    Attributes:
        summary: what it gives, for messages.
        matches: whether a file or folder is that.
        open: finds masks in it, for classes whose ids are 1, 2, 3, ...; raises WeaksegError if it
            can't be read, or has other classes.
    """

    summary: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, Sequence[str]], Find]


def by_stem(masks: Mapping[str, TrueMask]) -> Find:
    """Finds masks by the photo's name without suffix."""

    def find(sample: Sample) -> Sequence[TrueMask]:
        return next(((masks[stem],) for stem in stems(sample) if stem in masks), ())

    return find


def class_ids(path: Path, names: Iterable[str], classes: Sequence[str]) -> dict[str, int]:
    """The mask ids of a tool's classes, 0 for the background.

    Raises:
        WeaksegError: one is no class of the data set.
    """
    ids = {BACKGROUND: 0, **{name: number for number, name in enumerate(classes, start=1)}}
    for name in names:
        if name not in ids:
            raise WeaksegError(
                f"{path} has a class that the data set lacks. {unknown_name('class', name, ids)} "
                "Rename it there, or take it out."
            )
    return ids
