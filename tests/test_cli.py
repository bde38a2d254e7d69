"""The real command line, as a user starts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import yaml

from tiny import EVERY_KIND, IRN, NETWORK, SEGMENT, masks, tiny_recipe, tiny_values
from weakseg import names
from weakseg.cli import main
from weakseg.confidence import mask_confidence, mean_margin, probabilities
from weakseg.data.formats.base import read_classes
from weakseg.data.masks import read_mask
from weakseg.engine.opened import open_run
from weakseg.methods import KINDS
from weakseg.methods.base import Artefact
from weakseg.methods.maps import against_background

COMMAND = Path(sys.executable).with_name("weakseg")


def weakseg(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in environment.items()}},
        check=False,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "data"
    made = weakseg("data", "synth", folder, "--images", 8, "--seed", 1)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values()))
    return path


@pytest.fixture(scope="module")
def finished(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    result = weakseg("run", recipe, "--data", data, "--out", out, "classify.epochs=2")
    assert result.returncode == 0, result.stderr
    for name in ("cam", "cam-oracle", "seed", "svm", "svm+crf", "cam+crf"):
        assert name in result.stdout
    *_, pictures, page, following = result.stdout.strip().splitlines()
    assert pictures == f"Pictures to look at: {out / 'panels'}"
    assert page == f"Report: {out / 'report' / 'index.html'}"
    assert (out / "report" / "index.html").is_file()
    assert following.startswith(
        f"Next: weakseg run svm_three_step --data {data} --out {out}-network"
    )
    assert "step 1 of 12: inspect" in result.stderr and "step 12 of 12: panels" in result.stderr
    assert "photos: 8 photos are few to learn from" in result.stderr
    assert "localize: 8/8" in result.stderr
    return out


def as_overrides(steps: dict[str, dict[str, Any]]) -> list[str]:
    return [f"{name}={json.dumps(step)}" for name, step in steps.items()]


def test_the_module_is_the_same_command() -> None:
    command = [sys.executable, "-m", "weakseg", "list", "recipes"]
    module = subprocess.run(command, capture_output=True, text=True, check=True)
    assert module.stdout == weakseg("list", "recipes").stdout


@pytest.mark.slow
def test_run_again_resumes(data: Path, recipe: Path, finished: Path) -> None:
    again = weakseg("run", recipe, "--data", data, "--out", finished, "classify.epochs=2")
    assert again.returncode == 0, again.stderr
    assert "svm+crf: up to date" in again.stderr
    resolved = yaml.safe_load((finished / "recipe.yaml").read_text())
    assert resolved["steps"]["classify"]["epochs"] == 2


def interrupted_at(line: str, *arguments: object) -> tuple[int, str]:
    """Press Ctrl-C, which every process of the group gets, once a line starts so."""
    with subprocess.Popen(
        [str(COMMAND), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for text in process.stderr:
            said.append(text)
            if text.startswith(line):
                os.killpg(process.pid, signal.SIGINT)
                break
        said += process.stderr
    return process.returncode, "".join(said)


@pytest.mark.slow
def test_a_network_learns_the_masks_and_predicts(
    data: Path, recipe: Path, finished: Path, tmp_path: Path
) -> None:
    # Paths that a shell, Lightning or fsspec would read their own way.
    home = tmp_path / "home"
    out = Path(shutil.copytree(finished, home / "a::b"))
    truth = Path(shutil.copytree(data / "SegmentationClass", home / "truth"))
    short = {"of": "svm+crf", "epochs": 1, "batch_size": 2, "validation_masks": "~/truth"}
    steps = {**SEGMENT, "segmenter": {**SEGMENT["segmenter"], **short}}
    overrides = ["classify.epochs=2", *as_overrides(steps)]
    run = weakseg("run", recipe, "--data", data, "--out=~/a::b", *overrides, HOME=home)
    assert run.returncode == 0, run.stderr
    assert "svm+crf: up to date" in run.stderr
    assert "segment+tta" in run.stdout
    photos = data / "JPEGImages"
    predicted = weakseg("predict", "~/a::b", photos, "--out=~/masks", "--tta", HOME=home)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout == f"8 masks in {home / 'masks'}\n"
    for path in (out / "segment+tta").iterdir():
        assert (home / "masks" / path.name).read_bytes() == path.read_bytes()
    trained = sorted(path.name for path in (out / "segmenter").iterdir())
    assert trained == ["scores.json", "segmenter.safetensors"]
    assert sorted(home.iterdir()) == [out, home / "masks", truth]
    wrong = weakseg("predict", data, photos, "--out", home / "masks")
    assert wrong.returncode == 2
    assert "There is no segmentation network" in wrong.stderr


@pytest.mark.slow
def test_masks_start_from_image_specific_maps(data: Path, recipe: Path, tmp_path: Path) -> None:
    steps = {"taught": {**EVERY_KIND["taught"], "epochs": 1}, "is-cam": EVERY_KIND["is-cam"]}
    command = ["run", recipe, "--data", data, "--out", tmp_path / "run", *as_overrides(steps)]
    command += ["classify=null", "localize.of=taught", "svm.of=[is-cam, localize]"]
    first = weakseg(*command)
    assert first.returncode == 0, first.stderr
    for name in ("is-cam", "cam-oracle", "svm+crf"):
        assert name in first.stdout
    again = weakseg(*command, "cam.background=0.5")
    assert again.returncode == 0, again.stderr
    assert "is-cam: up to date" in again.stderr and "svm+crf: up to date" in again.stderr


@pytest.mark.slow
def test_instances_are_written_and_measured(
    data: Path, recipe: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    irnet = {"kind": "irnet", "of": "svm+crf", **NETWORK, "epochs": 1}
    steps = {"irnet": irnet, "irn": {**IRN["irn"], "of": ["irnet", "svm+crf"], "threshold": 0.4}}
    command = ["run", recipe, "--data", data, "--out", out, "classify.epochs=2"]
    command += as_overrides(steps)
    first = weakseg(*command)
    assert first.returncode == 0, first.stderr
    assert not (out / "instances").exists() and "ABO" not in first.stdout
    second = weakseg(*command, "instances={kind: instances, of: [irnet, irn]}")
    assert second.returncode == 0, second.stderr
    assert "irnet: up to date" in second.stderr and "irn: up to date" in second.stderr
    assert "ABO" in second.stdout
    for path in (out / "irn").glob("*.png"):
        walked, found = read_mask(path), read_mask(out / "instances" / path.name)
        assert found.shape == walked.shape
        assert all(len(np.unique(walked[found == n])) == 1 for n in np.unique(found[found > 0]))


@pytest.mark.slow
def test_a_vit_is_a_backbone_of_all_but_deeplab(data: Path, tmp_path: Path) -> None:
    backbone = {"name": "test_vit", "weights": "none"}
    changes: dict[str, dict[str, Any]] = {
        "classify": {"backbone": {**backbone, "frozen_stages": 2}, "epochs": 1},
        "localize": {"feature_stages": [1, 4]},
        "pool": {"kind": "features", "backbone": {**backbone, "frozen_stages": -1}},
        "pooled": {**EVERY_KIND["pooled"], "of": "pool"},
        **IRN,
        "irnet": {**IRN["irnet"], "backbone": backbone, "epochs": 1},
    }
    recipe, out = tmp_path / "vit.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(tiny_values(**changes)))
    command = ["run", recipe, "--data", data, "--out", out]
    refused = weakseg(*command, *as_overrides(SEGMENT), f"segmenter.backbone={backbone}")
    assert refused.returncode == 2
    assert "DeepLabv3+ needs a backbone with an output stride of 8 or 16" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    run = weakseg(*command)
    assert run.returncode == 0, run.stderr
    photo, *_ = (out / "localize").glob("*.safetensors")
    with safetensors.safe_open(photo, "np") as file:
        height, width = read_mask(out / "svm" / f"{photo.stem}.png").shape
        grid = (-(-height // 4), -(-width // 4))
        assert file.get_tensor("features").shape == (2 * 64, *grid)
        assert file.get_tensor("scores").shape[1:] == grid


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_ctrl_c_leaves_whole_files_and_the_same_command_goes_on(
    data: Path, recipe: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ("run", recipe, "--data", data, "--out", out, "classify.epochs=2")
    for line, step in (("classify: epoch 1/2", "classify"), ("localize: 8/8", "svm+crf")):
        code, said = interrupted_at(line, *command)
        assert code == 130, said
        assert "Traceback" not in said
        assert said.endswith("Interrupted. The same command goes on from here.\n")
        assert not list(out.rglob(".partial-*"))
        steps = json.loads((out / "run.json").read_text())["steps"]
        assert not steps.get(step, {}).get("finished")
    resumed = weakseg(*command)
    assert resumed.returncode == 0, resumed.stderr
    assert "classify: up to date" in resumed.stderr
    assert masks(out) == masks(finished)


def test_evaluate_gives_the_figures_of_the_run(data: Path, finished: Path, tmp_path: Path) -> None:
    result = weakseg(
        "evaluate", "--pred", finished / "svm", "--data", data, "--split", "all",
        "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = json.loads((finished / "metrics.json").read_text())["stages"]
    row = next(row for row in rows if row["name"] == "svm")
    assert {k: figures[k] for k in ("images", "miou", "per_class")} == {
        k: row[k] for k in ("images", "miou", "per_class")
    }


def test_evaluate_needs_no_tags(data: Path, tmp_path: Path) -> None:
    untagged = Path(shutil.copytree(data, tmp_path / "data"))
    table = untagged / "tags.csv"
    first, *others = table.read_text().splitlines()[1:]
    table.write_text("\n".join(["image,tags", *others]))
    truth = untagged / "SegmentationClass"
    call = ("evaluate", "--data", untagged, "--split", "all", "--pred")
    figures = tmp_path / "figures.json"
    result = weakseg(*call, truth, "--json", figures)
    assert result.returncode == 0, result.stderr
    row = json.loads(figures.read_text())
    assert (row["images"], row["miou"]) == (8, 1)
    result = weakseg(*call, truth, "--json", figures / "below a file.json")
    assert result.returncode == 2 and "where a folder is needed" in result.stderr
    assert "100.0" in result.stdout
    predictions = Path(shutil.copytree(truth, tmp_path / "predictions"))
    (predictions / f"{first.split(',')[0]}.png").unlink()
    result = weakseg(*call, predictions)
    assert result.returncode == 2 and "no mask for 1 of 8" in result.stderr
    skipping = ("--missing", "skip", "--drop", "car", "--json", figures)
    result = weakseg(*call, predictions, *skipping, COLUMNS=200)
    assert result.returncode == 0, result.stderr
    row = json.loads(figures.read_text())
    assert (row["images"], row["protocol"]["skipped"], row["protocol"]["dropped"]) == (
        7,
        1,
        ["car"],
    )
    assert "car" not in row["per_class"] and "1 photos without a prediction" in result.stdout


def test_check_reports_and_judges(data: Path, tmp_path: Path) -> None:
    result = weakseg("data", "check", data)
    assert result.returncode == 0
    assert "8 photos, 8 tagged, 8 with a mask" in result.stdout
    (tmp_path / "images").mkdir()
    (tmp_path / "tags.csv").write_text("image,tags\nnone,cat\n")
    assert weakseg("data", "check", tmp_path).returncode == 1


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(sys, "argv", ["weakseg", "list", *arguments])
        main()
    return capsys.readouterr().out.splitlines()


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    return [line.split()[0] for line in lines(capsys, *arguments)]


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("recipes", ["demo", "refined_pixel_labeling"]),
        ("seeds", ["cam"]),
        ("refiners", ["svm", "crf"]),
        ("networks", ["classifier", "irnet", "deeplab"]),
        ("formats", ["voc", "tagged-folder"]),
    ],
)
def test_list(what: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert set(names) <= set(listed(capsys, what))


def test_listed_seeds_refiners_and_networks_are_what_a_recipe_can_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = {step.kind.name: step for step in tiny_recipe(**EVERY_KIND).build(Path("run"))}
    for what in ("seed", "refiner", "network"):
        found = dict(line.split(maxsplit=1) for line in lines(capsys, f"{what}s"))
        assert found == {n: kind.summary for n, kind in KINDS.items() if kind.role == what}
        for name in found:
            if Artefact.MASKS in steps[name].gives:
                learner = {**SEGMENT["segmenter"], "of": steps[name].name}
                assert tiny_recipe(**EVERY_KIND, learner=learner)


def test_backbones_whose_weights_are_installed_are_listed_alone_or_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = ["efficientnet_lite0", "efficientnet_lite2"]

    def find(package: str) -> bool:
        return "lite1" not in package

    monkeypatch.setattr(names, "find_spec", find)
    assert listed(capsys, "backbones") == installed
    everything = listed(capsys, "backbones", "--all")
    assert everything[:2] == installed and "resnet50" in everything
    chosen = lines(capsys, "backbones", "*net_lite[01]")
    assert [line.split() for line in chosen] == [
        ["efficientnet_lite0", *["ImageNet", "weights", "are", "installed"]],
        ["efficientnet_lite1", "timm"],
        ["tf_efficientnet_lite0", *["ImageNet", "weights", "are", "installed"]],
        ["tf_efficientnet_lite1", "timm"],
    ]


@pytest.mark.slow
def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_gone_on_with(
    data: Path, recipe: Path, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    (out / "svm+crf" / "000000.png").unlink()
    arguments = ("run", recipe, "--data", data, "--out", out, "classify.epochs=2")
    with subprocess.Popen(
        [str(COMMAND), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stderr is not None
        next(line for line in first.stderr if line.startswith("inspect: up to date"))
        os.kill(first.pid, signal.SIGSTOP)
        second = weakseg(*arguments)
        assert second.returncode == 2
        assert second.stderr.splitlines()[-1].startswith(f"Error: {out} is in use by another run")
        assert f"process {first.pid} " in second.stderr
        first.kill()
    resumed = weakseg(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert masks(out) == masks(finished)


def test_names_outside_the_consoles_encoding_are_escaped(tmp_path: Path) -> None:
    made = weakseg(
        "data", "synth", tmp_path / "käse", "--images", 1, PYTHONIOENCODING="ascii:strict"
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"1 photos in {tmp_path}/k\\xe4se\n"


USER_ERRORS = [
    (["run", "demo", "--data", "/nowhere", "--out", "OUT"], "There is no folder /nowhere"),
    (["run", "domo", "--data", "DATA", "--out", "OUT"], "Did you mean 'demo'"),
    (["run", "demo", "--data", "DATA", "--out", "OUT", "svm.cycels=1"], "did you mean cycles"),
    (
        ["run", "demo", "--data", "DATA", "--out", "OUT", "svm.background_threshold=2"],
        "background_threshold",
    ),
    (["run", "demo", "--data", "DATA", "--out", "OUT", "data.split=tran"], "train"),
    (
        ["run", "demo", "--data", "DATA", "--out", "OUT", "pool.backbone.name=resnet5"],
        "Did you mean 'resnet50'",
    ),
    (
        ["run", "demo", "--data", "DATA", "--out", "OUT", "pool.backbone.weights=/no.pth"],
        "There is no weights file",
    ),
    (
        ["run", "demo", "--data", "DATA", "--out", "OUT", "localize.feature_stages=[9]"],
        "stages 0 to 4",
    ),
    (["run", "demo", "--data", "DATA", "--out", "DATA"], "no run's folder"),
    (["run", "demo", "--data", "DATA", "--out", "OUT", "--device", "tpu"], "cuda"),
    (["run", "demo", "--data", "DATA", "--out", "OUT", "--executor", "dask"], "ray"),
    (["run", "demo", "--data", "DATA", "--out", "OUT", "--ray-address", "auto"], "executor"),
    (
        ["run", "demo", "--data", "DATA", "--out", "OUT", "--executor=ray", "--ray-address=me"],
        "HOST:PORT",
    ),
    (["list", "network"], "Did you mean 'networks'"),
    (["evaluate", "--pred", "/nowhere", "--data", "DATA", "--split", "all"], "no folder /nowhere"),
    (["evaluate", "--pred", "DATA", "--data", "DATA", "--split", "all"], "no mask for 8 of 8"),
    (
        ["evaluate", "--pred", "DATA", "--data", "DATA", "--split", "all", "--missing", "skp"],
        "Did you mean 'skip'",
    ),
    (
        ["evaluate", "--pred", "DATA", "--data", "DATA", "--split", "all", "--drop", "carr"],
        "Did you mean 'car'",
    ),
    (["data", "synth", "DATA", "--images", "3"], "DATA"),
]


@pytest.mark.parametrize(("arguments", "message"), USER_ERRORS)
def test_user_errors_are_one_line_and_exit_code_2(
    data: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"DATA": str(data), "OUT": str(tmp_path / "out")}
    monkeypatch.setattr(sys, "argv", ["weakseg", *[places.get(a, a) for a in arguments]])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ") and places.get(message, message) in lines[0]
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(data: Path, tmp_path: Path) -> None:
    result = weakseg("run", "domo", "--data", data, "--out", tmp_path, "--debug")
    assert "Traceback" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(data: Path) -> None:
    result = weakseg("data", "synth", "/dev/full/data", "--images", 1)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1


QUICK = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["list", "recipes"],
    ["list", "backbones"],
    ["list", "seeds"],
    ["list", "refiners"],
    ["list", "networks"],
    ["list", "formats"],
    ["list", "exports"],
    ["export", "/nowhere", "--format", "coco"],
    ["report", "/nowhere"],
    ["review", "/nowhere"],
    ["export", "OUT", "--format", "coca"],
    ["data", "check", "DATA"],
    ["run", "domo", "--data", "DATA", "--out", "OUT"],
    ["run", "demo", "--data", "DATA", "--out", "OUT", "svm.cycels=1"],
    ["run", "demo", "--data", "/nowhere", "--out", "OUT"],
    ["run", "demo", "--data", "DATA", "--out", "OUT", "--device", "tpu"],
    ["evaluate", "--pred", "/nowhere", "--data", "DATA", "--split", "all"],
    ["evaluate", "--pred", "DATA", "--data", "/nowhere", "--split", "all"],
]

HELP = [["--help"], ["--version"], ["run", "--help"]]

SLOW = {"torch", "torchvision", "timm", "lightning", "numba", "scipy"}
"""What takes from half a second to seconds to import."""


def test_help_imports_neither_numpy_nor_rich() -> None:
    code = (
        "import contextlib, io, sys\n"
        "from weakseg.cli import main\n"
        f"for sys.argv[1:] in {HELP!r}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main()\n"
        "assert not {'numpy', 'rich', 'yaml', 'PIL'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_shell_completes_verbs_and_names() -> None:
    def completed(typed: str) -> list[str]:
        words = {"COMP_WORDS": typed, "COMP_CWORD": len(typed.split()) - 1}
        return weakseg(_WEAKSEG_COMPLETE="complete_bash", **words).stdout.split()

    assert completed("weakseg pre") == ["predict"]
    assert "refined_pixel_labeling_cpu" in completed("weakseg run refined")
    assert completed("weakseg list back") == ["backbones"]


def test_results_as_json_without_progress(data: Path) -> None:
    checked = weakseg("data", "check", data, "--json", "--quiet")
    assert json.loads(checked.stdout)["usable"] and not checked.stderr
    refiners = weakseg("list", "refiners", "--json")
    assert "crf" in json.loads(refiners.stdout)


def test_quick_verbs_import_nothing_slow(data: Path, tmp_path: Path) -> None:
    places = {"DATA": str(data), "OUT": str(tmp_path / "out")}
    calls = [[places.get(argument, argument) for argument in call] for call in QUICK]
    code = (
        "import contextlib, io, sys\n"
        "from weakseg.cli import main\n"
        f"for sys.argv[1:] in {calls!r}:\n"
        "    out = io.StringIO()\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(out):\n"
        "        main()\n"
        f"    slow = {SLOW!r} & set(sys.modules)\n"
        "    assert not slow, (sys.argv, slow)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_masks_are_compared_without_pytorch(data: Path) -> None:
    truth = data / "SegmentationClass"
    call = ["evaluate", "--pred", str(truth), "--data", str(data), "--split", "all"]
    code = (
        "import sys\n"
        "from weakseg.cli import main\n"
        f"sys.argv[1:] = {call!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        f"assert not {SLOW!r} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_photos_are_labelled_by_tags_alone(data: Path, tmp_path: Path) -> None:
    photos = sorted((data / "JPEGImages").iterdir())[:2]
    out = tmp_path / "masks"
    made = weakseg("label", *photos, "--tag", "cats", "--tag", "fish", "--out", out)
    assert made.returncode == 0, made.stderr
    first, *unseen, last = made.stdout.splitlines()
    assert first == f"2 masks in {out}"
    assert last == f"Pictures to look at: {out / 'run' / 'panels'}"
    done = open_run(out / "run")
    sure = np.array([done.maps(p.stem, "spread", "confidence").confidence for p in photos])
    assert unseen == [
        f"The network sees no '{tag}' on {number} of 2 photos: masks of it there are guesses, to "
        "be looked at first."
        for tag, number in zip(("cats", "fish"), (sure < 0.73).sum(axis=0), strict=True)
        if number
    ]
    assert unseen  # generated cats and fish are none to it
    scores = [against_background(done.maps(p.stem, "spread").scores, 0.35) for p in photos]
    margin = float(np.mean([mean_margin(one) for one in scores]))
    for photo, one, seen in zip(photos, scores, sure, strict=True):
        mask, cam = done.mask(photo.stem), done.mask(photo.stem, "cam")
        drawn = mask_confidence(mask, (1, 2), [cam], probabilities(one, margin))
        assert done.confidence[photo.stem] == pytest.approx(min(drawn * seen), abs=1e-4)
    assert "imagenet: cats: tabby, " in made.stderr
    assert read_classes(out / "classes.txt") == ("cats", "fish")
    for photo in photos:
        assert set(np.unique(read_mask(out / f"{photo.stem}.png"))) <= {0, 1, 2}


def test_tags_that_imagenet_lacks_end_with_one_line(data: Path, tmp_path: Path) -> None:
    photo, out = next((data / "JPEGImages").iterdir()), tmp_path / "masks"
    wrong = weakseg("label", photo, "--tag", "gizmo", "--tag", "umbrela", "--out", out)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    (line,) = wrong.stderr.splitlines()
    assert line.startswith("Error: ImageNet has no class for 'gizmo', 'umbrela' (near: umbrella")
    assert not out.exists()
