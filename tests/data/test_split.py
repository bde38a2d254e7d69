from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.dataset import Sample
from weakseg.data.split import folds_by_tags, split_by_tags

tags = st.lists(st.sampled_from("abcde"), unique=True, max_size=3).map(tuple)


def samples_of(tag_lists: list[tuple[str, ...]]) -> list[Sample]:
    return [Sample(str(i), Path(f"{i}.jpg"), t, None) for i, t in enumerate(tag_lists)]


@given(st.lists(tags, max_size=60), st.floats(0.05, 0.5), st.integers(0, 9))
def test_parts_are_disjoint_whole_and_in_order(
    tag_lists: list[tuple[str, ...]], fraction: float, seed: int
) -> None:
    samples = samples_of(tag_lists)
    kept, held_out = split_by_tags(samples, fraction, seed)
    assert sorted([*kept, *held_out], key=lambda s: int(s.id)) == samples
    for part in (kept, held_out):
        assert part == sorted(part, key=lambda s: int(s.id))
    assert split_by_tags(samples, fraction, seed) == (kept, held_out)


def test_rare_tags_are_held_out_as_frequent_ones_are() -> None:
    samples = samples_of([("a",)] * 200 + [("a", "b")] * 30 + [("c",)] * 4 + [()] * 10)
    _, held_out = split_by_tags(samples, 0.1, seed=0)
    counts = {t: sum(t in s.tags for s in held_out) for t in "abc"}
    assert counts == {"a": 23, "b": 3, "c": 1}
    assert sum(not s.tags for s in held_out) == 1


def test_another_seed_holds_out_others() -> None:
    samples = samples_of([("a",)] * 100)
    assert split_by_tags(samples, 0.1, 0)[1] != split_by_tags(samples, 0.1, 1)[1]


def test_both_parts_have_a_photo_where_there_are_two() -> None:
    for fraction in (0.01, 0.5, 0.99):
        for count in (2, 3, 5):
            samples = samples_of([(tag,) for tag in "abcde"[:count]])
            kept, held_out = split_by_tags(samples, fraction, seed=0)
            assert kept and held_out


@given(st.lists(tags, max_size=40), st.integers(2, 6), st.integers(0, 9))
def test_every_photo_is_in_one_fold(
    tag_lists: list[tuple[str, ...]], folds: int, seed: int
) -> None:
    samples = samples_of(tag_lists)
    parts = folds_by_tags(samples, folds, seed)
    assert sorted((s for part in parts for s in part), key=lambda s: int(s.id)) == samples
    assert all(parts) and len(parts) <= folds
    assert parts == folds_by_tags(samples, folds, seed)


def test_folds_share_each_tag_evenly() -> None:
    samples = samples_of([("a",)] * 90 + [("a", "b")] * 30 + [("c",)] * 3 + [()] * 12)
    for part in folds_by_tags(samples, 3, seed=0):
        assert [sum(t in s.tags for s in part) for t in "abc"] == [40, 10, 1]
        assert sum(not s.tags for s in part) == 4
