"""A data set: photos with their tags, and masks where there are some."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from weakseg.data.contents import ALL, read_contents
from weakseg.data.formats.base import Files
from weakseg.data.masks import TrueMask
from weakseg.data.paths import Place
from weakseg.errors import WeaksegError


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo.

    Attributes:
        id: the photo's file name without suffix, with its folder's before it where the format
            says so; no two photos of a data set have the same.
        place: the photo's file.
        tags: the classes in it, in the order of `Dataset.classes`; none if it has none of them.
        mask: the true mask, for evaluation only.
        doubtful: classes that nobody can be sure of: neither among the tags nor denied.
        dropped: classes that it was tagged with and that are left out.
        objects: the true mask of objects, for evaluation only.
    """

    id: str
    place: Place | str | Path
    tags: tuple[str, ...]
    mask: TrueMask | None
    doubtful: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    objects: TrueMask | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", Place.of(self.place))

    @property
    def image(self) -> Path:
        """The photo."""
        return Path(self.place)


@dataclass(frozen=True)
class Dataset:
    """The tagged photos of one split.

    Attributes:
        root: the folder.
        format: name of its format.
        classes: class names without background; a class has the mask id index + 1.
        samples: in the order of the split's list, or by id for the split "all".
        untagged: ids of the photos that nobody tagged, left out unless they were asked for.
        missing: ids that are tagged or listed, but have no photo.
        notes: how the folder was understood, where that is not plain, and what was passed over.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    untagged: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()


def load_dataset(
    root: Path, split: str = ALL, format: str = "auto", untagged: bool = False
) -> Dataset:
    """Read the lists and tags of a data folder; photos and masks stay closed.

    Several rows for one image add up: its tags are their union.

    Args:
        root: a folder in one of `weakseg.data.formats.FORMATS`.
        split: name of a split's list, or "all" for every tagged photo.
        format: name of a format, or "auto" to recognise it.
        untagged: whether to take photos that nobody tagged as well, as if they had no tags: for
            comparing masks, which needs none.

    Raises:
        WeaksegError: if the folder, the format or the split is unknown, a list has a line that
            can't be used, a tag is no class, or no photo has a tag.
    """
    contents = read_contents(root, split, format)
    if contents.faults:
        first, *others = contents.faults
        more = f" {len(others)} more: see `weakseg data check`." if others else ""
        raise WeaksegError(f"{root}: {first}{more}")
    if not untagged and (reason := contents.untrainable()):
        raise WeaksegError(f"{root} has nothing to learn from in split {split!r}: {reason}")
    position = {name: index for index, name in enumerate(contents.classes)}
    samples, nobodys, missing = [], [], []
    paths = contents.photos.paths
    places: Mapping[str, Place | Path] = paths.places if isinstance(paths, Files) else paths
    in_order: dict[tuple[str, ...], tuple[str, ...]] = {}  # of a million photos few have others
    for image in contents.ids:
        tags = contents.tags(image)
        if image not in places:
            missing.append(image)
            continue
        if tags is None:
            nobodys.append(image)
        if tags is not None or untagged:
            tags = tags or ()
            if tags not in in_order:
                in_order[tags] = tuple(sorted(tags, key=position.__getitem__))
            mask, objects = contents.masks.get(image), contents.objects.get(image)
            samples.append(Sample(image, places[image], in_order[tags], mask, objects=objects))
    if not samples or not contents.classes:
        raise WeaksegError(
            f"{root} has {len(samples)} photos in split {split!r} and {len(contents.classes)}"
            f" classes: {len(nobodys)} photos without tags, {len(missing)} images without a photo."
            " Add photos, or list the classes in classes.txt."
        )
    return Dataset(
        root=root,
        format=contents.format.name,
        classes=contents.classes,
        samples=tuple(samples),
        untagged=tuple(nobodys),
        missing=tuple(missing),
        notes=contents.notes,
    )


def count_tags(samples: Iterable[Sample]) -> Counter[str]:
    """Tag -> number of photos that carry it, repeats counted."""
    return Counter(tag for sample in samples for tag in sample.tags)
