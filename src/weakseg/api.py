"""Runs and predictions, for scripts, notebooks and the command line alike."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weakseg.data.formats import find_format
from weakseg.data.imagenet import match_tags
from weakseg.engine.opened import Run, open_run
from weakseg.errors import WeaksegError, quoted, unknown_name
from weakseg.files import absolute
from weakseg.memory import use_huge_pages
from weakseg.names import EXECUTORS, LOCAL, RAY
from weakseg.progress import Progress, progress_for
from weakseg.recipe import load_recipe

if TYPE_CHECKING:
    import torch

_DEVICES = ("auto", "cpu", "cuda")


def run(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    workers: int | None = None,
    device: str = "auto",
    data_format: str = "auto",
    progress: Progress | None = None,
    executor: str = LOCAL,
    ray_address: str | None = None,
) -> Run:
    """Run a recipe from tags to masks, or go on with a run that was cut off.

    A run seeds the process's random numbers, and has it keep freed memory. Its workers are
    processes of their own, which need nothing of the script or notebook that starts them.

    Args:
        recipe: a shipped recipe's name, or the path of a YAML file.
        data: the data set's folder.
        out: the run's folder; the same one again resumes.
        overrides: `step.key=value` strings; see `weakseg.load_recipe`.
        workers: processes; by default one a core.
        device: "auto", "cpu" or "cuda".
        executor: who does the work photo by photo: "local", processes of this machine, or "ray",
            actors of a Ray cluster, all of whose nodes see data and run under the same paths.
            Networks are trained by this process either way.
        ray_address: HOST:PORT of a cluster that this machine is part of, or "auto"; by default
            Ray is started on this machine, and ended with the run.
        data_format: how the data set is laid out: "auto", or see `weakseg list formats`.
        progress: is told how far the run is; by default standard error.

    Raises:
        WeaksegError: what a user can mend, in one line; what was finished stays.

    Examples:
        >>> import weakseg
        >>> done = weakseg.run("demo", "data", "out", ["classify.epochs=2", "segmenter=null",
        ...                    "segment=null", "segment+tta=null"], workers=1)
        >>> done.masks
        'svm+crf'
    """
    chosen = load_recipe(str(recipe), overrides)
    folder, place = absolute(data), absolute(out)
    find_format(folder, data_format)
    check_device(device)
    check_executor(executor, ray_address)
    use_huge_pages()

    from weakseg.engine import runner
    from weakseg.engine.context import mask_steps
    from weakseg.engine.executor import executor_named
    from weakseg.report.build import build, page_of

    told = progress or progress_for()
    with executor_named(executor, workers, ray_address) as workforce:
        runner.run(
            chosen,
            folder,
            place,
            workforce,
            told,
            device_named(device),
            data_format,
        )
        done = open_run(place)
        if mask_steps(done.steps.values()) and not page_of(done):
            build(done, workforce, told)
    return done


def report_run(
    run: str | Path, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Write a run's page, as far as the run is: `report/index.html` in its folder.

    Args:
        run: the run's folder.
        workers: as `run` has it.
        progress: as `run` has it.

    Returns:
        The page.

    Raises:
        WeaksegError: it is no run's folder, has no masks yet, or its photos are gone.
    """
    opened = open_run(run)

    from weakseg.engine.executor import LocalExecutor
    from weakseg.report.build import build

    with LocalExecutor(workers) as executor:
        return build(opened, executor, progress or progress_for())


