"""What the results of a step depend on, in sixteen characters."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from weakseg.data.dataset import Sample
from weakseg.files import stamp, stamps
from weakseg.methods.base import Photos, Step
from weakseg.recipe import dump_settings

_AT_A_TIME = 1000


def fingerprint_of(step: Step, inputs: Sequence[str], seen: str) -> str:
    """A step's fingerprint: of all that its results depend on.

    Args:
        inputs: fingerprints of the steps that it reads, in order.
        seen: a digest of the data that it sees.
    """
    settings = {
        key: value
        for key, value in dump_settings(step.kind, step.settings).items()
        if key not in step.kind.for_readers
    }
    told = [step.kind.name, step.kind.version, settings]
    named = [[slot, known] for (slot, _), known in zip(step.inputs, inputs, strict=True)]
    others = [named, seen, step.seed, step.device.partition(":")[0]]
    found = hashlib.sha256(_as_text(told)[:-1] + b", [")
    for number, path in enumerate(_paths_in(settings)):
        found.update(b", {" if number else b"{")
        for some in _entries(stamps(path), dict):
            found.update(some)
        found.update(b"}")
    found.update(b"], " + _as_text(others)[1:])
    return found.hexdigest()[:16]


def _paths_in(value: Any) -> Iterator[Path]:
    """The user's files and folders that settings name, whose content counts as well."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _paths_in(inner)
    elif isinstance(value, str) and Path(value).is_absolute():
        yield Path(value)


class Digests:
    """Digests of what there is of photos, each made once: a million take seconds."""

    def __init__(self) -> None:
        self._known: defaultdict[str, list[tuple[Sequence[Sample], str]]] = defaultdict(list)

    def files(self, *parts: Sequence[Sample]) -> str:
        found = (self._of("files", part, lambda s: [s.id, stamp(s.image)]) for part in parts)
        return digest_of(list(found))

    def tags(self, samples: Sequence[Sample]) -> str:
        return self._of("tags", samples, lambda s: [s.id, s.tags, s.doubtful, s.dropped])

    def masks(self, samples: Sequence[Sample]) -> str:
        return self._of(
            "masks",
            samples,
            lambda s: [mask.stamp() if mask else None for mask in (s.mask, s.objects)],
        )

    def seen(self, photos: Photos, long_side: int) -> str:
        samples = photos.samples
        reviewed = [[photo, stamp(path)] for photo, path in photos.reviewed.items()]
        return digest_of(
            photos.classes,
            photos.learned,
            [photos.balance.least, photos.balance.most],
            long_side,
            self.files(samples),
            self.tags(samples),
            *([reviewed] if reviewed else []),
        )

    def _of(self, what: str, samples: Sequence[Sample], value: Callable[[Sample], Any]) -> str:
        for known, found in self._known[what]:
            if known == samples:
                return found
        self._known[what].append((samples, digest_of_all(map(value, samples))))
        return self._known[what][-1][1]


def digest_of(*values: Any) -> str:
    return hashlib.sha256(_as_text(values)).hexdigest()[:16]


def digest_of_all(values: Iterable[Any]) -> str:
    """`digest_of` of a list of values, of which some are in memory at a time."""
    found = hashlib.sha256(b"[[")
    for some in _entries(values, list):
        found.update(some)
    found.update(b"]]")
    return found.hexdigest()[:16]


def _entries(values: Iterable[Any], kind: type[list[Any] | dict[str, Any]]) -> Iterator[bytes]:
    """JSON of what a list holds, or an object of sorted pairs, without its brackets."""
    between = b""
    remaining = iter(values)
    while some := kind(islice(remaining, _AT_A_TIME)):
        yield between + _as_text(some)[1:-1]
        between = b", "


def _as_text(values: Any) -> bytes:
    return json.dumps(values, sort_keys=True).encode()
