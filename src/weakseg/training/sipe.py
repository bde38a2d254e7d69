"""Training of SIPE: tags, and CAMs that agree with image-specific ones (Chen et al. 2022)."""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F
from torch.optim import Optimizer as TorchOptimizer

from weakseg.localize.sipe import (
    BACKGROUND_FACTOR,
    image_specific_cams,
    over_maximum,
    prototypes,
    seed_pixels,
    with_background,
)
from weakseg.networks.cam_classifier import CamClassifier, multi_label_loss
from weakseg.networks.sipe import Sides
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.devices import share_of_photos
from weakseg.training.optimizers import Optimizer
from weakseg.training.photos import CoveredExample


class SipeTraining(ClassifierTraining):
    """The loss of the tags plus `consistency` times that of the CAMs; validated on held-out tags.

    Logs `loss` and its two terms, `tags` and `consistency`, beside what a classifier's does.

    Args:
        network: the classifier.
        sides: side convolutions on its backbone; they learn at the head's rate.
        optimizer, decay_power: see `ClassifierTraining`.
        consistency: what the second loss is multiplied with.
        gradient_norm: what the norm of all gradients together is cut to.
        background_factor: see `weakseg.localize.sipe.seed_pixels`.
    """

    def __init__(
        self,
        network: CamClassifier,
        sides: Sides,
        optimizer: Optimizer,
        decay_power: float,
        consistency: float = 1.0,
        gradient_norm: float = 1.0,
        background_factor: float = BACKGROUND_FACTOR,
    ) -> None:
        super().__init__(network, optimizer, decay_power)
        self.sides = sides
        self._consistency = consistency
        self._gradient_norm = gradient_norm
        self._background_factor = background_factor

    def training_step(self, batch: CoveredExample, index: int) -> Tensor:  # type: ignore[override]
        share = share_of_photos(batch[0])
        found = sipe_losses(self.network, self.sides, *batch, self._background_factor)
        losses = SipeLosses(*(share * term for term in found))
        loss = losses.tags + self._consistency * losses.consistency
        self.log_dict(
            {"loss": loss, **losses._asdict()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
            sync_dist=True,
        )
        return loss

    def new_parameters(self) -> Iterator[Parameter]:
        return chain(super().new_parameters(), self.sides.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: TorchOptimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.clip_gradients(optimizer, self._gradient_norm, "norm")


class SipeLosses(NamedTuple):
    """Scalars, at least 0."""

    tags: Tensor
    consistency: Tensor


def sipe_losses(
    network: CamClassifier,
    sides: Sides,
    images: Tensor,
    tags: Tensor,
    covered: Tensor,
    background_factor: float = BACKGROUND_FACTOR,
) -> SipeLosses:
    """The multi-label loss, and the general-specific consistency (Chen et al., section 3.4).

    The latter is the mean difference (L1, over all cells, the background and all classes) of the
    CAMs and the IS-CAMs, these over their maximum. Seeds are told by the correlation of the deepest
    level. CAMs of absent classes, and of cells that no photo covers, are 0 and have no seeds.

    Args:
        images: float (N, 3, S, S) in [0, 1].
        tags: (N, C), see `weakseg.networks.cam_classifier.multi_label_loss`.
        covered: bool (N, S, S), where the photos are.
        background_factor: see `weakseg.localize.sipe.seed_pixels`.
    """
    maps, stages = network.class_maps(images, sides.indices)
    levels = sides.levels(stages)
    features = sides(levels)
    with torch.autocast(images.device.type, enabled=False):
        maps, deepest, size = maps.float(), levels[-1], features.shape[2:]
        photo = F.interpolate(covered.unsqueeze(1).float(), size, mode="nearest-exact")
        known = photo * F.pad(tags == 1, (1, 0), value=True)[:, :, None, None]
        cams = _resize(with_background(maps), size) * known
        labels = seed_pixels(cams, _resize(deepest, size), background_factor)
        seeds = F.one_hot(labels, cams.shape[1]).permute(0, 3, 1, 2) * known
        specific = over_maximum(image_specific_cams(features, prototypes(seeds, features)))
        return SipeLosses(
            tags=multi_label_loss(maps.mean(dim=(2, 3)), tags),
            consistency=(cams - specific).abs().mean(),
        )


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
