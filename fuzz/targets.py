"""What is fuzzed: readers of the package, each with the valid inputs that are spoilt for it."""

import csv
import json
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from mutate import HOSTILE_NAMES, json_file, spoil_file
from weakseg.data.check import check_dataset, read_usable
from weakseg.data.dataset import load_dataset
from weakseg.data.images import (
    narrow_depth,
    photo_size,
    plain_format,
    read_photo,
    read_small_photo,
)
from weakseg.data.masks import read_mask, read_prediction, write_mask
from weakseg.data.mended import find_tool
from weakseg.errors import WeaksegError

# PyTorch and the engine take seconds to import: the targets that need them do it themselves.

PORT, TOKEN = 8123, "a-token"
ADDRESS = f"http://127.0.0.1:{PORT}"
MADE = "made"
"""Of each target's folder: the only place in it, beside a run's own, that is written to."""

_BESIDE = ("labels.json", "weakseg-export.json")
"""What an export holds beside what a tool gives back."""

_FOREIGN = "xss"
"""What elements and attributes are called that names would bring into a page."""


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes:
        name: for the table.
        inputs: the folder of `corpus` that has valid ones.
        share: how many of all inputs are of it, in proportion.
        read: reads what is in a copy of that folder, where some files are spoilt.
        spoilt: a pattern of the files that may be.
        writes: what it may write in, of the copy.
        afresh: whether the whole copy is made anew each time, since it is changed everywhere.
        seconds: of the processor, that reading one may take.
    """

    name: str
    inputs: str
    share: float
    read: Callable[[Path, random.Random], None]
    spoilt: str = "**/*"
    writes: tuple[str, ...] = (MADE,)
    afresh: bool = False
    seconds: float = 20.0


def every(*calls: Callable[[], Any]) -> None:
    """Make all calls, as the rest goes on where a user's error is named; then raise the first."""
    refused = None
    for call in calls:
        try:
            call()
        except (WeaksegError, OSError) as error:
            refused = refused or error
    if refused:
        raise refused


def _photos(folder: Path, rng: random.Random) -> None:
    looks: list[Callable[[Path], Any]] = [read_photo, photo_size, plain_format, narrow_depth]
    looks.append(partial(read_small_photo, long_side=16))
    every(*(partial(look, path) for path in _given(folder) for look in looks))


def _masks(folder: Path, rng: random.Random) -> None:
    of_ids = [path for path in _given(folder) if path.stem != "bits"]  # those are of one class
    every(*(partial(read_mask, path) for path in _given(folder)))
    every(*(partial(read_prediction, path) for path in of_ids if path.suffix == ".png"))


