"""What a step's results depend on is in its fingerprint, and in those of the steps that read it."""

import copy
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from tiny import EVERY_KIND, POOLED, tiny_recipe, tiny_values
from weakseg.data.balance import Balance
from weakseg.data.dataset import Sample
from weakseg.data.masks import MaskFile
from weakseg.engine.fingerprints import Digests, fingerprint_of
from weakseg.errors import WeaksegError
from weakseg.methods import KINDS
from weakseg.methods.base import Photos, Step
from weakseg.recipe import Recipe, check_recipe, dump_recipe, dump_settings

DRAW = {
    *("features", "missing_tags", "classifier", "sipe", "oaa"),
    *("svm", "irnet", "deeplab", "pixel_head"),
}
"""Kinds whose results the seed decides."""


def fingerprints(recipe: Recipe, device: str = "cpu") -> dict[str, str]:
    found: dict[str, str] = {}
    for step in recipe.build(Path("run"), device):
        inputs = [found[given.name] for _, given in step.inputs]
        found[step.name] = fingerprint_of(step, inputs, "data")
    return found


def changed(one: Recipe, other: Recipe) -> set[str]:
    before, after = fingerprints(one), fingerprints(other)
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def downstream(recipe: Recipe, *names: str) -> set[str]:
    """Some steps, and those that read one of them, or one that does."""
    found = set(names)
    for step in recipe.steps:
        if found.intersection(given.name for _, given in step.inputs):
            found.add(step.name)
    return found


@pytest.fixture(scope="module")
def every_kind() -> Recipe:
    recipe = tiny_recipe(**EVERY_KIND, localize={"feature_scales": [1.0]})
    assert {section.kind.name for section in recipe.steps} == set(KINDS)
    return recipe


def test_every_number_counts_for_its_step_and_for_those_that_read_it(every_kind: Recipe) -> None:
    values = yaml.safe_load(dump_recipe(every_kind))
    known: dict[str, set[str]] = {name: set() for name in KINDS}
    for section in every_kind.steps:
        own = values["steps"][section.name]
        for place in _numbers({k: v for k, v in own.items() if k not in ("kind", "of", "keep")}):
            other = _another(values, ("steps", section.name, *place))
            if other is None:  # of what goes with another key, which this step has not
                continue
            expected = downstream(every_kind, section.name)
            assert changed(every_kind, other) == expected, (section.name, place)
            known[section.kind.name].add(place[0])
    for name, kind in KINDS.items():
        schema = TypeAdapter(kind.settings).json_schema()
        keys = {key for key, of in schema["properties"].items() if _holds_number(of, schema)}
        assert known[name] == keys, name


def _numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of numbers, and of what a number may stand for."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(inner, (*place, key))
    elif value in ("scale", None) or type(value) in (int, float):
        yield place


def _another(values: dict[str, Any], place: tuple[Any, ...]) -> Recipe | None:
    """The recipe with another number in a place, if it may have one."""
    others = copy.deepcopy(values)
    *path, last = place
    node = others
    for key in path:
        node = node[key]
    number = 0.25 if node[last] in ("scale", None) else node[last]
    for other in (number + 1, number + 2, number + 0.01, number - 0.01, number - 1, number / 2):
        node[last] = other
        try:
            return check_recipe(others, "other")
        except WeaksegError:
            continue
    return None


def _holds_number(schema: dict[str, Any], whole: dict[str, Any]) -> bool:
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    inner = [schema["items"]] if isinstance(schema.get("items"), dict) else []
    for key in ("anyOf", "oneOf", "prefixItems"):
        inner += schema.get(key, [])
    inner += schema.get("properties", {}).values()
    return schema.get("type") in ("integer", "number") or any(
        _holds_number(one, whole) for one in inner
    )


