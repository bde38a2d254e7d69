"""Copies of photos that any reader sees as weakseg did when it made their masks."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from weakseg.data.images import encode_image, plain_format, read_photo
from weakseg.files import read_bytes

_QUALITY = 95
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})


class Picture(NamedTuple):
    """A file's content, and its suffix: `.jpg` or `.png`."""

    suffix: str
    content: bytes


def picture_of(photo: Path, jpeg: bool = False) -> Picture:
    """A photo's own bytes, where they are a JPEG or PNG that every reader sees upright as 8-bit.

    Others (turned by EXIF, CMYK, of 16 bits, transparent, of other formats) are written anew from
    what `weakseg.data.images.read_photo` gives: what was a JPEG as JPEG of quality 95, else as PNG.

    Args:
        jpeg: whether a PNG won't do.

    Raises:
        UnreadablePhoto: it can't be read.
    """
    plain = plain_format(photo)
    if plain and (plain == "JPEG" or not jpeg):
        return Picture(_SUFFIXES[plain], read_bytes(photo))
    image = Image.fromarray(read_photo(photo))
    if jpeg or photo.suffix.lower() in _JPEG_SUFFIXES:
        return Picture(".jpg", encode_image(image, "JPEG", quality=_QUALITY, subsampling=0))
    return Picture(".png", png(image))


def copy_photo(photo: Path, folder: Path, name: str, jpeg: bool = False) -> str:
    """Write `picture_of` a photo into a folder, under a name without suffix; give that with it."""
    suffix, content = picture_of(photo, jpeg)
    put(folder / f"{name}{suffix}", content)
    return f"{name}{suffix}"


def put(path: Path, content: bytes) -> None:
    """Write a file of an export, which has its name once the whole export is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png(image: Image.Image) -> bytes:
    """An image as the content of a PNG file."""
    return encode_image(image, "PNG")
