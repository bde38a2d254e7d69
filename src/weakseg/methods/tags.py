"""Some of the tags alone, those left out of the data as well: a class with a classifier of its own.

Dobko et al. (2020, section 5.1) leave `person` out of the tags that their classifier learns, for
they are often missing, and try to bring it back by the CAM of a binary classifier (table 3).
"""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from weakseg.data.dataset import Sample
from weakseg.errors import unknown_name
from weakseg.files import write_json
from weakseg.methods.base import Artefact, File, Kind, Photos, Slot, Step, Tools
from weakseg.methods.settings import Section

COUNTS = "counts.json"


class Tags(Section):
    """Some of the classes.

    Attributes:
        only: the classes that stay, and that a classifier of these tags learns.
    """

    only: Annotated[tuple[str, ...], Field(min_length=1)]


def run(step: Step, tools: Tools) -> None:
    """Write `counts.json`: how many photos have each of the classes."""
    samples = then(step, tools.photos).samples
    counts = {name: sum(name in s.tags for s in samples) for name in step.settings.only}
    write_json(step.folder / COUNTS, counts)


def then(step: Step, photos: Photos) -> Photos:
    """The photos under the chosen classes alone, which they have or don't."""
    only = tuple(name for name in photos.classes if name in step.settings.only)

    def alone(sample: Sample) -> Sample:
        carried = {*sample.tags, *sample.dropped}
        return replace(
            sample,
            tags=tuple(name for name in only if name in carried),
            doubtful=tuple(name for name in only if name in sample.doubtful),
            dropped=(),
        )

    return replace(photos, samples=tuple(map(alone, photos.samples)), learned=only)


def _check(step: Step, photos: Photos, device: object) -> None:
    for name in step.settings.only:
        if name not in photos.classes:
            raise unknown_name("class", name, photos.classes)


def _files(step: Step, photos: Photos) -> tuple[File, ...]:
    return (File(COUNTS),)


KIND = Kind(
    name="tags",
    summary="some of the tags alone, for a classifier of their own",
    settings=Tags,
    gives=frozenset({Artefact.TAGS}),
    takes=(Slot("tags", frozenset({Artefact.TAGS}), optional=True),),
    run=run,
    files=_files,
    photos="all",
    check=_check,
    then=then,
)
