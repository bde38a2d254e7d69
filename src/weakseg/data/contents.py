"""What a data folder holds, with its faults, before anyone decides what to do about them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from weakseg.data.formats import find_format
from weakseg.data.formats.base import Format, Photos, TagRow, is_printable
from weakseg.data.masks import MAX_CLASSES, TrueMask
from weakseg.errors import WeaksegError, unknown_name

ALL = "all"


@dataclass(frozen=True)
class Contents:
    """One split of a data folder.

    Attributes:
        format: how the folder is laid out.
        photos: all photos of the folder, in the split or not.
        ids: the split's ids in its order, or every id that a photo or a tag row has, sorted.
        rows: id -> what the tags say, for the ids that have any row.
        classes: class names without background.
        declared: whether the folder lists its classes, rather than its tags being them.
        masks: id -> mask.
        objects: id -> mask of objects.
        faults: what keeps the data from being loaded, one line each.
        notes: what was passed over, one line each.
    """

    format: Format
    photos: Photos
    ids: tuple[str, ...]
    rows: Mapping[str, Sequence[TagRow]]
    classes: tuple[str, ...]
    declared: bool
    masks: Mapping[str, TrueMask]
    objects: Mapping[str, TrueMask]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    def tags(self, image: str) -> tuple[str, ...] | None:
        """Union of what all rows say about an image, without repeats; None if it has no row.

        A union, because several rows for one image come from lists with a tag a row, or from
        several people's lists joined: each row states what somebody saw.
        """
        if image not in self.rows:
            return None
        return tuple(dict.fromkeys(tag for row in self.rows[image] for tag in row.tags))


def read_contents(root: Path, split: str, format: str) -> Contents:
    """Read lists and tags of one split; no photo is opened.

    Raises:
        WeaksegError: if the folder, its format or the split is missing, or a list is unreadable.
    """
    layout = find_format(root, format)
    photos = layout.photos(root)
    ids, split_faults = _split(layout, root, split, photos)
    table = layout.tags(root, ids)
    rows: dict[str, list[TagRow]] = {}
    for row in table.rows:
        rows.setdefault(photos.id_of(row.image), []).append(row)

    masks = layout.masks(root, photos)
    declared = layout.classes(root)
    classes = declared or tuple(sorted({tag for row in table.rows for tag in row.tags}))
    return Contents(
        format=layout,
        photos=photos,
        ids=tuple(sorted({*ids, *rows})) if split == ALL else ids,
        rows=rows,
        classes=classes,
        declared=declared is not None,
        masks=masks.of,
        objects=layout.objects(root, photos),
        faults=(
            *photos.faults,
            *split_faults,
            *table.faults,
            *_class_faults(classes),
            *_unknown_tags(table.rows, classes),
        ),
        notes=(*table.notes, *masks.notes),
    )


def _split(
    layout: Format, root: Path, split: str, photos: Photos
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ids and faults of a split."""
    if split == ALL:
        return tuple(photos.paths), ()
    files = layout.splits(root)
    if not files:
        raise WeaksegError(
            f"{root} has no lists of splits, so there is no split {split!r}. Take all photos: "
            f"data.split={ALL} in a recipe, --split {ALL} elsewhere."
        )
    if split not in files:
        raise unknown_name("split", split, [*files, ALL])
    listed = layout.read_split(files[split])
    return tuple(dict.fromkeys(map(photos.id_of, listed.names))), listed.faults


def _class_faults(classes: Sequence[str]) -> Iterable[str]:
    for name, count in Counter(classes).items():
        if count > 1:
            yield f"The class {name!r} is listed {count} times; list it once."
        if name.casefold() == "background":
            yield f"{name!r} is among the classes, but is never a tag: it has id 0; remove it."
        if not is_printable(name):
            yield f"The class {name!r} has control characters; remove them."
    if len(classes) > MAX_CLASSES:
        yield (
            f"There are {len(classes)} classes, where a mask has room for {MAX_CLASSES};"
            " list those that matter in classes.txt and drop the other tags."
        )


def _unknown_tags(rows: Sequence[TagRow], classes: Sequence[str]) -> Iterable[str]:
    """One fault for each tag outside the classes, with the first row that has it."""
    known = set(classes)
    first: dict[str, TagRow] = {}
    more: Counter[str] = Counter()
    for row in rows:
        for tag in row.tags:
            if tag not in known and first.setdefault(tag, row) is not row:
                more[tag] += 1
    for tag, row in first.items():
        others = f" and {more[tag]} more rows" if more[tag] else ""
        yield (
            f"{row.where} (image {row.image!r}){others}: {unknown_name('tag', tag, classes)}"
            " Correct the row, or add the tag to classes.txt."
        )
