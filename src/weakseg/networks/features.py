"""A frozen backbone's maps of one photo, which heads learn from and CAMs are made of."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg.grid import CELL
from weakseg.names import final, stage
from weakseg.networks.backbones import Backbone

POOLED = "pooled"
"""The final map's mean at the photo's own size, float32 (2, D), of it and its mirror image."""

_MOST = torch.finfo(torch.float16).max


@torch.inference_mode()
def feature_maps(
    backbone: Backbone,
    images: Tensor,
    scales: Sequence[float] = (),
    stages: Sequence[int] = (),
) -> dict[str, Tensor]:
    """A backbone's maps of a photo and of its mirror image.

    Args:
        backbone: in eval mode.
        images: both, float (2, 3, H, W) in [0, 1].
        scales: factors on the photo's size at which the final map is kept.
        stages: indices of the stages that are kept, of the photo's own size.

    Returns:
        Tensors on the CPU: `POOLED`, and by their names the maps.

    Raises:
        ValueError: a value is not finite.
    """
    found: dict[str, Tensor] = {}
    for scale in sorted({1.0, *scales}):
        wanted = stages if scale == 1 else ()
        features = backbone(rescale(images, scale), wanted)
        if scale == 1:
            found[POOLED] = _finite(features.final.mean(dim=(2, 3)).float()).cpu()
            for index, level in zip(sorted(set(wanted)), features.stages, strict=True):
                found[stage(index)] = _half(_mean(level.float()))
        if scale in scales:
            found[final(scale)] = _half(_mean(features.final.float()))
    return found


def photo_cells(backbone: Backbone, image: Tensor, stages: Sequence[int], scale: float) -> Tensor:
    """What `cells` makes of some stages, and of the final map at a scale behind them.

    Args:
        image: float (3, H, W) in [0, 1].
    """
    found = feature_maps(backbone, torch.stack([image, image.flip(-1)]), [scale], stages)
    maps = [found[stage(index)] for index in sorted(stages)]
    height, width = image.shape[1:]
    return cells([*maps, found[final(scale)]], height, width).to(image.device)


def rescale(images: Tensor, scale: float) -> Tensor:
    """Images (N, 3, H, W) at `scale` times their size (bilinear, antialiased)."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def cells(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Maps on the cells of a photo, squares of 16 pixels.

    Args:
        maps: (D, h, w) of any size, each covering the whole photo.
        height, width: the photo's.

    Returns:
        Float32 (D, ceil(height / 16), ceil(width / 16)), all maps' channels: means of what falls
        into a cell, or, of coarser maps, bilinear.
    """
    size = -(-height // CELL), -(-width // CELL)
    return torch.cat([resized(level.float(), size) for level in maps])


def resized(level: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (D, h, w) at another size: means where it shrinks, else bilinear."""
    for side, wanted in zip(level.shape[1:], size, strict=True):
        if side < wanted:
            return F.interpolate(level[None], size=size, mode="bilinear", align_corners=False)[0]
    return F.adaptive_avg_pool2d(level, size)


def _mean(maps: Tensor) -> Tensor:
    """A map (D, h, w) of two, (2, D, h, w), of a photo and of its mirror image."""
    return (maps[0] + maps[1].flip(-1)) / 2


def _half(maps: Tensor) -> Tensor:
    return _finite(maps).clamp(-_MOST, _MOST).half().contiguous().cpu()


def _finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise ValueError("its features hold NaN or infinity, as they can in 16 bits")
    return values
