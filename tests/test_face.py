import doctest
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import weakseg
from tiny import POOLED, STEPS, Lines, tiny_values
from weakseg.data.synth import generate
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError
from weakseg.methods.maps import open_class_maps


def test_every_name_is_there_and_explains_itself() -> None:
    for name in weakseg.__all__:
        assert getattr(weakseg, name) is not None
        assert name in dir(weakseg)
        if name != "__version__":
            assert getattr(weakseg, name).__doc__
    with pytest.raises(AttributeError, match="no_such_name"):
        weakseg.no_such_name  # noqa: B018


def test_importing_is_quick_and_changes_nothing() -> None:
    code = """
import os, sys, logging
before = dict(os.environ), logging.root.level, logging.getLogger("lightning.pytorch").level
import weakseg
assert not {"torch", "numba", "numpy", "pydantic"} & set(sys.modules), sorted(sys.modules)
weakseg.open_run, weakseg.load_recipe, weakseg.SVMSettings
assert not {"torch", "numba"} & set(sys.modules)
after = dict(os.environ), logging.root.level, logging.getLogger("lightning.pytorch").level
assert before == after
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_algorithms_change_nothing_of_the_process() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    cam = rng.random((1, 20, 24), dtype=np.float32)
    drawn, level, environment = torch.get_rng_state(), logging.root.level, dict(os.environ)
    scores = weakseg.refine_with_svm(
        rng.normal(size=(3, 20, 24)).astype(np.float32),
        cam,
        weakseg.SVMSettings(samples_per_class=20, cycles=1),
        np.random.default_rng(1),
    ).scores
    weakseg.dense_crf(photo, -scores, weakseg.CRFSettings(3, 3, 10, 5, 5, iterations=1))
    weakseg.random_walk(cam, cam[0], weakseg.RandomWalkSettings(radius=2, steps=2))
    weakseg.seed_from_cam(cam, 0.6, 0.3)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert (logging.root.level, dict(os.environ)) == (level, environment)


@pytest.mark.slow
def test_a_run_does_what_its_example_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(tmp_path / "data", images=16, seed=1)
    monkeypatch.chdir(tmp_path)
    assert _fails_of(weakseg.run, weakseg.open_run) == (0, 9)


def test_recipes_and_algorithms_do_what_their_examples_say() -> None:
    shown = (
        weakseg.load_recipe,
        weakseg.seed_from_cam,
        weakseg.mask_from_cam,
        weakseg.refine_with_svm,
        weakseg.dense_crf,
        weakseg.random_walk,
        weakseg.spread,
        weakseg.refine_with_par,
        weakseg.ConfusionMatrix,
    )
    failed, tried = _fails_of(*shown)
    assert failed == 0 and tried > 4 * len(shown)


def _fails_of(*shown: object) -> tuple[int, int]:
    """How many examples fail, and how many there are."""
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for one in shown:
        (test,) = finder.find(one, globs={})
        assert test.examples
        runner.run(test)
    return runner.summarize(verbose=False)


SCRIPT = """
import threading
import weakseg

def work():
    done = weakseg.run({recipe!r}, {data!r}, {out!r}, workers=2)
    print(len(done.photos(done.masks)), "photos")

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.slow
def test_a_script_runs_without_a_guard_and_in_a_thread(tmp_path: Path, photos: Path) -> None:
    steps = ("cam+crf", "seed", "svm", "svm+crf")
    recipe, script = tmp_path / "tiny.yaml", tmp_path / "script.py"
    recipe.write_text(yaml.safe_dump(tiny_values(**dict.fromkeys(steps))))
    out = str(tmp_path / "out")
    script.write_text(SCRIPT.format(recipe=str(recipe), data=str(photos), out=out))
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ran.stdout == "10 photos\n", ran.stderr


def test_a_run_that_makes_no_masks_has_no_page(photos: Path, tmp_path: Path) -> None:
    recipe, pool = tmp_path / "pool.yaml", POOLED["pool"]
    recipe.write_text(yaml.safe_dump(tiny_values(**{**dict.fromkeys(STEPS), "pool": pool})))
    done = weakseg.run(recipe, photos, tmp_path / "out", workers=1, progress=Lines())
    assert list(done.steps) == ["pool"] and not (done.folder / "report").exists()
    with pytest.raises(WeaksegError, match="makes no masks"):
        done.mask("000000")


def test_an_opened_run_gives_what_the_steps_made(finished: Path, photos: Path) -> None:
    run = weakseg.open_run(finished)
    assert run.masks == "svm+crf"
    assert list(run.steps) == ["classify", "localize", "cam", "cam+crf", "seed", "svm", "svm+crf"]
    assert len(run.photos("svm+crf")) == len(run.photos("localize")) == 10
    photo = run.photos("svm+crf")[0]
    assert set(np.unique(run.mask(photo))) <= {*range(len(run.classes) + 1)}
    assert run.mask(photo).shape == run.mask(photo, "cam").shape
    assert run.maps(photo, "cam").scores.shape[0] + 1 == run.maps(photo, "svm").scores.shape[0]
    assert run.maps(photo, "localize").features is None
    features = run.maps(photo, "localize", "features").features
    assert features is not None and features.dtype == np.uint8
    assert {row["name"] for row in run.figures} >= {"cam", "cam-oracle", "svm+crf"}
    assert {entry["name"] for entry in run.assessment} <= set(run.classes)
    assert open_class_maps(run.steps["cam"]) is not None


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda run: run.mask("no such photo"), "svm\\+crf has no mask of 'no such photo'"),
        (lambda run: run.mask("x", "svmm"), "Unknown step 'svmm'. Did you mean 'svm'"),
        (lambda run: run.maps("x", "seed"), "seed has no maps of 'x'"),
    ],
)
def test_what_is_not_there_is_named(
    finished: Path, ask: Callable[[Run], object], said: str
) -> None:
    with pytest.raises(WeaksegError, match=said):
        ask(weakseg.open_run(finished))


def test_a_folder_of_something_else_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(WeaksegError, match=r"no run's folder \(it has no run.json"):
        weakseg.open_run(tmp_path)
