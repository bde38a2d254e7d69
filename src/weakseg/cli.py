"""The command line: verbs, thin; errors the user can cause end with one line and exit code 2."""

import fnmatch
import io
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.data.formats import FORMATS, find_format
from weakseg.data.masks import IGNORE
from weakseg.errors import WeaksegError, unknown_name
from weakseg.files import absolute, write_json
from weakseg.memory import use_huge_pages
from weakseg.names import ALIASES, installed_backbones, shipped_recipes
from weakseg.progress import progress_for
from weakseg.version import VERSION

# PyTorch takes seconds to import, and so do some others: verbs import what needs them themselves,
# after they have looked at what they are given.
USER_ERROR = 2
_DEBUG = "--debug"
INTERRUPTED = 130

app = typer.Typer(
    help="Semantic segmentation from image tags.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a data set, or make one.", no_args_is_help=True)
app.add_typer(data_app, name="data")

DataFolder = Annotated[Path, typer.Option("--data", parser=absolute, help="The data set's folder.")]
DataFormat = Annotated[
    str, typer.Option("--format", help="How the data set is laid out: auto, or see list formats.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes; by default one a core.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]


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


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name or a YAML file.")],
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
) -> None:
    """Run a recipe from tags to masks, or go on with a run that was cut off."""
    from weakseg import api
    from weakseg.engine.panels import NAME
    from weakseg.tables import print_assessment, print_figures

    done = api.run(recipe, data, out, overrides or [], workers, device, data_format)
    if done.figures:
        print_figures(done.figures)
    if done.assessment:
        print_assessment(done.masks, done.assessment)
    print(f"Pictures to look at: {out / NAME}")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(parser=absolute, help="A run's folder, or a segmentation network.")
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
    workers: Workers = None,
    device: Device = "auto",
) -> None:
    """Segment photos with the network of a finished run."""
    from weakseg import api

    written = api.predict(model, photos, out, tta, scores, workers, device)
    print(f"{written} masks in {out}")


@app.command()
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
) -> None:
    """Make masks of photos by what is in them, without training."""
    from weakseg import api
    from weakseg.engine.panels import NAME

    done = api.label(photos, tag, out, workers, device)
    print(f"{len(done.photos(done.masks))} masks in {out}")
    print(f"Pictures to look at: {done.folder / NAME}")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(parser=absolute, help="A run's folder.")],
    export_format: Annotated[str, typer.Option("--format", help="See list exports.")],
    step: Annotated[
        str | None, typer.Option(help="Whose masks; by default the last that it made.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=absolute, help="Where to write; by default RUN/export/FORMAT."),
    ] = None,
    accepted: Annotated[
        bool, typer.Option("--accepted", help="Photos whose mask was accepted in review alone.")
    ] = False,
    confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="The least that a mask must have, or be accepted."),
    ] = None,
    workers: Workers = None,
) -> None:
    """Write a run's masks and photos as another tool reads them."""
    from weakseg import api

    print(api.export_run(run, export_format, out, step, accepted, confidence, workers))


@app.command(name="list")
def list_names(
    what: Annotated[
        str,
        typer.Argument(
            help="recipes, backbones, seeds, refiners, networks, kinds, formats or exports."
        ),
    ],
    pattern: Annotated[
        str | None,
        typer.Argument(help="Wildcard, such as 'resnet*'.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Backbones whose weights are not installed as well.")
    ] = False,
) -> None:
    """List what a recipe can name; of backbones, without a wildcard, those that are installed."""
    known: dict[str, Callable[[], Mapping[str, str]]] = {
        "recipes": shipped_recipes,
        "backbones": _backbones if everything or pattern else _installed_backbones,
        "seeds": lambda: _kinds("seed"),
        "refiners": lambda: _kinds("refiner"),
        "networks": lambda: _kinds("network"),
        "kinds": _kinds,
        "formats": lambda: {name: f.summary for name, f in FORMATS.items()},
        "exports": _exports,
    }
    if what not in known:
        raise unknown_name("list", what, known)
    names = {n: text for n, text in known[what]().items() if fnmatch.fnmatch(n, pattern or "*")}
    width = max(map(len, names), default=0)
    for name, text in names.items():
        print(f"{name:<{width}}  {text}".rstrip())
    if what == "backbones" and not (everything or pattern):
        print(
            "With --all, or a wildcard: those of timm, whose weights are fetched.", file=sys.stderr
        )


@data_app.command()
def check(
    folder: Annotated[Path, typer.Argument(parser=absolute, help="The data set's folder.")],
    data_format: DataFormat = "auto",
) -> None:
    """Report what a data set holds and what is wrong with it; exit 1 when it is unusable."""
    report = check_dataset(folder, data_format, progress_for().track)
    for line in report.lines():
        print(line)
    if not report.usable:
        raise typer.Exit(1)


@data_app.command()
def synth(
    folder: Annotated[Path, typer.Argument(parser=absolute, help="Where to make it.")],
    images: Annotated[int, typer.Option(min=1, help="Number of photos.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Make a data set with exact masks of classes and of objects, in VOC layout."""
    from weakseg.data.synth import generate

    generate(folder, images, seed)
    print(f"{images} photos in {folder}")


@app.command()
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
        typer.Option(min=1, max=IGNORE, help="What true masks have for the only class: 255."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(parser=absolute, help="Write the figures to this file.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Compare masks with the ground truth of a data set."""
    if not pred.is_dir():
        raise WeaksegError(f"There is no folder {pred}. Give --pred the folder that holds masks.")
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
            progress_for(),
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
    except (WeaksegError, OSError) as error:
        if debug:
            raise
        _fail(f"Error: {error}", USER_ERROR)


def _fail(message: str, code: int) -> None:
    print(" ".join(message.split()), file=sys.stderr, flush=True)
    sys.exit(code)


def _kinds(role: str | None = None) -> dict[str, str]:
    from weakseg.methods import KINDS

    return {name: kind.summary for name, kind in KINDS.items() if role in (None, kind.role)}


def _exports() -> dict[str, str]:
    from weakseg.export import EXPORTERS

    return {name: exporter.summary for name, exporter in EXPORTERS.items()}


def _installed_backbones() -> dict[str, str]:
    return dict.fromkeys(installed_backbones(), "ImageNet weights are installed")


def _backbones() -> dict[str, str]:
    import timm

    installed = _installed_backbones()
    by_own_name = {ALIASES[name]: text for name, text in installed.items()}
    known = dict.fromkeys([*installed, *timm.list_models()], "timm")
    return known | installed | by_own_name
