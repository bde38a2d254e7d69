import copy
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch.nn import functional as F

from weakseg import grid
from weakseg.grid import as_levels, grid_size, upsample, upsampled_bands
from weakseg.localize.cam import localize_tags, merge
from weakseg.localize.settings import Flip, Maximum, Merging, Normalize
from weakseg.networks.backbones import Backbone
from weakseg.networks.cam_classifier import (
    CamClassifier,
    confidences,
    multi_label_loss,
    with_mirror_image,
)
from weakseg.networks.cpu.fused import fuse
from weakseg.networks.pooling import Pooling

CLASSES = 4


@pytest.fixture(scope="module")
def network() -> CamClassifier:
    torch.manual_seed(0)
    network = CamClassifier(Backbone("test_efficientnet", weights="none"), CLASSES).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)


def naive_cam(
    network: CamClassifier, photo: np.ndarray, classes: list[int], scales: list[float]
) -> np.ndarray:
    """Section 2.1 of Lyu et al. with the loops written out."""
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    height, width = photo.shape[:2]
    size = ((height - 1) // 4 + 1, (width - 1) // 4 + 1)
    total = torch.zeros(len(classes), *size)
    for scale in scales:
        scaled = image
        if scale != 1:
            new = (round(height * scale), round(width * scale))
            scaled = F.interpolate(image, new, mode="bilinear", antialias=True, align_corners=False)
        straight = network.class_maps(scaled).maps
        mirrored = network.class_maps(torch.flip(scaled, [3])).maps
        for row, c in enumerate(classes):
            both = straight[:, c].clamp(min=0) + torch.flip(mirrored[:, c].clamp(min=0), [2])
            total[row] += F.interpolate(both[None], size, mode="bilinear")[0, 0]
    for row in range(len(classes)):
        total[row] /= total[row].max() + 1e-5
    return total.detach().numpy()


@pytest.mark.parametrize("scales", [[1.0], [0.5, 1.0, 1.5, 2.0]])
@pytest.mark.parametrize("classes", [[2], [0, 3], [3, 0, 1]])
def test_cam_is_the_naive_one(
    network: CamClassifier, photo: np.ndarray, scales: list[float], classes: list[int]
) -> None:
    cam = localize_tags(network, photo, classes, scales).cam
    np.testing.assert_allclose(cam, naive_cam(network, photo, classes, scales), atol=1e-5)


def test_outputs_of_one_tag_are_averaged_behind_the_relu(
    network: CamClassifier, photo: np.ndarray
) -> None:
    found = localize_tags(network, photo, [[0, 3, 2], 1], [1.0])
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        straight, mirrored = network.class_maps(image).maps, network.class_maps(image.flip(-1)).maps
    both = straight[0].clamp(min=0) + mirrored[0].flip(-1).clamp(min=0)
    total = F.interpolate(
        torch.stack([(both[0] + both[3] + both[2]) / 3, both[1]])[None],
        grid_size(61, 83),
        mode="bilinear",
    )[0]
    expected = total / (total.amax(dim=(1, 2), keepdim=True) + 1e-5)
    np.testing.assert_allclose(found.cam, expected.numpy(), atol=1e-5)
    each = localize_tags(network, photo, [0, 3, 2, 1], [1.0]).confidence
    np.testing.assert_allclose(found.confidence, [each[:3].max(), each[3]], atol=1e-6)
    assert localize_tags(network, photo, [], [1.0]).confidence.shape == (0,)


def test_the_confidence_is_that_of_the_logits_however_they_are_pooled(
    network: CamClassifier, photo: np.ndarray
) -> None:
    pooled = CamClassifier(network.backbone, 4, pooling=Pooling("best", 0.1)).eval()
    pooled.head = network.head
    with torch.no_grad():
        expected = confidences(pooled(with_mirror_image(photo, torch.device("cpu"))))
    found = localize_tags(pooled, photo, [2, 0], [0.5, 1.0]).confidence
    np.testing.assert_allclose(found, expected[[2, 0]], atol=1e-6)


def test_a_fused_backbone_gives_the_naive_cam_and_the_same_features(
    network: CamClassifier, photo: np.ndarray
) -> None:
    fused = copy.deepcopy(network)
    fused.backbone = fuse(network.backbone)
    assert fused.backbone is not network.backbone
    scales, classes, stages = [0.5, 1.0, 1.5], [3, 0], [0, 1, 2]
    found = localize_tags(fused, photo, classes, scales, stages, [0.5, 1.0])
    plain = localize_tags(network, photo, classes, scales, stages, [0.5, 1.0])
    np.testing.assert_allclose(found.cam, naive_cam(network, photo, classes, scales), atol=1e-4)
    np.testing.assert_allclose(found.features, plain.features, atol=2e-3, rtol=2e-3)
    np.testing.assert_allclose(found.confidence, plain.confidence, atol=1e-4)


def test_cam_is_in_range_and_reaches_its_maximum(network: CamClassifier, photo: np.ndarray) -> None:
    cam = localize_tags(network, photo, [0, 1, 2, 3], [1.0, 2.0]).cam
    assert cam.dtype == np.float32
    assert cam.shape == (4, *grid_size(61, 83)) == (4, 16, 21)
    assert cam.min() >= 0
    reached = cam.max(axis=(1, 2))
    assert ((reached > 0.9) & (reached <= 1) | (reached == 0)).all()


def test_a_mirrored_photo_gives_the_mirrored_cam(network: CamClassifier, photo: np.ndarray) -> None:
    cam = localize_tags(network, photo[:, :80], [1, 2], [1.0]).cam
    mirrored = localize_tags(
        network, np.ascontiguousarray(photo[:, :80][:, ::-1]), [1, 2], [1.0]
    ).cam
    np.testing.assert_allclose(mirrored[:, :, ::-1], cam, atol=1e-4)


MERGINGS = [Merging(*of) for of in product(*map(get_args, (Flip, Normalize, Maximum)))]


def naive_merge(maps: list[np.ndarray], size: tuple[int, int], merging: Merging) -> np.ndarray:
    """Each way to merge, written out a map at a time."""
    classes = maps[0].shape[1]

    def over_maximum(cam: np.ndarray) -> np.ndarray:
        joint = cam.max()
        peaks = [joint if merging.maximum == "photo" else m.max() for m in cam]
        return np.stack([m / (peak + 1e-5) for m, peak in zip(cam, peaks, strict=True)])

    total = np.zeros((classes, *size))
    for straight, mirrored in maps:
        one = np.zeros_like(total)
        for c in range(classes):
            a, b = straight[c], mirrored[c][:, ::-1]
            if merging.flip == "sum_before_relu":
                both = np.maximum(a + b, 0)
            elif merging.flip == "maximum":
                both = np.maximum(np.maximum(a, b), 0)
            else:
                both = np.maximum(a, 0) + np.maximum(b, 0)
            one[c] = upsample(both[None], *size)[0]
        total += over_maximum(one) if merging.normalize == "each_scale" else one
    return over_maximum(total)


@given(st.sampled_from(MERGINGS), st.integers(0, 99), st.integers(1, 3))
def test_maps_are_merged_as_written_out(merging: Merging, seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, (rng.integers(1, 4), 2))
    weights = rng.uniform(0.1, 10, classes).reshape(-1, 1, 1)
    maps = [(weights * (rng.random((2, classes, *s)) - 0.4)).astype(np.float32) for s in sizes]
    given_maps = list(map(torch.from_numpy, maps))
    cam = merge(given_maps, (7, 9), merging)
    np.testing.assert_allclose(cam.numpy(), naive_merge(maps, (7, 9), merging), atol=1e-5)
    assert 0 <= cam.min() <= cam.max() <= 1
    of_mirror = merge([m.flip(0) for m in given_maps], (7, 9), merging)
    np.testing.assert_allclose(of_mirror.flip(-1).numpy(), cam.numpy(), atol=1e-5)


@pytest.mark.parametrize("merging", MERGINGS, ids=str)
def test_merging_of_nothing_and_of_what_is_no_number(merging: Merging) -> None:
    assert merge([torch.zeros(2, 0, 3, 4)], (6, 8), merging).shape == (0, 6, 8)
    assert not merge([-torch.ones(2, 2, 3, 4)], (6, 8), merging).any()
    for value in (torch.nan, torch.inf):
        maps = torch.ones(2, 2, 3, 4)
        maps[0, 1, 1, 1] = value
        with pytest.raises(ValueError, match="NaN or infinity"):
            merge([torch.ones(2, 2, 2, 2), maps], (6, 8), merging)


def test_the_merging_is_that_asked_for(network: CamClassifier, photo: np.ndarray) -> None:
    classes, scales = [0, 3], [0.5, 1.0]
    merging = Merging("maximum", "each_scale", "photo")
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    small = F.interpolate(image, (30, 42), mode="bilinear", antialias=True)
    with torch.no_grad():
        maps = [
            network.class_maps(torch.cat([x, x.flip(-1)])).maps[:, classes] for x in (small, image)
        ]
    expected = naive_merge([m.numpy() for m in maps], grid_size(61, 83), merging)
    found = localize_tags(network, photo, classes, scales, merging=merging).cam
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_unknown_way_to_merge_is_refused() -> None:
    with pytest.raises(ValueError, match=r"flip\n.*'sum'"):
        Merging(flip="mean")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scales", "natural"), [([1.0], 1), ([0.5, 1.0, 2.0], 1), ([2.0, 0.5], 0.5), ([1.5, 3], 1.5)]
)
def test_confidence_is_that_of_the_mean_logits_at_the_scale_next_to_1(
    network: CamClassifier, photo: np.ndarray, scales: list[float], natural: float
) -> None:
    confidence = localize_tags(network, photo, [3, 1], scales).confidence
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    size = (round(61 * natural), round(83 * natural))
    scaled = F.interpolate(image, size, mode="bilinear", antialias=True) if natural != 1 else image
    with torch.no_grad():
        logits = (network(scaled) + network(scaled.flip(-1)))[0, [3, 1]] / 2
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, 1 / (1 + np.exp(-logits.numpy())), atol=1e-5)
    assert 0 < confidence.min() < confidence.max() < 1


