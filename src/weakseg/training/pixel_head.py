"""Training of a pixel head on cells of many photos, with targets that may be wrong."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.masks import IGNORE
from weakseg.networks.pixel_head import PixelHead
from weakseg.training.optimizers import Optimizer, polynomial_decay

Batch = tuple[Tensor, Tensor]
"""Features (N, D), and each class's share of a cell, (N, C+1); what is uncertain has no share."""


class PixelHeadTraining(L.LightningModule):
    """Training by generalised cross-entropy; logs `loss`, the mean of the epoch.

    The loss of a cell is the mean over its target of (1 - p^q) / q (Zhang and Sabuncu 2018, eq. 6),
    which forgives a target that the rest speaks against; of all classes, not only a photo's tags,
    since the other photos teach what is none of them.

    Args:
        network: the head.
        optimizer: its learning rate is the head's.
        decay_power: the learning rate is `lr * (1 - step / steps) ** decay_power`.
        class_weights: float32 (C+1).
        q: 0 is the cross-entropy, 1 the mean absolute error.
        warmup: the share of the steps, the first ones, in which q is 0.
        smoothing: the share of a target that all classes have alike.
        dropped: the share of a batch's cells, those of the highest loss, that is not learned.
    """

    def __init__(
        self,
        network: PixelHead,
        optimizer: Optimizer,
        decay_power: float,
        class_weights: Tensor,
        q: float,
        warmup: float,
        smoothing: float,
        dropped: float,
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._decay_power = decay_power
        self._weights = class_weights
        self._q = q
        self._warmup = warmup
        self._smoothing = smoothing
        self._dropped = dropped

    def training_step(self, batch: Batch, index: int) -> Tensor:
        features, shares = batch
        known = shares.sum(dim=1, keepdim=True)
        targets = shares + self._smoothing * (known / shares.shape[1] - shares)
        warm = self.global_step < self._warmup * int(self.trainer.estimated_stepping_batches)
        losses = generalized_cross_entropy(
            self.network(features), targets * self._weights.to(targets), 0 if warm else self._q
        )
        if self._dropped:
            kept = len(losses) - int(self._dropped * len(losses))
            losses = losses.topk(kept, largest=False).values
        loss = losses.mean()
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(features))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer.build([], self.network.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        return polynomial_decay(optimizer, steps, self._decay_power)


def generalized_cross_entropy(logits: Tensor, targets: Tensor, q: float) -> Tensor:
    """Losses (N) of logits (N, C), against targets (N, C) that say how much a class counts."""
    logarithms = F.log_softmax(logits, dim=1)  # whose powers have gradients where p is 0
    losses = -logarithms if q == 0 else (1 - (q * logarithms).exp()) / q
    return (targets * losses).sum(dim=1)


def shares_of(
    mask: NDArray[np.uint8], classes: int, height: int, width: int
) -> NDArray[np.float16]:
    """Each class's share of the cells of a mask, float16 (height * width, C+1).

    Args:
        mask: uint8 (H, W), ids up to C, and 255 where it is uncertain.
    """
    ids = np.unique(mask[mask != IGNORE])
    planes = torch.from_numpy(mask == ids.reshape(-1, 1, 1)).float()
    found = F.adaptive_avg_pool2d(planes, (height, width)).flatten(1).T
    shares = np.zeros((height * width, classes + 1), np.float16)
    shares[:, ids] = found.numpy()
    return shares


class Cells(TorchDataset[Batch]):
    """Cells in batches of whole photos, an example each.

    Args:
        features: (N, D), all photos' cells, photo by photo.
        shares: (N, C+1), of each.
        lengths: (P), of each photo how many cells are its.
        batch_size: cells of a batch, about; one photo at least.
        seed, epoch: of the order.
    """

    def __init__(
        self,
        features: NDArray[np.float16],
        shares: NDArray[np.float16],
        lengths: NDArray[np.int64],
        batch_size: int,
        seed: int,
        epoch: int,
    ) -> None:
        self._features = features
        self._shares = shares
        ends = lengths.cumsum()
        order = np.random.default_rng((seed, epoch)).permutation(np.flatnonzero(lengths))
        self._bounds = np.stack([ends - lengths, ends], axis=1)
        batches = min(len(order), -(-len(features) // batch_size))
        self._batches = np.array_split(order, batches)

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:
        chosen = np.concatenate([np.arange(*self._bounds[k]) for k in self._batches[index]])
        features, shares = (
            torch.from_numpy(values[chosen]).float() for values in (self._features, self._shares)
        )
        return features, shares

    @staticmethod
    def collate(batches: Sequence[Batch]) -> Batch:
        """The one batch that a loader's batch has."""
        (batch,) = batches
        return batch
