"""A small network on a frozen backbone's features of each cell, and both as a segmenter."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.networks.backbones import Backbone
from weakseg.networks.features import photo_cells


@dataclass(frozen=True)
class PixelHeadShape:
    """What a pixel head is given of a cell, and its size.

    Attributes:
        stages: indices of the backbone's stages, ascending, at the photo's own size.
        scale: at which the final map goes behind them.
        width: of the hidden layer.
        dropout: the share of it that is left out in training.
    """

    stages: tuple[int, ...]
    scale: float
    width: int
    dropout: float


class PixelHead(nn.Module):
    """Two layers on a cell's features.

    Args:
        channels: D of the features.
        classes: C, without background.
        shape: its size.

    Attributes:
        mean, std: of the channels, by which features are normalised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, classes: int, shape: PixelHeadShape) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.layers = nn.Sequential(
            nn.Linear(channels, shape.width),
            nn.GELU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.width, classes + 1),
        )

    def anew(self) -> "PixelHead":
        """The same, with weights drawn anew."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, C+1), of the background first, of features (N, D)."""
        logits: Tensor = self.layers((features - self.mean) / self.std)
        return logits

    def score(self, cells: Tensor) -> Tensor:
        """Logits (C+1, h, w) of features (D, h, w)."""
        scores: Tensor = self(cells.flatten(1).T).T.unflatten(1, cells.shape[1:])
        return scores


class PixelSegmenter(nn.Module):
    """A frozen backbone and a pixel head on it: segments photos of any size.

    Args:
        backbone: what the head's features are of.
        classes: C, without background.
        shape: the head's.
    """

    def __init__(self, backbone: Backbone, classes: int, shape: PixelHeadShape) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self._shape = shape
        stages = sum(backbone.stages[index].channels for index in shape.stages)
        self.head = PixelHead(stages + backbone.final.channels, classes, shape)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C+1, H, W), channel 0 the background, of images (N, 3, H, W) in [0, 1]."""
        stages, scale = self._shape.stages, self._shape.scale
        found = [
            self.head.score(photo_cells(self.backbone, image, stages, scale)) for image in images
        ]
        size = images.shape[2:]
        return F.interpolate(torch.stack(found), size=size, mode="bilinear", align_corners=False)
