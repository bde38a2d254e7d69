"""Writes an export."""

from functools import partial
from pathlib import Path

from weakseg.engine.opened import Run
from weakseg.errors import unknown_name
from weakseg.export import EXPORTERS
from weakseg.export.base import Exporter, Job
from weakseg.export.choose import Choice, choose
from weakseg.export.place import whole_folder
from weakseg.methods.base import Executor
from weakseg.progress import Progress
from weakseg.version import VERSION

EXPORTS = "export"
"""Where exports go unless another folder is given, in that of the run."""


def find_exporter(name: str) -> Exporter:
    """The format called `name`.

    Raises:
        WeaksegError: there is none.
    """
    if name not in EXPORTERS:
        raise unknown_name("export format", name, EXPORTERS)
    return EXPORTERS[name]


def export(
    run: Run,
    exporter: Exporter,
    out: Path | None,
    choice: Choice,
    executor: Executor,
    progress: Progress,
) -> Path:
    """Write what of a run was chosen, in one format, and give the folder: whole, or not at all.

    Args:
        out: the folder; None: `export/FORMAT` in the run's. An export that is there is replaced,
            unless somebody changed it.

    Raises:
        WeaksegError: what a user can mend, in one line; `out` is as it was.
    """
    if exporter.check:
        exporter.check(run)
    job = Job(run, partial(choose, run, choice, progress), executor, progress)
    place = out or run.folder / EXPORTS / exporter.name
    with whole_folder(place, {"weakseg": VERSION, "format": exporter.name}) as folder:
        exporter.write(job, folder)
    if job.uncertain and exporter.uncertain:
        progress.say(
            f"{job.uncertain} photos have uncertain pixels (255), which {exporter.uncertain}"
        )
    return place
