import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tiny import Start, masks, tiny_recipe
from weakseg.data.dataset import load_dataset
from weakseg.errors import WeaksegError
from weakseg.recipe import Recipe

STOP_AT = dict.fromkeys(("cam+crf", "svm", "svm+crf"))


def _recipe(**data: object) -> Recipe:
    return tiny_recipe(**STOP_AT, data=data)


def _counts(out: Path) -> dict[str, tuple[int, int]]:
    with (out / "balance" / "counts.csv").open(newline="") as file:
        return {row["tag"]: (int(row["before"]), int(row["after"])) for row in csv.DictReader(file)}


def _masked(out: Path) -> set[str]:
    return {path.stem for path in (out / "cam").glob("*.png")}


def test_dropped_classes_and_photos_of_nothing_else_are_gone(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    samples = load_dataset(photos).samples
    dropped = Counter(tag for s in samples for tag in s.tags).most_common(1)[0][0]
    start(photos, tmp_path / "out", _recipe(drop_classes=[dropped]))
    assert _masked(tmp_path / "out") == {s.id for s in samples if set(s.tags) - {dropped}}
    before, after = _counts(tmp_path / "out")[dropped]
    assert before > 0
    assert after == 0


def test_only_some_classes_are_all_but_the_others_dropped(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    samples = load_dataset(photos).samples
    kept = Counter(tag for s in samples for tag in s.tags).most_common(1)[0][0]
    others = [name for name in load_dataset(photos).classes if name != kept]
    said = start(photos, tmp_path / "only", _recipe(only_classes=[kept])).said
    start(photos, tmp_path / "drop", _recipe(drop_classes=others))
    assert masks(tmp_path / "only") == masks(tmp_path / "drop")
    only, drop = ((tmp_path / name / "metrics.json").read_bytes() for name in ("only", "drop"))
    assert only == drop
    left_out = sum(kept not in s.tags and bool(s.tags) for s in samples)
    assert left_out
    assert f"left out: {left_out} photos of dropped classes alone" in said
    assert said[-1].endswith(f"left out: {left_out} of dropped classes alone")
    assert any(line.startswith(f"tags: '{kept}' is on ") for line in said)


def test_counts_say_what_is_left_out_and_repeated(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    said = start(photos, tmp_path / "out", _recipe(balance={"most": 4, "least": 4})).said
    counts = _counts(tmp_path / "out")
    assert all(after >= 4 for _, after in counts.values())
    assert any(after > before for before, after in counts.values())
    assert len(_masked(tmp_path / "out")) <= 10
    assert sum(line.startswith("balance: ") and "->" in line for line in said) == len(counts)


def test_another_balance_makes_everything_anew_and_the_same_nothing(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    start(photos, out, _recipe(balance={"least": 3}))
    kept = masks(out)
    copy = Path(shutil.copytree(out, tmp_path / "copy"))
    said = start(photos, copy, _recipe(balance={"least": 3})).said
    assert all(f"{name}: up to date" in said for name in ("balance", "classify", "localize"))
    said = start(photos, copy, _recipe(balance={"least": 5})).said
    assert "inspect: up to date" in said
    assert not {"balance: up to date", "classify: up to date"} & set(said)
    assert masks(copy) != kept


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"drop_classes": ["unicorn"]}, "Unknown class 'unicorn'"),
        ({"only_classes": ["unicorn"]}, "Unknown class 'unicorn'"),
        ({"drop_classes": "ALL"}, "No photo is left"),
    ],
)
def test_what_cant_be_dropped_is_one_clear_error(
    photos: Path, start: Start, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    if data.get("drop_classes") == "ALL":
        data = {"drop_classes": load_dataset(photos).classes}
    with pytest.raises(WeaksegError, match=message):
        start(photos, tmp_path / "out", _recipe(**data))
