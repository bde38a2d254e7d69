"""Augmentations of photos, and of masks with them.

All draws come from the caller's generator.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from weakseg.data.masks import IGNORE
from weakseg.names import AugmentationName

Photo = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Fill = Sequence[float] | NDArray[np.float32]

_PROBABILITY = 0.5
_SHIFT = 0.0625
_SCALE = 0.2
_DEGREES = 30.0
_NOISE = (10**0.5, 50**0.5)
_CONTRAST = _BRIGHTNESS = 0.2
_COLOUR_SHIFT = 20


class Augmentation(Protocol):
    """Changes a photo, and its mask where there is one."""

    def __call__(
        self, photo: Photo, rng: np.random.Generator, fill: Fill, mask: Mask | None = None
    ) -> tuple[Photo, Mask | None]:
        """Change both alike.

        Args:
            photo: uint8 (H, W, 3), RGB.
            rng: of the draws.
            fill: RGB in [0, 255], where a moved photo leaves nothing; the mask is 255 there.
            mask: uint8 (H, W), class ids.

        Returns:
            Both, of the sizes given.
        """


def flip(
    photo: Photo, rng: np.random.Generator, fill: Fill, mask: Mask | None = None
) -> tuple[Photo, Mask | None]:
    """The mirror image, in half of the cases; see `Augmentation`."""
    if rng.random() < _PROBABILITY:
        return photo[:, ::-1], None if mask is None else mask[:, ::-1]
    return photo, mask


def strong(
    photo: Photo, rng: np.random.Generator, fill: Fill, mask: Mask | None = None
) -> tuple[Photo, Mask | None]:
    """The strong augmentation of Dobko et al., section 3.1; see `Augmentation`.

    Mirror image; shift, scale and rotation; Gauss noise; brightness and contrast; median blur; RGB
    shift. Each of these six is done in half of the cases. The scale is within 0.2 of 1 and the
    rotation within 30 degrees. What the paper doesn't say is our choice, after albumentations'
    defaults: a shift within 1/16 of each side, noise with a variance of 10 to 50, brightness and
    contrast within 0.2 of 1, a median over 3x3 pixels, a shift of each colour within 20 of 255.
    """
    photo, mask = flip(photo, rng, fill, mask)
    if rng.random() < _PROBABILITY:
        photo, mask = _move(photo, rng, fill, mask)
    if rng.random() < _PROBABILITY:
        noise = rng.standard_normal(photo.shape, dtype=np.float32)
        photo = _add(photo, np.float32(rng.uniform(*_NOISE)) * noise)
    if rng.random() < _PROBABILITY:
        photo = _light(photo, rng)
    if rng.random() < _PROBABILITY:
        photo = median_blur(photo)
    if rng.random() < _PROBABILITY:
        photo = _add(photo, rng.uniform(-_COLOUR_SHIFT, _COLOUR_SHIFT, 3).astype(np.float32))
    return photo, mask


AUGMENTATIONS: dict[AugmentationName, Augmentation] = {"flip": flip, "strong": strong}


def median_blur(photo: Photo) -> Photo:
    """The median of each pixel's 3x3 neighbourhood, edges repeated, by channel.

    The median of nine numbers is that of three: the largest of the columns' minima, the median of
    their medians, the smallest of their maxima. Pillow's filter takes 80 times as long.
    """
    padded = np.pad(photo, ((1, 1), (1, 1), (0, 0)), mode="edge")
    low, middle, high = _sort(padded[:-2], padded[1:-1], padded[2:])
    columns = (slice(None, -2), slice(1, -1), slice(2, None))
    largest_low = np.maximum.reduce([low[:, c] for c in columns])
    _, middle, _ = _sort(*(middle[:, c] for c in columns))
    smallest_high = np.minimum.reduce([high[:, c] for c in columns])
    return _sort(largest_low, middle, smallest_high)[1]


def _sort(a: Photo, b: Photo, c: Photo) -> tuple[Photo, Photo, Photo]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    middle, high = np.minimum(high, c), np.maximum(high, c)
    return np.minimum(low, middle), np.maximum(low, middle), high


def _move(
    photo: Photo, rng: np.random.Generator, fill: Fill, mask: Mask | None
) -> tuple[Photo, Mask | None]:
    height, width = photo.shape[:2]
    motion = {
        "angle": rng.uniform(-_DEGREES, _DEGREES),
        "translate": [side * rng.uniform(-_SHIFT, _SHIFT) for side in (width, height)],
        "scale": rng.uniform(1 - _SCALE, 1 + _SCALE),
        "shear": [0.0, 0.0],
    }
    moved = functional.affine(
        Image.fromarray(np.ascontiguousarray(photo)),
        interpolation=InterpolationMode.BILINEAR,
        fill=[round(float(value)) for value in fill],
        **motion,
    )
    if mask is None:
        return np.asarray(moved), None
    moved_mask = functional.affine(
        Image.fromarray(np.ascontiguousarray(mask)),
        interpolation=InterpolationMode.NEAREST,
        fill=IGNORE,
        **motion,
    )
    return np.asarray(moved), np.asarray(moved_mask)


def _light(photo: Photo, rng: np.random.Generator) -> Photo:
    image = Image.fromarray(np.ascontiguousarray(photo))
    image = functional.adjust_brightness(image, rng.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS))
    image = functional.adjust_contrast(image, rng.uniform(1 - _CONTRAST, 1 + _CONTRAST))
    return np.asarray(image)


def _add(photo: Photo, offset: NDArray[np.float32]) -> Photo:
    sums: Photo = np.clip(np.rint(photo + offset), 0, 255).astype(np.uint8)
    return sums
