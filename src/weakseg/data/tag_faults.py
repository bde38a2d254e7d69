"""What the tags of a data set can teach a classifier, and what they can't."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from weakseg.errors import listed

Fault = Literal["everywhere", "together", "rare"]

FEW = 10
"""Fewer photos than this show too little of a class, or of what is none of it."""

FEW_PHOTOS = 50
"""So few photos in all teach a classifier little."""

FEWEST = 3
"""Of fewer photos with a tag none is left to learn from, or none to judge by."""

NEARLY_ALL = 0.95
BESIDE = 0.8
"""Share of the rarer tag's photos from which on a pair is worth showing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tags that occur together.

    Attributes:
        tag: the rarer one.
        beside: the other one.
        photos: number of photos with `tag`.
        both: number of photos with both.
        apart: number of photos with one of them alone: what a classifier can tell them apart by.
    """

    tag: str
    beside: str
    photos: int
    both: int
    apart: int

    @property
    def together(self) -> bool:
        """Whether next to nothing tells them apart."""
        return self.apart <= (1 - NEARLY_ALL) * (self.both + self.apart)

    def __str__(self) -> str:
        return (
            f"{self.tag}: {self.both} of its {self.photos} photos have {self.beside}; "
            f"{_number(self.apart)} with one of them alone"
        )


@dataclass(frozen=True)
class TagFaults:
    """Tags that image-level labels can't teach.

    Attributes:
        photos: number of photos that were tagged, be it with nothing.
        counts: tag -> number of its photos, for every tag that occurs.
        everywhere: tags on nearly all photos, or on all but a few.
        together: pairs of tags that next to nothing tells apart; without tags that are everywhere.
        rare: tags on few photos.
        pairs: the pairs that are hardest to tell apart, worst first, those of `together` included.
    """

    photos: int
    counts: dict[str, int]
    everywhere: tuple[str, ...]
    together: tuple[Pair, ...]
    rare: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def unlearned(self) -> tuple[str, ...]:
        """Tags on nearly all photos, which classifiers leave out; none where no other is left."""
        most = NEARLY_ALL * self.photos
        found = tuple(tag for tag in self.everywhere if self.counts[tag] >= most)
        return found if len(found) < len(self.counts) else ()

    def of(self, tag: str) -> str | None:
        """What is wrong with a tag, in few words; None if nothing is."""
        if tag in self.everywhere:
            return f"on {self.counts[tag]} of {self.photos} photos"
        for pair in self.together:
            if tag in (pair.tag, pair.beside):
                return f"with {pair.beside if tag == pair.tag else pair.tag}"
        return f"on {_number(self.counts[tag])}" if tag in self.rare else None

    def lines(self, most: int = 5) -> Iterator[str]:
        """A line for each fault: what it does to the masks, and what helps; long ones are cut."""
        for tag in self.everywhere[:most]:
            without = self.photos - self.counts[tag]
            lesson = f"{_number(without)} without it can't teach" if without else "nothing teaches"
            leave_out = f", or leave it out ({_leave_out(tag)})" if len(self.counts) > 1 else ""
            photos = f"{self.counts[tag]} of {self.photos} photos"
            yield (
                f"{tag!r} is on {photos}: {lesson} what it is not, so no classifier learns it, and "
                "its masks stay empty. Add photos without it, as many as you can, draw it on some "
                f"(weakseg review), which teaches the others{leave_out}."
                if tag in self.unlearned
                else f"{tag!r} is on {photos}: {lesson} what it is not. Its masks will flood what "
                "all photos share, and push other classes aside. Add photos without it, as many "
                f"as you can{leave_out}."
            )
        for pair in self.together[:most]:
            yield (
                f"{pair.tag!r} and {pair.beside!r} come together: {_number(pair.apart)} with one "
                f"of them alone, {pair.both} with both; the masks of either will cover both. Add "
                f"photos with one alone, or leave one out ({_leave_out(pair.tag)})."
            )
        if self.rare:
            names = ", ".join(f"{tag} ({self.counts[tag]})" for tag in self.rare[:most])
            more = f" and {len(self.rare) - most} more" if len(self.rare) > most else ""
            few = 2 * len(self.rare) <= len(self.counts)
            leave_out = f", or leave them out ({_leave_out(*self.rare[:most])})" if few else ""
            yield (
                f"On fewer than {FEW} photos: {names}{more}. Their masks will be poor and change "
                f"from run to run. Add photos of them{leave_out}."
            )
        for name, found in (("everywhere", self.everywhere), ("together", self.together)):
            if len(found) > most:
                yield f"And {len(found) - most} more that are {name}."


def find_tag_faults(tags: Sequence[Collection[str]]) -> TagFaults:
    """Judge tags by how they are spread over photos; no photo is looked at.

    A classifier learns a tag from photos with it set against photos without it. It can't where
    either are few (`FEW`) or one in twenty (`NEARLY_ALL`), nor can it part two tags where the
    photos with one of them alone are.

    Args:
        tags: the tags of each tagged photo, without repeats.
    """
    counts = Counter(tag for of_photo in tags for tag in of_photo)
    both = Counter(pair for of_photo in tags for pair in combinations(sorted(of_photo), 2))
    common = [
        tag
        for tag in sorted(counts, key=lambda tag: (-counts[tag], tag))
        if counts[tag] >= NEARLY_ALL * len(tags) or len(tags) - counts[tag] < FEW <= counts[tag]
    ]
    pairs = []
    for names, number in both.items():
        tag, beside = sorted(names, key=lambda name: (counts[name], name))
        if number >= BESIDE * counts[tag] and counts[tag] >= FEW and not {tag, beside} & {*common}:
            apart = counts[tag] + counts[beside] - 2 * number
            pairs.append(Pair(tag, beside, counts[tag], number, apart))
    pairs.sort(key=lambda pair: (pair.apart / (pair.apart + pair.both), pair.tag, pair.beside))
    rare = [t for t in sorted(counts, key=lambda t: (counts[t], t)) if counts[t] < FEW]
    return TagFaults(
        photos=len(tags),
        counts=dict(counts),
        everywhere=tuple(common),
        together=tuple(pair for pair in pairs if pair.together),
        rare=tuple(rare),
        pairs=tuple(pairs),
    )


def few_lines(faults: TagFaults) -> Iterator[str]:
    """What to expect of a training on very few photos, and what to do instead."""
    without = "masks without training: weakseg label PHOTOS --tag NAME"
    if faults.photos < FEW_PHOTOS:
        yield (
            f"{_number(faults.photos)} are few to learn from: expect masks that are rough and "
            f"change from run to run. Add photos, {FEW_PHOTOS} at least, or make {without}."
        )
    fewest = [tag for tag in faults.rare if faults.counts[tag] < FEWEST]
    if fewest:
        yield (
            f"On fewer than {FEWEST} photos: {listed(fewest, 5)}. Expect no usable masks of them. "
            f"Add photos of them, leave them out, or make {without}."
        )


def _number(photos: int) -> str:
    return "no photo" if photos == 0 else "1 photo" if photos == 1 else f"{photos} photos"


def _leave_out(*tags: str) -> str:
    return f"'data.drop_classes={json.dumps(tags, ensure_ascii=False)}'"
