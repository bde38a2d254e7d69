"""What an installation without PyTorch does, and what it says of the rest."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import weakseg
from weakseg.cli import app
from weakseg.errors import missing_part

TRAIN = ["torch", "torchvision", "timm", "lightning", "segmentation_models_pytorch"]
TRAIN += ["torchmetrics"]

HIDE = """
import sys
class Hidden:
    def __init__(self, names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
"""
"""Packages that an installation does without. (None in `sys.modules` is not what SciPy expects.)"""

CALLS = """
import contextlib, io, json
hidden, calls = json.loads(sys.argv[1])
sys.meta_path.insert(0, Hidden(hidden))
from weakseg.cli import main
for sys.argv[1:] in calls:
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


def without(hidden: list[str], calls: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and error of each call, where some packages can't be imported."""
    given = json.dumps([hidden, calls])
    ran = subprocess.run(
        [sys.executable, "-c", HIDE + CALLS, given], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return [tuple(json.loads(line)) for line in ran.stdout.splitlines()]


def test_verbs_that_train_nothing_need_no_pytorch(
    photos: Path, finished: Path, tmp_path: Path
) -> None:
    truth, run = str(photos / "SegmentationClass"), tmp_path / "run"
    shutil.copytree(finished, run)
    calls = [
        ["--help"],
        *(["list", name] for name in ("recipes", "backbones", "kinds", "formats", "exports")),
        ["data", "check", str(photos)],
        ["data", "synth", str(tmp_path / "made"), "--images", "1"],
        ["evaluate", "--pred", truth, "--data", str(photos), "--split", "all", "--quiet"],
        ["report", str(run)],
        ["export", str(run), "--format", "coco"],
    ]
    for call, (code, out, err) in zip(calls, without([*TRAIN, "onnx"], calls), strict=True):
        assert (code, bool(out)) == (0, True), (call, err)


LIGHT = [
    name
    for name in weakseg.__all__
    if name not in ("localize_tags", "refine_with_par", "__version__")
]


def test_runs_are_read_and_refined_without_pytorch(finished: Path) -> None:
    code = f"""{HIDE}
sys.meta_path.insert(0, Hidden({TRAIN!r}))
import numpy as np
import weakseg
for name in {LIGHT!r}:
    getattr(weakseg, name)
run = weakseg.open_run({str(finished)!r})
photo = run.photos("localize")[0]
given = run.maps(photo, "localize", "features")
features = weakseg.zscore(given.features)
found = weakseg.refine_with_svm(
    features, given.scores, weakseg.SVMSettings(cycles=1), np.random.default_rng(0)
)
assert np.isfinite(found.scores).all() and run.mask(photo).any() is not None
photo = np.zeros((*given.scores.shape[1:], 3), np.uint8)
unary = weakseg.unary_from_scores(found.scores)
weakseg.dense_crf(photo, unary, weakseg.CRFSettings(3, 3, 10, 5, 5, iterations=1))
boundary = np.zeros(given.scores.shape[1:], np.float32)
weakseg.random_walk(given.scores, boundary, weakseg.RandomWalkSettings(radius=3))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("hidden", "call", "package"),
    [
        (TRAIN, ["run", "demo", "--data", "DATA", "--out", "OUT"], "torch"),
        (TRAIN, ["label", "DATA", "--tag", "cat", "--out", "OUT"], "torch"),
        (TRAIN, ["predict", "DATA", "DATA", "--out", "OUT"], "torch"),
        (TRAIN, ["export", "RUN", "--format", "onnx", "--out", "OUT"], "torch"),
        (["pyarrow"], ["export", "RUN", "--format", "huggingface", "--out", "OUT"], "pyarrow"),
        (TRAIN, ["list", "backbones", "--all"], "timm"),
        (["ray"], ["run", "demo", "--data", "DATA", "--out", "OUT", "--executor", "ray"], "ray"),
        (["onnxruntime"], ["predict", "model.onnx", "DATA", "--out", "OUT"], "onnxruntime"),
    ],
)
def test_a_missing_part_is_one_line_that_names_it(
    photos: Path, finished: Path, tmp_path: Path, hidden: list[str], call: list[str], package: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    places = {"DATA": photos, "RUN": finished, "OUT": tmp_path / "out"}
    places["model.onnx"] = tmp_path / "model.onnx"
    ((code, _, err),) = without(hidden, [[str(places.get(word, word)) for word in call]])
    extra = {"onnxruntime": "onnx", "pyarrow": "huggingface", "ray": "ray"}.get(package, "train")
    line = f"Error: This needs {package}, which is not installed: pip install 'weakseg[{extra}]'.\n"
    assert (code, err) == (2, line)
    assert not (tmp_path / "out").exists()


def test_what_no_extra_brings_is_a_defect() -> None:
    assert missing_part(ModuleNotFoundError(name="weakseg.nothing")) is None


def _verbs(command: Any, words: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command, with the words that name it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        return [(words, command)]
    return [verb for name, one in inner.items() for verb in _verbs(one, (*words, name))]


VERBS = _verbs(get_command(app))


@pytest.mark.parametrize(("words", "command"), VERBS, ids=[" ".join(words) for words, _ in VERBS])
def test_every_verb_shows_examples_that_it_takes(words: tuple[str, ...], command: Any) -> None:
    examples = [shlex.split(line)[1:] for line in command.epilog.splitlines() if "weakseg" in line]
    assert examples
    for example in examples:
        named, given = tuple(example[: len(words)]), example[len(words) :]
        assert named == words
        command.make_context(words[-1], given)  # refuses what it doesn't take
