"""What a format has to tell about a folder, and what formats share."""

import codecs
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from weakseg.data.images import PHOTO_SUFFIXES
from weakseg.data.masks import MaskFile, TrueMask, numbered_classes
from weakseg.data.names import base_name
from weakseg.data.paths import Place
from weakseg.errors import WeaksegError, quoted

ANY_DEPTH = 100
_OF_THE_SYSTEM = "._@#$~"  # .git, __MACOSX, Synology's @eaDir, #recycle, $RECYCLE.BIN, ~trash

_MASK_SUFFIXES = (".png", ".tif", ".tiff")  # the first goes before the others
_NAMED_MASK = re.compile("(.+)[_-](?:mask|masks|label|labels|seg|gt)", re.IGNORECASE)


class Files(Mapping[str, Path]):
    """Files by id, as places: a million paths would take half a gigabyte."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = places

    def __getitem__(self, image: str) -> Path:
        return self.places[image].path

    def __contains__(self, image: object) -> bool:
        return image in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __eq__(self, other: object) -> bool:
        return dict(self) == other

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a folder.

    Attributes:
        paths: id -> file, sorted by id; an id is the file's name without its suffix, as NFC, unless
            the format says otherwise.
        ignored: suffix -> number of files that were passed over because of it.
        faults: names that can't be used, one line each.
        notes: where they were found, where that is not plain, one line each.
    """

    paths: Mapping[str, Path]
    ignored: Mapping[str, int]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TagRow:
    """One statement about one image: all its tags, or none of the classes.

    Attributes:
        image: the image's name as the list has it, with or without suffix.
        tags: names as the list has them.
        where: file and line, for messages.
    """

    image: str
    tags: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class TagTable:
    """What is known about the images.

    Attributes:
        rows: what the list states; of a long one they are made anew each time.
        faults: lines that can't be used, one line each.
        notes: how the list was understood, where that is not plain, and what was passed over.
        doubts: words that may be one tag rather than several -> a fault, which it is unless all
            of them are declared classes.
    """

    rows: Collection[TagRow]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()
    doubts: Mapping[tuple[str, ...], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Split:
    """The images of a split, in its own order, the lines that can't be used, and what to say."""

    names: tuple[str, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Masks:
    """Id -> true mask, and a line for each kind of file or entry that was passed over."""

    of: Mapping[str, TrueMask]
    notes: tuple[str, ...] = ()


class Format(ABC):
    """One way to lay out photos, tags and masks in a folder.

    Unless a format says otherwise, the folder may hold `classes.txt` (a name a line),
    `masks/ID.png` and `splits/NAME.txt` (an image a line).

    Attributes:
        name: the name in `FORMATS`.
        summary: what the folder holds, on one line.
    """

    name: str
    summary: str

    @abstractmethod
    def matches(self, root: Path) -> bool:
        """Whether `root` looks like this format."""

    def doubt(self, root: Path) -> str | None:
        """Why `root`, which looks like this format, may well be another, or None.

        Where there is a doubt the format is taken only if it is asked for by its name.
        """
        return None

    @abstractmethod
    def photos(self, root: Path) -> Photos:
        """All photos, tagged or not."""

    @abstractmethod
    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        """The tags of at least the images in `ids`."""

    def classes(self, root: Path) -> tuple[str, ...] | None:
        """The classes that the folder declares, or None if its tags are its classes."""
        return read_classes(root / "classes.txt")

    def masks(self, root: Path, photos: Photos) -> Masks:
        """The masks of the photos that have one."""
        return list_masks(root / "masks", photos)

    def objects(self, root: Path, photos: Photos) -> Mapping[str, TrueMask]:
        """Id -> mask of objects, each with a number of its own, for the photos that have one."""
        return {}

    def splits(self, root: Path) -> Mapping[str, Path]:
        """Name -> the file that lists the split."""
        return list_by_stem(root / "splits", ".txt")

    def read_split(self, path: Path) -> Split:
        """Read one of the files of `splits`: an image a line."""
        names: dict[str, None] = {}
        faults = []
        for number, line in read_lines(path):
            name = self.image_name(line)
            if fault := name_fault(base_name(name)):
                faults.append(f"{path.name} line {number} {fault}.")
            else:
                names[name] = None
        return Split(tuple(names), tuple(faults))

    def image_name(self, line: str) -> str:
        """The image that a line of a split's file names: a photo, or a photo and its mask."""
        photo, _, mask = line.rpartition(" ")
        paired = photo and Path(base_name(photo)).stem == Path(base_name(mask)).stem
        return photo.rstrip() if paired else line


def normal(text: str) -> str:
    """Text as NFC, so that names agree between file systems and spreadsheets."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_printable(text: str) -> bool:
    """Whether `text` is free of control characters and of bytes that are no UTF-8."""
    if text.isascii():
        return text.isprintable()
    return all(unicodedata.category(character) not in {"Cc", "Cs"} for character in text)


def name_fault(name: str) -> str | None:
    """Why `name` can't name an image of the data folder, or None."""
    if not name:
        return "names no image"
    if "/" in name or "\\" in name or name in {".", ".."}:
        return f"names {quoted(name)}, which is a path; write the bare name of a photo"
    if not is_printable(name):
        return (
            f"names {quoted(name)}, which has control characters or is no UTF-8; rename the photo"
        )
    return None


def alike(root: Path, names: Sequence[str]) -> list[Path]:
    """What a folder holds under one of `names`, in whatever case.

    In the order of `names`; of one name, what is written just so comes first.
    """
    order = {name.casefold(): (place, name) for place, name in enumerate(names)}

    def rank(found: str) -> tuple[int, bool, str]:
        place, name = order[found.casefold()]
        return place, found != name, found

    with os.scandir(root) as entries:
        found = [entry.name for entry in entries if entry.name.casefold() in order]
    return [root / name for name in sorted(found, key=rank)]


def find_folder(root: Path, *names: str) -> Path | None:
    """The folder of `root` that has one of `names`, as `alike` has it."""
    return next((path for path in alike(root, names) if path.is_dir()), None)


def list_photos(root: Path, folders: Iterable[str] = (".",), depth: int = 0) -> Photos:
    """The photos in `folders` of `root`, and in what lies up to `depth` folders below them.

    Hidden files and folders of the system are passed over.

    Raises:
        WeaksegError: if one of the folders is missing or can't be listed.
    """
    files = (place for folder in folders for place in _files(root / folder, depth))
    return _photos(root, files, joined=False)[0]


def find_photos(root: Path, without: Collection[str] = ()) -> Photos:
    """The photos in `root` and, however deep, in its folders, but those `without`.

    Where photos in several folders have one name, their ids begin with their folders' names.

    Raises:
        WeaksegError: if the folder is missing or can't be listed.
    """
    passed_over: list[Path] = []
    photos, places = _photos(root, _files(root, ANY_DEPTH, passed_over, without), joined=True)
    notes = []
    here = os.path.join(root, "")  # noqa: PTH118
    if deeper := [image for image, place in places.items() if place.folder != here]:
        inner = quoted(str(photos.paths[deeper[0]].parent.relative_to(root)))
        notes.append(f"photos in folders below {root.name}/: {len(deeper)}, such as in {inner}")
    if joined := [image for image, place in places.items() if image != normal(place.stem)]:
        notes.append(
            "photos of one name in several folders, which are called after both:"
            f" {len(joined)}, such as {quoted(joined[0])}"
        )
    if passed_over:
        first = quoted(str(passed_over[0].relative_to(root)))
        notes.append(f"folders of a system or a tool: {len(passed_over)}, such as {first}")
    return Photos(photos.paths, photos.ignored, photos.faults, tuple(notes))


def photos_of(root: Path, files: Iterable[Path]) -> Photos:
    """The photos among files that are anywhere below a folder."""
    return _photos(root, map(Place.of, files), joined=False)[0]


def _photos(root: Path, files: Iterable[Place], joined: bool) -> tuple[Photos, Mapping[str, Place]]:
    """The photos among files, and their places by id."""
    usable: list[Place] = []
    ignored: Counter[str] = Counter()
    faults = []
    for place in files:
        if place.suffix.lower() not in PHOTO_SUFFIXES:
            ignored[place.suffix.lower()] += 1
        elif fault := name_fault(place.name):
            faults.append(f"A file in {quoted(place.path.parent.name)} {fault}.")
        else:
            usable.append(place)
    folders = defaultdict(set)
    if joined:
        stems = Counter(normal(place.stem) for place in usable)
        several = {stem for stem, count in stems.items() if count > 1}
        del stems  # of a million photos a tenth of a gigabyte
        for place in usable if several else ():
            if (stem := normal(place.stem)) in several:
                folders[stem].add(place.folder)
    paths: dict[str, Place] = {}
    for place in usable:
        image = normal(place.stem)
        if len(folders.get(image, ())) > 1:
            within = place.path.relative_to(root)
            image = normal("_".join((*within.parent.parts, within.stem)))
        if fault := name_fault(image):
            faults.append(f"A folder in {root.name}/ {fault}.")
            continue
        other = paths.setdefault(image, place)
        if other != place:
            both = (str(one.path.relative_to(root)) for one in (other, place))
            faults.append(
                f"{root.name}/ holds both {' and '.join(map(repr, both))}, where an id belongs"
                " to one photo; rename or remove one of them."
            )
    ordered = {image: paths[image] for image in sorted(paths)}
    photos = Photos(Files(ordered), dict(sorted(ignored.items())), tuple(faults))
    return photos, ordered


def list_by_stem(folder: Path, suffix: str, depth: int = 0) -> dict[str, Path]:
    """Id -> file with `suffix`, up to `depth` folders below `folder`; empty without the folder."""
    if not folder.is_dir():
        return {}
    files = (place for place in _files(folder, depth) if is_printable(place.name))
    return {normal(one.stem): one.path for one in files if one.suffix.lower() == suffix}


def list_masks(folder: Path, photos: Photos) -> Masks:
    """The masks in a folder: PNG or TIFF files with their photo's id, or that and `_mask`.

    Files that seem to be masks and can't be read as such are in the notes, and those of no photo.
    """
    if not folder.is_dir():
        return Masks({})
    ids = {image: image for image in photos.paths}  # of a million photos there once
    found: dict[str, MaskFile] = {}
    passed_over: Counter[str] = Counter()
    strays = []

    def rank(image: str, file: MaskFile) -> tuple[bool, int, str]:
        place = _MASK_SUFFIXES.index(file.suffix.lower())
        return image != normal(file.stem), place, os.fspath(file)

    for place in _files(folder, 0):
        suffix = place.suffix.lower()
        stem = normal(place.stem)
        named = _NAMED_MASK.fullmatch(stem)
        image = named[1] if named and stem not in ids else stem
        if suffix not in _MASK_SUFFIXES:
            passed_over[suffix] += image in ids
        elif image not in ids:
            strays.append(place.name)
        else:
            image = ids[image]
            file = MaskFile(place.folder, ids.get(place.stem, place.stem), place.suffix)
            other = found.setdefault(image, file)
            if other is not file and rank(image, file) < rank(image, other):
                found[image] = file
    notes = [
        f"{folder.name}/ has {count} files {suffix} that are not read: masks are PNG or TIFF, as"
        " JPEG changes ids."
        for suffix, count in sorted(passed_over.items())
        if count
    ]
    if strays:
        notes.append(f"{folder.name}/ has {len(strays)} masks of no photo, such as {strays[0]!r}.")
    return Masks(found, tuple(notes))


def is_photo(path: Path) -> bool:
    """Whether the file's suffix is a photo's."""
    return _suffix(path.name) in PHOTO_SUFFIXES


def is_of_the_system(folder: str) -> bool:
    """Whether a folder of this name is a system's or a tool's own, and holds nobody's photos."""
    return folder[0] in _OF_THE_SYSTEM


def read_text(path: Path) -> str:
    """Text of a UTF-8 file, or one of UTF-16 with a byte order mark; line ends are kept.

    Raises:
        WeaksegError: if the file is missing, can't be read or is no such text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeaksegError(f"Can't read {path}: {error.strerror or error}.") from error
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise WeaksegError(f"{path} is a workbook and no text. Open it and save it as CSV UTF-8.")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WeaksegError(
            f"{path} is not UTF-8 (line {line}). Save it as UTF-8 text; Excel calls that"
            " 'CSV UTF-8'."
        ) from None


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Number and text of the lines that aren't blank, stripped, as NFC."""
    lines = enumerate(read_text(path).splitlines(), start=1)
    return [(number, normal(line.strip())) for number, line in lines if line.strip()]


def read_classes(path: Path) -> tuple[str, ...] | None:
    """Read class names, one a line or as `write_classes` wrote them; None if there are none.

    Raises:
        WeaksegError: if the file can't be read.
    """
    if not path.is_file():
        return None
    lines = [line for _, line in read_lines(path)]
    try:
        numbered = numbered_classes(lines)
    except ValueError as error:
        raise WeaksegError(f"{path} can't be read: {error} Write the names alone.") from None
    return (tuple(lines) if numbered is None else numbered) or None


def check_classes(path: Path, classes: Sequence[str]) -> None:
    """Compare what ids mean beside masks or maps, if that is written there, with the data set.

    Raises:
        WeaksegError: they mean other classes.
    """
    named = read_classes(path)
    if named is None or named == tuple(classes):
        return
    pairs = enumerate(zip_longest(named, classes, fillvalue="nothing"), start=1)
    number, (theirs, ours) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    raise WeaksegError(
        f"{path} calls id {number} {quoted(theirs)}, the data set {quoted(ours)}. Both need "
        "the same classes in the same order; classes.txt in the data set's folder sets it."
    )


def _files(
    folder: Path,
    depth: int,
    passed_over: list[Path] | None = None,
    without: Collection[str] = (),
    seen: set[Path] | None = None,
) -> Iterator[Place]:
    """Regular files by name; a pipe or a device would block whoever opens it.

    A folder that links lead to once more is not entered again. Folders of the system that aren't
    hidden are added to `passed_over`.
    """
    seen = set() if seen is None else seen
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    remaining: list[str] = []
    folders: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] != "." and entry.is_dir():
                    folders.add(entry.name)
                elif entry.name[0] != "." and entry.is_file():
                    remaining.append(entry.name)
    except OSError as error:
        raise WeaksegError(f"Can't list {folder}: {error.strerror or error}.") from error
    within = os.path.join(folder, "")  # noqa: PTH118
    remaining += folders
    remaining.sort(reverse=True)
    while remaining:  # a name goes as its place comes
        name = remaining.pop()
        if name not in folders:
            yield Place.within(within, name)
        elif depth and name not in without:
            if not is_of_the_system(name):
                yield from _files(folder / name, depth - 1, passed_over, (), seen)
            elif passed_over is not None:
                passed_over.append(folder / name)


def _suffix(name: str) -> str:
    """As `Path.suffix`, in lower case."""
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""
