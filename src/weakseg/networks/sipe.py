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
        normalized: whether each channel of a stage is brought to mean 0 and deviation 1, as over
            all images learned from. Not in the paper, whose stages are trained: of a frozen
            backbone, what all cells have in common else makes them alike.

    Attributes:
        indices: of the stages that `levels` takes.
    """

    def __init__(self, stages: Sequence[Stage], normalized: bool = False) -> None:
        super().__init__()
        count = min(len(stages), len(_WIDTHS))
        self.indices = tuple(range(len(stages)))[-count:]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(stage.channels, width, kernel_size=1, bias=False)
            for stage, width in zip(stages[-count:], _WIDTHS[-count:], strict=True)
        )
        self.normalizations = nn.ModuleList(
            nn.BatchNorm2d(stage.channels, affine=False, momentum=None)
            if normalized
            else nn.Identity()
            for stage in stages[-count:]
        )

    def levels(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """What `forward` takes; no gradient reaches the backbone.

        Args:
            stages: maps (N, channels, h, w) of the stages in `indices`.
        """
        pairs = zip(self.normalizations, stages, strict=True)
        return [normalization(stage.detach().float()) for normalization, stage in pairs]

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The hierarchical feature (N, D, h, w), on the grid of the last level but one.

        Each level has a length of 1 at each of its cells.

        Args:
            levels: as `levels` gives them.
        """
        size = levels[-2 if len(levels) > 1 else -1].shape[2:]
        projected = [
            F.normalize(convolution(level).float(), dim=1)
            for convolution, level in zip(self.convolutions, levels, strict=True)
        ]
        return torch.cat(
            [
                F.interpolate(level, size, mode="bilinear", align_corners=False)
                for level in projected
            ],
            dim=1,
        )
