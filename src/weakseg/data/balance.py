"""Balance classes of photos that carry several, and leave classes out.

Dobko et al. (2020, section 3.1) remove the labels of `person` and down-sample the other 199 classes
to a balanced set; how is not published. Up-sampling, and both together, are their open question
(section 5). The rules here are ours. Each depends on the seed and on the photos' ids, never on
their order.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from weakseg.data.dataset import Dataset, Sample, count_tags
from weakseg.data.split import split_by_tags
from weakseg.errors import unknown_name
from weakseg.strict import checked


@checked
class Balance:
    """How many photos a class has in training, as nearly as photos with several tags allow.

    Attributes:
        most: down-sampling to this number, at least 1; None: no photo is dropped.
        least: up-sampling to this number, at least 1 and at most `most` and 100,000, for an epoch
            must end; None: none is repeated.
    """

    most: Annotated[int, Field(ge=1)] | None = None
    least: Annotated[int, Field(ge=1, le=100_000)] | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.least is not None and self.least > self.most:
            raise ValueError(f"least is {self.least}; it must not exceed most, {self.most}")


def balanced_split(
    samples: Sequence[Sample], balance: Balance, fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Down-sample, split by `split_by_tags`, up-sample the part that is kept.

    In this order no photo is in both parts, and none is judged by more often than once.

    Args:
        samples: the photos, each once.
        balance: numbers of photos that a class has before the split at most, and in the part that
            is kept at least.
        fraction: share that is held out, in (0, 1).
        seed: of the draws.

    Returns:
        The photos that are kept, with repeats, and those held out.
    """
    if balance.most is not None:
        samples = down_sample(samples, balance.most, seed)
    kept, held_out = split_by_tags(samples, fraction, seed)
    if balance.least is not None:
        kept = up_sample(kept, balance.least, seed)
    return kept, held_out


def down_sample(samples: Sequence[Sample], most: int, seed: int) -> list[Sample]:
    """Drop photos until no class has more than `most` without need.

    Photos are gone through in a drawn order, and one is dropped if it has tags and every one of
    them is on more than `most` of the photos that are left. So no class with up to `most` photos
    loses any, no other falls below `most`, and none of the photos that are left could be dropped as
    well. A class stays over `most` only where each of its photos carries a class that isn't.

    Args:
        samples: the photos, each once.
        most: number of photos, at least 1.
        seed: of the draw.

    Returns:
        The photos that are left, in the order given.
    """
    counts = count_tags(samples)
    dropped = set()
    for sample in sorted(samples, key=lambda s: _draw(s, seed)):
        if sample.tags and all(counts[tag] > most for tag in sample.tags):
            dropped.add(sample.id)
            counts.subtract(sample.tags)
    return [sample for sample in samples if sample.id not in dropped]


def up_sample(samples: Sequence[Sample], least: int, seed: int) -> list[Sample]:
    """Repeat photos until every class that has any has at least `least`, repeats counted.

    Classes are taken from the rarest on. A class's photos are repeated in rounds, of those that
    were repeated least often so far; the last round takes those first that carry the fewest other
    classes with `least` photos already, and else drawn ones. Classes that occur beside rare ones
    can grow beyond `least`.

    Args:
        samples: the photos, each once. Split them first: a photo and its repeat must not be on
            both sides.
        least: number of photos, at least 1.
        seed: of the draw.

    Returns:
        The photos in the order given, then the repeats.
    """
    counts = count_tags(samples)
    by_tag: dict[str, list[Sample]] = {tag: [] for tag in counts}
    for sample in sorted(samples, key=lambda s: _draw(s, seed)):
        for tag in sample.tags:
            by_tag[tag].append(sample)
    times: Counter[str] = Counter()
    repeats: list[Sample] = []

    def crowded(sample: Sample) -> int:
        return sum(counts[tag] >= least for tag in sample.tags)

    for tag, _ in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        while (short := least - counts[tag]) > 0:
            fewest = min(times[sample.id] for sample in by_tag[tag])
            candidates = [sample for sample in by_tag[tag] if times[sample.id] == fewest]
            for sample in sorted(candidates, key=crowded)[:short]:
                repeats.append(sample)
                times[sample.id] += 1
                counts.update(sample.tags)
    return [*samples, *repeats]


def drop_classes(dataset: Dataset, names: Collection[str]) -> Dataset:
    """Remove the labels of classes, as Dobko et al. do with `person` (section 3.1).

    The classes keep their places in `Dataset.classes`, and with them all classes their mask ids:
    ground truth still fits, and a class that nothing is learnt about counts with the IoU of 0 that
    it gets. The photos stay, too; those with no other tag become photos of none of the classes
    (`weakseg.engine.balance` leaves them out).

    Raises:
        WeaksegError: if a name is no class of the data set.
    """
    for name in names:
        if name not in dataset.classes:
            raise unknown_name("class", name, dataset.classes)
    parted: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for tags in {sample.tags for sample in dataset.samples}:  # of a million photos few differ
        left = tuple(tag for tag in tags if tag not in names)
        parted[tags] = left, tuple(tag for tag in tags if tag in names)
    samples = (
        replace(sample, tags=left, dropped=dropped)
        for sample in dataset.samples
        for left, dropped in [parted[sample.tags]]
    )
    return replace(dataset, samples=tuple(samples))


@dataclass(frozen=True, slots=True)
class TagCount:
    """Number of photos with a tag, repeats counted, before and after balancing."""

    tag: str
    before: int
    after: int


def compare_counts(before: Iterable[Sample], after: Iterable[Sample]) -> tuple[TagCount, ...]:
    """What balancing did to each tag, the most frequent before first."""
    old, new = count_tags(before), count_tags(after)
    tags = sorted(old | new, key=lambda tag: (-old[tag], tag))
    return tuple(TagCount(tag, old[tag], new[tag]) for tag in tags)


def describe_counts(counts: Sequence[TagCount]) -> Iterator[str]:
    """The counts as text, a line a tag."""
    width = max((len(count.tag) for count in counts), default=0)
    for count in counts:
        yield f"{count.tag:<{width}} {count.before:>7} -> {count.after:>7}"


def _draw(sample: Sample, seed: int) -> bytes:
    """A photo's place in a drawn order, of the seed and the photo's id alone."""
    return hashlib.blake2b(f"{seed}/{sample.id}".encode()).digest()
