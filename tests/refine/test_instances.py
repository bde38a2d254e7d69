import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from weakseg.refine.instances import instance_map, split_by_instance


def towards(centres: list[tuple[int, int]], owners: np.ndarray) -> NDArray[np.float32]:
    """Displacements of each cell to the centre of its owner."""
    ends = np.array(centres)[owners].transpose(2, 0, 1)
    steps: NDArray[np.float32] = (ends - np.indices(owners.shape)).astype(np.float32)
    return steps


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = {*zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)}
    return len(pairs) == len(np.unique(first)) == len(np.unique(second))


def test_cells_that_point_to_one_centre_are_one_instance() -> None:
    owners = np.zeros((20, 40), int)
    owners[:, 22:] = 1
    owners[12:, 30:] = 2
    found = instance_map(towards([(10, 8), (5, 30), (16, 35)], owners))
    assert found.dtype == np.int32
    assert sorted(np.unique(found)) == [1, 2, 3]
    assert same_partition(found, owners)


def test_short_displacements_are_followed_to_the_centre() -> None:
    owners = np.zeros((20, 60), int)
    owners[:, 30:] = 1
    full = towards([(10, 12), (9, 45)], owners)
    length = np.maximum(np.hypot(*full), 1e-6)
    shortened = full * np.minimum(1, 4 / length)
    assert same_partition(instance_map(shortened), owners)


def test_noise_changes_no_instance() -> None:
    owners = np.zeros((30, 50), int)
    owners[:, 25:] = 1
    noise = np.random.default_rng(0).normal(0, 0.3, (2, 30, 50))
    found = instance_map((towards([(15, 10), (14, 38)], owners) + noise).astype(np.float32))
    assert same_partition(found, owners)


def test_displacements_out_of_the_grid_end_at_its_side() -> None:
    field = np.zeros((2, 6, 20), np.float32)
    field[1, :, 3:] = -100
    assert (instance_map(field) == 1).all()


def test_cells_that_lead_to_no_centre_have_no_instance() -> None:
    field = np.zeros((2, 4, 12), np.float32)
    field[1, :, :6], field[1, :, 6:] = 6, -6
    assert (instance_map(field) == 0).all()
    field[:, :, :3] = 0
    assert (instance_map(field) == ([1] * 3 + [0] * 3) + ([1] * 3 + [0] * 3)).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1)])
def test_nothing_moves_on_a_still_field(size: tuple[int, int]) -> None:
    assert (instance_map(np.zeros((2, *size), np.float32)) == 1).all()


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (2, 5, 7), elements=st.floats(-20, 20, width=32)))
def test_instances_are_numbered_without_gaps(field: NDArray[np.float32]) -> None:
    found = instance_map(field)
    assert {*np.unique(found)} - {0} == {*range(1, found.max() + 1)}


@pytest.mark.parametrize(
    ("field", "threshold", "message"),
    [
        (np.zeros((3, 4, 4)), 2.5, r"shape \(3, 4, 4\)"),
        (np.zeros((2, 0, 4)), 2.5, r"shape \(2, 0, 4\)"),
        (np.full((2, 4, 4), np.nan), 2.5, "NaN"),
        (np.zeros((2, 4, 4)), 0.0, "threshold is 0.0"),
    ],
)
def test_refuses_what_is_no_field(field: np.ndarray, threshold: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance_map(field.astype(np.float32), threshold)


masks = arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
)
grids = arrays(
    np.int32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 4)
)


def naive_pairs(mask: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """(H, W, 2): class and instance of every pixel, both 0 where either is."""
    (height, width), (h, w) = mask.shape, instances.shape
    pairs = np.zeros((height, width, 2), int)
    for y, x in np.ndindex(height, width):
        instance = instances[int((y + 0.5) / height * h + 1e-9), int((x + 0.5) / width * w + 1e-9)]
        if mask[y, x] and instance:
            pairs[y, x] = mask[y, x], instance
    return pairs


@given(masks, grids, st.integers(1, 20))
def test_objects_are_the_pixels_of_one_class_and_one_instance(
    mask: np.ndarray, instances: np.ndarray, band: int
) -> None:
    pairs = naive_pairs(mask, instances)
    expected = sorted({tuple(pair) for pair in pairs.reshape(-1, 2).tolist()} - {(0, 0)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("weakseg.refine.instances._BAND", band)
        objects, left_out = split_by_instance(mask, instances)
    assert objects.dtype == np.uint8 and left_out == 0
    numbers = {pair: number for number, pair in enumerate(expected, start=1)} | {(0, 0): 0}
    for y, x in np.ndindex(mask.shape):
        assert objects[y, x] == numbers[tuple(pairs[y, x].tolist())]


def test_of_too_many_objects_the_smallest_are_left_out() -> None:
    instances = np.arange(1, 301, dtype=np.int32).reshape(1, 300)
    mask = np.tile(np.repeat(np.array([[2, 1]], np.uint8), 150, axis=1), (4, 1))
    mask[1:, 100:146] = 0
    objects, left_out = split_by_instance(mask, instances)
    assert left_out == 46
    assert not objects[:, 100:146].any()
    others = np.delete(objects[0], np.s_[100:146])
    assert others.tolist() == [*range(151, 255), *range(1, 151)]
    assert (np.delete(objects, np.s_[100:146], axis=1) == others).all()
