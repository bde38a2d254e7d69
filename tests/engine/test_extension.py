"""Kinds of steps and formats of data from elsewhere, which the package has never heard of."""

import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import Lines, Start
from weakseg.cli import main
from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.formats import FORMATS
from weakseg.data.formats.base import Format, Photos, TagRow, TagTable, list_photos
from weakseg.data.masks import read_mask, write_mask
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.errors import WeaksegError
from weakseg.files import read_json
from weakseg.methods import KINDS, base
from weakseg.methods.base import (
    Artefact,
    File,
    Kind,
    PhotoMaps,
    PhotoTask,
    PhotoWork,
    Slot,
    Step,
    Tools,
    made,
)
from weakseg.methods.maps import open_masks
from weakseg.methods.settings import Fraction, Section
from weakseg.recipe import Recipe, check_recipe, dump_recipe, load_recipe


class Contrast(Section):
    background: Fraction = 0.5


def contrast(step: Step) -> PhotoWork:
    """How far a colour is from that of the photo's border, the same for every tag."""

    def compute(task: PhotoTask) -> PhotoMaps:
        photo = step.photo(task)[::4, ::4].astype(np.float32)
        border = np.concatenate([photo[0], photo[-1]]).mean(axis=0)
        far = np.linalg.norm(photo - border, axis=2)
        return PhotoMaps(np.stack([far / far.max()] * len(task.class_ids)))

    return compute


def constant(step: Step) -> float:
    background: float = step.settings.background
    return background


CONTRAST = Kind(
    name="contrast",
    summary="colours unlike the border's",
    settings=Contrast,
    gives=frozenset({Artefact.MAPS, Artefact.MASKS}),
    role="seed",
    work=contrast,
    background=constant,
)


def flip_all(step: Step, tools: Tools) -> None:
    """Background and the photo's first class change places."""
    masks = open_masks(step["masks"])
    with tools.progress.track(step.name, len(tools.photos.samples)) as advance:
        for sample in tools.photos.samples:
            if not made(step.folder, f"{sample.id}.png"):
                task = tools.photos.task(sample)
                mask = masks(task)
                swapped = np.where(mask == 0, task.class_ids[0], 0).astype(np.uint8)
                write_mask(step.folder / f"{sample.id}.png", swapped)
            advance(1)


def flipped(step: Step, photos: base.Photos) -> Iterator[File]:
    for sample in photos.samples:
        yield File(f"{sample.id}.png", {base.PICTURE: photos.sizes[sample.id]})


FLIP = Kind(
    name="flip",
    summary="masks inside out",
    settings=Section,
    gives=frozenset({Artefact.MASKS}),
    takes=(Slot("masks", frozenset({Artefact.MASKS})),),
    role="refiner",
    run=flip_all,
    files=flipped,
)


class Named(Format):
    """Photos `TAG-NUMBER.jpg` in `shots/`."""

    name = "named"
    summary = "shots/TAG-NUMBER.jpg"

    def matches(self, root: Path) -> bool:
        return (root / "shots").is_dir()

    def photos(self, root: Path) -> Photos:
        return list_photos(root, ["shots"])

    def tags(self, root: Path, ids: Collection[str]) -> TagTable:
        return TagTable(tuple(TagRow(i, (i.rpartition("-")[0],), "shots") for i in ids), ())


