"""Multi-scale class activation maps of one photo."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg.grid import Localization, grid_size
from weakseg.networks.cam_classifier import CamClassifier, confidences

_MOST = torch.finfo(torch.float16).max
"""What features are kept up to."""


@torch.inference_mode()
def localize_tags(
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
    maximum (Lyu et al., eq. 2). Features are averaged over flips and scales. The confidence is that
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
