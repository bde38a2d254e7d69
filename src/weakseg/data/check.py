"""A look at a data folder before hours are spent on it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from weakseg.data.contents import ALL, Contents, read_contents
from weakseg.data.images import MAX_PIXELS, UnreadablePhoto, photo_size, read_photo
from weakseg.data.masks import IGNORE, UnreadableMask, read_mask
from weakseg.data.spelling import NearMiss, near_misses
from weakseg.memory import give_back_freed_memory

EXAMPLES = 5
_CHUNK = 256
_LARGE = 2**23  # pixels


@dataclass(frozen=True, slots=True)
class SplitReport:
    """A split's list.

    Attributes:
        name: name of the split.
        images: number of images that it lists.
        missing: those that have no photo.
        faults: lines that can't be used.
    """

    name: str
    images: int
    missing: tuple[str, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """What a data folder holds, and what is wrong with it.

    Attributes:
        root: the folder.
        format: name of its format.
        classes: class names without background.
        images: number of photos.
        tagged: number of photos that have a row of tags, be it empty.
        masks: number of photos that have a mask.
        trainable: number of readable photos with at least one tag.
        splits: the splits' lists.
        images_per_tag: tag -> number of tagged photos, most frequent first.
        images_per_number_of_tags: number of tags -> number of tagged photos.
        untagged: ids of photos without a row of tags.
        missing: tagged ids without a photo.
        repeated: ids with several rows that say the same.
        contradicting: ids with several rows that differ; loading takes their union.
        near_misses: tags that were probably meant to be one.
        unreadable: id -> why its photo can't be read.
        bad_masks: id -> what is wrong with its mask.
        ignored: suffix -> number of files among the photos that aren't taken for photos.
        faults: what keeps the data from being loaded.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    images: int
    tagged: int
    masks: int
    trainable: int
    splits: tuple[SplitReport, ...]
    images_per_tag: Mapping[str, int]
    images_per_number_of_tags: Mapping[int, int]
    untagged: tuple[str, ...]
    missing: tuple[str, ...]
    repeated: tuple[str, ...]
    contradicting: tuple[str, ...]
    near_misses: tuple[NearMiss, ...]
    unreadable: Mapping[str, str]
    bad_masks: Mapping[str, str]
    ignored: Mapping[str, int]
    faults: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether something could be trained on it."""
        return self.trainable > 0 and not self.faults

    def lines(self) -> Iterator[str]:
        """The report as text, a line at a time; long lists are cut to `EXAMPLES`."""
        yield f"{self.root}: {self.format}, {'usable' if self.usable else 'NOT usable'}"
        yield f"{self.images} photos, {self.tagged} tagged, {self.masks} with a mask"
        for split in self.splits:
            yield f"split {split.name}: {split.images} images"
        per_number = self.images_per_number_of_tags.items()
        yield "photos by number of tags: " + ", ".join(f"{n}: {count}" for n, count in per_number)
        yield "photos by tag:"
        width = max(map(len, self.images_per_tag), default=0)
        for tag, count in self.images_per_tag.items():
            yield f"  {tag:<{width}} {count:>7}"
        yield from _listing("What keeps it from being loaded", self.faults)
        yield from _listing("Photos that can't be read", self.unreadable.values())
        yield from _listing("Photos without tags", self.untagged)
        yield from _listing("Tags without a photo", self.missing)
        yield from _listing("Rows that say the same again", self.repeated)
        yield from _listing("Rows that differ, taken together", self.contradicting)
        yield from _listing("Tags to look at", map(str, self.near_misses))
        yield from _listing("Masks to look at", self.bad_masks.values())
        for split in self.splits:
            yield from _listing(f"Images of split {split.name} without a photo", split.missing)
            yield from _listing(f"Lines of split {split.name} that can't be used", split.faults)
        ignored = (f"{count} with suffix {suffix!r}" for suffix, count in self.ignored.items())
        yield from _listing("Files that aren't taken for photos", ignored)


def check_dataset(
    root: Path, format: str = "auto", on_progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Read everything in a data folder: lists, every photo, every mask.

    Args:
        root: a folder in one of `weakseg.data.formats.FORMATS`.
        format: name of a format, or "auto" to recognise it.
        on_progress: called now and then with the number of photos that are done, and of all.

    Raises:
        WeaksegError: if there is no such folder or format, or a list is unreadable as a whole.
            All smaller faults are in the report.
    """
    contents = read_contents(root, ALL, format)
    photos = contents.photos.paths
    tags = {image: of_image for image in photos if (of_image := contents.tags(image)) is not None}
    unreadable, bad_masks = _read_files(contents, on_progress)
    per_tag = Counter(tag for of_image in tags.values() for tag in of_image)
    per_tag.update(dict.fromkeys(contents.classes, 0))
    listed = frozenset(contents.classes if contents.declared else ())
    several = {image: rows for image, rows in contents.rows.items() if len(rows) > 1}
    contradicting = [
        image for image, rows in several.items() if len({frozenset(r.tags) for r in rows}) > 1
    ]
    return CheckReport(
        root=root,
        format=contents.format.name,
        classes=contents.classes,
        images=len(photos),
        tagged=len(tags),
        masks=len(contents.masks.keys() & photos.keys()),
        trainable=sum(bool(of_image) and i not in unreadable for i, of_image in tags.items()),
        splits=tuple(_splits(root, contents)),
        images_per_tag=dict(sorted(per_tag.items(), key=lambda item: (-item[1], item[0]))),
        images_per_number_of_tags=dict(sorted(Counter(map(len, tags.values())).items())),
        untagged=tuple(image for image in photos if image not in tags),
        missing=tuple(image for image in contents.ids if image not in photos),
        repeated=tuple(sorted(several.keys() - set(contradicting))),
        contradicting=tuple(sorted(contradicting)),
        near_misses=tuple(n for n in near_misses(per_tag) if not {n.tag, n.like} <= listed),
        unreadable=unreadable,
        bad_masks=bad_masks,
        ignored=contents.photos.ignored,
        faults=contents.faults,
    )


