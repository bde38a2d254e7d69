"""Image-specific class activation maps by prototypes of an image's own pixels (SIPE).

Q. Chen et al. 2022, section 3; what the paper leaves open follows its published code.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg.grid import grid_size
from weakseg.networks.cam_classifier import CamClassifier, with_mirror_image
from weakseg.networks.features import rescale
from weakseg.networks.sipe import Sides

BACKGROUND_FACTOR = 0.5
"""What the background's soft IoU is multiplied with before classes are compared, as published."""

_EPSILON = 1e-5

_BLOCK = 2**24
"""Values of the correlation matrix that are held at a time, 64 MiB."""


def with_background(maps: Tensor) -> Tensor:
    """CAMs (N, C + 1, h, w) in [0, 1] of raw class maps (N, C, h, w): row 0 is the background.

    A class is its map's positive part over its maximum. The background is 1 less the highest of
    all C classes, tagged or not.
    """
    cams = over_maximum(F.relu(maps))
    return torch.cat([1 - cams.amax(dim=1, keepdim=True), cams], dim=1)


def over_maximum(maps: Tensor) -> Tensor:
    """Maps (..., h, w), at least 0, each over its maximum."""
    return maps / (maps.amax(dim=(-2, -1), keepdim=True) + _EPSILON)


@torch.no_grad()
def seed_pixels(
    cams: Tensor, features: Tensor, background_factor: float = BACKGROUND_FACTOR
) -> Tensor:
    """The row that each pixel is a seed of, int64 (N, h, w).

    A pixel's region is how alike all pixels are to it, the positive part of the cosine of their
    features. It goes to the CAM with which its region has the highest soft IoU.

    Args:
        cams: (N, R, h, w) in [0, 1], row 0 the background.
        features: (N, D, h, w).
        background_factor: what the background's soft IoU is multiplied with.
    """
    pixels = F.normalize(features.flatten(2), dim=1)
    spread = cams.flatten(2).transpose(1, 2)
    total = spread.sum(dim=1, keepdim=True)
    rows = max(1, _BLOCK // (len(pixels) * pixels.shape[2]))
    found = []
    for part in pixels.transpose(1, 2).split(rows, dim=1):
        regions = F.relu(part @ pixels)
        shared = regions @ spread
        union = regions.sum(dim=2, keepdim=True) + total - shared
        overlap = shared / union.clamp(min=_EPSILON)
        overlap[..., 0] *= background_factor
        found.append(overlap.argmax(dim=2))
    return torch.cat(found, dim=1).view(len(cams), *cams.shape[2:])


def prototypes(seeds: Tensor, features: Tensor) -> Tensor:
    """The mean feature (N, R, D) of each row's seeds; zeros where it has none.

    Args:
        seeds: (N, R, h, w), 1 where a pixel is a seed of a row, else 0.
        features: (N, D, h, w).
    """
    chosen = seeds.flatten(2).to(features.dtype)
    sums = chosen @ features.flatten(2).transpose(1, 2)
    return sums / chosen.sum(dim=2, keepdim=True).clamp(min=1)


def image_specific_cams(features: Tensor, prototypes: Tensor) -> Tensor:
    """IS-CAMs (N, R, h, w) in [0, 1]: the positive cosine of features and prototypes.

    Args:
        features: (N, D, h, w).
        prototypes: (N, R, D); one of zeros gives zeros.
    """
    cosines = F.normalize(prototypes, dim=2) @ F.normalize(features.flatten(2), dim=1)
    return F.relu(cosines).view(*cosines.shape[:2], *features.shape[2:])


@torch.inference_mode()
def localize_by_prototypes(
    network: CamClassifier,
    sides: Sides,
    photo: NDArray[np.uint8],
    classes: Sequence[int],
    scales: Sequence[float],
    background_factor: float = BACKGROUND_FACTOR,
) -> NDArray[np.float32]:
    """Multi-scale IS-CAMs of one photo, float32 (K + 1, h, w) in [0, 1] on its grid.

    At each scale the raw maps of the photo and of its mirror image are added, and so are their
    features, of which the IS-CAMs are made. These are brought to the grid (bilinear), summed over
    the scales, and divided by each row's maximum. A pixel that is a seed of a class whose tag the
    photo has not is a seed of no row.

    Args:
        network: the trained classifier, in eval mode.
        sides: trained with it.
        photo: uint8 (H, W, 3), RGB.
        classes: indices of the photo's own tags; K of them.
        scales: factors on the photo's size.
        background_factor: see `seed_pixels`; that of the training.

    Raises:
        ValueError: the network's maps are not finite.
    """
    device = network.head.weight.device
    images = with_mirror_image(photo, device)
    size = grid_size(*photo.shape[:2])
    own = torch.tensor([0, *(c + 1 for c in classes)], device=device).view(1, -1, 1, 1)
    total = torch.zeros(own.numel(), *size, device=device)
    for scale in scales:
        maps, stages = network.class_maps(rescale(images, scale), sides.indices)
        features = _add_mirror_image(sides(sides.levels(stages)))
        cams = with_background(_add_mirror_image(maps.float()))
        with torch.autocast(device.type, enabled=False):
            cams = F.interpolate(cams, features.shape[2:], mode="bilinear", align_corners=False)
            seeds = seed_pixels(cams, features, background_factor).unsqueeze(1) == own
            found = image_specific_cams(features, prototypes(seeds, features))
        total += F.interpolate(found, size, mode="bilinear", align_corners=False)[0]
    if not total.isfinite().all():
        raise ValueError(
            "the classifier's maps hold NaN or infinity, as they can in 16 bits; compute them in 32"
        )
    scores: NDArray[np.float32] = over_maximum(total).cpu().numpy()
    return scores


def _add_mirror_image(maps: Tensor) -> Tensor:
    return maps[:1] + maps[1:].flip(-1)
