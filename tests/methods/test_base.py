"""Per-photo work in the order of the photos' sizes."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tiny import Lines
from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.methods import base
from weakseg.methods.base import Photos, PhotoTask, Tools, map_photos, naming, same_size

SIZES = ((40, 30), (20, 30), (40, 30), (30, 20), (20, 30), (40, 30))


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    samples = []
    for index, size in enumerate(SIZES):
        path = tmp_path / f"{index}.jpg"
        Image.new("RGB", size).save(path)
        samples.append(Sample(str(index), path, (), None))
    photos = Photos(("a",), tuple(samples), ("a",), Balance())
    executor = InProcessExecutor()
    return Tools(photos, executor, executor, Lines(), torch.device("cpu"))


def _order(tools: Tools, by_size: bool) -> list[int]:
    """The photos in the order in which they are worked on."""
    done = []

    def make() -> Callable[[PhotoTask], None]:
        return lambda task: done.append(int(task.id))

    map_photos(tools, "step", make, lambda sample: False, tools.cpu, by_size)
    return done


def test_photos_of_one_size_follow_each_other(tools: Tools) -> None:
    assert _order(tools, by_size=False) == [0, 1, 2, 3, 4, 5]
    order = _order(tools, by_size=True)
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    sizes = [SIZES[photo] for photo in order]
    changes = sum(one != other for one, other in itertools.pairwise(sizes))
    assert changes == len(set(SIZES)) - 1


def test_a_part_of_many_photos_is_ordered_at_a_time(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_WINDOW", 3)
    order = _order(tools, by_size=True)
    assert set(order[:3]) == {0, 1, 2}
    assert set(order[3:]) == {3, 4, 5}
    assert SIZES[order[0]] == SIZES[order[1]] or SIZES[order[1]] == SIZES[order[2]]  # 0 and 2


def test_a_photo_without_a_size_is_kept(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "broken.png", "b.png", "missing.png")]
    for path in (paths[0], paths[2]):
        Image.new("RGB", (20, 30)).save(path)
    paths[1].write_bytes(b"no photo")
    groups = dict(same_size(paths, lambda path: path))
    assert groups == {(30, 20): [paths[0], paths[2]], (0, 0): [paths[1], paths[3]]}


def test_what_an_algorithm_refuses_names_the_photo(tools: Tools) -> None:
    task = tools.photos.task(tools.photos.samples[0])
    with pytest.raises(WeaksegError, match=r"0\.jpg: features hold NaN\.$"), naming(task):
        raise ValueError("features hold NaN")