def predict(
    model: str | Path,
    photos: Iterable[str | Path],
    out: str | Path,
    tta: bool = False,
    scores: bool = False,
    workers: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    crf: bool = False,
) -> int:
    """Segment photos with the network of a run; see `weakseg.engine.predict.run`.

    Args:
        model: a run's folder, a segmentation network's file, or one that `weakseg export` made of
            it, `NAME.onnx`, which needs no PyTorch.
        photos: files, and folders, which are searched with all that is in them.
        out: where masks go, `NAME.png`.
        tta: whether to average over scales and mirror images.
        scores: whether to write the probability of every class as well.
        workers: as `run` has it.
        device: as `run` has it.
        progress: as `run` has it.
        crf: whether a dense CRF draws the masks along the photos' edges.

    Returns:
        How many masks were written.

    Raises:
        WeaksegError: what a user can mend, in one line.
    """
    check_device(device)
    use_huge_pages()

    from weakseg.engine import predict as prediction
    from weakseg.engine.executor import LocalExecutor
    from weakseg.methods.segment import ONNX

    place = absolute(model)
    if place.suffix == ONNX and device == "cuda":
        raise WeaksegError(
            f"{place} is run by ONNX Runtime, on the CPU. Name the device cpu, or auto."
        )
    with LocalExecutor(workers) as executor:
        return prediction.run(
            place,
            [absolute(photo) for photo in photos],
            absolute(out),
            executor,
            progress or progress_for(),
            str(device_named(device)) if place.suffix != ONNX else "cpu",
            tta,
            scores,
            crf,
        )


def label(
    photos: Sequence[str | Path],
    tags: Sequence[str],
    out: str | Path,
    workers: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Make masks of photos that all have some tags, without training: recipe `tags_alone`.

    Args:
        photos: files, and folders, which are searched with all that is in them.
        tags: what is in the photos; words that WordNet has, for what ImageNet has classes for.
        out: where masks go, `NAME.png`; the run's own folder is in it.
        workers: as `run` has it.
        device: as `run` has it.
        progress: as `run` has it.

    Raises:
        WeaksegError: what a user can mend, in one line; what was finished stays.
    """
    check_device(device)
    match_tags(tags)
    use_huge_pages()

    from weakseg.engine import label as labelling
    from weakseg.engine.executor import LocalExecutor

    with LocalExecutor(workers) as executor:
        return labelling.run(
            [absolute(photo) for photo in photos],
            tags,
            absolute(out),
            executor,
            progress or progress_for(),
            device_named(device),
        )


def export_run(
    run: str | Path,
    format: str,
    out: str | Path | None = None,
    step: str | None = None,
    accepted: bool = False,
    confidence: float | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a run's masks and photos, or its network, as another tool reads them.

    Args:
        run: a run's folder.
        format: see `weakseg list exports`.
        out: what to write, whole or not at all: a folder, by default `export/FORMAT` in the run's;
            of format "onnx" a file, by default `export/model.onnx`.
        step: whose masks; by default those that `open_run(run).masks` names. Where a person has
            accepted a mask in review, that is taken in its place. Or which network; by default the
            last.
        accepted: whether to leave out photos whose mask nobody has accepted.
        confidence: the least, in [0, 1], that a mask must have that nobody has accepted.
        workers: as `run` has it.
        progress: as `run` has it.

    Returns:
        The folder, or the file.

    Raises:
        WeaksegError: what a user can mend, in one line.
    """
    from weakseg.engine.executor import LocalExecutor
    from weakseg.export.choose import Choice
    from weakseg.export.write import export, find_exporter

    exporter, opened = find_exporter(format), open_run(run)
    with LocalExecutor(workers) as executor:
        return export(
            opened,
            exporter,
            absolute(out) if out else None,
            Choice(step, accepted, confidence),
            executor,
            progress or progress_for(),
        )


def check_device(name: str) -> None:
    """Refuse a device that there is no name for, before anything is imported."""
    if name not in _DEVICES:
        raise unknown_name("device", name, _DEVICES)


def check_executor(name: str, ray_address: str | None) -> None:
    """Refuse an executor that there is no name for, and an address that it has no use for."""
    if name not in EXECUTORS:
        raise unknown_name("executor", name, EXECUTORS)
    if ray_address is not None and name != RAY:
        raise WeaksegError(
            f"The executor is {name}, and {quoted(ray_address)} is the address of a Ray cluster. "
            f"Name the executor {RAY}, or leave out the address."
        )
    if ray_address is not None and ray_address != "auto" and ":" not in ray_address:
        raise WeaksegError(
            f"{quoted(ray_address)} is no address of a Ray cluster: expected HOST:PORT, or auto."
        )


def device_named(name: str) -> "torch.device":
    """The device of a name.

    Raises:
        WeaksegError: there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise WeaksegError("There is no CUDA device here. Name the device cpu, or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
