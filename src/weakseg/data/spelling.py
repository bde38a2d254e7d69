"""Tags that were probably meant to be one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

RARER_BY = 4
SHORTEST, LONGEST = 4, 64


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A tag that looks like a more frequent one.

    Attributes:
        tag: the rarer tag.
        count: number of images that have it.
        like: the tag that it looks like.
        like_count: number of images that have that one.
    """

    tag: str
    count: int
    like: str
    like_count: int

    def __str__(self) -> str:
        return f"{self.tag} ({self.count}) looks like {self.like} ({self.like_count})"


def near_misses(counts: Mapping[str, int]) -> tuple[NearMiss, ...]:
    """Tags that differ from a more frequent one in case, punctuation, plural, or one letter.

    One letter (added, dropped, changed or moved) counts only in tags of `SHORTEST` to
    `LONGEST` letters, of which one is `RARER_BY` times rarer than the other: boat and goat
    are both words.
    The time is linear in the number of tags.

    Args:
        counts: tag -> number of images.

    Returns:
        Sorted by tag; each tag once, and none that has no image.
    """
    plain = {tag: "".join(filter(str.isalnum, tag.casefold())) for tag in counts}
    words = set(plain.values())
    same = _groups((tag, {name, *_plurals(name)} & words) for tag, name in plain.items())
    middling = {tag: name for tag, name in plain.items() if SHORTEST <= len(name) <= LONGEST}
    close = _groups((tag, _drops(name)) for tag, name in middling.items())

    def rank(tag: str) -> tuple[int, int, str]:
        return counts[tag], -len(tag), tag

    likes: dict[str, str] = {}
    for groups, rarer_by in ((same, 1), (close, RARER_BY)):
        for group in groups:
            common = max(group, key=rank)
            for tag in group:
                if tag != common and 0 < counts[tag] * rarer_by <= counts[common]:
                    likes[tag] = max(likes.get(tag, common), common, key=rank)
    return tuple(NearMiss(t, counts[t], like, counts[like]) for t, like in sorted(likes.items()))


def _plurals(word: str) -> Iterator[str]:
    yield word + "s"
    yield word + "es"
    if word.endswith("y"):
        yield word[:-1] + "ies"


def _drops(word: str) -> Iterator[str]:
    """The word, and what is left of it without one letter."""
    yield word
    for i in range(len(word)):
        yield word[:i] + word[i + 1 :]


def _groups(keys: Iterable[tuple[str, Iterable[str]]]) -> Iterable[set[str]]:
    """The sets of tags that share a key."""
    tags: defaultdict[str, set[str]] = defaultdict(set)
    for tag, its_keys in keys:
        for key in its_keys:
            tags[key].add(tag)
    return tags.values()