def _given(folder: Path) -> list[Path]:
    """What a user can name of a folder: the engine takes regular files alone."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def _data(folder: Path, rng: random.Random) -> None:
    def check() -> None:
        for line in check_dataset(folder).lines():
            assert "\n" not in line, "a report has a line break in a line"

    def load() -> None:
        dataset = load_dataset(folder, "all")
        every(*(partial(read_photo, sample.image) for sample in dataset.samples))
        for sample in dataset.samples:
            for mask in (sample.mask, sample.objects):
                if mask:
                    every(partial(read_usable, mask, (24, 32), len(dataset.classes)))

    every(check, load)


def _mended(folder: Path, rng: random.Random) -> None:
    dataset = load_dataset(folder / "data", "all")
    given = folder / "given"
    own = (place for place in sorted(given.rglob("*.json")) if place.name not in _BESIDE)
    places = [given, *own]
    tools = [(place, tool) for place in places if (tool := find_tool(place))]

    def read(place: Path, tool: Any) -> None:
        find = tool.open(place, dataset.classes)
        for sample in dataset.samples:
            for mask in find(sample):
                every(mask.stamp, partial(read_usable, mask, photo_size(sample.image), 6))

    every(*(partial(read, *pair) for pair in tools))


def _maps(folder: Path, rng: random.Random) -> None:
    from weakseg.methods import KINDS
    from weakseg.methods.base import Step, task_of

    settings = KINDS["folder"].settings(path=str(folder / "given"), holds="maps")
    step = Step("given", KINDS["folder"], settings, (), folder / MADE, 0, 1024, "cpu")
    assert step.kind.work
    work = step.kind.work(step)
    dataset = load_dataset(folder / "data", "all")
    every(*(partial(work, task_of(sample, dataset.classes)) for sample in dataset.samples))


def _recipes(folder: Path, rng: random.Random) -> None:
    from weakseg.recipe import dump_recipe, load_recipe

    def load(path: Path) -> None:
        recipe = load_recipe(str(path))
        dump_recipe(recipe)
        for step in recipe.build(folder / MADE):
            assert step.folder.parent == folder / MADE, "a step's folder lies elsewhere"

    every(*(partial(load, path) for path in _given(folder)))


def _weights(folder: Path, rng: random.Random) -> None:
    from weakseg.networks.backbones import Backbone
    from weakseg.networks.weights import load_weights

    backbone = Backbone("test_efficientnet", "none")
    every(
        *(
            partial(load_weights, backbone.model, "test_efficientnet", str(path))
            for path in _given(folder)
        )
    )


def _networks(folder: Path, rng: random.Random) -> None:
    import torch

    from weakseg.methods import networks
    from weakseg.networks.backbones import Backbone

    cpu = torch.device("cpu")
    for path in _given(folder):
        name = path.name
        if "sipe" in name:
            backbone = Backbone("test_efficientnet", "none")
            every(partial(networks.read_sides, path, backbone, False, cpu))
        elif "irnet" in name:
            every(partial(networks.read_irnet, path, cpu))
        elif "segmenter" in name:
            every(
                partial(networks.read_segmenter_card, path),
                partial(networks.read_segmenter, path, cpu),
            )
        elif "classifier" in name:
            every(partial(networks.read_classifier, path, cpu))


def _checkpoints(folder: Path, rng: random.Random) -> None:
    from weakseg.files import written_by_run
    from weakseg.methods.fit import _read_checkpoint

    for path in _given(folder):
        with written_by_run(path):
            _read_checkpoint(path)


def _onnx(folder: Path, rng: random.Random) -> None:
    from weakseg.segment.onnx import OnnxModel, read_card

    photo = np.zeros((33, 40, 3), np.uint8)
    for path in _given(folder):

        def segment(path: Path = path) -> None:
            try:
                OnnxModel(path).probabilities(photo)
            except ValueError as error:  # `segment_photos` names the photo, and goes on
                raise WeaksegError(str(error)) from error

        every(partial(read_card, path), segment)


def _run(folder: Path, rng: random.Random) -> None:
    """What faces make of a run whose own files are damaged."""
    out = folder / "out"
    every(partial(_open, out), partial(_FACES[rng.choice(sorted(_FACES))], out, folder / MADE, rng))


def _open(out: Path) -> None:
    from weakseg.engine.opened import open_run

    run = open_run(out)
    looks = ("record", "classes", "figures", "reliability", "assessment", "confidence", "files")
    every(*(partial(getattr, run, name) for name in looks))
    for name, step in run.steps.items():
        for photo in run.photos(name)[:2]:
            every(partial(run.mask_file, photo, name))
            if (step.folder / f"{photo}.png").is_file():
                every(partial(run.mask, photo, name))
            if (step.source.folder / f"{photo}.safetensors").is_file():
                every(partial(run.maps, photo, name))


def _report(out: Path, made: Path, rng: random.Random) -> None:
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.engine.opened import open_run
    from weakseg.progress import Silence
    from weakseg.report.build import build

    _check_page(build(open_run(out), InProcessExecutor(), Silence()))


def _export(out: Path, made: Path, rng: random.Random) -> None:
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.engine.opened import open_run
    from weakseg.export import EXPORTERS
    from weakseg.export.choose import Choice
    from weakseg.export.write import export
    from weakseg.progress import Silence

    name = rng.choice([name for name in EXPORTERS if name != "onnx"])
    export(open_run(out), EXPORTERS[name], made / name, Choice(), InProcessExecutor(), Silence())


def _evaluate(out: Path, made: Path, rng: random.Random) -> None:
    from weakseg.engine.evaluate import evaluate_folder
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.engine.opened import open_run
    from weakseg.progress import Silence

    run = open_run(out)
    dataset = run.dataset()
    evaluate_folder(run.steps["svm+crf"].folder, dataset, "all", InProcessExecutor(), Silence())


def _predict(out: Path, made: Path, rng: random.Random) -> None:
    from weakseg.engine import predict
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.engine.opened import open_run
    from weakseg.progress import Silence

    photo = next(iter(open_run(out).files.values()))
    predict.run(out, [photo], made / "predicted", InProcessExecutor(), Silence(), "cpu", tta=True)


def _review(out: Path, made: Path, rng: random.Random) -> None:
    """The requests of a page."""
    client = _client(out)
    answers = [client.get("/overview")]
    for photo in ("photo", "mask", "strokes"):
        for name in [path.stem for path in sorted((out / "svm+crf").glob("*.png"))[:2]]:
            answers.append(client.get(f"/{photo}", params={"id": name}))
    _check_answers(answers)


def _client(out: Path) -> Any:
    from starlette.testclient import TestClient

    from weakseg.engine.opened import open_run
    from weakseg.review.app import make_app
    from weakseg.review.photos import Review

    app = make_app(Review.of(open_run(out)), TOKEN, PORT)
    client = TestClient(app, base_url=ADDRESS, headers={"origin": ADDRESS})
    client.get("/", params={"token": TOKEN})
    return client


def _check_answers(answers: Sequence[Any]) -> None:
    """What is not served is refused, in a line that says why."""
    for answer in answers:
        assert answer.status_code < 500, f"status {answer.status_code}"
    if refused := [answer.text for answer in answers if answer.status_code >= 400]:
        raise WeaksegError(refused[0])


_FACES: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "report": _report,
    "export": _export,
    "evaluate": _evaluate,
    "predict": _predict,
    "review": _review,
}


def _resume(folder: Path, rng: random.Random) -> None:
    """The same recipe again, on a run whose files are damaged."""
    import torch

    from weakseg.engine import runner
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.progress import Silence
    from weakseg.recipe import load_recipe

    recipe = load_recipe(str(folder / "recipe.yaml"))
    runner.run(
        recipe, folder / "data", folder / "out", InProcessExecutor(), Silence(), torch.device("cpu")
    )


_BODIES: dict[str, Any] = {
    "strokes": {"strokes": [{"name": "background", "points": [[9, 9], [30, 20]], "radius": 5}]},
    "tags": {"tags": ["cat"]},
    "accept": {"accepted": True},
    "teach": {},
}


def _requests(folder: Path, rng: random.Random) -> None:
    """Requests of a hostile page, or of one that has the token and sends anything."""
    out = folder / "out"
    photos = sorted(path.stem for path in (out / "svm+crf").glob("*.png"))
    client = _client(out)
    path, value = rng.choice(list(_BODIES.items()))
    photo = rng.choice((*photos, *HOSTILE_NAMES, "../../out/run"))
    photo = photo.encode("utf-8", "replace").decode()
    body = json_file(json.dumps(value).encode(), rng)
    stranger = rng.random() < 0.3
    headers = {
        name: rng.choice(("http://evil.example", "null", "", f"{ADDRESS}.evil.example"))
        for name in rng.choice((("origin",), ("host",), ("origin", "host")))
    }
    answers = [
        client.post(
            f"/{path}",
            params={"id": photo if rng.random() < 0.3 else photos[0]},
            content=body,
            headers=headers if stranger else {},
        ),
        client.get(f"/static/{quote(rng.choice(('../app.py', '%2e%2e/app.py', '..%5capp.py')))}"),
        client.get("/photo", params={"id": photo}),
        client.get("/overview"),
    ]
    if stranger:
        assert answers[0].status_code in (400, 403), "a stranger is served"
    assert answers[1].status_code in (404, 405), "a file beside static/ is served"
    del answers[1]
    _check_answers(answers)


def _names(folder: Path, rng: random.Random) -> None:
    """A data set whose files and tags have hostile names: its report, its page and its exports."""
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.engine.opened import open_run
    from weakseg.engine.record import Record, write_record
    from weakseg.export import EXPORTERS
    from weakseg.progress import Silence
    from weakseg.recipe import RECIPE, check_recipe, dump_recipe
    from weakseg.report.build import build

    data, out = folder / MADE / "data", folder / MADE / "out"
    (data / "images").mkdir(parents=True)
    photos = [f"{rng.choice(HOSTILE_NAMES)}{n}" for n in range(2)]
    tags = [f"{rng.choice(HOSTILE_NAMES)}{n}" for n in range(2)]
    written = []
    for name in photos:
        named = data / "images" / f"{name.replace('/', '_')}.png"
        try:
            Image.new("RGB", (32, 24), "red").save(named)
        except (OSError, ValueError):  # no name that a file can have
            continue
        written.append(named)
    with (data / "tags.csv").open("w", newline="", encoding="utf-8", errors="surrogatepass") as f:
        rows = csv.writer(f)
        rows.writerow(["image", "tags"])
        rows.writerows([path.name, ";".join(tags)] for path in written)
    every(partial(lambda: list(check_dataset(data).lines())))
    dataset = load_dataset(data, "all", "tagged-folder")
    for sample in dataset.samples:
        mask = np.zeros((24, 32), np.uint8)
        mask[2:9, 3:30], mask[9:20, 3:30] = 1, len(dataset.classes)
        write_mask(out / "given" / f"{sample.id}.png", mask)
    about = {"folder": str(data), "format": "tagged-folder", "split": "all", "photos": len(photos)}
    about["classes"] = list(dataset.classes)
    write_record(out, Record(data=about, steps={}))
    steps = {"given": {"kind": "folder", "path": "/masks", "holds": "masks"}}
    (out / RECIPE).write_text(dump_recipe(check_recipe({"steps": steps}, "names")))
    run = open_run(out)
    every(
        lambda: _check_page(build(run, InProcessExecutor(), Silence())),
        *(partial(_check_export, run, name) for name in EXPORTERS if name != "onnx"),
    )


def _check_export(run: Any, name: str) -> None:
    from weakseg.engine.executor import InProcessExecutor
    from weakseg.export import EXPORTERS
    from weakseg.export.choose import Choice
    from weakseg.export.write import export
    from weakseg.progress import Silence

    place = run.folder / "exported" / name
    export(run, EXPORTERS[name], place, Choice(), InProcessExecutor(), Silence())
    for path in sorted(place.rglob("*")):
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".xml":
            tags = {element.tag for element in ElementTree.parse(path).iter()}
            assert _FOREIGN not in tags, f"{path.name} has an element of a name"


class _Elements(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {tag, *(name for name, _ in attrs)}
        assert not any(_FOREIGN in name for name in found), "the page has an element of a name"


def _check_page(page: Path) -> None:
    parser = _Elements()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()


def prepare(target: Target, inputs: Path, folder: Path) -> None:
    """Copy a target's valid inputs to where they are spoilt."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(inputs, folder, symlinks=True)


