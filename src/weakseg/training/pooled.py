"""Pooled features of a frozen backbone as training batches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.files import written_by_run
from weakseg.training.photos import Example, target

POOLED = "pooled"


def read_pooled(folder: Path, photo_id: str) -> Tensor:
    """Pooled features of a photo and of its mirror image, float32 (2, D).

    Raises:
        WeaksegError: if the file is missing or damaged.
    """
    path = folder / f"{photo_id}.safetensors"
    with written_by_run(path):
        return safetensors.torch.load_file(path)[POOLED]


class PooledPhotos(TorchDataset[Example]):
    """Pooled features of photos or of their mirror images, with their tags.

    An example is float32 (D), and the target, float32 (C).

    Args:
        samples: the photos.
        classes: names of the outputs, in order.
        folder: has `ID.safetensors` of each photo: `pooled`, float32 (2, D), of the photo and of
            its mirror image.
        seed, epoch: of the draws, as in `TaggedPhotos`; epoch `None` takes every photo as it is.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        folder: Path,
        seed: int,
        epoch: int | None,
    ) -> None:
        self._samples = samples
        self._classes = classes
        self._folder = folder
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
        views = read_pooled(self._folder, sample.id)
        return views[self._mirrored[place]], target(sample, self._classes)
