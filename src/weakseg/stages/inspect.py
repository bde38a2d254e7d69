"""Find out which photos can be read, so that every later stage works on those alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from weakseg.data.check import EXAMPLES
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
    samples = _samples(context)
    unreadable = {}
    with context.progress.track(NAME, len(samples)) as advance:
        for sample, reason in _look_at(samples, context):
            if reason:
                unreadable[sample.id] = reason
            advance(1)
    write_json(context.stage_folder(NAME) / _UNREADABLE, unreadable)


def readable(context: Context) -> Context:
    """The context without the photos that can't be read, of which the first are named.

    Those that could not be read before are tried again: a file can become readable and keep its
    size and time (permissions, a drive that was away).

    Raises:
        WeaksegError: if none is left.
    """
    path = context.stage_folder(NAME) / _UNREADABLE
    known = read_json(path)
    again = [sample for sample in _samples(context) if sample.id in known]
    unreadable = {sample.id: reason for sample, reason in _look_at(again, context) if reason}
    for reason in list(unreadable.values())[:EXAMPLES]:
        context.progress.say(f"can't be read: {reason}")
    if unreadable != known:
        write_json(path, unreadable)

    def without(dataset: Dataset) -> Dataset:
        samples = tuple(s for s in dataset.samples if s.id not in unreadable)
        if not samples:
            raise WeaksegError(f"None of the photos in {dataset.root} can be read.")
        return replace(dataset, samples=samples)

    dataset = without(context.dataset)
    own = context.recipe.data.held_out is not None
    held_out = without(context.held_out) if own else dataset
    number = len(context.dataset.samples) - len(dataset.samples)
    return context.leaving_out({"that can't be read": number}, dataset, held_out)


def _samples(context: Context) -> list[Sample]:
    both = (*context.dataset.samples, *context.held_out.samples)
    return list({sample.id: sample for sample in both}.values())


def _look_at(samples: Sequence[Sample], context: Context) -> Iterator[tuple[Sample, str | None]]:
    return zip(samples, context.executor.map(_Inspector(), samples), strict=True)
