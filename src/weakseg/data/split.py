"""Stratified splits of multi-label photos."""

from collections.abc import Sequence

import numpy as np

from weakseg.data.dataset import Sample, count_tags


def split_by_tags(
    samples: Sequence[Sample], fraction: float, seed: int
) -> tuple[list[Sample], list[Sample]]:
    """Split photos so that each tag has about the same share in both parts.

    Tags are taken from the rarest on: of the photos that carry one and belong to no part yet, a
    drawn `fraction` (rounded to the nearest number, and at least one where the tag has three or
    more photos) is held out, the others are kept. Photos without tags come last. Of two photos or
    more, at least one is held out and one kept.

    Args:
        samples: the photos, each once, in any order that is the same every time.
        fraction: share that is held out, in (0, 1).
        seed: of the draw.

    Returns:
        The photos that are kept and those held out, both in the order given.

    Raises:
        ValueError: if a photo is there twice, as it could land in both parts.
    """
    if len({sample.id for sample in samples}) < len(samples):
        raise ValueError("a photo is given twice; split the photos before repeating any")
    rng = np.random.default_rng(seed)
    counts = count_tags(samples)
    rarest_first = sorted(counts, key=lambda tag: (counts[tag], tag))
    undecided = list(range(len(samples)))
    held_out: set[int] = set()
    for tag in (*rarest_first, None):
        group = [i for i in undecided if tag is None or tag in samples[i].tags]
        taken = set(group)
        undecided = [i for i in undecided if i not in taken]
        already = sum(tag in samples[i].tags for i in held_out)
        of_tag = len(group) if tag is None else counts[tag]
        wanted = max(round(fraction * of_tag), int(of_tag >= 3)) - already
        if wanted > 0:
            held_out.update(rng.permutation(group)[:wanted].tolist())
    if not held_out and len(samples) > 1:
        held_out.add(int(rng.integers(len(samples))))
    if held_out and len(held_out) == len(samples):
        held_out.remove(min(held_out))
    kept = [sample for i, sample in enumerate(samples) if i not in held_out]
    return kept, [samples[i] for i in sorted(held_out)]


def folds_by_tags(samples: Sequence[Sample], folds: int, seed: int) -> list[list[Sample]]:
    """Part photos into folds so that each tag has about the same share in all of them.

    Args:
        samples: the photos, in any order that is the same every time.
        folds: how many, at least 2.
        seed: of the draws.

    Returns:
        The folds, none of them empty (fewer than `folds` where there are fewer photos), each in
        the order given; every photo is in one.
    """
    rest = list(samples)
    parts = []
    for left in range(folds, 1, -1):
        rest, part = split_by_tags(rest, 1 / left, seed)
        parts.append(part)
    return [part for part in (*parts, rest) if part]
