"""Tags that are one, or were probably meant to be."""

import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from weakseg.errors import quoted

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


def fold(
    counts: Mapping[str, int], declared: Collection[str] = ()
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tags that differ in case, white space or invisible characters alone, taken as one.

    Args:
        counts: tag -> number of images.
        declared: the classes, if they are known: each of them stays as it is.

    Returns:
        Tag -> what it is taken as: the declared class, else the most frequent of those alike. And
        a line that says so, if there are any.
    """
    alike, known = _by_key(sorted(counts)), _by_key(declared)
    taken_as: dict[str, str] = {}
    told = []
    for key, tags in alike.items():
        classes = known.get(key, [])
        common = " ".join(max(tags, key=lambda tag: (counts[tag], tag)).split())
        one = classes[0] if classes else common
        taken_as |= {tag: tag if len(classes) > 1 else one for tag in tags}
        if other := [quoted(tag) for tag in tags if tag != taken_as[tag]]:
            told.append(f"{', '.join(other)} as {quoted(one)}")
    differ = "tags that differ in case or spaces alone are taken as one"
    return taken_as, (f"{differ}: {'; '.join(told)}",) if told else ()


def _by_key(tags: Iterable[str]) -> dict[str, list[str]]:
    """Tags by what is left of them without case and white space at the ends, twice or unseen."""
    by_key: dict[str, list[str]] = {}
    for tag in tags:
        visible = "".join(char for char in tag if unicodedata.category(char) != "Cf")
        by_key.setdefault(" ".join(visible.casefold().split()), []).append(tag)
    return by_key


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
    # What has no letter, such as two emoji, would all be alike without this.
    plain = {tag: "".join(filter(str.isalnum, tag.casefold())) or tag for tag in counts}
    words = set(plain.values())
    same = _groups((tag, {name, *plurals(name)} & words) for tag, name in plain.items())
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


def plurals(word: str) -> Iterator[str]:
    """A word's regular plurals, right or wrong."""
    yield word + "s"
    yield word + "es"
    if word.endswith("y"):
        yield word[:-1] + "ies"
    if word.endswith("man"):
        yield word[:-2] + "en"


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