class Trial:
    """One target's inputs in a folder, spoilt and mended again and again."""

    def __init__(self, target: Target, corpus: Path, folder: Path) -> None:
        self.target, self.folder = target, folder
        self._corpus = corpus / target.inputs
        prepare(target, self._corpus, folder)
        self._files = sorted(
            path.relative_to(folder)
            for path in folder.glob(target.spoilt)
            if path.is_file() and not path.is_symlink()
        )
        self._content = {path: (folder / path).read_bytes() for path in self._files}
        self._chosen: list[Path] = []
        self._before = self._listed()

    def warm_up(self) -> None:
        """Read the inputs as they are, which imports what that needs."""
        with suppress(WeaksegError):
            self.read(random.Random(0))
        self.restore()

    def spoil(self, rng: random.Random) -> list[str]:
        """Spoil a file or two; their names."""
        if not self._files:
            return []
        self._chosen = chosen = rng.sample(
            self._files, min(len(self._files), rng.choice((1, 1, 1, 2)))
        )
        for path in chosen:
            spoil_file(self.folder / path, rng)
        return [str(path) for path in chosen]

    def read(self, rng: random.Random) -> None:
        self.target.read(self.folder, rng)

    def restore(self) -> None:
        """Bring the folder back to what it was."""
        if self.target.afresh:
            prepare(self.target, self._corpus, self.folder)
            return
        for place in sorted(self._listed() - self._before, reverse=True):
            remove_anything(self.folder / place)
        for path in self._chosen:
            content = self._content[path]
            there = self.folder / path
            remove_anything(there)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)

    def _listed(self) -> set[Path]:
        return {path.relative_to(self.folder) for path in self.folder.rglob("*")}


