"""Training of IRNet on pseudo masks (Ahn et al. 2019, IRN, section 4.3)."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from weakseg.data.masks import IGNORE
from weakseg.grid import grid_size
from weakseg.networks.irnet import IRNet, Relations
from weakseg.refine.affinity import pair_ends
from weakseg.refine.torch_affinity import path_maxima
from weakseg.training.devices import share_of
from weakseg.training.optimizers import Optimizer, polynomial_decay
from weakseg.training.segmentation import MaskedExample


class IRNetTraining(L.LightningModule):
    """Training of both branches; the backbone stays as it is.

    Logs `loss` and its two terms, `affinity` and `displacement` (means of the epoch). After
    training `set_mean_displacement` is to be called.

    Args:
        network: the network.
        optimizer: its learning rates are those of the boundary and of the displacement branch.
        decay_power: the learning rate is `lr * (1 - step / steps) ** decay_power`.
        radius: cells nearer than this to each other, on the grid, make a pair.
    """

    def __init__(
        self, network: IRNet, optimizer: Optimizer, decay_power: float, radius: int = 10
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._decay_power = decay_power
        self._radius = radius

    def training_step(self, batch: MaskedExample, index: int) -> Tensor:
        images, masks = batch
        losses = relation_losses(self.network(images), reduce_masks(masks), self._radius)
        loss = losses.affinity + losses.displacement
        self.log_dict(
            {"loss": loss, **losses._asdict()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
        )
        return loss

    def configure_optimizers(self) -> Any:
        network = self.network
        optimizer = self._optimizer.build(
            network.boundary.parameters(), network.displacement.parameters()
        )
        return polynomial_decay(
            optimizer, int(self.trainer.estimated_stepping_batches), self._decay_power
        )


class RelationLosses(NamedTuple):
    """Scalars, at least 0."""

    affinity: Tensor
    displacement: Tensor


def relation_losses(relations: Relations, masks: Tensor, radius: int) -> RelationLosses:
    """Losses of all pairs of cells nearer than `radius` (IRN, section 4.3).

    There are three kinds of pairs: both cells background, both of one class, of different labels.
    The affinity loss is half the mean of the first two kinds' mean cross-entropies, plus half the
    third's. The displacement loss is half the sum of the first two kinds' mean errors (L1, mean
    over rows and columns): the displacements of cells of one class differ by what lies between
    them, those of background cells don't differ. Pairs with an ignored cell count for nothing. A
    kind of which the batch has no pair adds 0. The mean over devices is that over the pairs of all
    (`weakseg.training.devices`).

    Args:
        relations: of N images, in training mode.
        masks: (N, h, w) on their grid, 0 background, 1 to C, 255 ignored.
        radius: see `weakseg.refine.affinity.pair_directions`.
    """
    logits, field = relations.boundary[:, 0].float(), relations.displacement.float()
    masks = masks.to(torch.uint8)
    sums = [(0 * (logits.sum() + field.sum())).expand(5)]
    counts = [logits.new_zeros(5)]
    for direction, boundary in path_maxima(logits, radius):
        first, second = pair_ends(masks, direction)
        known = (first != IGNORE) & (second != IGNORE)
        background = known & (first == 0) & (second == 0)
        foreground = known & (first == second) & (first != 0)
        parted = known & (first != second)
        here, there = pair_ends(field, direction)
        difference = here - there
        between = field.new_tensor(direction).view(2, 1, 1)
        union = _softplus(boundary)
        split = union - boundary
        still, pointing = difference.abs().mean(dim=1), (difference - between).abs().mean(dim=1)
        terms = (
            (union, background),
            (union, foreground),
            (split, parted),
            (still, background),
            (pointing, foreground),
        )
        sums.append(torch.stack([(values * chosen).sum() for values, chosen in terms]))
        counts.append(torch.stack([chosen.sum() for _, chosen in terms]).to(logits.dtype))
    count = torch.stack(counts).sum(dim=0)
    means = torch.stack(sums).sum(dim=0) / count.clamp(min=1) * share_of(count)
    return RelationLosses(
        affinity=((means[0] + means[1]) / 2 + means[2]) / 2,
        displacement=(means[3] + means[4]) / 2,
    )


def reduce_masks(masks: Tensor) -> Tensor:
    """Masks (N, H, W) on the grid of their photos, (N, h, w), by the nearest pixel."""
    size = grid_size(*masks.shape[1:])
    reduced = F.interpolate(masks.unsqueeze(1).float(), size=size, mode="nearest-exact")
    return reduced.squeeze(1).to(masks.dtype)


def _softplus(values: Tensor) -> Tensor:
    """`F.softplus` without its log1p, which takes ten times as long as a log on a CPU."""
    return values.clamp(min=0) + (1 + (-values.abs()).exp()).log()


@torch.inference_mode()
def set_mean_displacement(network: IRNet, batches: Iterable[Tensor]) -> None:
    """Measure the mean displacement of images, which the network subtracts from now on.

    Args:
        network: the trained network; it is left in eval mode.
        batches: images, float (N, 3, H, W) in [0, 1], at least one; each counts the same.
    """
    network.eval()
    network.mean_displacement.zero_()
    means = [
        network(images.to(network.mean_displacement.device)).displacement.mean(dim=(2, 3))
        for images in batches
    ]
    network.mean_displacement.copy_(torch.cat(means).mean(dim=0))
