"""A look at a data folder before hours are spent on it."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from weakseg.data.contents import ALL, Contents, read_contents, read_split
from weakseg.data.images import MAX_PIXELS, UnreadablePhoto, narrow_depth, photo_size, read_photo
from weakseg.data.masks import IGNORE, MAX_CLASSES, MaskFile, TrueMask, UnreadableMask
from weakseg.data.spelling import NearMiss, near_misses
from weakseg.data.tag_faults import TagFaults, find_tag_faults
from weakseg.errors import LONGEST_NAME
from weakseg.memory import give_back_freed_memory

EXAMPLES = 5
Track = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""As `weakseg.progress.Progress` has it."""

_CHUNK = 256
_LONGEST_LINE = 1000
_LARGE = 2**23  # pixels


@dataclass(frozen=True, slots=True)
class SplitReport:
    """A split's list.

    Attributes:
        name: name of the split.
        images: number of images that it lists.
        missing: those that have no photo.
        faults: lines that can't be used.
        notes: how it was understood, where that is not plain.
    """

    name: str
    images: int
    missing: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


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
        tag_faults: tags that can't be learned, by how they are spread over the photos.
        unreadable: id -> why its photo can't be read.
        bad_masks: id -> what is wrong with its mask.
        ignored: suffix -> number of files among the photos that aren't taken for photos.
        faults: what keeps the data from being used.
        notes: how the folder was understood, where that is not plain, and what was passed over.
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
    tag_faults: TagFaults
    unreadable: Mapping[str, str]
    bad_masks: Mapping[str, str]
    ignored: Mapping[str, int]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether something could be trained on it."""
        return not self.faults

    def lines(self) -> Iterator[str]:
        """The report as text, a line at a time; long lists and lines are cut."""
        yield f"{self.root}: {self.format}, {'usable' if self.usable else 'NOT usable'}"
        yield f"{self.images} photos, {self.tagged} tagged, {self.masks} with a mask"
        yield from self.notes
        yield from _listing("What keeps it from being used", self.faults)
        for split in self.splits:
            yield f"split {split.name}: {split.images} images"
            yield from (f"  {note}" for note in split.notes)
        per_number = self.images_per_number_of_tags.items()
        yield "photos by number of tags: " + ", ".join(f"{n}: {count}" for n, count in per_number)
        yield "photos by tag:"
        width = min(max(map(len, self.images_per_tag), default=0), LONGEST_NAME)
        for tag, count in islice(self.images_per_tag.items(), MAX_CLASSES):
            yield f"  {_cut(tag, width):<{width}} {count:>7}"
        if len(self.images_per_tag) > MAX_CLASSES:
            yield f"  and {len(self.images_per_tag) - MAX_CLASSES} more"
        yield from _listing("Photos that can't be read", self.unreadable.values())
        yield from _listing("Photos without tags", self.untagged)
        yield from _listing("Tags without a photo", self.missing)
        yield from _listing("Rows that say the same again", self.repeated)
        yield from _listing("Rows that differ, taken together", self.contradicting)
        yield from _listing("Tags to look at", map(str, self.near_misses), examples=None)
        yield from _listing("Tags that can't be learned", self.tag_faults.lines())
        yield from _listing("Tags that come together", map(str, self.tag_faults.pairs))
        yield from _listing("Masks to look at", self.bad_masks.values())
        for split in self.splits:
            yield from _listing(f"Images of split {split.name} without a photo", split.missing)
            yield from _listing(f"Lines of split {split.name} that can't be used", split.faults)
        ignored = (f"{count} with suffix {suffix!r}" for suffix, count in self.ignored.items())
        yield from _listing("Files that aren't taken for photos", ignored)


def check_dataset(root: Path, format: str = "auto", track: Track | None = None) -> CheckReport:
    """Read everything in a data folder: lists, every photo, every mask.

    Args:
        root: a folder in one of `weakseg.data.formats.FORMATS`.
        format: name of a format, or "auto" to recognise it.
        track: shows how many photos are done.

    Raises:
        WeaksegError: if there is no such folder or format, or a list is unreadable as a whole.
            All smaller faults are in the report.
    """
    contents = read_contents(root, ALL, format)
    photos = contents.photos.paths
    tags = {image: of_image for image in photos if (of_image := contents.tags(image)) is not None}
    unreadable, bad_masks, of_files = _read_files(contents, track)
    trainable = sum(bool(of_image) and i not in unreadable for i, of_image in tags.items())
    reason = contents.untrainable()
    if not trainable and not reason:
        reason = "none of the photos that have a tag can be read. Replace them."
    faults = contents.faults or ((reason[0].upper() + reason[1:],) if reason else ())
    per_tag = Counter(tag for of_image in tags.values() for tag in of_image)
    per_tag.update(dict.fromkeys(contents.classes, 0))
    listed = frozenset(contents.classes if contents.declared else ())
    several = {image: rows for image, rows in contents.rows.items() if len(rows) > 1}
    contradicting = [
        image for image, rows in several.items() if len({frozenset(tags) for tags in rows}) > 1
    ]
    return CheckReport(
        root=root,
        format=contents.format.name,
        classes=contents.classes,
        images=len(photos),
        tagged=len(tags),
        masks=len(contents.masks.keys() & photos.keys()),
        trainable=trainable,
        splits=tuple(_splits(root, contents)),
        images_per_tag=dict(sorted(per_tag.items(), key=lambda item: (-item[1], item[0]))),
        images_per_number_of_tags=dict(sorted(Counter(map(len, tags.values())).items())),
        untagged=tuple(image for image in photos if image not in tags),
        missing=tuple(image for image in contents.ids if image not in photos),
        repeated=tuple(sorted(several.keys() - set(contradicting))),
        contradicting=tuple(sorted(contradicting)),
        # The pairs of any number of tags take any time; too many are a fault already.
        tag_faults=find_tag_faults(list(tags.values()) if len(per_tag) <= MAX_CLASSES else []),
        near_misses=tuple(n for n in near_misses(per_tag) if not {n.tag, n.like} <= listed),
        unreadable=unreadable,
        bad_masks=bad_masks,
        ignored=contents.photos.ignored,
        faults=faults,
        notes=(*contents.notes, *of_files),
    )


def _splits(root: Path, contents: Contents) -> Iterator[SplitReport]:
    photos = contents.photos
    for name, path in sorted(contents.format.splits(root).items()):
        split = read_split(contents.format, path, photos)
        missing = tuple(image for image in split.names if image not in photos.paths)
        yield SplitReport(name, len(split.names), missing, split.faults, split.notes)


def _read_files(
    contents: Contents, track: Track | None
) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """What is wrong with photos and with masks, by id, and what else there is to say of them."""
    ids = list(contents.photos.paths)
    unreadable, bad_masks = {}, {}
    narrow: dict[int, list[str]] = {}
    masked: set[int] = set()
    room = _Room(MAX_PIXELS)

    def inspect(image: str) -> tuple[str, str | None, str | None, list[int], int | None]:
        path, mask = contents.photos.paths[image], contents.masks.get(image)
        with room.of(max(_pixels(path), _pixels(mask.path) if isinstance(mask, MaskFile) else 0)):
            try:
                height, width, _ = read_photo(path).shape
                depth = narrow_depth(path)
            except UnreadablePhoto as error:
                return image, str(error), None, [], None
            try:
                size, classes = (height, width), len(contents.classes)
                found = _ids_in(read_usable(mask, size, classes)) if mask else []
            except UnreadableMask as error:
                return image, None, str(error), [], depth
            return image, None, None, found, depth

    # Threads do: Pillow decodes without the interpreter's lock.
    shown = track("check", len(ids)) if track and ids else nullcontext(lambda done: None)
    with ThreadPoolExecutor(os.cpu_count()) as pool, shown as advance:
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            for image, of_photo, of_mask, found, depth in pool.map(inspect, chunk):
                if of_photo:
                    unreadable[image] = of_photo
                if of_mask:
                    bad_masks[image] = of_mask
                masked.update(found)
                if depth:
                    narrow.setdefault(depth, []).append(image)
            advance(len(chunk))
    notes = [
        f"{len(images)} photos in 16 bits have values of {depth} bits, from which they are scaled,"
        f" such as {images[0]}."
        for depth, images in sorted(narrow.items())
    ]
    if contents.masks and masked == {0}:
        notes.append(
            "The masks have the ids 0 and 255 (ignored) alone, so that there will be no figures:"
            " write classes as their ids; `weakseg evaluate --foreground 255` takes 255 for the"
            " only class."
        )
    return unreadable, bad_masks, notes


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


def mask_fault(mask: TrueMask, size: tuple[int, int], classes: int) -> str | None:
    """What is wrong with a mask of a photo of height and width `size`; None if nothing is."""
    try:
        read_usable(mask, size, classes)
    except UnreadableMask as error:
        return str(error)
    return None


def read_usable(mask: TrueMask, size: tuple[int, int], classes: int) -> NDArray[np.uint8]:
    """The mask, uint8 (H, W), of a photo of height and width `size`.

    Raises:
        UnreadableMask: if it is not of that size, or has other ids.
    """
    found = mask.read()
    if found.shape != size:
        raise UnreadableMask(f"{mask} has height and width {found.shape}, its photo {size}.")
    if strange := [number for number in _ids_in(found) if number > classes]:
        raise UnreadableMask(f"{mask} has the ids {strange}, where there are {classes} classes.")
    return found


def _ids_in(mask: NDArray[np.uint8]) -> list[int]:
    """The ids, but 255."""
    ids: list[int] = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[:IGNORE]).tolist()
    return ids


def _listing(title: str, items: Iterable[str], examples: int | None = EXAMPLES) -> Iterator[str]:
    found = list(items)
    if found:
        yield f"{title}: {len(found)}"
        yield from (f"  {_cut(item, _LONGEST_LINE)}" for item in found[:examples])
        if examples and len(found) > examples:
            yield f"  and {len(found) - examples} more"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
