import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from weakseg.localize import sipe
from weakseg.localize.sipe import (
    image_specific_cams,
    localize_by_prototypes,
    prototypes,
    seed_pixels,
    with_background,
)
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import CamClassifier
from weakseg.networks.sipe import Sides

CLASSES = 4


def cosine(a: Tensor, b: Tensor) -> float:
    lengths = float(a.norm() * b.norm())
    return max(0.0, float(a @ b) / lengths) if lengths else 0.0


def naive_seeds(cams: Tensor, features: Tensor, factor: float = 0.5) -> list[list[int]]:
    """Pixel by pixel: the row with the highest soft IoU, the background's times a factor."""
    rows, height, width = cams.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    labels = [[0] * width for _ in range(height)]
    for y, x in pixels:
        region = [cosine(features[:, y, x], features[:, v, u]) for v, u in pixels]
        scores = []
        for row in range(rows):
            cam = [float(cams[row, v, u]) for v, u in pixels]
            shared = sum(r * c for r, c in zip(region, cam, strict=True))
            union = sum(region) + sum(cam) - shared
            scores.append((shared / union if union else 0.0) * (factor if row == 0 else 1.0))
        labels[y][x] = int(np.argmax(scores))
    return labels


def naive_is_cams(labels: list[list[int]], rows: list[int], features: Tensor) -> Tensor:
    height, width = len(labels), len(labels[0])
    found = torch.zeros(len(rows), height, width)
    for number, row in enumerate(rows):
        mine = [
            features[:, y, x] for y in range(height) for x in range(width) if labels[y][x] == row
        ]
        if mine:
            mean = torch.stack(mine).mean(dim=0)
            for y in range(height):
                for x in range(width):
                    found[number, y, x] = cosine(mean, features[:, y, x])
    return found


def test_the_background_is_what_no_class_has() -> None:
    maps = torch.tensor([[[[4.0, 2.0, -1.0]], [[-3.0, 0.0, 1.0]], [[-1.0, -1.0, -1.0]]]])
    cams = with_background(maps)
    expected = torch.tensor([[[0, 0.5, 0]], [[1, 0.5, 0]], [[0, 0, 1]], [[0, 0, 0]]])
    torch.testing.assert_close(cams[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("block", "factor"), [(1, 0.5), (60, 1.5), (2**24, 0.5)])
def test_seeds_and_maps_agree_with_going_pixel_by_pixel(
    block: int, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sipe, "_BLOCK", block)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 5, 4, 3, generator=generator)
    features[0, :, 0, 0] = 0  # like nothing, not even itself
    cams = torch.rand(3, 4, 4, 3, generator=generator) ** 4
    cams[1, 2] = 0
    labels = seed_pixels(cams, features, factor)
    assert labels.unique().numel() > 2
    rows = [0, 1, 3]
    seeds = labels.unsqueeze(1) == torch.tensor(rows).view(1, -1, 1, 1)
    found = image_specific_cams(features, prototypes(seeds, features))
    for image in range(3):
        expected = naive_seeds(cams[image], features[image], factor)
        assert labels[image].tolist() == expected
        torch.testing.assert_close(
            found[image], naive_is_cams(expected, rows, features[image]), atol=1e-5, rtol=0
        )


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_the_order_of_pixels_does_not_matter(rows: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 3, height, width, generator=generator)
    cams = torch.rand(1, rows, height, width, generator=generator)
    order = torch.randperm(height * width, generator=generator)

    def shuffled(maps: Tensor) -> Tensor:
        return maps.flatten(2)[..., order].view(maps.shape)

    def found(cams: Tensor, features: Tensor) -> Tensor:
        seeds = F.one_hot(seed_pixels(cams, features), rows).movedim(3, 1)
        return image_specific_cams(features, prototypes(seeds, features))

    once, again = found(cams, features), found(shuffled(cams), shuffled(features))
    torch.testing.assert_close(shuffled(once), again, atol=1e-4, rtol=0)
    assert once.min() >= 0 and once.max() <= 1 + 1e-5


@pytest.fixture(scope="module")
def network() -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), CLASSES).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def sides(network: CamClassifier) -> Sides:
    torch.manual_seed(1)
    return Sides(network.backbone.stages).eval()


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)


@torch.no_grad()
def naive_scores(
    network: CamClassifier, sides: Sides, photo: np.ndarray, classes: list[int], scales: list[float]
) -> np.ndarray:
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    total = torch.zeros(len(classes) + 1, 16, 21)
    for scale in scales:
        scaled = image
        if scale != 1:
            new = (round(61 * scale), round(83 * scale))
            scaled = F.interpolate(image, new, mode="bilinear", antialias=True)
        maps: Tensor | float = 0.0
        features: Tensor | float = 0.0
        for mirrored in (False, True):
            shown = scaled.flip(-1) if mirrored else scaled
            raw, stages = network.class_maps(shown, [1, 2, 3, 4])
            levels = []
            for convolution, stage in zip(sides.convolutions, stages, strict=True):
                level = convolution(stage)
                level = level / level.norm(dim=1, keepdim=True)
                levels.append(F.interpolate(level, stages[2].shape[2:], mode="bilinear"))
            described = torch.cat(levels, dim=1)
            maps = maps + (raw.flip(-1) if mirrored else raw)
            features = features + (described.flip(-1) if mirrored else described)
        assert isinstance(maps, Tensor) and isinstance(features, Tensor)
        cams = maps[0].clamp(min=0)
        cams = torch.stack([cam / (cam.max() + 1e-5) for cam in cams])
        cams = torch.cat([1 - cams.amax(dim=0, keepdim=True), cams])
        cams = F.interpolate(cams[None], features.shape[2:], mode="bilinear")[0]
        labels = naive_seeds(cams, features[0])
        found = naive_is_cams(labels, [0, *(c + 1 for c in classes)], features[0])
        total += F.interpolate(found[None], (16, 21), mode="bilinear")[0]
    scores: np.ndarray = (total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5)).numpy()
    return scores


@pytest.mark.parametrize("classes", [[2], [0, 3], []])
def test_scores_are_the_naive_ones(
    network: CamClassifier, sides: Sides, photo: np.ndarray, classes: list[int]
) -> None:
    scales = [0.5, 1.0]
    scores = localize_by_prototypes(network, sides, photo, classes, scales)
    assert scores.dtype == np.float32
    expected = naive_scores(network, sides, photo, classes, scales)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_maps_that_are_no_numbers_are_refused(
    network: CamClassifier, sides: Sides, photo: np.ndarray
) -> None:
    broken = copy.deepcopy(network)
    broken.backbone.model.blocks[0].register_forward_hook(lambda *given: given[-1] * torch.nan)
    with pytest.raises(ValueError, match="NaN or infinity"):
        localize_by_prototypes(broken, sides, photo, [0], [1.0])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 300)])
def test_odd_sizes(network: CamClassifier, sides: Sides, size: tuple[int, int]) -> None:
    photo = np.full((*size, 3), 127, np.uint8)
    scores = localize_by_prototypes(network, sides, photo, [1, 2], [0.5, 2.0])
    assert scores.shape[0] == 3 and np.isfinite(scores).all()
