"""SIPE's hierarchical feature: what is alike in an image, on all levels of a backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.networks.backbones import Stage

_WIDTHS = (128, 128, 256, 256)


class Sides(nn.Module):
    """A 1x1 convolution without bias on each of a backbone's last four stages (Chen et al. 2022).

    They have 128, 128, 256 and 256 channels, from fine to coarse: on ResNet-50 those are the
    paper's, on layer1 to layer4, and on EfficientNet they are on strides 4, 8, 16 and 32. A
    backbone of fewer stages has the last of them alone. They start as torch's convolutions do:
    random projections, which keep angles roughly.

    Args:
        stages: all of the backbone's.

    Attributes:
        indices: of the stages that `forward` takes.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        count = min(len(stages), len(_WIDTHS))
        self.indices = tuple(range(len(stages)))[-count:]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(stage.channels, width, kernel_size=1, bias=False)
            for stage, width in zip(stages[-count:], _WIDTHS[-count:], strict=True)
        )

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """The hierarchical feature (N, D, h, w), on the grid of the last stage but one.

        Each level has a length of 1 at each of its cells. No gradient reaches the backbone.

        Args:
            stages: maps (N, channels, h, w) of the stages in `indices`.
        """
        size = stages[-2 if len(stages) > 1 else -1].shape[2:]
        levels = [
            F.normalize(convolution(stage.detach()).float(), dim=1)
            for convolution, stage in zip(self.convolutions, stages, strict=True)
        ]
        return torch.cat(
            [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels],
            dim=1,
        )
