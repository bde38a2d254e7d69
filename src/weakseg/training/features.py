"""Features of photos that were kept of a frozen backbone, and tags, as training batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.files import written_by_run
from weakseg.training.photos import Example, target


class KeptFeatures(TorchDataset[Example]):
    """Features of photos, with their tags.

    An example is what is kept of a photo, and the target, float32 (C).

    Args:
        samples: the photos.
        classes: names of the outputs, in order.
        folder: has `ID.safetensors` of each photo (`weakseg.networks.features`).
        name: of the tensor that is learned from: pooled (2, D), of a photo and of its mirror image,
            one of which is drawn; or a map (D, h, w).
        seed, epoch: of the draws, as in `TaggedPhotos`; epoch `None` takes every photo as it is.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        folder: Path,
        name: str,
        seed: int,
        epoch: int | None,
    ) -> None:
        self._samples = samples
        self._classes = classes
        self._folder = folder
        self._name = name
        self._order = np.arange(len(samples))
        self._mirrored = np.zeros(len(samples), int)
        if epoch is not None:
            rng = np.random.default_rng((seed, epoch))
            rng.shuffle(self._order)
            self._mirrored = rng.integers(0, 2, len(samples))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Example:
        place = self._order[index]
        sample = self._samples[place]
        path = self._folder / f"{sample.id}.safetensors"
        with written_by_run(path), safetensors.safe_open(path, "pt") as file:
            kept = file.get_tensor(self._name)
        features = kept[self._mirrored[place]] if kept.ndim == 2 else kept
        return features.float(), target(sample, self._classes)

    @staticmethod
    def collate(examples: Sequence[Example]) -> tuple[list[Tensor], Tensor]:
        """A batch: features one by one, since maps differ in size, and targets (N, C)."""
        features, targets = zip(*examples, strict=True)
        return list(features), torch.stack(targets)
