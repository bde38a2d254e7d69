"""The command line: verbs, thin; errors the user can cause end with one line and exit code 2."""

import fnmatch
import io
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weakseg.errors import WeaksegError, missing_part, printable, quoted, unknown_name
from weakseg.files import absolute, write_json
from weakseg.memory import use_huge_pages
from weakseg.names import ALIASES, LOCAL, installed_backbones, shipped_recipes
from weakseg.stores import named
from weakseg.version import VERSION

if TYPE_CHECKING:
    from weakseg.engine.opened import Run
    from weakseg.progress import Progress

# PyTorch takes seconds to import, NumPy and Rich a tenth of one: verbs import what needs them
# themselves, after they have looked at what they are given.
USER_ERROR = 2
_LARGEST_ID = 255
_DEBUG = "--debug"
INTERRUPTED = 130

app = typer.Typer(
    help="Semantic segmentation from image tags.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a data set, or make one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _starting_with(known: Callable[[], Mapping[str, str]]) -> Callable[[str], list[str]]:
    """Completes a name in a shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in known() if name.startswith(incomplete)]

    return complete


def _examples(*lines: str) -> str:
    """What the help of a verb ends with; each line is a whole command."""
    return "\b\nExamples:\n" + "\n".join(f"  weakseg {line}" for line in lines)


def _formats() -> dict[str, str]:
    from weakseg.data.formats import FORMATS

    return {name: layout.summary for name, layout in FORMATS.items()}


def _exports() -> dict[str, str]:
    from weakseg.export import EXPORTERS

    return {name: exporter.summary for name, exporter in EXPORTERS.items()}


RunFolder = Annotated[Path, typer.Argument(parser=absolute, help="A run's folder.")]
DataFolder = Annotated[Path, typer.Option("--data", parser=absolute, help="The data set's folder.")]
DataFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="How the data set is laid out: auto, or see list formats.",
        autocompletion=_starting_with(_formats),
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; by default one a core.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"weakseg {VERSION}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[
        bool, typer.Option(_DEBUG, help="Show the traceback of an error; goes anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    use_huge_pages()  # before PyTorch is imported


@app.command(
    epilog=_examples(
        "run refined_pixel_labeling_cpu --data photos --out runs/mine data.split=all",
        "run svm_three_step --data VOC2012 --out runs/voc data.held_out=val",
        "run mine.yaml --data photos --out runs/mine svm.cycles=0 svm+crf=null",
        "run mine.yaml --data photos --out runs/mine --executor ray --ray-address auto",
    )
)
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A shipped recipe's name or a YAML file.",
            autocompletion=_starting_with(shipped_recipes),
        ),
    ],
    data: DataFolder,
    out: Annotated[
        Path, typer.Option(parser=absolute, help="The run's folder; the same one again resumes.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="step.key=value ...", show_default=False)
    ] = None,
    workers: Workers = None,
    device: Device = "auto",
    data_format: DataFormat = "auto",
    executor: Annotated[
        str, typer.Option(help="Who works on the photos: local, or ray (an extra).")
    ] = LOCAL,
    ray_address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster, HOST:PORT or auto; by default Ray is started here."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from tags to masks, or go on with a run that was cut off."""
    from weakseg import api
    from weakseg.engine.panels import NAME

    done = api.run(
        recipe,
        data,
        out,
        overrides or [],
        workers,
        device,
        data_format,
        _progress(quiet),
        executor,
        ray_address,
    )
    if as_json:
        _print_json(_outcome(done))
        return
    from weakseg.report.build import page_of
    from weakseg.tables import print_assessment, print_figures, print_reliability

    if done.figures:
        print_figures(done.figures)
    if done.reliability:
        print_reliability(done.reliability)
    if done.assessment:
        print_assessment(done.masks, done.assessment)
    print(f"Pictures to look at: {out / NAME}")
    if page := page_of(done):
        print(f"Report: {page}")
    print(f"Next: {_next_command(done)}")


@app.command(epilog=_examples("report runs/mine"))
def report(
    run: RunFolder,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a page of photos, masks and figures, RUN/report/index.html."""
    from weakseg import api

    page = api.report_run(run, workers, _progress(quiet))
    if as_json:
        _print_json({"report": str(page)})
    else:
        print(f"Report: {page}")


@app.command(
    epilog=_examples(
        "predict runs/mine photos --out masks",
        "predict runs/mine kitchen.jpg --out masks --tta --crf --scores",
        "predict model.onnx photos --out masks",
    )
)
def predict(
    model: Annotated[
        Path,
        typer.Argument(
            parser=absolute, help="A run's folder, a segmentation network, or an ONNX file."
        ),
    ],
    photos: Annotated[
        list[Path], typer.Argument(parser=absolute, help="Photos, and folders of photos.")
    ],
    out: Annotated[
        Path, typer.Option(parser=absolute, help="Where masks go, under the photos' names.")
    ],
    tta: Annotated[bool, typer.Option("--tta", help="Average over scales and mirror images.")] = (
        False
    ),
    scores: Annotated[
        bool, typer.Option("--scores", help="Also write the probability of every class.")
    ] = False,
    crf: Annotated[
        bool, typer.Option("--crf", help="Draw masks along the photos' edges, by a dense CRF.")
    ] = False,
    workers: Workers = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Segment photos with the network of a finished run."""
    from weakseg import api

    written = api.predict(
        model, photos, out, tta, scores, workers, device, _progress(quiet), crf=crf
    )
    if as_json:
        _print_json({"folder": str(out), "masks": written})
    else:
        print(f"{written} masks in {out}")


@app.command(epilog=_examples("label photos --tag cat --tag sofa --out masks"))
def label(
    photos: Annotated[
        list[Path], typer.Argument(parser=absolute, help="Photos, and folders of photos.")
    ],
    tag: Annotated[list[str], typer.Option(help="What is in all of them; repeatable.")],
    out: Annotated[
        Path, typer.Option(parser=absolute, help="Where masks go, under the photos' names.")
    ],
    workers: Workers = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make masks of photos by what is in them, without training."""
    from weakseg import api
    from weakseg.engine.panels import NAME

    done = api.label(photos, tag, out, workers, device, _progress(quiet))
    if as_json:
        _print_json(_outcome(done))
        return
    print(f"{len(done.photos(done.masks))} masks in {out}")
    for found in done.assessment:
        if unseen := found["unseen"]:
            print(
                f"The network sees no {quoted(found['name'])} on {unseen} of {found['masks']} "
                "photos: masks of it there are guesses, to be looked at first."
            )
    print(f"Pictures to look at: {done.folder / NAME}")


@app.command(epilog=_examples("review runs/mine", "review runs/mine --step svm+crf --port 8000"))
def review(
    run: RunFolder,
    step: Annotated[
        str | None, typer.Option(help="Whose masks; by default the last that made some.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="On this machine; 0 takes a free one.")
    ] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
) -> None:
    """Serve the page on which masks are mended, on this machine alone."""
    from weakseg.engine.opened import open_run

    opened = open_run(run)

    import webbrowser

    from weakseg.review.app import serve
    from weakseg.review.photos import Review

    def started(address: str) -> None:
        print(f"{address}\nCtrl+C ends it; what was drawn and accepted is kept.", flush=True)
        if browser:
            webbrowser.open(address)

    serve(Review.of(opened, step), port, started)


@app.command(
    epilog=_examples(
        "export runs/mine --format coco",
        "export runs/mine --format label-studio --confidence 0.6 --out tasks",
        "export runs/mine --format onnx --out model.onnx",
    )
)
def export(
    run: RunFolder,
    export_format: Annotated[
        str,
        typer.Option("--format", help="See list exports.", autocompletion=_starting_with(_exports)),
    ],
    step: Annotated[
        str | None, typer.Option(help="Whose masks, or which network; by default the last.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=absolute, help="Where to write; by default in RUN/export."),
    ] = None,
    accepted: Annotated[
        bool, typer.Option("--accepted", help="Photos whose mask was accepted in review alone.")
    ] = False,
    confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The least that a mask must have, or be accepted."),
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write masks and photos, or the network, for another tool."""
    from weakseg import api

    written = api.export_run(
        run, export_format, out, step, accepted, confidence, workers, _progress(quiet)
    )
    if as_json:
        _print_json({"export": str(written)})
    else:
        print(written)


@app.command(
    name="list",
    epilog=_examples("list recipes", "list backbones 'resnet*'", "list refiners --json"),
)
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="recipes, backbones, seeds, refiners, networks, kinds, formats or exports.",
            autocompletion=_starting_with(lambda: dict.fromkeys(_LISTS, "")),
        ),
    ],
    pattern: Annotated[
        str | None,
        typer.Argument(help="Wildcard, such as 'resnet*'.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Backbones whose weights are not installed as well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List what a recipe can name; of backbones, without a wildcard, those that are installed."""
    if what not in _LISTS:
        raise unknown_name("list", what, _LISTS)
    known = _LISTS[what]
    if what == "backbones" and (everything or pattern):
        known = _backbones
    names = {n: text for n, text in known().items() if fnmatch.fnmatch(n, pattern or "*")}
    if as_json:
        _print_json(names)
        return
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())
    if what == "backbones" and not (everything or pattern):
        print(
            "With --all, or a wildcard: those of timm, whose weights are fetched.", file=sys.stderr
        )


@data_app.command(epilog=_examples("data check photos", "data check VOC2012 --format voc"))
def check(
    folder: Annotated[Path, typer.Argument(parser=absolute, help="The data set's folder.")],
    data_format: DataFormat = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Report what a data set holds and what is wrong with it; exit 1 when it is unusable."""
    from weakseg.data.check import check_dataset

    report = check_dataset(folder, data_format, _progress(quiet).track)
    if as_json:
        _print_json({"usable": report.usable, "report": list(report.lines())})
    else:
        print(*map(printable, report.lines()), sep="\n")
    if not report.usable:
        raise typer.Exit(1)


@data_app.command(epilog=_examples("data synth data/demo --images 160 --seed 0"))
def synth(
    folder: Annotated[Path, typer.Argument(parser=absolute, help="Where to make it.")],
    images: Annotated[int, typer.Option(min=1, help="Number of photos.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Make a data set with exact masks of classes and of objects, in VOC layout."""
    from weakseg.data.synth import generate

    generate(folder, images, seed)
    print(f"{images} photos in {folder}")


@app.command(
    epilog=_examples(
        "evaluate --pred runs/mine/svm+crf --data photos --split all",
        "evaluate --pred masks --data VOC2012 --split val --missing skip --json figures.json",
    )
)
def evaluate(
    pred: Annotated[Path, typer.Option(parser=absolute, help="A folder of masks ID.png.")],
    data: DataFolder,
    split: Annotated[str, typer.Option(help="A split's name, or all.")],
    data_format: DataFormat = "auto",
    missing: Annotated[
        str, typer.Option(help="Photos without a prediction: refuse, or skip and count them.")
    ] = "refuse",
    drop: Annotated[
        list[str] | None, typer.Option(help="A class that counts as background; repeatable.")
    ] = None,
    foreground: Annotated[
        int | None,
        typer.Option(min=1, max=_LARGEST_ID, help="What true masks have for the only class: 255."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(parser=absolute, help="Write the figures to this file.")
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
) -> None:
    """Compare masks with the ground truth of a data set."""
    if not pred.is_dir():
        raise WeaksegError(f"There is no folder {pred}. Give --pred the folder that holds masks.")

    from weakseg.data.dataset import load_dataset
    from weakseg.data.formats import find_format

    find_format(data, data_format)

    from weakseg.engine import evaluate as evaluation
    from weakseg.engine.executor import LocalExecutor
    from weakseg.tables import print_figures

    if missing not in ("refuse", "skip"):
        raise unknown_name("choice of --missing", missing, ("refuse", "skip"))
    dataset = load_dataset(data, split, data_format, untagged=True)
    with LocalExecutor(workers) as executor:
        row = evaluation.evaluate_folder(
            pred,
            dataset,
            split,
            executor,
            _progress(quiet),
            skip_missing=missing == "skip",
            dropped=drop or (),
            foreground=foreground,
        )
    print_figures([row])
    for name, value in row["per_class"].items():
        print(f"  {name:<16} {'-' if value is None else f'{100 * value:.1f}'}")
    if json:
        write_json(json, row)


def main() -> None:
    """Entry point of `weakseg`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names outside its encoding are escaped
            stream.reconfigure(errors="backslashreplace")
    arguments = [argument for argument in sys.argv[1:] if argument != _DEBUG]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(arguments)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _fail("Interrupted. The same command goes on from here.", INTERRUPTED)
        raise
    except ModuleNotFoundError as error:
        missing = missing_part(error)
        if debug or missing is None:
            raise
        _fail(f"Error: {missing}", USER_ERROR)
    except (WeaksegError, OSError) as error:
        if debug:
            raise
        _fail(f"Error: {error}", USER_ERROR)


def _fail(message: str, code: int) -> None:
    print(printable(named(" ".join(message.split()))), file=sys.stderr, flush=True)
    sys.exit(code)


def _progress(quiet: bool) -> "Progress":
    from weakseg.progress import Silence, progress_for

    return Silence() if quiet else progress_for()


def _print_json(values: Any) -> None:
    print(dumps(values, indent=2, ensure_ascii=False))


def _outcome(done: "Run") -> dict[str, Any]:
    """What a run has made, for other programs."""
    from weakseg.engine.context import mask_steps

    masks = mask_steps(done.steps.values(), held_out=False)
    return {
        "folder": str(done.folder),
        "classes": done.classes,
        "masks": str(masks[-1].folder) if masks else None,
        "figures": done.figures,
        "reliability": done.reliability,
        "assessment": done.assessment,
    }


def _next_command(done: "Run") -> str:
    """What most people do with a run that has ended."""
    from weakseg.methods.base import Artefact

    out = shlex.quote(str(done.folder))
    if any(Artefact.SEGMENTER in step.gives for step in done.steps.values()):
        return f"weakseg predict {out} PHOTO_OR_DIR ... --out DIR"
    data = shlex.quote(str(done.record.data["folder"]))
    return (
        f"weakseg run svm_three_step --data {data} --out {out}-network   (trains a network, which "
        "segments other photos)"
    )


def _kinds(role: str | None = None) -> dict[str, str]:
    from weakseg.methods import KINDS

    return {name: kind.summary for name, kind in KINDS.items() if role in (None, kind.role)}


def _installed_backbones() -> dict[str, str]:
    return dict.fromkeys(installed_backbones(), "ImageNet weights are installed")


def _backbones() -> dict[str, str]:
    import timm

    installed = _installed_backbones()
    by_own_name = {ALIASES[name]: text for name, text in installed.items()}
    known = dict.fromkeys([*installed, *timm.list_models()], "timm")
    return known | installed | by_own_name


_LISTS: dict[str, Callable[[], Mapping[str, str]]] = {
    "recipes": shipped_recipes,
    "backbones": _installed_backbones,
    "seeds": partial(_kinds, "seed"),
    "refiners": partial(_kinds, "refiner"),
    "networks": partial(_kinds, "network"),
    "kinds": _kinds,
    "formats": _formats,
    "exports": _exports,
}
"""What `weakseg list` can name."""
