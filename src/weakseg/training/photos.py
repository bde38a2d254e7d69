"""Photos and tags as training batches."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from weakseg.data.dataset import Sample
from weakseg.data.images import read_photo, resize
from weakseg.data.masks import IGNORE
from weakseg.networks.cam_classifier import UNKNOWN
from weakseg.training.augment import Augmentation, flip

Example = tuple[Tensor, Tensor]
"""What a network is given of a photo, and its target, float32 (C)."""

CoveredExample = tuple[Tensor, Tensor, Tensor]
"""An `Example`, and which of its pixels are the photo's, bool (S, S)."""


def target(sample: Sample, classes: Sequence[str]) -> Tensor:
    """1 for a photo's tags, `UNKNOWN` for its doubtful ones, 0 for all others; float32 (C)."""
    return torch.tensor(
        [
            1.0 if name in sample.tags else UNKNOWN if name in sample.doubtful else 0.0
            for name in classes
        ]
    )


def draw_order(count: int, seed: int, epoch: int | None) -> NDArray[np.intp]:
    """The places of some photos in the order of an epoch; of epoch `None` as they are."""
    order = np.arange(count)
    if epoch is not None:
        np.random.default_rng((seed, epoch)).shuffle(order)
    return order


class TaggedPhotos(TorchDataset[Example]):
    """Square crops of photos, float32 (3, S, S) in [0, 1], with their tags.

    Each draw depends on the seed, the epoch and the photo's place alone, so that neither the
    number of loader workers nor a resumed run changes it.

    Args:
        samples: the photos.
        classes: names of the outputs, in order.
        long_side: range in pixels from which the longer side is drawn.
        crop: side of the square; what the photo leaves of it is filled with `fill`.
        fill: RGB in [0, 1]; a backbone's mean, so that it is zero once normalised.
        seed, epoch: of the draws; epoch `None` draws nothing: no augmentation, the photo's longer
            side fits the crop.
        augment: changes a photo before it is cut; see `weakseg.training.augment`.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: Sequence[str],
        long_side: tuple[int, int],
        crop: int,
        fill: Sequence[float],
        seed: int,
        epoch: int | None,
        augment: Augmentation = flip,
    ) -> None:
        self._samples = samples
        self._classes = classes
        self._long_side = long_side
        self._crop = crop
        self._fill = np.asarray(fill, np.float32) * 255
        self._seed = seed
        self._epoch = epoch
        self._augment = augment
        self._order = draw_order(len(samples), seed, epoch)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Example:
        number = int(self._order[index])
        sample = self._samples[number]
        photo = read_photo(sample.image)
        if self._epoch is None:
            square = self._centred(resize(photo, min(self._crop, self._long_side[1])))
        else:
            square, _ = self._drawn(photo, self._rng(self._epoch, number))
        return _as_image(square), target(sample, self._classes)

    def _rng(self, epoch: int, number: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, epoch, number))

    def _drawn(
        self, photo: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The square that an epoch shows, and which of its pixels are the photo's."""
        low, high = self._long_side
        photo = resize(photo, int(rng.integers(low, high + 1)))
        photo, uncovered = self._augment(
            photo, rng, self._fill, np.zeros(photo.shape[:2], np.uint8)
        )
        assert uncovered is not None
        top, left = (int(rng.integers(0, abs(side - self._crop) + 1)) for side in photo.shape[:2])
        square = place(photo, self._crop, top, left, self._fill)
        return square, place(uncovered, self._crop, top, left, IGNORE) == 0

    def _centred(self, photo: NDArray[np.uint8]) -> NDArray[np.float32]:
        top, left = (abs(side - self._crop) // 2 for side in photo.shape[:2])
        return place(photo, self._crop, top, left, self._fill)


class CoveredPhotos(TaggedPhotos):
    """`TaggedPhotos` of an epoch, each with which of its pixels are the photo's: bool (S, S)."""

    def __getitem__(self, index: int) -> CoveredExample:  # type: ignore[override]
        number = int(self._order[index])
        sample = self._samples[number]
        assert self._epoch is not None
        rng = self._rng(self._epoch, number)
        square, covered = self._drawn(read_photo(sample.image), rng)
        return _as_image(square), target(sample, self._classes), torch.from_numpy(covered)


def _as_image(square: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(square).permute(2, 0, 1).float() / 255


def place(
    image: NDArray[np.uint8], side: int, top: int, left: int, fill: NDArray[np.float32] | float
) -> NDArray[np.float32]:
    """A square of `side` pixels that shares with an image, (H, W) or (H, W, 3), what fits.

    It is cut from (top, left) where the image exceeds the square; where it doesn't, the image
    lies at (top, left), and `fill` around it.
    """
    square = np.empty((side, side, *image.shape[2:]), np.float32)
    square[:] = fill
    rows, cut_rows = _overlap(image.shape[0], side, top)
    columns, cut_columns = _overlap(image.shape[1], side, left)
    square[rows, columns] = image[cut_rows, cut_columns]
    return square


def _overlap(side: int, crop: int, offset: int) -> tuple[slice, slice]:
    if side > crop:
        return slice(0, crop), slice(offset, offset + crop)
    return slice(offset, offset + side), slice(0, side)
