"""How a class's map becomes its logit."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from weakseg.strict import checked

if TYPE_CHECKING:
    from torch import Tensor

Name = Literal["mean", "best", "ranked", "hybrid"]

_PYRAMID = (1, 2, 4)


@checked
class Pooling:
    """How `pool_maps` makes a logit of a map.

    Attributes:
        name: `mean` of all cells (global average pooling); mean of the `best` cells; weights that
            fall with a cell's rank, `ranked` (global weighted rank pooling, Kolesnikov and Lampert
            2016, section 3.3); `hybrid` of means and of maxima of parts (Ru et al. 2022b).
        share: of the cells that `best` counts, one at least, and those that have half of the weight
            in `ranked`; over 0 and up to 1.

    Raises:
        ValueError: a value is out of its range.
    """

    name: Name = "mean"
    share: Annotated[float, Field(gt=0, le=1)] = 0.1


AVERAGE = Pooling()
"""Global average pooling."""


def pool_maps(maps: "Tensor", pooling: Pooling) -> "Tensor":
    """Logits (N, C) of class maps (N, C, h, w)."""
    import torch
    from torch.nn import functional as F

    if pooling.name == "mean":
        return maps.mean(dim=(2, 3))
    if pooling.name == "hybrid":
        finest = [F.adaptive_max_pool2d(maps, parts).mean(dim=(2, 3)) for parts in _PYRAMID]
        return (2 * maps.mean(dim=(2, 3)) + sum(finest)) / (2 + len(_PYRAMID))
    cells = maps.flatten(2)
    count = cells.shape[2]
    if pooling.name == "best":
        return cells.topk(max(1, round(pooling.share * count)), dim=2).values.mean(dim=2)
    ranks = torch.arange(count, device=maps.device)
    weights = torch.exp2(-ranks / (pooling.share * count))
    return cells.sort(dim=2, descending=True).values @ (weights / weights.sum()).to(maps.dtype)
