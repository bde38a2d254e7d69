"""Which files of a folder that another tool wrote belong to which photo."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from weakseg.data.dataset import Sample

Found = TypeVar("Found", bound=Hashable)


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


def find_all(
    samples: Iterable[Sample], find: Callable[[Sample], Sequence[Found]]
) -> dict[str, Sequence[Found]]:
    """Id -> the files that `find` gives of a photo, if any; one of several photos is none's."""
    found = {sample.id: files for sample in samples if (files := find(sample))}
    claims = Counter(path for files in found.values() for path in files)
    return {
        image: files for image, files in found.items() if all(claims[path] == 1 for path in files)
    }