def _splits(root: Path, contents: Contents) -> Iterator[SplitReport]:
    photos = contents.photos
    for name, path in sorted(contents.format.splits(root).items()):
        split = contents.format.read_split(path)
        ids = dict.fromkeys(map(photos.id_of, split.names))
        missing = tuple(image for image in ids if image not in photos.paths)
        yield SplitReport(name, len(ids), missing, split.faults)


def _read_files(
    contents: Contents, on_progress: Callable[[int, int], None] | None
) -> tuple[dict[str, str], dict[str, str]]:
    """What is wrong with photos and with masks, by id."""
    ids = list(contents.photos.paths)
    unreadable, bad_masks = {}, {}
    room = _Room(MAX_PIXELS)

    def inspect(image: str) -> tuple[str, str | None, str | None]:
        path, mask = contents.photos.paths[image], contents.masks.get(image)
        with room.of(max(_pixels(path), _pixels(mask) if mask else 0)):
            try:
                height, width, _ = read_photo(path).shape
            except UnreadablePhoto as error:
                return image, str(error), None
            size = height, width
            fault = mask_fault(mask, size, len(contents.classes)) if mask else None
            return image, None, fault

    # Threads do: Pillow decodes without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(ids), _CHUNK):
            for image, of_photo, of_mask in pool.map(inspect, ids[start : start + _CHUNK]):
                if of_photo:
                    unreadable[image] = of_photo
                if of_mask:
                    bad_masks[image] = of_mask
            if on_progress:
                on_progress(min(start + _CHUNK, len(ids)), len(ids))
    return unreadable, bad_masks


class _Room:
    """Room in memory for so many pixels, whatever the number of threads that decode some.

    One photo has no more than `MAX_PIXELS`, so that with that much room none waits for ever.
    """

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: pixels <= self._left)
            self._left -= pixels
        try:
            yield
        finally:
            if pixels > _LARGE:
                give_back_freed_memory()  # else each thread keeps that of its largest photo
            with self._changed:
                self._left += pixels
                self._changed.notify_all()


def _pixels(path: Path) -> int:
    try:
        height, width = photo_size(path)
    except UnreadablePhoto:
        return 0  # whoever decodes it says why
    return height * width


def mask_fault(path: Path, size: tuple[int, int], classes: int) -> str | None:
    """What is wrong with a mask of a photo of height and width `size`; None if nothing is."""
    try:
        mask = read_mask(path)
    except UnreadableMask as error:
        return str(error)
    if mask.shape != size:
        return f"{path} has height and width {mask.shape}, its photo {size}."
    ids = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE])
    if strange := ids[ids > classes].tolist():
        return f"{path} has the ids {strange}, where there are {classes} classes."
    return None


def _listing(title: str, items: Iterable[str]) -> Iterator[str]:
    listed = list(items)
    if listed:
        yield f"{title}: {len(listed)}"
        yield from (f"  {item}" for item in listed[:EXAMPLES])
        if len(listed) > EXAMPLES:
            yield f"  and {len(listed) - EXAMPLES} more"
