import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.balance import (
    Balance,
    TagCount,
    balanced_split,
    compare_counts,
    describe_counts,
    down_sample,
    drop_classes,
    up_sample,
)
from weakseg.data.dataset import Dataset, Sample, count_tags
from weakseg.data.split import split_by_tags
from weakseg.errors import WeaksegError

TAG_LISTS = st.lists(
    st.lists(st.sampled_from("abcde"), unique=True, max_size=3).map(tuple), max_size=40
)
SEEDS = st.integers(0, 9)
NUMBERS = st.integers(1, 15)


def samples_of(tag_lists: Iterable[tuple[str, ...]]) -> list[Sample]:
    return [Sample(f"{i:03}", Path(f"{i}.jpg"), t, None) for i, t in enumerate(tag_lists)]


def shuffled(samples: list[Sample], seed: int) -> list[Sample]:
    return random.Random(seed).sample(samples, len(samples))


def ids(samples: Iterable[Sample]) -> list[str]:
    return [sample.id for sample in samples]


@given(TAG_LISTS, NUMBERS, SEEDS)
def test_down_sampling_drops_all_it_may_and_nothing_else(
    tag_lists: list[tuple[str, ...]], most: int, seed: int
) -> None:
    samples = samples_of(tag_lists)
    left = down_sample(samples, most, seed)
    before, after = count_tags(samples), count_tags(left)
    assert all(after[tag] >= min(before[tag], most) for tag in before)
    assert all(s in left for s in samples if not s.tags)
    assert not any(s.tags and all(after[tag] > most for tag in s.tags) for s in left)
    assert left == sorted(left, key=lambda s: s.id)
    for tag in before:
        if all(s.tags == (tag,) for s in samples if tag in s.tags):
            assert after[tag] == min(before[tag], most)


@given(TAG_LISTS, NUMBERS, SEEDS)
def test_up_sampling_lifts_every_class_and_keeps_every_photo(
    tag_lists: list[tuple[str, ...]], least: int, seed: int
) -> None:
    samples = samples_of(tag_lists)
    lifted = up_sample(samples, least, seed)
    assert lifted[: len(samples)] == samples
    assert set(lifted) == set(samples)
    before, after = count_tags(samples), count_tags(lifted)
    assert all(after[tag] >= least for tag in before)
    assert all(
        any(before[tag] < least for tag in s.tags) for s in lifted[len(samples) :]
    )  # photos of frequent classes alone stay as they are
    for tag in before:
        if all(s.tags == (tag,) for s in samples if tag in s.tags):
            assert after[tag] == max(before[tag], least)
            times = Counter(s.id for s in lifted if tag in s.tags).values()
            assert max(times) - min(times) <= 1


@given(TAG_LISTS, NUMBERS, SEEDS)
def test_the_order_of_photos_is_of_no_account(
    tag_lists: list[tuple[str, ...]], number: int, seed: int
) -> None:
    samples = samples_of(tag_lists)
    others = shuffled(samples, seed)
    assert sorted(ids(down_sample(samples, number, seed))) == sorted(
        ids(down_sample(others, number, seed))
    )
    count = len(samples)
    assert up_sample(samples, number, seed)[count:] == up_sample(others, number, seed)[count:]


@given(TAG_LISTS, NUMBERS, st.floats(0.05, 0.5), SEEDS)
def test_no_photo_is_on_both_sides_of_a_balanced_split(
    tag_lists: list[tuple[str, ...]], number: int, fraction: float, seed: int
) -> None:
    samples = samples_of(tag_lists)
    kept, held_out = balanced_split(samples, Balance(number, number), fraction, seed)
    assert not set(kept) & set(held_out)
    assert len(held_out) == len(set(held_out))
    left = down_sample(samples, number, seed)
    assert set(kept) | set(held_out) == set(left)
    assert all(count >= number for count in count_tags(kept).values())


