import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tiny import CELLS, SEGMENT, UNKEPT, Start, masks, tiny_recipe
from weakseg.engine import preview
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.methods.base import Item, Result

SAID = ("assess", "confidence", "evaluate", "panels")


@pytest.fixture(autouse=True)
def _eight_photos_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "_SHORT", 8)


def told(lines: list[str]) -> str:
    (line,) = (line for line in lines if line.startswith("preview: ") and "photos have" in line)
    return line


def test_some_photos_have_masks_and_panels_before_the_others_and_the_same(
    photos: Path, finished: Path, start: Start, tmp_path: Path
) -> None:
    said = start(photos, tmp_path / "out").said
    assert told(said) == f"preview: 2 photos have masks, see {tmp_path / 'out' / 'panels'}."
    assert said.index(told(said)) < said.index("localize: 2 of 10 done before")
    assert "svm+crf: 2 of 10 done before" in said
    assert masks(tmp_path / "out") == masks(finished)
    again = start(photos, tmp_path / "out").said
    assert not any("preview" in line for line in again)


def test_what_the_others_take_is_told_once_it_has_settled(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    recipe = tiny_recipe(report={"panels": 8})
    line = told(start(photos, tmp_path / "out", recipe).said)
    size = re.search(r"the other 2 take some \d+ s and (\d+) MB of disk, where", line)
    assert size
    written = [
        path.stat().st_size
        for name in (section.name for section in recipe.steps if section.kind.work)
        for path in (tmp_path / "out" / name).iterdir()
    ]
    assert int(size[1]) == pytest.approx(sum(written) * 2 / 10 / 1e6, abs=1)


def test_what_is_left_for_the_run_is_told_from_then_on(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    recipe = tiny_recipe(
        **{name: None for name in ("cam+crf", "seed", "svm+crf")},
        report={"panels": 8},
        network={**SEGMENT["segmenter"], "of": "svm", "epochs": 1},
    )
    said = start(photos, tmp_path / "out", recipe).said
    begun = [line for line in said if line.startswith("step ")]
    assert [line.split(";")[0] for line in begun] == [
        f"step {place} of 10: {name}"
        for place, name in enumerate(
            ("inspect", "classify", "localize", "cam", "svm", "network", *SAID), start=1
        )
    ]
    left = [re.search(r"; some \d+ s left for the run, without network$", line) for line in begun]
    assert [bool(match) for match in left] == [False, False, True, True, True, *[False] * 5]


@pytest.mark.parametrize("others", [{}, CELLS], ids=["grid", "cells"])
def test_what_is_kept_is_told_before_any_work(
    photos: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: dict[str, Any],
) -> None:
    monkeypatch.setattr(preview, "_gigabytes", lambda size: f"{size:.0f} bytes")
    said = start(photos, tmp_path / "out", tiny_recipe(**others)).said
    (line,) = (line for line in said if line.startswith("Maps and features will take "))
    ids = {path.stem for path in (tmp_path / "out" / "localize").iterdir()}
    files = [p for p in (tmp_path / "out").glob("*/*.safetensors") if p.stem in ids]
    kept = [path.stat().st_size for path in files]
    told_of = int(line.split()[5])
    assert told_of == pytest.approx(sum(kept), rel=0.15)
    assert said.index(line) < min(i for i, text in enumerate(said) if text.startswith("classify"))


def test_a_disk_too_small_is_told_with_what_helps(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: nothing)
    recipe = tiny_recipe(report={"panels": 8})
    line = told(start(photos, tmp_path / "out", recipe).said)
    assert line.endswith(
        "where 0 MB are free: too few. With keep: false in a step its maps are not written."
    )


class _Killed(InProcessExecutor):
    """Fails at the n-th photo."""

    def __init__(self, photos: int) -> None:
        self._left = photos

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        for result in super().map(make, items):
            self._left -= 1
            if self._left < 0:
                raise WeaksegError("killed")
            yield result


@pytest.mark.parametrize("after", [11, 17, 23])
def test_a_run_that_was_cut_off_amid_the_preview_ends_the_same(
    after: int, photos: Path, finished: Path, start: Start, tmp_path: Path
) -> None:
    with pytest.raises(WeaksegError, match="killed"):
        start(photos, tmp_path / "out", executor=_Killed(after))
    start(photos, tmp_path / "out")
    assert masks(tmp_path / "out") == masks(finished)


def test_other_settings_are_previewed_from_where_they_matter(
    photos: Path, finished: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    said = start(photos, out, tiny_recipe(svm={"cycles": 2})).said
    assert "localize: up to date" in said
    assert said.count("cam+crf: up to date") == 1
    assert said.index("seed: up to date") < said.index(told(said))
    assert "svm: 2 of 10 done before" in said


def test_photos_without_files_in_between_have_a_preview_too(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**UNKEPT, report={"panels": 8})
    said = start(photos, tmp_path / "out", recipe).said
    assert "the other 2 take some" in told(said)
    assert "svm+crf: 8 of 10 done before" in said


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert preview.duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(99e6, "99 MB"), (1.44e9, "1.4 GB")])
def test_sizes(size: float, text: str) -> None:
    assert preview._gigabytes(size) == text
