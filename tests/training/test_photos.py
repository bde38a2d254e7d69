from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from weakseg.data.dataset import Sample
from weakseg.networks.cam_classifier import UNKNOWN
from weakseg.training.augment import Augmentation, flip, strong
from weakseg.training.photos import TaggedPhotos, target

CLASSES = ("cat", "dog", "owl")
FILL = (0.1, 0.5, 0.9)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    for i, (height, width) in enumerate([(60, 90), (90, 60), (40, 40), (30, 200)]):
        ramp = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
        path = tmp_path / f"{i}.png"
        Image.fromarray(ramp).save(path)
        made.append(Sample(str(i), path, CLASSES[: i % 3], None))
    return made


def photos(samples: list[Sample], epoch: int | None, seed: int = 0, **changed: Any) -> TaggedPhotos:
    settings = {"long_side": (40, 100), "crop": 64, **changed}
    return TaggedPhotos(samples, CLASSES, fill=FILL, seed=seed, epoch=epoch, **settings)


def test_examples_have_their_shape_range_and_tags(samples: list[Sample]) -> None:
    for i, (photo, tags) in enumerate(DataLoader(photos(samples, None), batch_size=None)):
        assert photo.shape == (3, 64, 64) and photo.dtype == torch.float32
        assert photo.min() >= 0 and photo.max() <= 1
        assert tags.tolist() == [float(k < i % 3) for k in range(3)]


def test_doubtful_tags_are_unknown() -> None:
    sample = Sample("a", Path("a.jpg"), ("dog",), None, doubtful=("cat", "dog"))
    assert target(sample, CLASSES).tolist() == [UNKNOWN, 1, 0]


@pytest.mark.parametrize("augment", [flip, strong])
def test_draws_depend_on_seed_and_epoch_alone(samples: list[Sample], augment: Augmentation) -> None:
    first, again = photos(samples, 0, augment=augment), photos(samples, 0, augment=augment)
    np.random.seed(0)
    torch.manual_seed(0)
    for i in (3, 0, 2, 1):
        torch.testing.assert_close(first[i][0], again[i][0], rtol=0, atol=0)
    others = (photos(samples, 1, augment=augment), photos(samples, 0, seed=1, augment=augment))
    for other in others:
        assert any((first[i][0] != other[i][0]).any() for i in range(4))


def test_an_epoch_shows_every_photo_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    grey = [Sample(str(i), tmp_path / f"{i}.png", (), None) for i in range(6)]
    for i, sample in enumerate(grey):
        Image.new("L", (50, 50), 40 * i).save(sample.image)
    orders = set()
    for epoch in range(4):
        shown = photos(grey, epoch, long_side=(64, 64))
        orders.add(tuple(round(shown[i][0].mean().item() * 255 / 40) for i in range(6)))
    assert len(orders) > 1
    assert all(sorted(order) == list(range(6)) for order in orders)


def test_what_a_photo_leaves_of_the_crop_has_the_fill(samples: list[Sample]) -> None:
    photo, _ = photos(samples, None, long_side=(40, 40))[2]
    border = torch.tensor(FILL).view(3, 1)
    torch.testing.assert_close(photo[:, 0], border.expand(3, 64))
    torch.testing.assert_close(photo[:, :, -1], border.expand(3, 64))
    assert photo[:, 12:52, 12:52].std() > 0.1


def test_crops_of_one_size_are_windows_of_the_photo(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(original).save(tmp_path / "a.png")
    sample = Sample("a", tmp_path / "a.png", (), None)
    flipped = 0
    for epoch in range(12):
        photo, _ = photos([sample], epoch, long_side=(80, 80))[0]
        crop = (photo.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        windows = [
            (mirrored, y, x)
            for mirrored in (False, True)
            for y in range(17)
            for x in range(17)
            if ((original[:, ::-1] if mirrored else original)[y : y + 64, x : x + 64] == crop).all()
        ]
        assert len(windows) == 1
        flipped += windows[0][0]
    assert 0 < flipped < 12