def test_extra_convolutions_are_part_of_the_cam(photo: np.ndarray) -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_efficientnet", weights="none")
    network = CamClassifier(backbone, CLASSES, "extra_convolutions").eval()
    torch.nn.init.normal_(network.head.weight)
    cam = localize_tags(network, photo, [0, 3], [0.5, 1.0]).cam
    np.testing.assert_allclose(cam, naive_cam(network, photo, [0, 3], [0.5, 1.0]), atol=1e-4)


def test_features_are_means_over_flips_and_scales(
    network: CamClassifier, photo: np.ndarray
) -> None:
    features = localize_tags(network, photo, [0], [1.0], [0, 1], [1.0]).features
    image = torch.tensor(photo).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        straight = network.backbone(image, [0, 1]).stages
        mirrored = network.backbone(image.flip(-1), [0, 1]).stages
    expected = torch.cat(
        [
            F.interpolate((a + b.flip(-1)) / 2, grid_size(61, 83), mode="bilinear")[0]
            for a, b in zip(straight, mirrored, strict=True)
        ]
    )
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, expected.numpy(), atol=2e-3, rtol=2e-3)
    two = localize_tags(network, photo, [0], [1.0, 2.0], [0, 1], [1.0, 2.0]).features
    only_second = localize_tags(network, photo, [0], [2.0], [0, 1], [2.0]).features
    np.testing.assert_allclose(
        two, (features.astype(float) + only_second) / 2, atol=4e-3, rtol=4e-3
    )


