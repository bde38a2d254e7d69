"""Masks as PNG files: one class id per pixel, in VOC's colours."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from weakseg.data.images import open_image
from weakseg.errors import WeaksegError
from weakseg.files import write_atomically

IGNORE = 255
MAX_CLASSES = MAX_OBJECTS = IGNORE - 1


class UnreadableMask(WeaksegError):  # noqa: N818
    """A mask is missing, broken or no mask; the message names file and reason."""


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
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"expected a uint8 (H, W) mask, not {mask.dtype} {mask.shape}")
    image = Image.fromarray(mask)
    image.putpalette(VOC_PALETTE.tobytes())
    with write_atomically(path) as temporary:
        image.save(temporary, "PNG")


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a mask, palette or 8-bit grey.

    Returns:
        uint8 (H, W), writable: the ids, never the colours.

    Raises:
        UnreadableMask: if the file can't be decoded in full, or its pixels are no ids.
    """
    with open_image(path, ("PNG",), UnreadableMask) as image:
        if image.mode not in {"P", "L"}:
            raise ValueError(
                f"it has mode {image.mode}, where a mask has one class id per pixel (P or L)"
            )
        return np.array(image)
