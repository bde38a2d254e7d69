"""Masks: one class id per pixel, as PNG files in VOC's colours or as a data set has them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from weakseg.data.images import open_image
from weakseg.data.paths import Place
from weakseg.errors import WeaksegError
from weakseg.files import describe, stamp, write_atomically, write_text

BACKGROUND = "background"
"""The name of id 0."""

IGNORE = 255
MAX_CLASSES = MAX_OBJECTS = IGNORE - 1
CLASSES = "classes.txt"


class UnreadableMask(WeaksegError):  # noqa: N818
    """A mask is missing, broken or no mask; the message names file and reason."""


class TrueMask(Protocol):
    """A mask of a data set, read when it is asked for: small, picklable, and as text its place."""

    def read(self) -> npt.NDArray[np.uint8]:
        """uint8 (H, W), writable: 0 background, a class's or an object's number, 255 ignored.

        Raises:
            UnreadableMask: if there is none that can be used.
        """

    def stamp(self) -> list[int]:
        """Tells of a change without reading the mask; see `weakseg.files.stamp`."""


@contextmanager
def usable_mask(mask: TrueMask) -> Iterator[None]:
    """Have what fails in making a mask of what a tool wrote name the mask and the cause.

    Raises:
        UnreadableMask: for any exception in the block.
    """
    try:
        yield
    except UnreadableMask:
        raise
    except Exception as error:  # whatever JSON may hold in the place of what is expected
        raise UnreadableMask(f"{mask} can't be used: {describe(error)}.") from error


@dataclass(frozen=True, slots=True)
class MaskFile(Place):
    """A mask in a file of its own; see `read_mask`."""

    def read(self) -> npt.NDArray[np.uint8]:
        return read_mask(self.path)

    def stamp(self) -> list[int]:
        return stamp(self.path)


@dataclass(frozen=True, slots=True)
class OneClass:
    """A mask in which `foreground`, 255 as a rule, stands for the data set's only class."""

    mask: TrueMask
    foreground: int

    def __str__(self) -> str:
        return str(self.mask)

    def read(self) -> npt.NDArray[np.uint8]:
        mask = self.mask.read()
        if strange := np.setdiff1d(np.unique(mask), (0, self.foreground, IGNORE)).tolist():
            raise UnreadableMask(
                f"{self} has the ids {strange}, where 0 and {self.foreground} alone are expected."
            )
        mask[mask == self.foreground] = 1
        return mask

    def stamp(self) -> list[int]:
        return self.mask.stamp()


