"""What a data folder holds, with its faults, before anyone decides what to do about them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from weakseg.data.formats import find_format
from weakseg.data.formats.base import Format, Photos, Split, TagRow, is_printable
from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.data.masks import MAX_CLASSES, TrueMask
from weakseg.data.names import match_names
from weakseg.data.spelling import fold
from weakseg.errors import LONGEST_NAME, WeaksegError, listed, quoted, unknown_name

ALL = "all"
_UNKNOWN_TAGS = 100  # that are named; the nearest class of each takes a while


@dataclass(frozen=True)
class Contents:
    """One split of a data folder.

    Attributes:
        format: how the folder is laid out.
        photos: all photos of the folder, in the split or not.
        ids: the split's ids in its order, or every id that a photo or a tag row has, sorted.
        rows: id -> the tags of each of its rows, for the ids that have any.
        classes: class names without background.
        declared: whether the folder lists its classes, rather than its tags being them.
        masks: id -> mask.
        objects: id -> mask of objects.
        faults: what keeps the data from being loaded, one line each.
        notes: how the folder was understood, where that is not plain, and what was passed over.
    """

    format: Format
    photos: Photos
    ids: tuple[str, ...]
    rows: Mapping[str, Sequence[tuple[str, ...]]]
    classes: tuple[str, ...]
    declared: bool
    masks: Mapping[str, TrueMask]
    objects: Mapping[str, TrueMask]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def tags(self, image: str) -> tuple[str, ...] | None:
        """Union of what all rows say about an image, without repeats; None if it has no row.

        A union, because several rows for one image come from lists with a tag a row, or from
        several people's lists joined: each row states what somebody saw.
        """
        if image not in self.rows:
            return None
        first, *others = self.rows[image]
        if not others and len({*first}) == len(first):
            return first
        return tuple(dict.fromkeys(tag for tags in self.rows[image] for tag in tags))

    def untrainable(self) -> str | None:
        """Why nothing can be learned from the tags of the split's photos; None if something can."""
        photos = self.photos.paths
        tagged = [image for image in self.ids if image in photos and image in self.rows]
        if any(self.tags(image) for image in tagged):
            return None
        if tagged:
            return f"none of the {len(tagged)} photos that are tagged has a tag. Tag some."
        if not photos:
            others = [
                f"{n} with suffix {quoted(suffix)}" for suffix, n in self.photos.ignored.items()
            ]
            return (
                f"there are no photos ({', '.join(sorted(PHOTO_SUFFIXES))}) and {len(others)} kinds"
                f" of other files. Add photos, or convert what is there: {listed(others, 20)}."
                if others
                else "there are no photos. Add some."
            )
        if unknown := [image for image in self.rows if image not in photos]:
            return (
                f"the tags are of {len(unknown)} images such as {quoted(unknown[0])}, the photos"
                f" are {len(photos)} such as {quoted(next(iter(photos)))}. Name the photos in the"
                " tags as the files are named."
            )
        return f"none of its {len(self.ids)} images is a photo that is tagged. Tag some."


def read_contents(root: Path, split: str, format: str) -> Contents:
    """Read lists and tags of one split; no photo is opened.

    Raises:
        WeaksegError: if the folder, its format or the split is missing, or a list is unreadable.
    """
    layout = find_format(root, format)
    photos = layout.photos(root)
    ids, lists = _split(layout, root, split, photos)
    table = layout.tags(root, ids)
    named = match_names((row.image for row in table.rows), photos.paths)
    declared = layout.classes(root) or ()
    spellings, folded = fold(Counter(t for row in table.rows for t in row.tags), declared)
    rows = _by_image(table.rows, named.ids, spellings)
    classes = declared or tuple(sorted(set(spellings.values())))
    unknown = tuple(_unknown_tags(table.rows, spellings, classes))
    doubts = tuple(
        fault
        for words, fault in table.doubts.items()
        if not {spellings[word] for word in words} <= {*declared}
    )
    faults = (
        *photos.faults,
        *lists.faults,
        *table.faults,
        *doubts,
        *class_faults(classes),
        *unknown,
    )
    notes = (*photos.notes, *lists.notes, *table.notes, *named.notes, *folded)
    del table, named  # of a million rows a third of a gigabyte
    masks = layout.masks(root, photos)
    if split == ALL:
        ids = tuple(sorted((*ids, *(image for image in rows if image not in photos.paths))))
    return Contents(
        format=layout,
        photos=photos,
        ids=ids,
        rows=rows,
        classes=classes,
        declared=bool(declared),
        masks=masks.of,
        objects=layout.objects(root, photos),
        faults=faults,
        notes=(*notes, *masks.notes),
    )


