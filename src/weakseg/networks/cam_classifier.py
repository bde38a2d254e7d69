"""The classification network whose class activation maps localize the tags."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.networks.backbones import Backbone


class ClassMaps(NamedTuple):
    """Raw class maps of a batch (before ReLU), and the backbone's stages that were asked for."""

    maps: Tensor
    stages: list[Tensor]


class CamClassifier(nn.Module):
    """A backbone, a 1x1 convolution without bias, and global average pooling.

    Without a bias a class's logit is the mean of its map, so that the map says where the evidence
    lies (Zhou et al. 2016). The convolution starts at zero (our choice): its maps hold nothing
    but what was learned, which shows when the backbone is frozen and the training short.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.final.channels, classes, kernel_size=1, bias=False)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images, float (N, 3, H, W) in [0, 1]."""
        return self.classify(self.pool(images))

    def pool(self, images: Tensor) -> Tensor:
        """Pooled features (N, D) of images, float (N, 3, H, W) in [0, 1]."""
        pooled: Tensor = self.backbone(images).final.mean(dim=(2, 3))
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (N, C) of pooled features: the mean of each class's map, for it is linear."""
        return F.linear(pooled, self.head.weight.flatten(1))

    def class_maps(self, images: Tensor, stages: Sequence[int] = ()) -> ClassMaps:
        """Class maps (N, C, h, w) of images, float (N, 3, H, W) in [0, 1]."""
        features = self.backbone(images, stages)
        return ClassMaps(self.head(features.final), features.stages)


def multi_label_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss, mean over classes and images (paper A, eq. 1).

    Args:
        logits: float (N, C).
        tags: (N, C), 1 where the image has the tag, else 0.
    """
    return F.multilabel_soft_margin_loss(logits, tags.to(logits.dtype))
