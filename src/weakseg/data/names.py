"""Which photo a list means by a name."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.errors import quoted

_ADDRESS = re.compile(r"[a-z][a-z\d+.-]*://", re.IGNORECASE)
_LONGEST_TAIL = 4


@dataclass(frozen=True, slots=True)
class Matches:
    """What the names of a list mean.

    Attributes:
        ids: name -> a photo's id; a name that means none has no more than its suffix taken off.
        notes: what was understood of names that aren't written as their files are, a line each.
    """

    ids: Mapping[str, str]
    notes: tuple[str, ...]


def match_names(names: Iterable[str], paths: Mapping[str, Path]) -> Matches:
    """Find the photos that a list means.

    A name is a photo's id or its file's name, alone or at the end of a path or a web address. One
    that is neither means the photo whose name differs in case or in leading zeros alone, where
    there is one such photo, and nothing else in the list means it.

    Args:
        names: as the list has them, as NFC.
        paths: id -> photo.
    """
    known = {image: image for image in paths}  # of a million photos there once
    ids = {name: known.get(image, image) for name in names for image in [_written(name, paths)]}
    del known
    by_key: dict[str, list[str]] = defaultdict(list)
    claims: dict[str, list[str]] = defaultdict(list)
    for name in [name for name, image in ids.items() if image not in paths]:
        if not by_key:
            for image in paths:
                by_key[loose_key(image)].append(image)
        ending = [image for tail in _tails(name) if (image := _written(tail, paths)) in paths]
        meant = ending[:1] or by_key.get(loose_key(name), [])
        if len(meant) == 1:
            claims[meant[0]].append(name)
    taken = set(ids.values())
    understood = {by[0]: i for i, by in claims.items() if i not in taken and len(by) == 1}
    return Matches(ids | understood, tuple(_notes(understood)))


def base_name(name: str) -> str:
    """The end of a path, Windows' or another, or of a web address; nothing where it has none."""
    return _parts(name)[-1]


def loose_key(name: str) -> str:
    """What is left of a file's name without path, suffix, case and leading zeros."""
    stem = _without_suffix(base_name(name)).casefold()
    return stem.lstrip("0") if stem.isdecimal() else stem


def _written(name: str, paths: Mapping[str, Path]) -> str:
    """The id that is written as `name`, which may carry the file's suffix; a photo's or not."""
    stem = _without_suffix(name)
    if stem in paths and unicodedata.normalize("NFC", paths[stem].name) == name:
        return stem
    return name if name in paths else stem


def _tails(name: str) -> list[str]:
    """What an id may be at the end of a path, the longest first: `a_b_1.jpg`, `b_1.jpg`, ..."""
    parts = _parts(name)[-_LONGEST_TAIL:]
    return ["_".join(parts[start:]) for start in range(len(parts))]


def _parts(name: str) -> list[str]:
    if "/" not in name and "\\" not in name:
        return [name]
    if _ADDRESS.match(name):
        name = unquote(re.split("[?#]", name)[0])
    return re.split(r"[/\\]", name)


def _without_suffix(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return stem if stem and f".{suffix.lower()}" in PHOTO_SUFFIXES else name


def _notes(understood: Mapping[str, str]) -> Iterable[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for name, image in understood.items():
        tails = {_without_suffix(tail) for tail in _tails(name)}
        if image in tails:
            kinds["by a path or an address"].append(name)
        elif image.casefold() in {tail.casefold() for tail in tails}:
            kinds["in another case than their files"].append(name)
        else:
            kinds["without their leading zeros"].append(name)
    for kind, named in kinds.items():
        example = f"{quoted(named[0])} for {quoted(understood[named[0]])}"
        yield f"photos named {kind}: {len(named)}, such as {example}"
