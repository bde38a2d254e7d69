"""Writes an export."""

from functools import partial
from pathlib import Path

from weakseg.engine.fingerprints import digest_of, digest_of_all
from weakseg.engine.opened import Run
from weakseg.errors import WeaksegError, unknown_name
from weakseg.export import EXPORTERS
from weakseg.export.base import Exporter, Job
from weakseg.export.choose import Choice, choose
from weakseg.export.place import whole_folder
from weakseg.files import stamp, write_atomically
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
    """Write what of a run was chosen, in one format, and give the place: whole, or not at all.

    Args:
        out: the folder or file; None: that of the format's name in the run's `export`. An export
            that is there is replaced; a folder is not, where somebody changed it.

    Raises:
        WeaksegError: what a user can mend, in one line; `out` is as it was.
    """
    if exporter.check:
        exporter.check(run)
    job = Job(run, choice.step, partial(choose, run, choice, progress), executor, progress)
    place = out or run.folder / EXPORTS / (exporter.file or exporter.name)
    if exporter.file:
        if choice != Choice(choice.step):
            raise WeaksegError(
                f"{exporter.name} has no photos to choose. Leave out --accepted and --confidence."
            )
        with write_atomically(place) as file:
            exporter.write(job, file)
        return place
    of = partial(_digest, job) if exporter.sharded else None
    with whole_folder(place, {"weakseg": VERSION, "format": exporter.name}, of) as folder:
        exporter.write(job, folder)
    if job.uncertain and exporter.uncertain:
        progress.say(
            f"{job.uncertain} photos have uncertain pixels (255), which {exporter.uncertain}"
        )
    return place


def _digest(job: Job) -> str:
    """Of all that an export in shards is made of."""
    values = (
        (
            *(photo.id, photo.confidence, photo.accepted, job.tags.get(photo.id)),
            *map(stamp, filter(None, (photo.image, photo.mask, photo.objects))),
        )
        for photo in job.photos
    )
    return digest_of(VERSION, job.split, job.run.classes, digest_of_all(values))
