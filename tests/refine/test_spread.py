from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weakseg.refine import spread as module
from weakseg.refine.spread import SpreadSettings, spread


def _naive(maps: Any, features: Any, power: float, steps: int, sharpening: float) -> Any:
    """Cell by cell, in the words of the docstring."""
    cells = features.reshape(len(features), -1).T.astype(float)
    cells = (cells - cells.mean(axis=0)) / cells.std(axis=0)
    count = len(cells)
    affinity = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            cosine = cells[i] @ cells[j] / np.linalg.norm(cells[i]) / np.linalg.norm(cells[j])
            affinity[i, j] = max(cosine, 0) ** power
        affinity[i] /= affinity[i].sum()
    walked = maps.reshape(len(maps), -1).astype(float) ** sharpening
    for _ in range(steps):
        walked = np.array([[row @ values for row in affinity] for values in walked])
    return (walked / walked.max(axis=1, keepdims=True)).reshape(maps.shape)


@pytest.fixture
def given_maps() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((2, 4, 5), np.float32), rng.normal(3, 7, (6, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("block", [2**24, 30])
def test_maps_are_averaged_over_cells_by_affinity(
    given_maps: tuple[Any, Any], device: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    maps, features = given_maps
    found = spread(maps, features, SpreadSettings(power=3, steps=2, sharpening=1.5), device)
    np.testing.assert_allclose(found, _naive(maps, features, 3, 2, 1.5), atol=1e-5)
    assert found.dtype == np.float32


def test_features_of_another_scale_give_the_same(given_maps: tuple[Any, Any]) -> None:
    maps, features = given_maps
    scaled = features * np.arange(1, 7, dtype=np.float32).reshape(-1, 1, 1) - 5
    for one, other in zip(
        *(spread(maps, values, SpreadSettings()) for values in (features, scaled)), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_two_objects_alike_share_their_map_and_the_rest_gets_none() -> None:
    features = np.zeros((2, 1, 6), np.float32)
    features[0, 0, :3], features[1, 0, 3:] = 1, 1
    maps = np.array([[[1.0, 0, 0, 0, 0, 0]]], np.float32)
    found = spread(maps, features, SpreadSettings())
    np.testing.assert_allclose(found, [[[1, 1, 1, 0, 0, 0]]], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_maps_stay_in_their_range(tags: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((tags, height, width), np.float32) * rng.integers(0, 2, (tags, 1, 1))
    features = rng.integers(0, 3, (2, height, width)).astype(np.float32)
    found = spread(maps, features, SpreadSettings())
    assert found.shape == maps.shape and found.min(initial=0) >= 0 and found.max(initial=0) <= 1
    peaks = maps.max(axis=(1, 2), initial=0)
    assert ((found.max(axis=(1, 2), initial=0) == 0) == (peaks == 0)).all()


@pytest.mark.parametrize(
    ("maps", "features", "message"),
    [
        (np.zeros((1, 2, 3)), np.zeros((4, 3, 2)), "expected"),
        (np.full((1, 2, 2), np.nan), np.zeros((4, 2, 2)), "NaN or infinity"),
    ],
)
def test_what_fits_not_is_refused(maps: Any, features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spread(maps, features, SpreadSettings())


@pytest.mark.parametrize("values", [{"power": 0}, {"steps": -1}, {"sharpening": 101}])
def test_settings_name_a_value_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        SpreadSettings(**values)