@pytest.mark.parametrize("name", KINDS)
def test_a_raised_version_counts_for_its_steps_and_for_those_that_read_them(
    every_kind: Recipe, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load(dump_recipe(every_kind))
    monkeypatch.setitem(KINDS, name, replace(KINDS[name], version=KINDS[name].version + 1))
    of_kind = [section.name for section in every_kind.steps if section.kind.name == name]
    found = changed(every_kind, check_recipe(values, "raised"))
    assert found == downstream(every_kind, *of_kind)


def test_the_seed_counts_for_what_draws_and_the_kind_of_device_for_all(every_kind: Recipe) -> None:
    other_seed = replace(every_kind, seed=every_kind.seed + 1).build(Path("run"))
    drawn = set()
    for step, other in zip(every_kind.build(Path("run")), other_seed, strict=True):
        inputs = ["same"] * len(step.inputs)
        if _own(step, inputs) != _own(other, inputs):
            drawn.add(step.kind.name)
        assert _own(step, inputs) != _own(replace(step, device="cuda:0"), inputs)
    assert drawn == DRAW
    assert fingerprints(every_kind, "cuda:0") == fingerprints(every_kind, "cuda:1")


def test_what_a_trained_backbone_pools_knows_no_seed() -> None:
    backbone = {"name": "efficientnet_lite0", "weights": "imagenet", "frozen_stages": -1}
    steps = {"pool": {"kind": "features", "backbone": backbone}, "classify": POOLED["classify"]}
    one, other = (fingerprints(tiny_recipe(seed=seed, **steps)) for seed in (0, 1))
    assert one["pool"] == other["pool"]
    assert one["classify"] != other["classify"]


def _own(step: Step, inputs: list[str]) -> str:
    return fingerprint_of(step, inputs, "data")


def test_what_lies_at_a_path_counts_and_the_runs_folder_does_not(tmp_path: Path) -> None:
    weights, masks = tmp_path / "weights.pth", tmp_path / "masks"
    weights.write_bytes(b"one")
    masks.mkdir()
    backbone = {"name": "test_efficientnet", "output_stride": 16, "weights": str(weights)}
    network = {**EVERY_KIND["segmenter"], "validation_masks": str(masks)}
    recipe = tiny_recipe(
        **{**EVERY_KIND, "segmenter": {**network, "backbone": backbone}},
    )
    whole = fingerprints(recipe)

    def now_changed() -> set[str]:
        nonlocal whole
        before, whole = whole, fingerprints(recipe)
        return {name for name in whole if whole[name] != before[name]}

    assert now_changed() == set()
    expected = downstream(recipe, "segmenter")
    os.utime(weights, ns=(0, 0))
    assert now_changed() == expected
    (masks / "a.png").write_bytes(b"")
    assert now_changed() == expected
    step = recipe.build(tmp_path)[0]
    assert _own(step, []) == _own(replace(step, folder=tmp_path / "elsewhere"), [])


@pytest.mark.parametrize("at_a_time", [1, 2, 1000])
def test_a_folders_files_count_some_at_a_time_as_all_at_once(
    at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "masks"
    for name in ("b.png", "a.png", "Größe.png", "cat/a.png", "a/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"123")
    given = {"kind": "folder", "path": str(folder), "holds": "masks"}
    (step,) = check_recipe({"steps": {"masks": given}}, "one").build(tmp_path / "run")
    settings = dump_settings(step.kind, step.settings)
    files = {
        path.relative_to(folder).as_posix(): [3, path.stat().st_mtime_ns]
        for path in folder.rglob("*.png")
    }
    told: tuple[Any, ...] = (
        step.kind.name,
        step.kind.version,
        settings,
        [files],
        [],
        "data",
        step.seed,
        "cpu",
    )
    expected = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    monkeypatch.setattr("weakseg.engine.fingerprints._AT_A_TIME", at_a_time)
    assert fingerprint_of(step, [], "data") == expected


def test_the_order_of_inputs_counts_and_names_do_not() -> None:
    values = tiny_values(both={"kind": "combine", "of": ["cam", "svm"], "how": "fill"})
    found = fingerprints(check_recipe(values, "one"))
    values["steps"]["both"]["of"] = ["svm", "cam"]
    values["steps"]["svm-again"] = values["steps"]["svm"]
    other = fingerprints(check_recipe(values, "other"))
    assert found["both"] != other["both"]
    assert other["svm"] == other["svm-again"] == found["svm"]


@pytest.fixture
def seen(tmp_path: Path) -> Photos:
    samples = []
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(b"photo")
        samples.append(Sample(name, tmp_path / f"{name}.jpg", ("cat",), None))
    return Photos(("cat", "dog"), tuple(samples), ("cat", "dog"), Balance())


def test_what_is_seen_of_the_data_counts(seen: Photos, tmp_path: Path) -> None:
    def digest(photos: Photos, long_side: int = 64) -> str:
        return Digests().seen(photos, long_side)

    first, other = seen.samples

    def with_first(**changes: Any) -> Photos:
        return replace(seen, samples=(replace(first, **changes), other))

    kinds = {
        digest(seen),
        digest(seen, 65),
        digest(replace(seen, samples=seen.samples[:1])),
        digest(replace(seen, classes=("cat", "cow"))),
        digest(replace(seen, learned=("cat",))),
        digest(replace(seen, balance=Balance(most=3))),
        digest(replace(seen, balance=Balance(least=3))),
        digest(with_first(id="c")),
        digest(with_first(tags=("dog",))),
        digest(with_first(doubtful=("dog",))),
        digest(with_first(dropped=("dog",))),
    }
    assert len(kinds) == 11
    assert digest(with_first(mask=MaskFile.of(tmp_path / "a.png"))) == digest(seen)
    assert digest(replace(seen, sizes={"a": (1, 2)})) == digest(seen)
    before = digest(seen)
    os.utime(first.image, ns=(0, 0))
    assert digest(seen) != before
    (tmp_path / "a.png").write_bytes(b"mask")
    held = replace(seen, reviewed={"a": tmp_path / "a.png"})
    before = digest(held)
    assert before != digest(seen)
    os.utime(tmp_path / "a.png", ns=(0, 0))
    assert digest(held) != before


def test_a_digest_is_made_once_of_the_same_photos_and_anew_of_others(seen: Photos) -> None:
    digests = Digests()
    first, other = seen.samples
    tags = digests.tags(seen.samples)
    assert digests.tags(seen.samples) == tags
    assert digests.tags((first, replace(other, tags=()))) != tags
    assert digests.tags((replace(first), replace(other))) == tags
