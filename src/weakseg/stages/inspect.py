"""Find out which photos can be read, so that every later stage works on those alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from weakseg.data.dataset import Dataset, Sample
from weakseg.data.images import UnreadablePhoto, read_photo
from weakseg.errors import WeaksegError
from weakseg.files import read_json, write_json
from weakseg.stages.base import Context

NAME = "inspect"
_UNREADABLE = "unreadable.json"


@dataclass(frozen=True)
class _Inspector:
    def __call__(self) -> Callable[[Sample], str | None]:
        return _why_unreadable


def _why_unreadable(sample: Sample) -> str | None:
    try:
        read_photo(sample.image)
    except UnreadablePhoto as error:
        return str(error)
    return None


def run(context: Context) -> None:
    """Decode every photo; write `inspect/unreadable.json`: id -> reason."""
    both = (*context.dataset.samples, *context.held_out.samples)
    samples = list({sample.id: sample for sample in both}.values())
    unreadable = {}
    with context.progress.track(NAME, len(samples)) as advance:
        reasons = context.executor.map(_Inspector(), samples)
        for sample, reason in zip(samples, reasons, strict=True):
            if reason:
                unreadable[sample.id] = reason
                context.progress.say(f"left out: {reason}")
            advance(1)
    write_json(context.stage_folder(NAME) / _UNREADABLE, unreadable)


def readable(context: Context) -> Context:
    """The context without the photos that the stage could not read.

    Raises:
        WeaksegError: if none is left.
    """
    unreadable = read_json(context.stage_folder(NAME) / _UNREADABLE)

    def without(dataset: Dataset) -> Dataset:
        samples = tuple(s for s in dataset.samples if s.id not in unreadable)
        if not samples:
            raise WeaksegError(f"None of the photos in {dataset.root} can be read.")
        return replace(dataset, samples=samples)

    return replace(context, dataset=without(context.dataset), held_out=without(context.held_out))
