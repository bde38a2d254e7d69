from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.dataset import load_dataset
from weakseg.data.images import read_photo, resize
from weakseg.training.oaa import WholePhotos, accumulate


def naive(
    known: np.ndarray | None, maps: np.ndarray, logits: np.ndarray, tags: list[int], is_last: bool
) -> np.ndarray:
    """Section 3.2 of Jiang et al. 2019, a tag and a cell at a time."""
    found = np.zeros((len(tags), *maps.shape[1:])) if known is None else known.astype(float)
    best = sorted(range(len(logits)), key=lambda c: -logits[c])[: len(tags)]
    for row, tag in enumerate(tags):
        positive = np.maximum(maps[tag].astype(np.float64), 0)
        if positive.max() > 0:
            positive = np.round(positive / positive.max() * 255)
        if tag in best or (is_last and not found[row].any()):
            for y, x in np.ndindex(*positive.shape):
                found[row, y, x] = max(found[row, y, x], positive[y, x])
    return found


@given(st.integers(0, 200), st.booleans(), st.booleans())
def test_visits_accumulate_as_written_out(seed: int, is_last: bool, is_first: bool) -> None:
    rng = np.random.default_rng(seed)
    maps = (rng.random((5, 3, 4)) - 0.3).astype(np.float32)
    logits = rng.permutation(5).astype(np.float32)
    tags = sorted(rng.choice(5, rng.integers(0, 4), replace=False).tolist())
    known = None if is_first else rng.integers(0, 256, (len(tags), 3, 4), dtype=np.uint8)
    if known is not None and seed % 2:
        known[:1] = 0
    found = accumulate(
        None if known is None else torch.from_numpy(known),
        torch.from_numpy(maps),
        torch.from_numpy(logits),
        tags,
        is_last,
    )
    assert found.dtype == torch.uint8
    expected = naive(known, maps, logits, tags, is_last)
    np.testing.assert_allclose(found.numpy(), expected, atol=1)  # rounding of float32
    if known is not None:
        assert (found.numpy() >= known).all()


def test_a_tag_that_is_not_among_the_most_probable_waits_for_the_last_epoch() -> None:
    maps, logits = torch.eye(3)[:, :, None], torch.tensor([3.0, 2.0, 1.0])
    early = accumulate(None, maps, logits, [0, 2], False)
    assert early[:, :, 0].tolist() == [[255, 0, 0], [0, 0, 0]]
    late = accumulate(early, maps, logits, [0, 2], True)
    assert late[:, :, 0].tolist() == [[255, 0, 0], [0, 0, 255]]
    kept = accumulate(late, maps.flip(1), logits, [0, 2], True)
    assert kept[:, :, 0].tolist() == [[255, 0, 255], [0, 0, 255]]


def test_a_map_without_evidence_adds_nothing() -> None:
    found = accumulate(None, -torch.ones(2, 3, 3), torch.tensor([1.0, 0.0]), [0], True)
    assert found.shape == (1, 3, 3) and not found.any()


def test_photos_are_whole_and_each_is_visited_once_an_epoch(photos: Path) -> None:
    dataset = load_dataset(photos)
    orders = []
    for epoch in (0, 1):
        visits = WholePhotos(dataset.samples, dataset.classes, 64, 0, epoch)
        seen = [visits[index] for index in range(len(visits))]
        orders.append([visit.place for visit in seen])
        assert sorted(orders[-1]) == list(range(len(dataset.samples)))
        for image, tags, place in seen:
            sample = dataset.samples[place]
            whole = resize(read_photo(sample.image), 64)
            assert max(image.shape[1:]) == 64
            np.testing.assert_allclose(image.numpy(), whole.transpose(2, 0, 1) / 255, atol=1e-6)
            assert [dataset.classes[i] for i in tags.nonzero().flatten()] == sorted(
                sample.tags, key=dataset.classes.index
            )
    assert orders[0] != orders[1]
    again = WholePhotos(dataset.samples, dataset.classes, 64, 0, 1)
    assert [again[i].place for i in range(len(again))] == orders[1]


@pytest.mark.parametrize("is_last", [True, False])
def test_without_tags_there_is_nothing_to_accumulate(is_last: bool) -> None:
    found = accumulate(None, torch.ones(2, 3, 4), torch.zeros(2), [], is_last)
    assert found.shape == (0, 3, 4)
