"""Find out which photos can be read, so that every later step works on those alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from weakseg.data.check import EXAMPLES
from weakseg.data.dataset import Dataset, Sample
from weakseg.data.images import UnreadablePhoto, read_photo
from weakseg.engine.context import Context
from weakseg.engine.executor import Each
from weakseg.engine.outputs import Output
from weakseg.errors import WeaksegError, quoted
from weakseg.files import read_entries, read_json, write_entries, write_json

NAME = PLACE = "inspect"
_UNREADABLE = "unreadable.json"
_SIZES = "sizes.json"

_SMALL = 64
"""Pixels: the final map of a network of stride 16 has four cells along such a side."""

_Size = tuple[int, int]
_Seen = _Size | str
"""A photo's height and width, or why it can't be read."""


def _look_at(sample: Sample) -> _Seen:
    try:
        height, width, _ = read_photo(sample.image).shape
    except UnreadablePhoto as error:
        return str(error)
    return height, width


def run(context: Context) -> None:
    """Decode every photo; write `inspect/sizes.json` and `inspect/unreadable.json`.

    Every photo's id is in one of them, with height and width or with the reason.
    """
    samples = _samples(context)
    sizes, unreadable = {}, {}
    same: dict[_Size, _Size] = {}  # of a million photos few differ
    with context.progress.track(NAME, len(samples)) as advance:
        for sample, seen in _look_at_all(samples, context):
            if isinstance(seen, str):
                unreadable[sample.id] = seen
            else:
                sizes[sample.id] = same.setdefault(seen, seen)
            advance(1)
    _write(context, sizes, unreadable)


def outputs(context: Context) -> list[Output]:
    return [Output(context.folder / NAME / name) for name in (_SIZES, _UNREADABLE)]


def readable(context: Context) -> Context:
    """The context with the photos' sizes, without those that can't be read.

    The first of these are named.

    Those that could not be read before are tried again: a file can become readable and keep its
    size and time (permissions, a drive that was away).

    Raises:
        WeaksegError: if none is left.
    """
    folder = context.folder / NAME
    known = read_json(folder / _UNREADABLE)
    samples = _samples(context)
    ids = {sample.id: sample.id for sample in samples}  # of a million photos there once
    same: dict[_Size, _Size] = {}
    sizes = {
        ids.get(name, name): same.setdefault(size, size)
        for name, (height, width) in read_entries(folder / _SIZES)[1]
        for size in [(height, width)]
    }
    again = [sample for sample in samples if sample.id in known]
    unreadable = {}
    for sample, seen in _look_at_all(again, context):
        if isinstance(seen, str):
            unreadable[sample.id] = seen
        else:
            sizes[sample.id] = seen
    small = [name for name, size in sizes.items() if min(size) < _SMALL]
    if 2 * len(small) > len(sizes):
        context.progress.say(
            f"photos: {len(small)} of {len(sizes)} have a side under {_SMALL} pixels, such as "
            f"{quoted(small[0])}: a network sees few cells of them. Expect coarse masks; larger "
            "photos of the same, if there are any, give better ones."
        )
    for reason in list(unreadable.values())[:EXAMPLES]:
        context.progress.say(f"can't be read: {reason}")
    if unreadable != known:
        _write(context, sizes, unreadable)

    def without(dataset: Dataset) -> Dataset:
        if not unreadable:
            return dataset
        samples = tuple(s for s in dataset.samples if s.id not in unreadable)
        if not samples:
            raise WeaksegError(f"None of the photos in {dataset.root} can be read.")
        return replace(dataset, samples=samples)

    dataset = without(context.dataset)
    own = context.recipe.data.held_out is not None
    held_out = without(context.held_out) if own else dataset
    number = len(context.dataset.samples) - len(dataset.samples)
    left = context.leaving_out({"that can't be read": number}, dataset, held_out)
    return replace(left, sizes=sizes)


def _write(context: Context, sizes: dict[str, tuple[int, int]], unreadable: dict[str, str]) -> None:
    write_entries(context.folder / NAME / _SIZES, sizes.items())
    write_json(context.folder / NAME / _UNREADABLE, unreadable)


def _samples(context: Context) -> Sequence[Sample]:
    own, its = context.dataset.samples, context.held_out.samples
    if own is its:
        return own
    known = {sample.id for sample in own}
    return (*own, *(sample for sample in its if sample.id not in known))


def _look_at_all(samples: Sequence[Sample], context: Context) -> Iterator[tuple[Sample, _Seen]]:
    return zip(samples, context.cpu.map(Each(_look_at), samples), strict=True)
