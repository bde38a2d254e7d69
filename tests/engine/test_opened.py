"""A run's folder whose own files are damaged, or somebody's who means no good."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from handmade import make_run
from weakseg.engine.opened import open_run
from weakseg.errors import WeaksegError

ROW = {
    "name": "given",
    "split": "train",
    "images": 3,
    **dict.fromkeys(("miou", "mean_accuracy", "pixel_accuracy"), 0.5),
    "per_class": {"cat": None},
    "protocol": {"crf": None},
}


def look(folder: Path) -> None:
    run = open_run(folder)
    for part in ("figures", "reliability", "assessment", "confidence", "files", "classes"):
        getattr(run, part)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("metrics.json", {}),
        ("metrics.json", []),
        ("metrics.json", {"stages": [{**ROW, "protocol": None}]}),
        ("metrics.json", {"stages": [{**ROW, "miou": "high"}]}),
        ("metrics.json", {"stages": [ROW], "confidence": {"step": "given"}}),
        ("assessment.json", {"classes": [{"name": "cat"}]}),
        ("confidence.json", {"step": "given", "photos": {"plain": {"confidence": 2}}}),
        ("confidence.json", {"photos": 3}),
        ("photos.json", {"plain": 1}),
        ("run.json", {"steps": {}, "data": {"folder": "."}}),
        ("run.json", {"steps": []}),
    ],
)
def test_what_a_damaged_file_lacks_is_said(tmp_path: Path, file: str, content: Any) -> None:
    folder = make_run(tmp_path).run.folder
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(WeaksegError, match=file) as caught:
        look(folder)
    assert "\n" not in str(caught.value)


def test_figures_are_as_they_were_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path).run.folder
    row = {**ROW, "more": [1]}
    (folder / "metrics.json").write_text(json.dumps({"stages": [row]}))
    assert open_run(folder).figures == [row]
    assert open_run(folder).reliability == {}


def test_photos_lie_in_the_data_s_folder_or_where_the_run_noted(tmp_path: Path) -> None:
    run = make_run(tmp_path).run
    assert run.files["plain"] == tmp_path / "data" / "images" / "plain.jpg"
    (run.folder / "photos.json").write_text('{"plain": "/elsewhere/plain.jpg"}')
    assert open_run(run.folder).files == {"plain": Path("/elsewhere/plain.jpg")}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("name", ["metrics.json", "confidence.json"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = make_run(tmp_path).run.folder
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(WeaksegError, match="no regular file"):
        look(folder)


def test_a_network_s_file_is_no_photo(finished: Path) -> None:
    assert open_run(finished).photos("classify") == []
