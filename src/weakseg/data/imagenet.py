"""Which outputs of an ImageNet-1k classifier a tag means, by WordNet (Miller 1995)."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from weakseg.data.spelling import plurals
from weakseg.errors import LONGEST_NAME, WeaksegError, listed, quoted

TABLE = "imagenet_words.tsv"
"""Made by `scripts/imagenet_words.py`. A line is a notion of WordNet: its name, the outputs that
are kinds of it (`3` or `7-9`, separated by commas), and for each `Meaning` words, separated by `;`.
The first thousand lines are the outputs' own, in their order, the last is `NOTHING`."""

NOTHING = "-"
"""The notion of words that ImageNet has no class for, and that are not to be taken apart: a
suitcase is no case."""

_SHOWN = 3
_NEAR = 4
_SHORTEST_PART = 4
"""Letters of each of two words that are written as one: "elegant" is no ant."""


class Meaning(Enum):
    """How the outputs of a notion stand for a word; the values are the table's columns."""

    CLASSES = 2
    """They are what the word means, or kinds of it: cat, and tabby."""
    KIND = 3
    """The word is a kind of what the output means: carbine, and rifle."""
    KIN = 4
    """They are the nearest relatives of a living thing: cow, and ox."""


@dataclass(frozen=True)
class Match:
    """What a tag is taken as.

    Attributes:
        tag: as it was given.
        word: the part of the tag that was understood: of a potted plant, "plant".
        notion: the name of what `outputs` are kinds of.
        meaning: how they stand for the word.
        outputs: places of the classifier's outputs.
        names: what ImageNet calls these.
    """

    tag: str
    word: str
    notion: str
    meaning: Meaning
    outputs: tuple[int, ...]
    names: tuple[str, ...]

    def __str__(self) -> str:
        means = {
            Meaning.CLASSES: "",
            Meaning.KIND: ", of which it is a kind",
            Meaning.KIN: f", its kin ({self.notion})",
        }
        word, tag = key_of(self.word), key_of(self.tag)
        read_as = "" if tag in (word, *plurals(word)) else f" {quoted(self.word)},"
        return f"{self.tag}:{read_as} {listed(self.names, _SHOWN)}{means[self.meaning]}"


def match_tags(tags: Iterable[str]) -> tuple[Match, ...]:
    """What tags are taken as.

    Case, spaces and punctuation don't count, nor does the plural. Of several words the last is what
    the others describe, if ImageNet does not know them all.

    Raises:
        WeaksegError: some mean nothing that ImageNet knows; all of them are named.
    """
    found = {tag: match_tag(tag) for tag in tags}
    if unknown := [tag for tag, match in found.items() if match is None]:
        described = [
            quoted(tag) + (f" (near: {', '.join(near)})" if (near := near_words(tag)) else "")
            for tag in unknown
        ]
        raise WeaksegError(
            f"ImageNet has no class for {listed(described)}. Use words that it knows, leave these "
            "out, or train a classifier on tagged photos (`weakseg list recipes`)."
        )
    return tuple(match for match in found.values() if match)


def match_tag(tag: str) -> Match | None:
    """What one tag is taken as, if anything."""
    table = _table()
    for key in readings(tag):
        if entry := table.words.get(key):
            notion = table.notions[entry.notion]
            if not notion.outputs:
                return None
            names = tuple(table.notions[output].name for output in notion.outputs)
            return Match(tag, entry.word, notion.name, entry.meaning, notion.outputs, names)
    return None


def near_words(tag: str) -> list[str]:
    """Words that stand for classes and hold the tag, or are spelled much like it."""
    table = _table()
    known = [
        entry.word
        for entry in table.words.values()
        if entry.meaning is Meaning.CLASSES and table.notions[entry.notion].outputs
    ]
    name = tag.casefold()[:LONGEST_NAME]
    own = set(name.split())
    alike = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.75)
    return list(dict.fromkeys([*(w for w in known if own & {*w.split()}), *alike]))[:_NEAR]


def key_of(text: str) -> str:
    """What is left of a text without case, spaces and punctuation."""
    return "".join(filter(str.isalnum, text.casefold()))


def readings(tag: str) -> Iterator[str]:
    """Keys that a tag may stand under, from the whole of it to its last word."""
    words = re.findall(r"[^\W_]+", tag)
    keys = [key_of("".join(words[start:])) for start in range(len(words))]
    if len(keys) == 1:
        ends = range(_SHORTEST_PART, len(keys[0]) - _SHORTEST_PART + 1)
        keys += [keys[0][start:] for start in ends]
    for key in keys:
        yield key
        singular = key[:-1], key[:-2], key[:-3] + "y", key[:-2] + "an"
        yield from (k for k in singular if key in plurals(k))


class _Notion(NamedTuple):
    name: str
    outputs: tuple[int, ...]


class _Entry(NamedTuple):
    word: str
    notion: int
    meaning: Meaning


class _Table(NamedTuple):
    notions: tuple[_Notion, ...]
    words: Mapping[str, _Entry]


@cache
def _table() -> _Table:
    text = (files("weakseg") / "data" / TABLE).read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line[0] != "#"]
    words: dict[str, _Entry] = {}
    for meaning in Meaning:
        for place, row in enumerate(rows):
            for word in filter(None, row[meaning.value].split(";")):
                words.setdefault(key_of(word), _Entry(word, place, meaning))
    return _Table(tuple(_Notion(row[0], tuple(_numbers(row[1]))) for row in rows), words)


def _numbers(text: str) -> Iterator[int]:
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
