"""Multi-scale class activation maps of one photo."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg.networks.cam_classifier import CamClassifier, confidences

GRID_STRIDE = 4
"""Image pixels a cell of the grid on which CAMs and shallow features are kept."""

_MOST = torch.finfo(torch.float16).max
"""What features are kept up to."""

_BAND = 2**20
"""Values of a band of `upsampled_bands`."""


class Localization(NamedTuple):
    """Where the tags of one photo are, on the grid of (H-1)//4+1 by (W-1)//4+1 cells.

    Attributes:
        cam: float32 (K, h, w) in [0, 1], a row for each given class.
        features: float16 (D, h, w), the chosen stages, one after the other.
        confidence: float32 (K) in [0, 1], how sure the classifier is of each given class.
    """

    cam: NDArray[np.float32]
    features: NDArray[np.float16]
    confidence: NDArray[np.float32]


def grid_size(height: int, width: int) -> tuple[int, int]:
    """The grid's size for a photo of `height` by `width` pixels."""
    return (height - 1) // GRID_STRIDE + 1, (width - 1) // GRID_STRIDE + 1


@torch.inference_mode()
def localize(
    network: CamClassifier,
    photo: NDArray[np.uint8],
    classes: Sequence[int],
    scales: Sequence[float],
    feature_stages: Sequence[int] = (),
    feature_scales: Sequence[float] = (1.0,),
) -> Localization:
    """Multi-scale, flip-averaged CAMs and shallow features of one photo.

    At each scale the maps of the photo and of its mirror image go through a ReLU and are added;
    they are brought to the grid (bilinear), summed over the scales, and divided by each class's
    maximum (paper A, eq. 2). Features are averaged over flips and scales. The confidence is that
    at the photo's own size, or at the scale next to it: a logit is the mean of its map.

    Args:
        network: the trained classifier, in eval mode.
        photo: uint8 (H, W, 3), RGB.
        classes: indices of the photo's own tags; K of them.
        scales: factors on the photo's size at which maps are made.
        feature_stages: indices of the backbone's stages to give as features.
        feature_scales: the scales of which features are averaged; a subset of `scales`.

    Raises:
        ValueError: the network's maps are not finite.
    """
    device = network.head.weight.device
    image = torch.from_numpy(photo).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
    size = grid_size(*photo.shape[:2])
    total = torch.zeros(len(classes), *size, device=device)
    depth = sum(network.backbone.stages[stage].channels for stage in feature_stages)
    features = torch.zeros(depth, *size, device=device)
    natural = min(scales, key=lambda scale: abs(scale - 1))
    confidence = torch.zeros(len(classes))
    for scale in scales:
        wanted = feature_stages if scale in feature_scales else ()
        maps, stages = network.class_maps(_with_mirror_image(rescale(image, scale)), wanted)
        maps = maps[:, list(classes)].float()
        if scale == natural:
            confidence = confidences(maps.mean(dim=(2, 3)))
        total += _resize(_add_mirror_image(F.relu(maps)), size)
        if wanted:
            levels = [_resize(_add_mirror_image(stage.float()), size) for stage in stages]
            features += torch.cat(levels) / (2 * len(feature_scales))
    if not (total.isfinite().all() and features.isfinite().all()):
        raise ValueError(
            "the classifier's maps hold NaN or infinity, as they can in 16 bits; compute them in 32"
        )
    features.clamp_(-_MOST, _MOST)
    cam = total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5)
    return Localization(cam.cpu().numpy(), features.half().cpu().numpy(), confidence.cpu().numpy())


def upsample(maps: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Bring maps (K, h, w) from the grid to the photo's size (bilinear), float32 (K, H, W)."""
    bands = [band for _, band in upsampled_bands(maps, height, width)]
    return np.concatenate(bands, axis=1)


def upsampled_bands(
    maps: NDArray[np.float32], height: int, width: int
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """What `upsample` gives, value for value, a band of rows at a time.

    A photo of 20 million pixels has maps that no worker should hold as a whole.

    Yields:
        Which of the rows, and float32 (K, rows, W); some 4 MB.
    """
    wide = _interpolate(maps, *_neighbours(maps.shape[2], width), axis=2)
    low, high, weight = _neighbours(maps.shape[1], height)
    step = max(1, _BAND // (max(1, len(maps)) * width))
    for first in range(0, height, step):
        rows = slice(first, min(first + step, height))
        yield rows, _interpolate(wide, low[rows], high[rows], weight[rows], axis=1)


def _neighbours(
    size: int, wanted: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `wanted` cells the two of `size` that it lies between; the second's weight."""
    positions = ((np.arange(wanted) + 0.5) * (size / wanted) - 0.5).clip(0, size - 1)
    low = positions.astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (positions - low).astype(np.float32)


def _interpolate(
    maps: NDArray[np.float32],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    first = maps.take(low, axis)
    slope = maps.take(high, axis) - first
    slope *= weight.reshape(-1, *[1] * (2 - axis))
    first += slope
    return first


def rescale(images: Tensor, scale: float) -> Tensor:
    """Images (N, 3, H, W) at `scale` times their size (bilinear, antialiased)."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def _with_mirror_image(image: Tensor) -> Tensor:
    return torch.cat([image, image.flip(-1)])


def _add_mirror_image(maps: Tensor) -> Tensor:
    return maps[:1] + maps[1:].flip(-1)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[1] == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
