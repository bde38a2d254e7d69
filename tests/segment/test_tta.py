import pytest
import torch
from torch import Tensor

from weakseg.networks.backbones import Backbone
from weakseg.networks.segmenter import Segmenter
from weakseg.segment.tta import segment


@pytest.fixture(scope="module")
def network() -> Segmenter:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none", output_stride=16)
    return Segmenter(backbone, classes=3, width=16).eval()


def _one_pass(network: Segmenter, images: Tensor) -> Tensor:
    with torch.inference_mode():
        scores: Tensor = network(images)
        return scores.softmax(dim=1)


def test_without_augmentation_it_is_the_softmax(network: Segmenter) -> None:
    images = torch.rand(2, 3, 45, 70)
    torch.testing.assert_close(segment(network, images), _one_pass(network, images))


def test_it_is_the_mean_of_all_passes(network: Segmenter) -> None:
    images = torch.rand(1, 3, 40, 64)
    passes = []
    for size in ((20, 32), (40, 64), (80, 128)):
        scaled = torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        for flip in (False, True):
            seen = scaled.flip(-1) if flip else scaled
            found = _one_pass(network, seen)
            found = found.flip(-1) if flip else found
            passes.append(torch.nn.functional.interpolate(found, size=(40, 64), mode="bilinear"))
    found = segment(network, images, scales=(0.5, 1.0, 2.0), flip=True)
    torch.testing.assert_close(found, torch.stack(passes).mean(dim=0))


def test_a_mirrored_photo_has_the_mirrored_mask(network: Segmenter) -> None:
    images = torch.rand(1, 3, 33, 47)
    scales = (0.5, 1.0)
    mirrored = segment(network, images.flip(-1), scales, flip=True)
    torch.testing.assert_close(segment(network, images, scales, flip=True), mirrored.flip(-1))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3), (64, 65)])
def test_any_size_gives_probabilities_of_that_size(
    network: Segmenter, size: tuple[int, int]
) -> None:
    found = segment(network, torch.rand(1, 3, *size), scales=(0.5, 1.0, 2.0), flip=True)
    assert found.shape == (1, 4, *size)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, *size))
