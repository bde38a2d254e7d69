"""Which files of a folder that another tool wrote belong to which photo."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from weakseg.data.dataset import Sample


def stems(sample: Sample) -> Iterator[str]:
    """What a file that was made of a photo may be called, without suffix, in a folder of such.

    The photo's id; or the photo's own place, from some folder above it on, the longest first.
    """
    yield sample.id
    parts = sample.image.with_suffix("").parts
    for start in range(1, len(parts) - 1):
        yield "/".join(parts[start:])


def mask_files(folder: Path, sample: Sample) -> tuple[Path, ...]:
    """A photo's mask in a folder of PNG files, if it has one."""
    paths = (folder / f"{stem}.png" for stem in stems(sample))
    return next(((path,) for path in paths if path.exists()), ())


def with_files(
    samples: Iterable[Sample], find: Callable[[Sample], Sequence[object]]
) -> frozenset[str]:
    """Ids of the photos that `find` gives files of; one of several photos is none's."""
    # Hashes stand for files, a million of which would be half a gigabyte.
    ids: list[str] = []
    numbers: list[int] = []
    hashes = array("q")
    for sample in samples:
        if files := find(sample):
            ids.append(sample.id)
            numbers.append(len(files))
            hashes.extend(map(hash, files))
    found, claims = np.unique(np.asarray(hashes), return_counts=True)
    several = set(found[claims > 1].tolist())
    remaining = iter(hashes)
    return frozenset(
        image
        for image, number in zip(ids, numbers, strict=True)
        if several.isdisjoint(list(islice(remaining, number)))
    )