def _by_image(
    rows: Iterable[TagRow], ids: Mapping[str, str], spellings: Mapping[str, str]
) -> Mapping[str, Sequence[tuple[str, ...]]]:
    """Id -> the tags of each row; of a million rows few differ, and are there once."""
    found: dict[str, list[tuple[str, ...]]] = {}
    alone: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    several = set()
    for row in rows:
        if row.tags not in alone:
            alone[row.tags] = [tuple(spellings[tag] for tag in row.tags)]
        one, image = alone[row.tags], ids[row.image]
        if image not in found:
            found[image] = one
        elif image in several:
            found[image] += one
        else:
            found[image] = [*found[image], *one]
            several.add(image)
    return found


def read_split(layout: Format, path: Path, photos: Photos) -> Split:
    """One of a format's lists, with the photos' ids for names, each once."""
    split = layout.read_split(path)
    named = match_names(split.names, photos.paths)
    ids = tuple(dict.fromkeys(named.ids[name] for name in split.names))
    return Split(ids, split.faults, (*split.notes, *(f"{path.name}: {n}" for n in named.notes)))


def _split(layout: Format, root: Path, split: str, photos: Photos) -> tuple[tuple[str, ...], Split]:
    """Ids of a split, and its list."""
    if split == ALL:
        return tuple(photos.paths), Split((), ())
    files = layout.splits(root)
    if not files:
        raise WeaksegError(
            f"{root} has no lists of splits, so there is no split {split!r}. Take all photos: "
            f"data.split={ALL} in a recipe, --split {ALL} elsewhere."
        )
    if split not in files:
        raise unknown_name("split", split, [*files, ALL])
    found = read_split(layout, files[split], photos)
    return found.names, found


def class_faults(classes: Sequence[str]) -> Iterable[str]:
    """What keeps names from being the classes of a data set, a line each."""
    for name, count in Counter(classes).items():
        if count > 1:
            yield f"The class {quoted(name)} is listed {count} times; list it once."
        if name.casefold() == "background":
            yield f"{quoted(name)} is among the classes, but is no tag: it has id 0; remove it."
        if not is_printable(name):
            yield f"The class {quoted(name)} has control characters; remove them."
        if len(name) > LONGEST_NAME:
            yield (
                f"The class {quoted(name)} has {len(name):,} characters; a class is a word or a"
                f" few, of {LONGEST_NAME} characters at most."
            )
    if len(classes) > MAX_CLASSES:
        yield (
            f"There are {len(classes)} classes, where a mask has room for {MAX_CLASSES};"
            " list those that matter in classes.txt and drop the other tags."
        )


def _unknown_tags(
    rows: Iterable[TagRow], spellings: Mapping[str, str], classes: Sequence[str]
) -> Iterable[str]:
    """One fault for each tag outside the classes, with the first row that has it."""
    if len(classes) > MAX_CLASSES:
        return  # that is a fault already, and the nearest of any number takes any time
    known = set(classes)
    first: dict[str, TagRow] = {}
    more: Counter[str] = Counter()
    for row in rows:
        for tag in map(spellings.__getitem__, row.tags):
            if tag not in known and first.setdefault(tag, row) is not row:
                more[tag] += 1
    for tag, row in islice(first.items(), _UNKNOWN_TAGS):
        others = f" and {more[tag]} more rows" if more[tag] else ""
        yield (
            f"{row.where} (image {quoted(row.image)}){others}: {unknown_name('tag', tag, classes)}"
            " Correct the row, or add the tag to classes.txt."
        )
    if len(first) > _UNKNOWN_TAGS:
        yield f"{len(first) - _UNKNOWN_TAGS} more tags are no classes."
