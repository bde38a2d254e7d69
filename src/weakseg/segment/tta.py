"""Segmentation of photos, with test-time augmentation where it is wanted."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg.networks.features import rescale
from weakseg.networks.segmenter import SegmentationNetwork


@torch.inference_mode()
def segment(
    network: SegmentationNetwork,
    images: Tensor,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Tensor:
    """Class probabilities, averaged over scales and mirror images (Dobko et al., section 3.4).

    Args:
        network: in eval mode.
        images: float (N, 3, H, W) in [0, 1], on the network's device.
        scales: factors on the photos' size; the paper's are 0.5, 1 and 2.
        flip: whether each scale is passed a second time, mirrored.

    Returns:
        float32 (N, C+1, H, W), channel 0 the background; sums to 1 over the channels.
    """
    count, _, height, width = images.shape
    total = images.new_zeros(count, network.classes + 1, height, width)
    for scale in scales:
        scaled = rescale(images, scale)
        views = torch.cat([scaled, scaled.flip(-1)]) if flip else scaled
        probabilities = network(views).float().softmax(dim=1)
        if flip:
            probabilities = (probabilities[:count] + probabilities[count:].flip(-1)) / 2
        total += F.interpolate(
            probabilities, size=(height, width), mode="bilinear", align_corners=False
        )
    return total / len(scales)