def test_no_tags_give_no_maps(network: CamClassifier, photo: np.ndarray) -> None:
    found = localize_tags(network, photo, [], [1.0], [1])
    assert found.cam.shape == (0, 16, 21)
    assert found.confidence.shape == (0,)
    assert upsample(found.cam, 61, 83).shape == (0, 61, 83)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 300)])
def test_odd_sizes(network: CamClassifier, size: tuple[int, int], fused: bool) -> None:
    network = copy.deepcopy(network)
    network.backbone = fuse(network.backbone) if fused else network.backbone
    photo = np.full((*size, 3), 127, np.uint8)
    found = localize_tags(network, photo, [1], [0.5, 1.0, 2.0], [0, 1, 2], [1.0])
    assert np.isfinite(found.cam).all() and np.isfinite(found.features).all()
    assert upsample(found.cam, *size).shape == (1, *size)


sides = st.integers(1, 12)


@given(st.integers(0, 3), sides, sides, st.integers(1, 50), st.integers(1, 50), st.integers(1, 300))
def test_bands_of_any_height_are_the_whole(
    k: int, h: int, w: int, height: int, width: int, band: int
) -> None:
    maps = np.random.default_rng(h).random((k, h, w), dtype=np.float32)
    whole = upsample(maps, height, width)
    assert whole.shape == (k, height, width) and whole.dtype == np.float32
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "_BAND", band)
        banded = np.full_like(whole, np.nan)
        for rows, values in upsampled_bands(maps, height, width):
            assert values.size <= max(band, k * width)
            banded[:, rows] = values
    np.testing.assert_array_equal(banded, whole)
    if k:
        np.testing.assert_array_equal(banded.argmax(axis=0), whole.argmax(axis=0))


