"""Multi-scale class activation maps of one photo."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg.grid import Localization, grid_size
from weakseg.localize.settings import Flip, Merging
from weakseg.networks.cam_classifier import CamClassifier, confidences
from weakseg.networks.features import rescale
from weakseg.networks.pooling import pool_maps

_MOST = torch.finfo(torch.float16).max
"""What features are kept up to."""


@torch.inference_mode()
def localize_tags(
    network: CamClassifier,
    photo: NDArray[np.uint8],
    classes: Sequence[int | Sequence[int]],
    scales: Sequence[float],
    feature_stages: Sequence[int] = (),
    feature_scales: Sequence[float] = (1.0,),
    merging: Merging = Merging(),  # noqa: B008 - frozen
) -> Localization:
    """CAMs and shallow features of one photo, over several scales and its mirror image.

    `merge` makes the CAM. Features are averaged over flips and scales. The confidence is that
    at the photo's own size, or at the scale next to it.

    Args:
        network: the trained classifier, in eval mode.
        photo: uint8 (H, W, 3), RGB.
        classes: indices of the photo's own tags; K of them. Of a tag that has several outputs, the
            maps are averaged behind the ReLU, and the surest output's confidence counts.
        scales: factors on the photo's size at which maps are made.
        feature_stages: indices of the backbone's stages to give as features.
        feature_scales: the scales of which features are averaged; a subset of `scales`.
        merging: how the class maps become one CAM.

    Raises:
        ValueError: the network's maps are not finite.
    """
    device = network.head.weight.device
    outputs, sizes = outputs_of(classes)
    image = torch.from_numpy(photo).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
    size = grid_size(*photo.shape[:2])
    depth = sum(network.backbone.stages[stage].channels for stage in feature_stages)
    features = torch.zeros(depth, *size, device=device)
    natural = min(scales, key=lambda scale: abs(scale - 1))
    confidence = torch.zeros(len(classes))
    class_maps = []
    for scale in scales:
        wanted = feature_stages if scale in feature_scales else ()
        maps, stages = network.class_maps(_with_mirror_image(rescale(image, scale)), wanted)
        maps = maps[:, outputs].float()
        if scale == natural:
            of_outputs = confidences(pool_maps(maps, network.pooling)).split(sizes)
            confidence = torch.tensor([group.max() for group in of_outputs])
        class_maps.append(averaged(maps, sizes))
        if wanted:
            levels = [_resize(_add_mirror_image(stage.float()), size) for stage in stages]
            features += torch.cat(levels) / (2 * len(feature_scales))
    _check_finite(features)
    features.clamp_(-_MOST, _MOST)
    cam = merge(class_maps, size, merging)
    return Localization(cam.cpu().numpy(), features.half().cpu().numpy(), confidence.cpu().numpy())


def merge(maps: Iterable[Tensor], size: tuple[int, int], merging: Merging) -> Tensor:
    """The CAM of class maps at several scales (Lyu et al., eq. 2), float32 (K, h, w) in [0, 1].

    At each scale the maps of the photo and of its mirror image become one that is not negative;
    these are brought to one size (bilinear), summed over the scales, and divided by their maximum.

    Args:
        maps: of each scale float32 (2, K, h, w) of any size: of the photo, and of its mirror image
            as that lies.
        size: the CAM's, h and w.

    Raises:
        ValueError: a map is not finite.
    """
    total = torch.zeros(())
    for scale in maps:
        found = _resize(_with_flip(scale, merging.flip), size)
        if merging.normalize == "each_scale":
            found = _over_maximum(found, merging)
        total = total + found
    _check_finite(total)
    return _over_maximum(total, merging)


def outputs_of(classes: Sequence[int | Sequence[int]]) -> tuple[list[int], list[int]]:
    """All outputs of some tags, which have one or several, and how many each tag has."""
    groups = [[one] if isinstance(one, int) else list(one) for one in classes]
    return [one for group in groups for one in group], [len(group) for group in groups]


def averaged(maps: Tensor, sizes: Sequence[int]) -> Tensor:
    """Class maps (N, K, h, w) of K tags, of those of all their outputs (N, sum of sizes, h, w).

    Of a tag that has several, the maps are averaged behind a ReLU.
    """
    if len(sizes) == maps.shape[1]:
        return maps
    groups = maps.split(list(sizes), dim=1)
    return torch.cat(
        [g if g.shape[1] == 1 else F.relu(g).mean(dim=1, keepdim=True) for g in groups], dim=1
    )


def _with_mirror_image(image: Tensor) -> Tensor:
    return torch.cat([image, image.flip(-1)])


def _add_mirror_image(maps: Tensor) -> Tensor:
    return maps[:1] + maps[1:].flip(-1)


def _with_flip(maps: Tensor, flip: Flip) -> Tensor:
    """Maps (1, K, h, w) of maps (2, K, h, w) of a photo and of its mirror image."""
    if flip == "sum_before_relu":
        return F.relu(_add_mirror_image(maps))
    maps = F.relu(maps)
    if flip == "maximum":
        return torch.maximum(maps[:1], maps[1:].flip(-1))
    return _add_mirror_image(maps)


def _over_maximum(maps: Tensor, merging: Merging) -> Tensor:
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    if merging.maximum == "photo" and len(maps):
        peaks = peaks.amax(dim=0, keepdim=True)
    return maps / (peaks + 1e-5)


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError(
            "the classifier's maps hold NaN or infinity, as they can in 16 bits; compute them in 32"
        )


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[1] == 0:
        return maps.new_zeros(0, *size)
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