@pytest.fixture(autouse=True)
def _extended(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (CONTRAST, FLIP):
        monkeypatch.setitem(KINDS, kind.name, kind)
    monkeypatch.setitem(FORMATS, Named.name, Named())


def recipe(**steps: dict[str, Any]) -> Recipe:
    seed = {"contrast": {"kind": "contrast", "background": 0.4}}
    values = {"data": {"split": "all"}, "report": {"panels": 2}, "steps": {**seed, **steps}}
    return check_recipe(values, "extended")


REFINED: dict[str, dict[str, Any]] = {
    "sure": {
        "kind": "seed",
        "of": "contrast",
        "foreground_threshold": 0.6,
        "background_threshold": 0.2,
    },
    "flip": {"kind": "flip", "of": "contrast"},
    "par": {"kind": "par", "of": "contrast", "iterations": 1},
}


def test_a_run_of_other_kinds(photos: Path, start: Start, tmp_path: Path) -> None:
    start(photos, tmp_path, recipe(**REFINED))
    rows = {row["name"]: row for row in read_json(tmp_path / "metrics.json")["stages"]}
    assert list(rows) == ["contrast", *REFINED]
    assert rows["contrast"]["images"] == 10 and rows["contrast"]["miou"] > 0
    assert len(list((tmp_path / "panels").glob("*.jpg"))) == 2
    for sample in load_dataset(photos).samples:
        one, other = (read_mask(tmp_path / n / f"{sample.id}.png") for n in ("contrast", "flip"))
        assert ((one == 0) != (other == 0)).all()
        assert (tmp_path / "contrast" / f"{sample.id}.safetensors").is_file()


def test_a_resumed_run_does_nothing_and_a_changed_kind_starts_anew(
    photos: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(photos, tmp_path, recipe(**REFINED))
    said = start(photos, tmp_path, load_recipe(str(tmp_path / "recipe.yaml"))).said
    for name in ("contrast", *REFINED, "assess", "confidence", "evaluate", "panels"):
        assert f"{name}: up to date" in said
    monkeypatch.setitem(KINDS, "flip", replace(FLIP, version=2))
    said = start(photos, tmp_path, recipe(**REFINED)).said
    assert "contrast: up to date" in said and "par: up to date" in said
    assert "flip: 0 of 10 done before" in said
    (tmp_path / "contrast" / "000003.safetensors").unlink()
    said = start(photos, tmp_path, recipe(**REFINED)).said
    assert "contrast: 9 of 10 done before" in said and "flip: up to date" in said


def test_what_is_not_kept_gives_the_same(photos: Path, start: Start, tmp_path: Path) -> None:
    start(photos, tmp_path / "kept", recipe(par=REFINED["par"]))
    unkept: dict[str, Any] = {"kind": "contrast", "background": 0.4, "keep": False}
    start(photos, tmp_path / "not", recipe(contrast=unkept, par=REFINED["par"]))
    assert not (tmp_path / "not" / "contrast").exists()
    for path in (tmp_path / "kept" / "par").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "not" / "par" / path.name).read_bytes()


def test_faults_in_its_steps_are_said_as_in_others() -> None:
    with pytest.raises(WeaksegError, match=r"contrast\.background: .* less than or equal to 1"):
        recipe(contrast={"kind": "contrast", "background": 2})
    with pytest.raises(WeaksegError, match=r"unknown key flip\.size; flip, of kind flip, has kind"):
        recipe(flip={"kind": "flip", "of": "contrast", "size": 1})
    with pytest.raises(WeaksegError, match="kind flip has to be kept"):
        recipe(flip={"kind": "flip", "of": "contrast", "keep": False})
    with pytest.raises(WeaksegError, match=r"no kind 'contrst'.*did you mean contrast"):
        recipe(contrast={"kind": "contrst"})
    resolved = dump_recipe(recipe(**REFINED))
    assert "kind: contrast\n    background: 0.4" in resolved


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str) -> str:
    monkeypatch.setattr(sys, "argv", ["weakseg", "list", what])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    return capsys.readouterr().out


def test_lists_name_what_was_added(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "contrast    colours unlike the border's\n" in shown(capsys, monkeypatch, "seeds")
    assert "flip        masks inside out\n" in shown(capsys, monkeypatch, "refiners")
    assert "shots/TAG-NUMBER.jpg\n" in shown(capsys, monkeypatch, "formats")


def test_a_data_set_of_another_format(photos: Path, start: Start, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "shots").mkdir(parents=True)
    (root / "masks").mkdir()
    for sample in load_dataset(photos).samples[:6]:
        assert sample.mask
        name = f"{sample.tags[0]}-{sample.id}"
        (root / "shots" / f"{name}{sample.image.suffix}").write_bytes(sample.image.read_bytes())
        write_mask(root / "masks" / f"{name}.png", (sample.mask.read() > 0).astype(np.uint8))
    dataset = load_dataset(root)
    assert (dataset.format, len(dataset.samples)) == ("named", 6)
    assert all(sample.id.startswith(f"{sample.tags[0]}-") for sample in dataset.samples)
    report = check_dataset(root, "named")
    assert report.usable and (report.tagged, report.masks) == (6, 6)
    out = tmp_path / "out"
    runner.run(recipe(), root, out, InProcessExecutor(), Lines(), torch.device("cpu"), Named.name)
    assert read_json(out / "run.json")["data"]["format"] == "named"
    rows = [row["name"] for row in read_json(out / "metrics.json")["stages"]]
    assert rows == ["contrast"]
