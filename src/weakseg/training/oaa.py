"""Online attention accumulation: where a classifier looked while it was trained."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, resize
from weakseg.networks.cam_classifier import CamClassifier, multi_label_loss
from weakseg.training.classifier import ClassifierTraining
from weakseg.training.optimizers import Optimizer
from weakseg.training.photos import draw_order, target

_LEVELS = 255


class Visit(NamedTuple):
    """A whole photo, float32 (3, H, W) in [0, 1]; its target, float32 (C); its place."""

    image: Tensor
    target: Tensor
    place: int


class WholePhotos(TorchDataset[Visit]):
    """Whole photos of one longer side, so that a class map always lies on the same pixels.

    Args:
        samples: the photos, whose places they are known by.
        classes: names of the outputs, in order.
        long_side: in pixels.
        seed, epoch: of their order.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        long_side: int,
        seed: int,
        epoch: int,
    ) -> None:
        self._samples, self._classes, self._long_side = samples, classes, long_side
        self._order = draw_order(len(samples), seed, epoch)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Visit:
        place = int(self._order[index])
        sample = self._samples[place]
        photo = resize(read_photo(sample.image), self._long_side)
        image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
        return Visit(image, target(sample, self._classes), place)


class AttentionTraining(ClassifierTraining):
    """Multi-label training, a photo at a time, that keeps the attention of its visits.

    From the second epoch on, `accumulate` takes up the maps of a photo's tags at each of its visits
    (Jiang et al. 2019, section 3.2). In the last epoch a tag of which nothing was accepted takes
    what there is. What was accumulated is part of a checkpoint.

    Args:
        network: the classifier, whose logits are the means of its maps.
        samples, classes: the photos that the batches' places are of, and the outputs' names.

    Attributes:
        attention: uint8 (K, h, w) of each photo's tags in their order, by its id.
    """

    def __init__(
        self,
        network: CamClassifier,
        optimizer: Optimizer,
        decay_power: float,
        samples: Sequence[Sample],
        classes: Sequence[str],
    ) -> None:
        super().__init__(network, optimizer, decay_power)
        self._samples, self._classes = samples, classes
        self.attention: dict[str, Tensor] = {}

    def training_step(self, batch: Any, index: int) -> Tensor:
        image, tags, place = Visit(*batch)
        maps = self.network.class_maps(image).maps
        logits = maps.mean(dim=(2, 3))
        self._visit(self._samples[int(place)], maps[0].detach(), logits[0].detach())
        loss = multi_label_loss(logits, tags)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def _visit(self, sample: Sample, maps: Tensor, logits: Tensor) -> None:
        is_last = self.current_epoch == self.trainer.max_epochs - 1
        if self.current_epoch == 0 and not is_last:
            return
        tags = [self._classes.index(tag) for tag in sample.tags]
        known = self.attention.get(sample.id)
        self.attention[sample.id] = accumulate(known, maps.float(), logits, tags, is_last)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["attention"] = self.attention

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.attention = checkpoint["attention"]


def accumulate(
    known: Tensor | None, maps: Tensor, logits: Tensor, tags: Sequence[int], is_last: bool
) -> Tensor:
    """The attention on a photo's K tags, with that of one visit more (Jiang et al. 2019, eq. 2).

    A tag's map, after a ReLU and over its maximum, is accepted if the tag is among the K most
    probable classes, and joins what is known by their maximum, cell by cell.

    Args:
        known: uint8 (K, h, w), what was accumulated before; None: nothing.
        maps: class maps, float (C, h, w).
        logits: float (C).
        tags: indices of the photo's tags.
        is_last: whether a tag of which nothing is known takes a map that is not accepted.

    Returns:
        uint8 (K, h, w), 255 for 1.
    """
    found = F.relu(maps[list(tags)])
    peaks = found.amax(dim=(1, 2), keepdim=True)
    seen = (found / peaks.clamp_min(torch.finfo(peaks.dtype).tiny) * _LEVELS).round().byte().cpu()
    if known is None:
        known = torch.zeros_like(seen)
    most = set(logits.topk(len(tags)).indices.tolist())
    accepted = torch.tensor([tag in most for tag in tags], dtype=torch.bool)
    if is_last:
        accepted |= (known == 0).flatten(1).all(dim=1)
    return torch.where(accepted[:, None, None], torch.maximum(known, seen), known)
