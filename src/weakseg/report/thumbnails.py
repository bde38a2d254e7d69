"""What the page holds of one photo: small pictures of it and its masks, and how good these are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from weakseg.data.images import encode_image, photo_size, read_small_photo
from weakseg.data.masks import VOC_PALETTE, read_mask, resized_mask
from weakseg.engine.evaluate import truth_fault
from weakseg.methods.base import PhotoTask, naming
from weakseg.methods.maps import MASK
from weakseg.metrics import ConfusionMatrix

PHOTO_SIDE = 160
MASK_SIDES = (160, 128, 96, 64, 32)
"""Longer sides in pixels; of a mask the first at which all of a photo's fit."""

PHOTO_BYTES, MASK_BYTES = 2500, 1800
"""What they may take: 6 kB a photo in base64, with its place in the table."""

_COLOURS = np.column_stack([VOC_PALETTE, np.where(np.arange(256), 255, 0)]).astype(np.uint8)
"""RGBA of each id, the background transparent."""

_QUALITIES = (55, 40, 25, 10)


class Drawn(NamedTuple):
    """One photo on the page.

    Attributes:
        size: height and width of the photo itself.
        photo: WebP.
        masks: WebP, all masks side by side, the background transparent; of a step without one it is
            all background.
        made: which steps have a mask of it.
        iou: of each step the IoU of each of the photo's tags with the true mask; None where there
            is none, or neither mask has the class.
        counts: int64 (C+1, C+2), the confusion counts of the last masks; see `ConfusionMatrix`.
        truth: whether there is a true mask, which then is the last of `masks`.
    """

    size: tuple[int, int]
    photo: bytes
    masks: bytes
    made: tuple[bool, ...]
    iou: tuple[tuple[float | None, ...], ...]
    counts: NDArray[np.int64] | None
    truth: bool


@dataclass(frozen=True)
class Drawer:
    """Draws photos with their masks.

    Attributes:
        folders: of the steps, in their order.
        last: that whose masks are compared by pixel.
        classes: names of the mask ids 1 to C.
    """

    folders: tuple[Path, ...]
    last: Path
    classes: tuple[str, ...]

    def __call__(self) -> Callable[[PhotoTask], Drawn]:
        return self._draw_named

    def _draw_named(self, task: PhotoTask) -> Drawn:
        with naming(task):
            return self._draw(task)

    def _draw(self, task: PhotoTask) -> Drawn:
        sample = task.sample
        size = photo_size(sample.image)
        paths = [folder / f"{task.id}{MASK}" for folder in self.folders]
        masks = [read_mask(path) if path.is_file() else None for path in paths]
        truth = None
        if sample.mask and not truth_fault(sample, len(self.classes)):
            truth = sample.mask.read()
        compared = [compare(mask, truth, self.classes) for mask in masks]
        last = compared[self.folders.index(self.last)]
        return Drawn(
            size=size,
            photo=_encode_photo(read_small_photo(sample.image, PHOTO_SIDE)),
            masks=encode_masks([*masks, truth], size),
            made=tuple(mask is not None for mask in masks),
            iou=tuple(class_ious(matrix, task.class_ids) for matrix in compared),
            counts=last.counts if last else None,
            truth=truth is not None,
        )


def compare(
    mask: NDArray[np.uint8] | None, truth: NDArray[np.uint8] | None, classes: Sequence[str]
) -> ConfusionMatrix | None:
    """The pixels of a mask and a true one; None where one of them isn't there."""
    if mask is None or truth is None:
        return None
    matrix = ConfusionMatrix(classes)
    matrix.update(truth, mask)
    return matrix


def class_ious(
    matrix: ConfusionMatrix | None, class_ids: Sequence[int]
) -> tuple[float | None, ...]:
    """The IoU of some classes; None where neither mask has one, or nothing was compared."""
    if matrix is None:
        return (None,) * len(class_ids)
    iou = matrix.iou()
    return tuple(None if np.isnan(iou[i]) else float(iou[i]) for i in class_ids)


def encode_masks(masks: Sequence[NDArray[np.uint8] | None], size: tuple[int, int]) -> bytes:
    """Masks (H, W) side by side as one WebP, in VOC's colours, as large as `MASK_BYTES` allows."""
    encoded, most = b"", float(MASK_SIDES[0])
    for side in MASK_SIDES:
        if MASK_SIDES[-1] != side > most:
            continue
        factor = min(1.0, side / max(size))
        height, width = (max(1, round(length * factor)) for length in size)
        ids = np.zeros((height, len(masks) * width), np.uint8)
        for place, mask in enumerate(masks):
            if mask is not None:
                ids[:, place * width : (place + 1) * width] = resized_mask(mask, height, width)
        encoded = encode_image(Image.fromarray(_COLOURS[ids]), "WEBP", lossless=True, quality=50)
        if len(encoded) <= MASK_BYTES:
            break
        most = side * (MASK_BYTES / len(encoded)) ** 0.5  # bytes grow with the area at most
    return encoded


def _encode_photo(photo: NDArray[np.uint8]) -> bytes:
    encoded = b""
    for quality in _QUALITIES:
        encoded = encode_image(Image.fromarray(photo), "WEBP", quality=quality)
        if len(encoded) <= PHOTO_BYTES:
            break
    return encoded