def _voc_palette() -> npt.NDArray[np.uint8]:
    """The id's bits, dealt out to red, green and blue from the highest bit of each down."""
    ids = np.arange(256, dtype=np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= (ids >> bit & 1) << (7 - bit // 3)
    palette.setflags(write=False)
    return palette


VOC_PALETTE = _voc_palette()
"""uint8 (256, 3), read-only: the RGB colour of every id."""

_GREY = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_FORMATS = ("PNG", "TIFF")
_LOSSY = frozenset({"jpeg", "tiff_jpeg"})  # names of a TIFF's compression in Pillow


def hex_colour(mask_id: int) -> str:
    """The colour of a mask's id, as HTML has it: `#800000` of 1."""
    return f"#{VOC_PALETTE[mask_id].tobytes().hex()}"


def agreement(masks: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """What masks, uint8 (H, W) each, agree on; 255 elsewhere. The first of them is written to."""
    first, *others = masks
    for other in others:
        first[first != other] = IGNORE
    return first


def resized_mask(mask: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """A mask at another size: each pixel that of the old one at its centre."""
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def write_mask(path: Path, mask: npt.NDArray[np.uint8]) -> None:
    """Write a mask as a PNG of mode P with `VOC_PALETTE`, atomically.

    Args:
        path: the file; missing folders are made.
        mask: uint8 (H, W); 0 background, index + 1 of a class or the number of an object,
            255 ignored.

    Raises:
        ValueError: if `mask` has another dtype or number of dimensions.
        WeaksegError: if the file can't be written.
    """
    image = mask_image(mask)
    with write_atomically(path) as temporary:
        image.save(temporary, "PNG")


def mask_image(mask: npt.NDArray[np.uint8]) -> Image.Image:
    """A mask, uint8 (H, W), as an image of mode P with `VOC_PALETTE`.

    Raises:
        ValueError: if `mask` has another dtype or number of dimensions.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"expected a uint8 (H, W) mask, not {mask.dtype} {mask.shape}")
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE.tobytes())
    return image


def write_classes(folder: Path, classes: Sequence[str]) -> None:
    """Write what the ids of a folder's masks mean: `classes.txt`, an id, a tab and a name a line.

    A data set's `classes.txt` has names alone, in which there is no tab, and may be such a file.
    """
    names = (BACKGROUND, *classes)
    lines = [*enumerate(names), (IGNORE, "ignored")]
    write_text(folder / CLASSES, "".join(f"{number}\t{name}\n" for number, name in lines))


def numbered_classes(lines: Sequence[str]) -> tuple[str, ...] | None:
    """The names of ids 1 to C in what `write_classes` wrote, or None if the lines are no such file.

    Raises:
        ValueError: if ids are missing, repeated or out of order.
    """
    rows = [line.partition("\t") for line in lines]
    if not rows or not all(tab for _, tab, _ in rows):
        return None
    names = [name.strip() for number, _, name in rows if number.strip() not in ("0", str(IGNORE))]
    ids = [number.strip() for number, _, _ in rows if number.strip() not in ("0", str(IGNORE))]
    if ids != [str(number) for number in range(1, len(ids) + 1)]:
        raise ValueError("its ids are not 1, 2, 3, ...")
    return tuple(names)


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a mask: PNG or TIFF, palette or 8-bit grey; or black and white, as 0 and 255.

    Returns:
        uint8 (H, W), writable: the ids, never the colours.

    Raises:
        UnreadableMask: if the file can't be decoded in full, its pixels are no ids, or they were
            numbered anew: the colours are VOC's, but those of other ids.
    """
    with open_image(path, _FORMATS, UnreadableMask) as image:
        if image.mode == "1":
            return np.array(image.convert("L"))
        return _ids(image)


def read_prediction(path: Path) -> npt.NDArray[np.uint8]:
    """Read a mask that someone predicted, in ids: as `read_mask`, of VOC's palette or grey alone.

    Raises:
        UnreadableMask: as `read_mask`, or if there are other colours: an editor that keeps the
            colours of a picture gives them numbers of its own.
    """
    with open_image(path, _FORMATS, UnreadableMask) as image:
        ids = _ids(image)
        if image.mode == "P" and not _in_order(image, ids):
            raise ValueError(
                "its palette is not VOC's, so that its numbers may be no ids; write the ids in "
                "VOC's palette or as 8-bit grey"
            )
        return ids


def _ids(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode not in {"P", "L"}:
        raise ValueError(
            f"it has mode {image.mode}, where a mask has one class id per pixel (P or L)"
        )
    if image.info.get("compression") in _LOSSY:
        raise ValueError("it is compressed as JPEG, which changes ids")
    ids = np.array(image)
    if image.mode == "P" and not _in_order(image, ids) and _are_all_of_voc(image):
        raise ValueError(
            "its colours are VOC's, but not those of its ids: a program that saved it numbered "
            "them anew"
        )
    return ids


def _in_order(image: Image.Image, ids: npt.NDArray[np.uint8]) -> bool:
    """Whether every id has its colour in VOC's palette, or all are greys of their own value."""
    palette = _palette(image)
    if np.array_equal(palette, VOC_PALETTE):
        return True
    used = np.flatnonzero(np.bincount(ids.ravel(), minlength=256))
    if used.max(initial=0) >= len(palette):
        return False
    return any(np.array_equal(palette[used], own[used]) for own in (VOC_PALETTE, _GREY))


def _are_all_of_voc(image: Image.Image) -> bool:
    colours = {tuple(colour) for colour in _palette(image).tolist()}
    return colours <= {tuple(colour) for colour in VOC_PALETTE.tolist()}


def _palette(image: Image.Image) -> npt.NDArray[np.uint8]:
    return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
