"""Losses of a segmentation network that learns from seeds and tags: SEC and DSRG.

Kolesnikov and Lampert 2016 (SEC) and Huang et al. 2018 (DSRG). Both are taken on cells of 8 pixels,
the stride of the networks that they were published with.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from weakseg.data.masks import IGNORE
from weakseg.memory import cores_here
from weakseg.networks.pooling import Pooling, pool_maps
from weakseg.networks.segmenter import Segmenter
from weakseg.refine.components import keep_components
from weakseg.refine.crf import dense_crf, unary_from_probabilities
from weakseg.refine.settings import CRFSettings
from weakseg.training.devices import share_of_photos
from weakseg.training.optimizers import Optimizer
from weakseg.training.segmentation import SeededExample, SegmentationTraining

_CELL = 8

_LEAST = 1e-4
"""What is added to probabilities, so that each has a logarithm (SEC's code)."""

_FOREGROUND = Pooling("ranked", -1 / (1681 * math.log2(0.996)))
_BACKGROUND = Pooling("ranked", -1 / (1681 * math.log2(0.999)))
"""SEC's decays, 0.996 and 0.999, which belong to its 1,681 cells, for any number of them."""


class Cells(NamedTuple):
    """What a network says of one photo, on a grid.

    Attributes:
        probabilities: float32 (C+1, h, w), over 0, that sum to 1.
        photo: uint8 (h, w, 3).
        seeds: int64 (h, w), 0 to C, 255 unknown.
        tags: float32 (C), 1 for those that the photo has, 0 for those that it hasn't.
    """

    probabilities: Tensor
    photo: NDArray[np.uint8]
    seeds: Tensor
    tags: Tensor


Losses = Callable[[Cells, Tensor], dict[str, Tensor]]
"""The terms of one photo's loss, by name; the tensor is what the CRF makes of its cells."""


class SeedTraining(SegmentationTraining):
    """Training by losses of seeds; validated as `SegmentationTraining` is.

    Logs `loss`, the sum of its terms, and each term (means of the epoch).

    Args:
        network, optimizer, decay_power: see `SegmentationTraining`.
        losses: of one photo, `sec_losses` or `dsrg_losses`; picklable.
        kernels: of the CRF, in pixels of the square.
    """

    def __init__(
        self,
        network: Segmenter,
        optimizer: Optimizer,
        decay_power: float,
        losses: Losses,
        kernels: CRFSettings,
    ) -> None:
        super().__init__(network, optimizer, decay_power)
        self._losses = losses
        self._kernels = kernels.scaled(1 / _CELL)

    def training_step(self, batch: SeededExample, index: int) -> Tensor:  # type: ignore[override]
        logits, share = self.network(batch[0]), share_of_photos(batch[0])
        with torch.autocast(logits.device.type, enabled=False):
            photos = list(cells_of(logits, *batch))
            terms: dict[str, Tensor] = {}
            for cells, refined in zip(photos, refine(photos, self._kernels), strict=True):
                for name, value in self._losses(cells, refined).items():
                    terms[name] = terms.get(name, 0) + share * value / len(photos)
            loss = torch.stack(list(terms.values())).sum()
        self.log_dict(
            {"loss": loss, **terms},
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
        )
        return loss


def sec_losses(cells: Cells, refined: Tensor) -> dict[str, Tensor]:
    """Seed, expand and constrain, which count the same (Kolesnikov and Lampert, eq. 1)."""
    return {
        "seed": seeding_loss(cells.probabilities, cells.seeds),
        "expand": expansion_loss(cells.probabilities, cells.tags),
        "constrain": boundary_loss(cells.probabilities, refined),
    }


def dsrg_losses(
    cells: Cells, refined: Tensor, foreground: float = 0.85, background: float = 0.99
) -> dict[str, Tensor]:
    """Balanced seeding, by seeds that grow, and boundary loss (Huang et al. 2018, section 3).

    Seeds grow anew in each step, from those given, by the probabilities that the CRF makes of the
    network's: as in the published code, whose CRF takes probabilities for energies. Ours takes
    their logarithms.

    Args:
        foreground, background: see `grow_seeds`.
    """
    grown = grow_seeds(
        cells.seeds.byte().cpu().numpy(),
        refined.cpu().numpy(),
        np.flatnonzero(F.pad(cells.tags == 1, (1, 0), value=True).cpu().numpy()),
        foreground,
        background,
    )
    seeds = torch.from_numpy(grown).to(cells.seeds)
    is_background = seeds == 0
    return {
        "background": seeding_loss(cells.probabilities, seeds.masked_fill(~is_background, IGNORE)),
        "foreground": seeding_loss(cells.probabilities, seeds.masked_fill(is_background, IGNORE)),
        "boundary": boundary_loss(cells.probabilities, refined),
    }


def seeding_loss(probabilities: Tensor, seeds: Tensor) -> Tensor:
    """Mean of -log p over the cells that have a seed (SEC, eq. 2); 0 where none has.

    Args:
        probabilities: (C+1, h, w), over 0.
        seeds: int64 (h, w), 0 to C, 255 unknown.
    """
    total = F.nll_loss(probabilities.log()[None], seeds[None], ignore_index=IGNORE, reduction="sum")
    return total / (seeds != IGNORE).sum().clamp(min=1)


def expansion_loss(probabilities: Tensor, tags: Tensor) -> Tensor:
    """How far each class is from where it should be, or not be, in the photo (SEC, eq. 3 to 5).

    The mean of -log G(p) over the photo's classes, that of -log(1 - max p) over those that it
    hasn't, and -log G(p) of the background; G is global weighted rank pooling. A photo with no
    class, or with all, adds 0 for what there is none of.

    Args:
        probabilities: (C+1, h, w), between 0 and 1.
        tags: (C), 1 or 0; classes with another number count neither way.
    """
    maps = probabilities[None]
    found = pool_maps(maps[:, 1:], _FOREGROUND)[0]
    background = pool_maps(maps[:, :1], _BACKGROUND)[0, 0]
    highest = probabilities[1:].amax(dim=(1, 2))
    return -(
        _mean(found[tags == 1].log()) + _mean((1 - highest[tags == 0]).log()) + background.log()
    )


def boundary_loss(probabilities: Tensor, refined: Tensor) -> Tensor:
    """Mean over the cells of KL(refined || probabilities) (SEC's constrain loss, section 3.4).

    Args:
        probabilities: (C+1, h, w), over 0.
        refined: likewise, what the CRF makes of them; without a gradient.
    """
    return (refined * (refined.log() - probabilities.log())).sum(dim=0).mean()


def grow_seeds(
    seeds: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    present: NDArray[np.intp],
    foreground: float,
    background: float,
) -> NDArray[np.uint8]:
    """Seeds, and the regions around them that a network is sure of (DSRG, section 3.2).

    A cell joins a class that the photo has if this is its most probable one, surer than the
    threshold, and if a path over eight neighbours of the same class leads to one of its seeds.
    Another class' seed stays what it is.

    Args:
        seeds: uint8 (h, w), 0 background, 1 to C, 255 unknown.
        probabilities: (C+1, h, w).
        present: ascending ids that the photo has, 0 among them.
        foreground, background: thresholds, in [0, 1].

    Returns:
        uint8 (h, w), with all seeds that were given.
    """
    own = probabilities[present]
    first = own.argmax(axis=0)
    sure = own.max(axis=0) > np.where(first == 0, background, foreground)
    # From 1 on: to `keep_components` an id of 0 is no class.
    places = np.full(IGNORE + 1, IGNORE, np.uint8)
    places[present] = np.arange(1, len(present) + 1)
    given = places[seeds]
    regions = np.where(sure, first.astype(np.uint8) + 1, given)
    kept = keep_components(regions, confident=given, instead=IGNORE)
    ids = np.full(IGNORE + 1, IGNORE, np.uint8)
    ids[1 : len(present) + 1] = present
    return np.where(seeds == IGNORE, ids[kept], seeds)


def cells_of(
    logits: Tensor, images: Tensor, seeds: Tensor, tags: Tensor, covered: Tensor
) -> Iterator[Cells]:
    """What of each square a photo covers, in cells of 8 pixels.

    Args:
        logits: (N, C+1, S, S).
        images, seeds, tags, covered: a batch of `SeededExample`.
    """
    height, width = (math.ceil(side / _CELL) for side in logits.shape[2:])
    size = height, width
    odds = F.adaptive_avg_pool2d(logits.float(), size).softmax(dim=1) + _LEAST
    probabilities = odds / odds.sum(dim=1, keepdim=True)
    photos = (F.adaptive_avg_pool2d(images.float(), size) * 255).round().byte()
    places = F.adaptive_max_pool2d(covered[:, None].float(), size)[:, 0] > 0
    known = F.interpolate(seeds[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
    for number, place in enumerate(places):
        rows, columns = place.any(dim=1), place.any(dim=0)
        yield Cells(
            probabilities[number][:, rows][:, :, columns],
            photos[number][:, rows][:, :, columns].permute(1, 2, 0).contiguous().cpu().numpy(),
            known[number][rows][:, columns],
            tags[number],
        )


def refine(photos: list[Cells], kernels: CRFSettings) -> list[Tensor]:
    """What the dense CRF makes of photos' probabilities, without a gradient, likewise over 0.

    Args:
        kernels: in cells.
    """

    def work(cells: Cells) -> Tensor:
        unary = unary_from_probabilities(cells.probabilities.detach().cpu().numpy())
        found = torch.from_numpy(dense_crf(cells.photo, unary, kernels)) + _LEAST
        return (found / found.sum(dim=0)).to(cells.probabilities.device)

    with ThreadPoolExecutor(cores_here()) as pool:
        return list(pool.map(work, photos))


def _mean(values: Tensor) -> Tensor:
    """0 of none."""
    return values.sum() / max(1, len(values))
