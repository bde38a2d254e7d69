"""The faults that `benchmarks/faults.py` puts into tags."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weakseg.data.dataset import Sample, count_tags

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "faults.py"))
thin_out, remove_tag = SCRIPT["thin_out"], SCRIPT["remove_tag"]

TAG_LISTS = st.lists(
    st.lists(st.sampled_from("abcd"), unique=True, max_size=3).map(tuple), max_size=40
)


def samples_of(tag_lists: list[tuple[str, ...]]) -> list[Sample]:
    return [Sample(str(i), Path(f"{i}.jpg"), t, None) for i, t in enumerate(tag_lists)]


@given(TAG_LISTS, st.integers(0, 9))
def test_thinning_out_leaves_a_tenth_of_the_rare_ones(
    tag_lists: list[tuple[str, ...]], seed: int
) -> None:
    samples = samples_of(tag_lists)
    left = thin_out(samples, {"a", "b"}, 0.1, np.random.default_rng(seed))
    before, after = count_tags(samples), count_tags(left)
    wanted = {tag: -(-before[tag] // 10) for tag in "ab"}
    assert all(after[tag] >= wanted[tag] for tag in "ab")
    assert [s for s in samples if not {"a", "b"} & set(s.tags)] == [
        s for s in left if not {"a", "b"} & set(s.tags)
    ]
    for sample in left:
        if rare := {"a", "b"} & set(sample.tags):
            assert any(after[tag] == wanted[tag] for tag in rare)


@pytest.mark.parametrize("carriers", [0, 1, 4, 10])
def test_half_of_the_tags_go_and_the_photos_stay(carriers: int) -> None:
    samples = samples_of([("a", "b")] * carriers + [("b",)] * 3 + [()])
    left = remove_tag(samples, "a", 0.5, np.random.default_rng(0))
    assert [s.id for s in left] == [s.id for s in samples]
    assert count_tags(left)["a"] == carriers - round(carriers / 2)
    assert count_tags(left)["b"] == carriers + 3
