"""The classification network whose class activation maps localize the tags."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.names import Head
from weakseg.networks.backbones import Backbone
from weakseg.networks.pooling import AVERAGE, Pooling, pool_maps

UNKNOWN = -1.0
"""The target of a tag that nobody can be sure of: it counts neither as there nor as absent."""

_EXTRA_CHANNELS = 512


class ClassMaps(NamedTuple):
    """Raw class maps of a batch (before ReLU), and the backbone's stages that were asked for."""

    maps: Tensor
    stages: list[Tensor]


class CamClassifier(nn.Module):
    """A backbone, a 1x1 convolution without bias, and a pooling of the maps that this gives.

    Without a bias a class's logit is pooled of its map alone, so that the map says where the
    evidence lies (Zhou et al. 2016). Alone, the convolution starts at zero (our choice): its maps
    hold nothing but what was learned, which shows when the backbone is frozen and the training
    short. Behind others that are new it would hold back what they learn, so that all of them start
    from N(0, 0.01), also our choice.

    Args:
        backbone: gives the final map.
        classes: number C of outputs.
        head: "extra_convolutions" puts three 3x3 convolutions of 512 channels, each with a ReLU,
            before the 1x1 one: the four of Dobko et al., section 3.1 (Jiang et al. 2019). "linear"
            has the 1x1 convolution alone.
        pooling: how a class's map becomes its logit.

    Attributes:
        classes: names of its outputs, where they are known; several may have one name.
    """

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        head: Head = "linear",
        pooling: Pooling = AVERAGE,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        channels = backbone.final.channels
        self.extra = nn.Sequential()
        if head == "extra_convolutions":
            for inputs in (channels, _EXTRA_CHANNELS, _EXTRA_CHANNELS):
                self.extra.append(nn.Conv2d(inputs, _EXTRA_CHANNELS, kernel_size=3, padding=1))
                self.extra.append(nn.ReLU(inplace=True))
            channels = _EXTRA_CHANNELS
        self.classes: tuple[str, ...] = ()
        self.head = nn.Conv2d(channels, classes, kernel_size=1, bias=False)
        for parameter in self.new_parameters():
            if head == "extra_convolutions" and parameter.ndim == 4:
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.zeros_(parameter)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """What comes with no pretrained weights: all but the backbone."""
        yield from self.extra.parameters()
        yield from self.head.parameters()

    def outputs(self) -> dict[str, list[int]]:
        """The indices of the outputs of each name."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.classes):
            found.setdefault(name, []).append(index)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images, float (N, 3, H, W) in [0, 1]."""
        if self.pooling == AVERAGE:  # of features: fewer multiplications than maps take
            return self.classify(self.pool(images))
        return pool_maps(self.maps_of(self.backbone(images).final), self.pooling)

    def pool(self, images: Tensor) -> Tensor:
        """Pooled features (N, D) of images, float (N, 3, H, W) in [0, 1]."""
        pooled: Tensor = self.extra(self.backbone(images).final).mean(dim=(2, 3))
        return pooled

    def classify(self, pooled: Tensor) -> Tensor:
        """Logits (N, C) of pooled features (N, D): means of the class maps, which are linear."""
        return F.linear(pooled, self.head.weight.flatten(1))

    def classify_kept(self, features: Tensor) -> Tensor:
        """Logits (N, C) of pooled features (N, D); or (1, C) of a photo's final map (D, h, w)."""
        if features.ndim == 2:
            return self.classify(features)
        return pool_maps(self.maps_of(features[None]), self.pooling)

    def maps_of(self, final: Tensor) -> Tensor:
        """Class maps (N, C, h, w) of a backbone's final map (N, D, h, w)."""
        maps: Tensor = self.head(self.extra(final))
        return maps

    def class_maps(self, images: Tensor, stages: Sequence[int] = ()) -> ClassMaps:
        """Class maps (N, C, h, w) of images, float (N, 3, H, W) in [0, 1]."""
        features = self.backbone(images, stages)
        return ClassMaps(self.maps_of(features.final), features.stages)


def with_mirror_image(photo: NDArray[np.uint8], device: torch.device) -> Tensor:
    """A photo, uint8 (H, W, 3), and its mirror image, float32 (2, 3, H, W) in [0, 1]."""
    image = torch.from_numpy(photo).to(device).permute(2, 0, 1).float() / 255
    return torch.stack([image, image.flip(-1)])


def confidences(logits: Tensor) -> Tensor:
    """How sure a classifier is of each tag, float32 (C) in [0, 1].

    They order a class's photos; they are frequencies only as far as the classifier is calibrated,
    which nothing here sees to.

    Args:
        logits: (2, C), of a photo and of its mirror image.
    """
    return logits.float().mean(dim=0).sigmoid()


def multi_label_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin loss, mean over classes and images (Lyu et al., eq. 1).

    It is the binary cross-entropy of each output (Dobko et al., section 3.1) under another name.

    Args:
        logits: float (N, C).
        tags: (N, C), 1 where the image has the tag, 0 where not; `UNKNOWN` adds nothing.
    """
    tags = tags.to(logits.dtype)
    known = (tags != UNKNOWN).to(logits.dtype)
    return F.multilabel_soft_margin_loss(logits, tags * known, weight=known)
