"""What is missing, damaged or foreign in a run's folder is found and made again, alone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from PIL import Image

from tiny import IRN, POOLED, SGD, Start, masks, tiny_recipe
from weakseg.data.dataset import Sample
from weakseg.data.masks import write_mask
from weakseg.engine.outputs import Fault, Output, digest, find_faults, last_change
from weakseg.errors import WeaksegError
from weakseg.files import write_bytes
from weakseg.methods.base import PICTURE, PhotoTask, Step
from weakseg.methods.features import open_tensors
from weakseg.methods.maps import open_class_maps, open_maps, open_scores

TASK = PhotoTask(Sample("a", Path("a.jpg"), (), None), ())


def write_picture(path: Path) -> None:
    Image.new("RGB", (7, 5), "red").save(path, quality=90)


def write_tensors(path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "maps": np.zeros((2, 5, 7), np.float32),
        "other": np.ones(3, np.float16),
    }
    write_bytes(path, safetensors.numpy.save(arrays, {"made_of": "x" * 5000}))


WRITERS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    ".png": (lambda path: write_mask(path, np.ones((5, 7), np.uint8)), {PICTURE: (5, 7)}),
    ".safetensors": (write_tensors, {"maps": (2, 5, None)}),
    ".jpg": (write_picture, {}),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_whatever_a_file_is_cut_to_is_found(tmp_path: Path, suffix: str) -> None:
    write, shapes = WRITERS[suffix]
    path = tmp_path / f"a{suffix}"
    output = Output(path, shapes)
    assert list(find_faults([output], {})) == [(path, Fault.MISSING)]
    write(path)
    whole = path.read_bytes()
    assert list(find_faults([output], {})) == []
    for length in {*range(0, len(whole), 61), len(whole) - 1}:
        path.write_bytes(whole[:length])
        assert list(find_faults([output], {})) == [(path, Fault.DAMAGED)]
    for content in (bytes(len(whole)), whole + b"\0", b"\xff" * len(whole)):
        path.write_bytes(content)
        assert list(find_faults([output], {})) == [(path, Fault.DAMAGED)]
    path.unlink()
    path.mkdir()
    assert list(find_faults([output], {})) == [(path, Fault.DAMAGED)]


@pytest.mark.parametrize(
    ("suffix", "shapes"),
    [
        (".png", {PICTURE: (7, 5)}),
        (".safetensors", {"maps": (3, 5, 7)}),
        (".safetensors", {"maps": (2, 5)}),
        (".safetensors", {"scores": (2, 5, 7)}),
    ],
)
def test_a_file_of_another_photo_is_found(
    tmp_path: Path, suffix: str, shapes: dict[str, Any]
) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix][0](path)
    assert list(find_faults([Output(path, shapes)], {})) == [(path, Fault.FOREIGN)]


def test_a_table_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert list(find_faults([Output(path)], {})) == [(path, Fault.MISSING)]
    path.write_text("image,tag\n")
    digests = {path: digest(path)}
    assert list(find_faults([Output(path)], digests)) == []
    path.write_text("")
    assert list(find_faults([Output(path)], digests)) == [(path, Fault.DAMAGED)]
    path.unlink()
    assert list(find_faults([Output(path)], digests)) == [(path, Fault.MISSING)]


def test_what_has_not_changed_is_looked_at_no_further(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.json"]
    write_mask(paths[0], np.ones((5, 7), np.uint8))
    paths[1].write_bytes(b"no mask")
    paths[2].write_text("{}")
    outputs = [Output(path) for path in paths]
    settled = last_change(outputs)
    assert list(find_faults(outputs, {}, settled)) == []
    assert list(find_faults(outputs, {})) == [(paths[1], Fault.DAMAGED)]
    assert list(find_faults(outputs[1:2], {}, 1)) == [(paths[1], Fault.DAMAGED)]
    paths[0].unlink()
    assert list(find_faults(outputs, {}, settled)) == [(paths[0], Fault.MISSING)]


def test_where_the_system_tells_no_change_every_file_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no mask")
    settled = last_change([Output(path)])
    assert list(find_faults([Output(path)], {}, settled)) == []
    with monkeypatch.context() as patch:
        patch.setattr("os.name", "nt")
        assert last_change([Output(path)]) == 0
        assert list(find_faults([Output(path)], {}, settled)) == [(path, Fault.DAMAGED)]


def test_a_time_that_is_set_hides_no_change(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_mask(path, np.ones((5, 7), np.uint8))
    status = path.stat()
    settled = last_change([Output(path)])
    while True:  # until the file system's clock, of some milliseconds, has moved on
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        if last_change([Output(path)]) > settled:
            break
    assert list(find_faults([Output(path)], {}, settled)) == [(path, Fault.DAMAGED)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "inspect/unreadable.json": empty,
    "classify/classifier.safetensors": cut,
    "classify/scores.json": lambda path: path.write_text("[]"),
    "localize/000001.safetensors": empty,
    "cam/000002.png": Path.unlink,
    "seed/000003.png": replace_by_folder,
    "svm/000004.safetensors": cut,
    "svm/000005.png": cut,
    "svm+crf/000006.png": Path.unlink,
    "cam+crf/000007.png": empty,
    "metrics.json": lambda path: path.write_text('{"stages": []}'),
    "panels/000000.jpg": cut,
}


def contents(out: Path) -> dict[str, bytes]:
    kept = masks(out)
    for path in out.rglob("*"):
        if path.suffix in (".json", ".csv") and path.name != "run.json":
            kept[str(path.relative_to(out))] = path.read_bytes()
    return kept


def test_what_is_damaged_is_made_again_alone_with_the_same_bytes(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    for name, damage in DAMAGE.items():
        damage(out / name)
    said = start(photos, out).said
    for step in {name.split("/")[0] for name in DAMAGE if "/" in name}:
        assert any(line.startswith(f"{step}: ") and "made again" in line for line in said)
    assert any(str(out / "metrics.json") in line for line in said)
    for line in ("localize: 9 of 10", "cam: 9 of 10", "svm: 8 of 10", "svm+crf: 9 of 10"):
        assert f"{line} done before" in said
    assert contents(out) == contents(finished)
    again = start(photos, out).said
    assert len([line for line in again if line.endswith(": up to date")]) == 12


def test_what_was_made_of_another_photos_file_starts_anew(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    shapes: dict[tuple[int, ...], str] = {}
    for path in sorted((out / "svm").glob("*.safetensors")):
        shapes.setdefault(safetensors.numpy.load_file(path)["scores"].shape, path.stem)
    one, other, *_ = shapes.values()
    shutil.copy(out / f"svm/{one}.safetensors", out / f"svm/{other}.safetensors")
    shutil.copy(out / f"svm+crf/{one}.png", out / f"svm+crf/{other}.png")
    said = start(photos, out).said
    assert "svm: 9 of 10 done before" in said and "svm+crf: 0 of 10 done before" in said
    assert "localize: up to date" in said and "cam+crf: up to date" in said
    assert contents(out) == contents(finished)


def test_damage_to_a_finished_training_starts_it_anew(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    (out / "classify" / "classifier.safetensors").unlink()
    said = start(photos, out).said
    assert any(line.startswith("classify: 1 files are not as they were") for line in said)
    assert contents(out) == contents(finished)
    assert {path.name for path in (out / "classify").iterdir()} == {
        "classifier.safetensors",
        "scores.json",
    }


def test_tables_that_decide_what_later_steps_see(
    photos: Path, start: Start, tmp_path: Path
) -> None:
    training = {"epochs": 1, "batch_size": 4, "optimizer": SGD, "validation_fraction": 0.25}
    screening = {"action": "add", "confidence": 0.01, "folds": 2}
    recipe = tiny_recipe(
        pool=POOLED["pool"],
        first={**POOLED["classify"], "kind": "classifier", **training},
        screen={"kind": "missing_tags", "of": "first", **screening},
        classify={**POOLED["classify"], "of": ["pool", "screen"], "epochs": 1},
        data={"balance": {"most": 9, "least": 2}},
    )
    out = tmp_path / "out"
    start(photos, out, recipe)
    before = contents(out)
    assert len((out / "screen" / "missing_tags.csv").read_text().splitlines()) > 10
    empty(out / "screen" / "missing_tags.csv")
    (out / "screen" / "fold-0" / "missing_tags.csv").write_text("image,tag,confidence\n")
    cut(out / "screen" / "fold-1" / "classifier.safetensors")
    empty(out / "balance" / "counts.csv")
    cut(next((out / "pool").iterdir()))
    said = start(photos, out, recipe).said
    assert sum("made again" in line for line in said) == 3
    assert {"classify: up to date", "svm+crf: up to date"} <= set(said)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("localize", lambda steps: open_maps(steps["localize"], "features")(TASK)),
        ("localize", lambda steps: open_class_maps(steps["localize"])(TASK)),
        ("localize", lambda steps: open_scores(steps["cam"])(TASK)),
        ("svm", lambda steps: open_scores(steps["svm"])(TASK)),
        ("irn", lambda steps: open_scores(steps["irn"])(TASK)),
        ("pool", lambda steps: open_tensors(steps["pool"], "pooled")(TASK)),
    ],
)
def test_readers_name_the_file_the_cause_and_the_remedy(
    tmp_path: Path, name: str, read: Callable[[dict[str, Step]], object]
) -> None:
    steps = {step.name: step for step in tiny_recipe(**IRN, **POOLED).build(tmp_path)}
    path = steps[name].folder / "a.safetensors"
    path.parent.mkdir()
    for content in (None, b"", b"no tensors", safetensors.numpy.save({"x": np.zeros(3)})):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(WeaksegError, match=r"again makes anew") as caught:
            read(steps)
        assert str(caught.value).startswith(f"{path} can't be read: ")
        assert "\n" not in str(caught.value)


def test_a_record_without_digests_is_believed(
    finished: Path, photos: Path, start: Start, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    record = json.loads((out / "run.json").read_text())
    for step in record["steps"].values():
        del step["digests"]
    (out / "run.json").write_text(json.dumps(record))
    assert "evaluate: up to date" in start(photos, out).said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.parametrize("name", ["a.png", "a.json", "a.safetensors"])
def test_a_pipe_is_damaged_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    digests = {tmp_path / name: "0"}
    assert list(find_faults([Output(tmp_path / name)], digests)) == [
        (tmp_path / name, Fault.DAMAGED)
    ]


def test_a_header_that_is_nested_without_end_is_damaged(tmp_path: Path) -> None:
    header = b"[" * 100_000
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert list(find_faults([Output(path)], {})) == [(path, Fault.DAMAGED)]