@given(st.integers(1, 3), sides, sides, st.integers(1, 50), st.integers(1, 50))
def test_upsampling_is_bilinear(k: int, h: int, w: int, height: int, width: int) -> None:
    maps = np.random.default_rng(w).random((k, h, w), dtype=np.float32)
    expected = F.interpolate(torch.tensor(maps)[None], (height, width), mode="bilinear")[0]
    np.testing.assert_allclose(upsample(maps, height, width), expected, atol=1e-5)


@given(sides, sides, st.integers(1, 50), st.integers(1, 50), st.floats(0, 1, width=32))
def test_upsampling_keeps_constants_and_the_maps_own_size(
    h: int, w: int, height: int, width: int, value: float
) -> None:
    assert (
        upsample(np.full((1, h, w), value, np.float32), height, width) == np.float32(value)
    ).all()
    maps = np.random.default_rng(h).random((2, h, w), dtype=np.float32)
    np.testing.assert_array_equal(upsample(maps, h, w), maps)


def test_loss_is_equation_1() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    tags = torch.tensor([[1, 0, 1], [0, 1, 0]])
    total = 0.0
    for image in range(2):
        for c in range(3):
            p = 1 / (1 + np.exp(-logits[image, c].item()))
            y = tags[image, c].item()
            total -= (y * np.log(p) + (1 - y) * np.log(1 - p)) / 3 / 2
    assert multi_label_loss(logits, tags).item() == pytest.approx(total, rel=1e-5)


@given(
    arrays(
        np.float16,
        array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.floats(-2000, 2000, width=16),
    )
)
def test_levels_are_a_channels_values_to_half_a_step(features: np.ndarray) -> None:
    levels = as_levels(features)
    assert levels.dtype == np.uint8
    for channel, level in zip(features.astype(np.float64), levels, strict=True):
        span = channel.max() - channel.min()
        assert (level.min(), level.max()) == (0, 255 if span else 0)
        np.testing.assert_allclose(
            level.astype(float) * span / 255, channel - channel.min(), atol=span * 0.51 / 255
        )
    unchanged = as_levels(levels.astype(np.float32))
    np.testing.assert_array_equal(unchanged, levels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_levels_of_what_is_not_finite_are_refused(value: float) -> None:
    features = np.zeros((2, 3, 3), np.float16)
    features[1, 0, 2] = value
    with pytest.raises(ValueError, match="finite"):
        as_levels(features)


def test_maps_that_are_no_numbers_are_refused(network: CamClassifier, photo: np.ndarray) -> None:
    broken = copy.deepcopy(network)
    broken.head.weight.data[0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinity"):
        localize_tags(broken, photo, [0], [1.0])
    assert np.isfinite(localize_tags(broken, photo, [1], [1.0]).cam).all()


def test_features_too_large_for_16_bits_are_the_largest_there(
    network: CamClassifier, photo: np.ndarray
) -> None:
    def features(factor: float) -> np.ndarray:
        larger = copy.deepcopy(network)
        larger.backbone.model.blocks[0].register_forward_hook(lambda *given: given[-1] * factor)
        return localize_tags(larger, photo, [0], [1.0], [0]).features

    plain, large = features(1), features(1e6)
    assert np.isfinite(large).all()
    assert abs(large).max() == np.finfo(np.float16).max
    assert (np.sign(large) == np.sign(plain)).all()
