from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from weakseg.data.masks import write_mask
from weakseg.networks.backbones import Backbone
from weakseg.networks.segmenter import Segmenter
from weakseg.training.optimizers import SGD
from weakseg.training.segmentation import MaskedPhotos, MaskPair, SegmentationTraining, pixel_loss


@pytest.fixture
def pairs(tmp_path: Path) -> list[MaskPair]:
    """Photos whose red says which label a pixel has."""
    made: list[MaskPair] = []
    for number, size in enumerate([(40, 60), (60, 30), (8, 8)]):
        rng = np.random.default_rng(number)
        blocks = rng.integers(0, 3, (size[0] // 4, size[1] // 4)).astype(np.uint8)
        mask = blocks.repeat(4, axis=0).repeat(4, axis=1)
        photo = np.stack([mask * 80, mask, mask], axis=-1)
        photo_path, mask_path = tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"
        Image.fromarray(photo).save(photo_path)
        write_mask(mask_path, mask)
        made.append((photo_path, (mask_path,)))
    return made


def _photos(
    pairs: list[MaskPair], epoch: int | None, seed: int = 0, crop: int = 48
) -> MaskedPhotos:
    return MaskedPhotos(pairs, (40, 80), crop, (0.5, 0.5, 0.5), "flip", seed, epoch)


@pytest.mark.parametrize("epoch", [None, 0, 1, 2, 3])
def test_a_mask_stays_on_its_photo(pairs: list[MaskPair], epoch: int | None) -> None:
    for image, labels in DataLoader(_photos(pairs, epoch), batch_size=None):
        side = 60 if epoch is None else 48
        assert image.shape == (3, side, side)
        assert labels.shape == (side, side)
        known = labels != 255
        assert known.any()
        red = image[0] * 255 / 80
        sharp = (red - red.round()).abs() < 0.02  # not blended with a neighbour
        inside = known & sharp
        agree = (red.round()[inside] == labels[inside]).float().mean()
        assert agree > 0.95
        torch.testing.assert_close(image[:, ~known], torch.full_like(image[:, ~known], 0.5))


def test_draws_depend_on_seed_and_epoch_alone(pairs: list[MaskPair]) -> None:
    def drawn(epoch: int | None, seed: int = 0) -> torch.Tensor:
        photos = _photos(pairs, epoch, seed)
        return torch.stack([photos[i][0] for i in range(len(photos))])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1), drawn(1, seed=1))
    assert torch.equal(drawn(None), drawn(None, seed=1))


def test_the_loss_is_the_mean_over_labelled_pixels() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    masks[0, :2] = 255
    terms = [
        -logits[n, :, y, x].log_softmax(0)[masks[n, y, x]]
        for n in range(2)
        for y in range(4)
        for x in range(5)
        if masks[n, y, x] != 255
    ]
    torch.testing.assert_close(pixel_loss(logits, masks), torch.stack(terms).mean())


def test_a_batch_without_a_label_teaches_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_outputs_that_are_no_numbers_are_never_judged() -> None:
    network = Segmenter(Backbone("test_efficientnet", "none", output_stride=16), classes=2).eval()
    network.head.get_parameter("bias").data[0] = torch.nan
    training = SegmentationTraining(network, SGD("sgd", 0.1, 0.1, 0.0, 0.0), decay_power=0.0)
    with pytest.raises(FloatingPointError, match="epoch 1 leaves NaN or infinity in its outputs"):
        training.validation_step((torch.rand(1, 3, 32, 32), torch.zeros(1, 32, 32).long()), 0)