def test_without_numbers_a_balanced_split_is_a_split() -> None:
    samples = samples_of([("a",)] * 30 + [("a", "b")] * 5)
    assert balanced_split(samples, Balance(), 0.2, 3) == split_by_tags(samples, 0.2, 3)


def test_photos_are_split_before_they_are_repeated() -> None:
    repeated = up_sample(samples_of([("a",), ("b",)]), 2, 0)
    with pytest.raises(ValueError, match="given twice; split the photos before"):
        split_by_tags(repeated, 0.5, 0)


@pytest.mark.parametrize(
    ("tag_lists", "most", "expected"),
    [
        ([], 1, {}),
        ([()], 1, {}),
        ([("a",)], 1, {"a": 1}),
        ([("a",)] * 9, 1, {"a": 1}),
        ([("a", "b")] * 5, 2, {"a": 2, "b": 2}),
        ([("a", "b")] * 5 + [("a",)] * 5, 5, {"a": 5, "b": 5}),
        ([("a", "b")] * 5 + [("a",)] * 5, 2, {"a": 2, "b": 2}),
    ],
)
def test_down_sampling_of_few(
    tag_lists: list[tuple[str, ...]], most: int, expected: dict[str, int]
) -> None:
    for seed in range(5):
        assert count_tags(down_sample(samples_of(tag_lists), most, seed)) == expected


def test_a_class_whose_photos_all_carry_rare_ones_stays_over_the_cap() -> None:
    samples = samples_of([("a", "b")] * 3 + [("a", "c")] * 3)
    assert down_sample(samples, 3, 0) == samples


def test_up_sampling_goes_round_and_then_to_photos_of_rare_classes_alone() -> None:
    samples = samples_of([("rare", "often"), ("rare",), ("rare", "often"), *[("often",)] * 9])
    for seed in range(5):
        assert ids(up_sample(samples, 4, seed)[len(samples) :]) == ["001"]
        repeats = ids(up_sample(samples, 7, seed)[len(samples) :])
        assert sorted(repeats) == ["000", "001", "001", "002"]


def test_seeds_draw_others() -> None:
    samples = samples_of([("a",)] * 50 + [("b",)] * 20)
    assert len({tuple(ids(down_sample(samples, 20, seed))) for seed in range(5)}) == 5
    assert len({tuple(ids(up_sample(samples, 30, seed))) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("most", "least", "message"),
    [
        (0, None, r"most\n.* greater than or equal to 1"),
        (None, -1, r"least\n.* greater than or equal to 1"),
        (3, 4, "least is 4; it must not exceed most, 3"),
    ],
)
def test_settings_out_of_range(most: int | None, least: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Balance(most=most, least=least)


@pytest.fixture
def dataset() -> Dataset:
    samples = samples_of([("cat", "person"), ("person",), ("dog",), ()])
    return Dataset(Path("set"), "voc", ("cat", "person", "dog"), tuple(samples), (), ())


def test_dropped_classes_keep_their_ids_and_their_photos(dataset: Dataset) -> None:
    left = drop_classes(dataset, ["person"])
    assert left.classes == dataset.classes
    assert [s.tags for s in left.samples] == [("cat",), (), ("dog",), ()]
    assert ids(left.samples) == ids(dataset.samples)
    assert drop_classes(dataset, []) == dataset


def test_dropping_an_unknown_class(dataset: Dataset) -> None:
    with pytest.raises(WeaksegError, match=r"Unknown class 'persons'. Did you mean 'person'\?"):
        drop_classes(dataset, ["persons"])


def test_report_of_counts() -> None:
    before = samples_of([("cat", "dog"), ("cat",), ("cat",)])
    counts = compare_counts(before, [before[0], before[0]])
    assert counts == (TagCount("cat", 3, 2), TagCount("dog", 1, 2))
    assert list(describe_counts(counts)) == [
        "cat       3 ->       2",
        "dog       1 ->       2",
    ]
    assert list(describe_counts(compare_counts([], []))) == []
