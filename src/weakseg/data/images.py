"""Photos as arrays, whatever a camera, a scanner or the web made of them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from weakseg.errors import WeaksegError, shortened
from weakseg.files import is_endless, stamp
from weakseg.shards import source

PHOTO_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 2**28 // 3  # 256 MiB as RGB; Pillow warns from the same size on

_PHOTO_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PLAIN_FORMATS = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG"}  # MPO: a JPEG with more behind it
_DEPTHS = (8, 10, 12, 14, 16)
_HIGHEST = (281, 341)  # TIFF's MaxSampleValue and SMaxSampleValue
_SIDEWAYS = frozenset({5, 6, 7, 8})


class UnreadablePhoto(WeaksegError):  # noqa: N818
    """A photo is missing, broken, too large or no photo; the message names file and reason."""


def read_photo(path: Path) -> npt.NDArray[np.uint8]:
    """Read the first frame of a photo, upright, as 8-bit RGB.

    Transparent pixels are shown on white, as a browser's page shows them: what lies beneath is
    arbitrary, and the person who wrote the tags never saw it. Values in 16 bits are scaled from the
    depth that the file says, or else from the least of 8, 10, 12, 14 and 16 bits that holds them: a
    camera of 12 bits leaves the upper four empty.

    Returns:
        uint8 (H, W, 3), writable.

    Raises:
        UnreadablePhoto: if the file can't be decoded in full, or exceeds `MAX_PIXELS`.
    """
    with open_image(path, _PHOTO_FORMATS, UnreadablePhoto) as image:
        return _upright(image)


def read_small_photo(path: Path, long_side: int) -> npt.NDArray[np.uint8]:
    """A photo as `read_photo` gives it, shrunk; of a JPEG no more is decoded than that needs.

    Raises:
        UnreadablePhoto: as `read_photo`.
    """
    with open_image(path, _PHOTO_FORMATS, UnreadablePhoto) as image:
        image.draft("RGB", (long_side, long_side))
        return shrink(_upright(image), long_side)


def photo_size(path: Path) -> tuple[int, int]:
    """Height and width of the array that `read_photo` gives; reads the header only.

    Raises:
        UnreadablePhoto: if the header can't be read, or announces more than `MAX_PIXELS`.
    """
    with open_image(path, _PHOTO_FORMATS, UnreadablePhoto) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in _SIDEWAYS else (height, width)


def plain_format(path: Path) -> str | None:
    """The format of a photo that any reader sees as `read_photo` does: "JPEG" or "PNG"; else None.

    That is 8-bit RGB or grey, neither turned nor transparent. Reads the header only.

    Raises:
        UnreadablePhoto: if the header can't be read, or announces more than `MAX_PIXELS`.
    """
    with open_image(path, _PHOTO_FORMATS, UnreadablePhoto) as image:
        plain = (
            image.mode in ("L", "RGB")
            and _orientation(image) == 1
            and not image.has_transparency_data
        )
        return _PLAIN_FORMATS.get(image.format or "") if plain else None


def narrow_depth(path: Path) -> int | None:
    """The depth from which `read_photo` scales a photo in 16 bits, if it is less than that.

    Raises:
        UnreadablePhoto: as `read_photo`.
    """
    with open_image(path, _PHOTO_FORMATS, UnreadablePhoto) as image:
        if not (image.mode.startswith("I") or _is_colour_in_16_bits(image)):
            return None
        depth = _depth(image)
        return depth if depth < _DEPTHS[-1] else None


def resize(photo: npt.NDArray[np.uint8], long_side: int) -> npt.NDArray[np.uint8]:
    """Bring a photo, uint8 (H, W, 3), to a longer side of `long_side` pixels, antialiased."""
    height, width = _resized(photo.shape[0], photo.shape[1], long_side)
    return np.array(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))


def encode_image(image: Image.Image, form: str, **options: Any) -> bytes:
    """An image as the content of a file.

    Args:
        form: "PNG", "JPEG" or "WEBP".
        options: those that Pillow has for it.
    """
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def shrink(photo: npt.NDArray[np.uint8], long_side: int) -> npt.NDArray[np.uint8]:
    """The photo itself, or, where its longer side exceeds `long_side`, resized to that."""
    return photo if max(photo.shape[:2]) <= long_side else resize(photo, long_side)


def shrunk_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Height and width of what `shrink` makes of a photo of this size."""
    fits = max(height, width) <= long_side
    return (height, width) if fits else _resized(height, width, long_side)


def _resized(height: int, width: int, long_side: int) -> tuple[int, int]:
    factor = long_side / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


@contextmanager
def open_image(
    path: Path, formats: tuple[str, ...], failure: type[WeaksegError]
) -> Iterator[Image.Image]:
    """Open an untrusted image file of one of Pillow's `formats`, of at most `MAX_PIXELS`.

    Raises:
        WeaksegError: of type `failure`, for whatever fails in opening the file and in the block.
    """
    try:
        if is_endless(path):
            raise ValueError("it is no regular file")
        with Image.open(source(path), formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except Exception as error:  # broken files make Pillow's decoders raise nearly any type
        reason = _reason(path, formats, error)
        raise failure(f"{path} can't be read: {reason}. Replace the file or remove it.") from error


def _reason(path: Path, formats: tuple[str, ...], error: Exception) -> str:
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"it has more than {MAX_PIXELS:,} pixels"
        case UnidentifiedImageError() if stamp(path)[0] == 0:
            return "it is empty"
        case UnidentifiedImageError():
            return f"it is no image of the kinds {', '.join(formats)}"
        case OSError(strerror=str(reason)):
            return reason.lower()
        case _:
            return shortened(str(error), 200) or type(error).__name__


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, that is still to be undone."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    try:
        # Not `image.getexif()`: PNG's decodes all pixels, to find what may stand behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # pixels under broken EXIF are still a photo
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image) -> npt.NDArray[np.uint8]:
    turn = _TO_UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image)
    return np.array(rgb if turn is None else rgb.transpose(turn))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, where 8 or 16 bits are expected")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its pixels have 32 bits, where 8 or 16 are expected")
        return Image.fromarray(_to_8_bits(_depth(image))[grey]).convert("RGB")
    if _is_colour_in_16_bits(image) and (depth := _depth(image)) < _DEPTHS[-1]:
        middles = slice(1 << 7, None, 1 << 8)  # of what has the same upper 8 bits
        return Image.fromarray(_to_8_bits(depth)[middles][np.asarray(image)])
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _is_colour_in_16_bits(image: Image.Image) -> bool:
    """Whether Pillow gives the upper 8 bits alone of each value."""
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample)
    return image.mode == "RGB" and bits == (16, 16, 16)


def _depth(image: Image.Image) -> int:
    """The bits that values in 16 bits have by what the file says of them, else by the highest."""
    highest = int(np.asarray(image).max())
    if image.mode == "RGB":
        highest = highest << 8 | 255
    tags = getattr(image, "tag_v2", {})
    said = [int(most) for tag in _HIGHEST for most in tags.get(tag, ())[:1]]
    most = max([highest, *said])
    return next((depth for depth in _DEPTHS if most < 1 << depth), _DEPTHS[-1])


def _to_8_bits(depth: int) -> npt.NDArray[np.uint8]:
    """uint8 (65536,): what becomes of each value, of `depth` bits; over these it is white."""
    full = (1 << depth) - 1
    scaled = (np.arange(1 << 16) * 255 + full // 2) // full
    return np.minimum(scaled, 255).astype(np.uint8)
