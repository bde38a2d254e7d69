"""Training of the segmentation network on masks, whoever made them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, resize
from weakseg.data.masks import IGNORE, agreement, read_mask, resized_mask
from weakseg.metrics import ConfusionMatrix
from weakseg.names import AugmentationName
from weakseg.networks.segmenter import Segmenter
from weakseg.training.augment import AUGMENTATIONS
from weakseg.training.devices import share_of
from weakseg.training.optimizers import Optimizer, check_finite, polynomial_decay
from weakseg.training.photos import place, target

MaskPair = tuple[Path, tuple[Path, ...]]
"""A photo and its masks (PNG, at its own size): what they agree on is learned."""

MaskedExample = tuple[Tensor, Tensor]
"""A photo, float32 (3, S, S) in [0, 1], and its mask, int64 (S, S), 255 ignored."""

SeededExample = tuple[Tensor, Tensor, Tensor, Tensor]
"""A `MaskedExample`, its photo's tags (`weakseg.training.photos.target`), and where in the square
the photo lies, bool (S, S)."""


class MaskedPhotos(TorchDataset[MaskedExample]):
    """Square crops of photos with their masks.

    Each draw depends on the seed, the epoch and the photo's place alone.

    Args:
        pairs: photos and their masks.
        long_side: range in pixels from which the photo's longer side is drawn.
        crop: side of the square; what the photo leaves of it is filled with `fill`, and ignored.
        fill: RGB in [0, 1].
        augmentation: name of what is done to photo and mask before the crop.
        seed, epoch: of the draws; epoch `None` draws nothing: the whole photo, its longer side in
            the middle of the range, in a square of that side.
    """

    def __init__(
        self,
        pairs: Sequence[MaskPair],
        long_side: tuple[int, int],
        crop: int,
        fill: Sequence[float],
        augmentation: AugmentationName,
        seed: int,
        epoch: int | None,
    ) -> None:
        self._augment = AUGMENTATIONS[augmentation]
        self._pairs = pairs
        self._long_side = long_side
        self._crop = crop
        self._fill = np.asarray(fill, np.float32) * 255
        self._seed = seed
        self._epoch = epoch
        self._order = np.arange(len(pairs))
        if epoch is not None:
            np.random.default_rng((seed, epoch)).shuffle(self._order)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> MaskedExample:
        return self._cut(int(self._order[index]))[:2]

    def _cut(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Photo and mask of a place, and where in the square the photo lies."""
        path, masks = self._pairs[number]
        photo, mask = read_photo(path), agreement([read_mask(mask) for mask in masks])
        low, high = self._long_side
        if self._epoch is None:
            crop = (low + high) // 2
            offset = (0.0, 0.0)
            photo, mask = _resize_both(photo, mask, crop)
        else:
            crop = self._crop
            rng = np.random.default_rng((self._seed, self._epoch, number))
            photo, mask = _resize_both(photo, mask, int(rng.integers(low, high + 1)))
            photo, moved = self._augment(photo, rng, self._fill, mask)
            assert moved is not None
            mask = moved
            offset = (rng.random(), rng.random())
        top, left = (
            int(share * (abs(length - crop) + 1))
            for share, length in zip(offset, photo.shape[:2], strict=True)
        )
        square = place(photo, crop, top, left, self._fill)
        labels = place(mask, crop, top, left, IGNORE)
        covered = place(np.ones_like(mask), crop, top, left, 0)
        image = torch.from_numpy(square).permute(2, 0, 1).float() / 255
        return image, torch.from_numpy(labels).long(), torch.from_numpy(covered).bool()


class SeededPhotos(MaskedPhotos):
    """`MaskedPhotos` with what losses of seeds ask for beside them.

    Args:
        samples: the photos, in the order of `pairs`.
        classes: names of the mask ids 1 to C.
        masked: `MaskedPhotos`' arguments.
    """

    def __init__(self, samples: Sequence[Sample], classes: Sequence[str], *masked: Any) -> None:
        super().__init__(*masked)
        self._samples, self._classes = samples, classes

    def __getitem__(self, index: int) -> SeededExample:  # type: ignore[override]
        number = int(self._order[index])
        image, seeds, covered = self._cut(number)
        return image, seeds, target(self._samples[number], self._classes), covered


class SegmentationTraining(L.LightningModule):
    """Cross-entropy over the pixels that have a label; validated by mIoU on held-out masks.

    Logs `loss` (mean of the epoch) and `miou` (over background and classes that occur).

    Args:
        network: the segmentation network.
        optimizer: its learning rates are the backbone's and the decoder's.
        decay_power: the learning rate is `lr * (1 - step / steps) ** decay_power`.
    """

    def __init__(self, network: Segmenter, optimizer: Optimizer, decay_power: float) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._decay_power = decay_power
        self._matrix = ConfusionMatrix([str(i + 1) for i in range(network.classes)])

    def training_step(self, batch: MaskedExample, index: int) -> Tensor:
        images, masks = batch
        loss = pixel_loss(self.network(images), masks)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        self._matrix.counts[:] = 0

    def validation_step(self, batch: MaskedExample, index: int) -> None:
        images, masks = batch
        logits = self.network(images)
        check_finite(logits, self.current_epoch)
        self._matrix.update(_ids(masks), _ids(logits.argmax(dim=1)))

    def on_validation_epoch_end(self) -> None:
        counts = torch.from_numpy(self._matrix.counts).to(self.device)
        of_all_devices = self.all_gather(counts).reshape(-1, *counts.shape).sum(dim=0)
        self._matrix.counts[:] = of_all_devices.cpu().numpy()
        self.log("miou", self._matrix.summary()["miou"] or 0.0)

    def configure_optimizers(self) -> Any:
        network = self.network
        optimizer = self._optimizer.build(network.backbone.parameters(), network.new_parameters())
        return polynomial_decay(
            optimizer, int(self.trainer.estimated_stepping_batches), self._decay_power
        )


def pixel_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels that are not 255; 0 where there are none.

    The mean over devices is that over the pixels of all (`weakseg.training.devices`).

    Args:
        logits: float (N, C+1, H, W).
        masks: int64 (N, H, W), 0 to C or 255.
    """
    total = F.cross_entropy(logits.float(), masks, ignore_index=IGNORE, reduction="sum")
    known = (masks != IGNORE).sum()
    return total / known.clamp(min=1) * share_of(known)


def _ids(masks: Tensor) -> NDArray[np.uint8]:
    ids: NDArray[np.uint8] = masks.to(torch.uint8).cpu().numpy()
    return ids


def _resize_both(
    photo: NDArray[np.uint8], mask: NDArray[np.uint8], long_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    photo = resize(photo, long_side)
    return photo, resized_mask(mask, *photo.shape[:2])
