"""Leave classes out, and balance those that stay (paper B, section 3.1)."""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, replace

from weakseg.data.balance import (
    Balance,
    balanced_split,
    compare_counts,
    describe_counts,
    down_sample,
    drop_classes,
    up_sample,
)
from weakseg.data.dataset import Sample
from weakseg.errors import WeaksegError
from weakseg.files import write_text
from weakseg.stages.base import Context

NAME = "balance"
COUNTS = "counts.csv"


def run(context: Context) -> None:
    """Write `balance/counts.csv`: photos with each tag before and after, repeats counted."""
    least = _balance(context).least
    after = list(balanced(context).dataset.samples)
    if least is not None:
        after = up_sample(after, least, context.recipe.seed)
    counts = compare_counts(context.dataset.samples, after)
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("tag", "before", "after"), *map(astuple, counts)])
    write_text(context.stage_folder(NAME) / COUNTS, table.getvalue())
    for line in describe_counts(counts):
        context.progress.say(f"{NAME}: {line}")


def balanced(context: Context) -> Context:
    """The context without the classes dropped, photos of nothing else, and photos down-sampled.

    A photo that had tags and has none left is left out: as a photo of nothing it would teach that
    what it shows is background.

    Raises:
        WeaksegError: an unknown class, or no photo is left.
    """
    data = context.recipe.data
    dataset = drop_classes(context.dataset, data.drop_classes)
    samples: Sequence[Sample] = [
        after
        for before, after in zip(context.dataset.samples, dataset.samples, strict=True)
        if after.tags or not before.tags
    ]
    most = _balance(context).most
    if most is not None:
        samples = down_sample(samples, most, context.recipe.seed)
    if not samples:
        raise WeaksegError(
            f"No photo is left once the classes {', '.join(data.drop_classes)} are dropped."
        )
    dataset = replace(dataset, samples=tuple(samples))
    held_out = context.held_out if data.held_out is not None else dataset
    return replace(context, dataset=dataset, held_out=held_out)


def split(
    context: Context, samples: Sequence[Sample], fraction: float
) -> tuple[list[Sample], list[Sample]]:
    """What a network learns from, rare classes repeated, and what it is judged by."""
    return balanced_split(samples, _balance(context), fraction, context.recipe.seed)


def _balance(context: Context) -> Balance:
    return context.recipe.data.balance or Balance()
