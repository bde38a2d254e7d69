"""IRNet: class boundaries and displacements to instance centres (Ahn et al. 2019, IRN, section 4).

On ResNet-50 the two branches are the paper's; the rules that they follow fit any backbone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from weakseg.grid import GRID_STRIDE, grid_size
from weakseg.networks.backbones import Backbone, Stage


class Relations(NamedTuple):
    """What IRNet says of a batch, on the grid of (H-1)//4+1 by (W-1)//4+1 cells.

    Attributes:
        boundary: logits (N, 1, h, w) of a class boundary.
        displacement: (N, 2, h, w), from a cell to its instance's centre: rows, columns, in cells.
    """

    boundary: Tensor
    displacement: Tensor


class IRNet(nn.Module):
    """A frozen backbone with two branches on all of its stages.

    A stage finer than the grid is max-pooled to it; with ResNet-50's stem that is the map behind
    its own pooling, which IRN takes.

    In eval mode `mean_displacement` is subtracted: the losses leave a constant free. It is a
    buffer of two numbers that starts at 0 and is to be set after training
    (`weakseg.training.irnet.set_mean_displacement`).

    Args:
        backbone: its parameters are frozen, and it stays in eval mode.
    """

    mean_displacement: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.boundary = _BoundaryBranch(backbone.stages)
        self.displacement = _DisplacementBranch(backbone.stages)
        self.register_buffer("mean_displacement", torch.zeros(2))
        self.train()

    def forward(self, images: Tensor) -> Relations:
        """Relations of images, float (N, 3, H, W) in [0, 1], any size."""
        size = grid_size(*images.shape[2:])
        with torch.no_grad():
            maps = self.backbone(images, range(len(self.backbone.stages))).stages
        maps = [
            _pool(stage, GRID_STRIDE // level.stride)
            for stage, level in zip(maps, self.backbone.stages, strict=True)
        ]
        displacement = self.displacement(maps, size)
        if not self.training:
            displacement = displacement - self.mean_displacement.view(2, 1, 1)
        return Relations(self.boundary(maps, size), displacement)

    def train(self, mode: bool = True) -> "IRNet":
        super().train(mode)
        self.backbone.eval()
        return self


class PhotoRelations(NamedTuple):
    """IRNet's relations of one photo, on the grid.

    Attributes:
        boundary: float32 (h, w), the probability of a class boundary.
        displacement: float32 (2, h, w), from a cell to its instance's centre: rows, columns.
    """

    boundary: NDArray[np.float32]
    displacement: NDArray[np.float32]


@torch.inference_mode()
def relate(network: IRNet, photo: NDArray[np.uint8]) -> PhotoRelations:
    """Relations of one photo; boundary logits are the mean over it and its mirror image.

    Args:
        network: in eval mode.
        photo: uint8 (H, W, 3), RGB.
    """
    device = network.mean_displacement.device
    image = torch.from_numpy(photo).to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
    boundary, displacement = network(torch.cat([image, image.flip(-1)]))
    logits = (boundary[0] + boundary[1].flip(-1)).float() / 2
    return PhotoRelations(logits[0].sigmoid().cpu().numpy(), displacement[0].float().cpu().numpy())


class _BoundaryBranch(nn.Module):
    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_projection(stage.channels, 32) for stage in stages)
        self.head = nn.Conv2d(32 * len(stages), 1, kernel_size=1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        levels = [
            F.relu(_resize(level(stage), size))
            for level, stage in zip(self.levels, maps, strict=True)
        ]
        logits: Tensor = self.head(torch.cat(levels, dim=1))
        return logits


class _DisplacementBranch(nn.Module):
    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        widths = [_displacement_width(stage) for stage in stages]
        self.levels = nn.ModuleList(
            _projection(stage.channels, width) for stage, width in zip(stages, widths, strict=True)
        )
        self._coarse = [stage.stride > GRID_STRIDE for stage in stages]
        fine_width = sum(w for w, coarse in zip(widths, self._coarse, strict=True) if not coarse)
        self.merge = _projection(sum(widths) - fine_width, 256)
        self.fuse = _projection(fine_width + 256, 256)
        self.head = nn.Conv2d(256, 2, kernel_size=1, bias=False)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        half = (size[0] + 1) // 2, (size[1] + 1) // 2
        fine, coarse = [], []
        for level, stage, is_coarse in zip(self.levels, maps, self._coarse, strict=True):
            if is_coarse:
                coarse.append(F.relu(_resize(level(stage), half)))
            else:
                fine.append(F.relu(_resize(level(stage), size)))
        merged = F.relu(_resize(self.merge(torch.cat(coarse, dim=1)), size))
        displacement: Tensor = self.head(F.relu(self.fuse(torch.cat([*fine, merged], dim=1))))
        return displacement


def _displacement_width(stage: Stage) -> int:
    if stage.stride > GRID_STRIDE:
        return 256
    return 128 if stage.stride == GRID_STRIDE else 64


def _projection(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=1, bias=False),
        nn.GroupNorm(min(16, width // 8), width),
    )


def _pool(stage: Tensor, factor: int) -> Tensor:
    while factor > 1:
        stage = F.max_pool2d(stage, kernel_size=3, stride=2, padding=1)
        factor //= 2
    return stage


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