def remove_anything(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


_RUN_FILES = "out/**/*.[jys]*[nlas]"  # json, yaml, safetensors

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("photos", "photos", 20, _photos),
        Target("masks", "masks", 12, _masks),
        Target("tags.csv", "tags_csv", 10, _data, "**/*.[ct][sx][vt]"),
        Target("data: masks, photos", "tags_csv", 4, _data, "**/*.[pj][np]g"),
        Target("VOC", "voc", 8, _data, "**/*.[xt][mx][lt]"),
        Target("ILSVRC", "ilsvrc", 6, _data, "**/*.[xt][mx][lt]"),
        Target("COCO", "coco", 12, _data, "annotations/*.json"),
        Target("folder per class", "per_class", 2, _data),
        Target("mended: COCO", "mended_coco", 5, _mended, "given/**/*.json"),
        Target("mended: panoptic", "mended_panoptic", 5, _mended, "given/**/*.[jp][sn]*"),
        Target("mended: CVAT", "mended_cvat", 3, _mended, "given/**/*.[tp][xn][tg]"),
        Target("mended: Label Studio", "mended_label_studio", 5, _mended, "given/**/*.json"),
        Target("mended: YOLO", "mended_yolo", 4, _mended, "given/**/*.[ty][xa]*"),
        Target("maps of a folder", "maps", 10, _maps, "given/*"),
        Target("recipes", "recipes", 8, _recipes),
        Target("weights", "weights", 6, _weights),
        Target("networks", "networks", 6, _networks),
        Target("checkpoints", "checkpoints", 6, _checkpoints),
        Target("ONNX", "onnx", 3, _onnx),
        Target("a run, looked at", "run", 4, _run, _RUN_FILES, ("out", MADE)),
        Target("a run's pictures", "run", 1.5, _run, "out/**/*.png", ("out", MADE)),
        Target(
            "a run, gone on with",
            "run",
            0.3,
            _resume,
            "out/**/*.*",
            ("out",),
            afresh=True,
            seconds=200,  # trainings, where it was one of their inputs
        ),
        Target("review: requests", "run", 1.5, _requests, "out/run.json?", ("out/review",)),
        Target("names", "names", 4, _names),
    )
}
