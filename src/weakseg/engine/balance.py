"""Leave classes out, and balance those that stay (Dobko et al. 2020, section 3.1)."""

from dataclasses import astuple, replace

from weakseg.data.balance import (
    Balance,
    compare_counts,
    describe_counts,
    down_sample,
    drop_classes,
    up_sample,
)
from weakseg.data.dataset import Dataset
from weakseg.engine.context import Context
from weakseg.engine.outputs import Output
from weakseg.errors import WeaksegError, unknown_name
from weakseg.files import write_csv
from weakseg.recipe import Data

NAME = PLACE = "balance"
COUNTS = "counts.csv"


def run(context: Context) -> None:
    """Write `balance/counts.csv`: photos with each tag before and after, repeats counted."""
    least = _balance(context).least
    after = list(balanced(context).dataset.samples)
    if least is not None:
        after = up_sample(after, least, context.recipe.seed)
    counts = compare_counts(context.dataset.samples, after)
    rows = [("tag", "before", "after"), *map(astuple, counts)]
    write_csv(context.folder / NAME / COUNTS, rows)
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
    dataset = without_dropped(context.dataset, data)
    left_out = {"of dropped classes alone": len(context.dataset.samples) - len(dataset.samples)}
    most = _balance(context).most
    if most is not None:
        samples = down_sample(dataset.samples, most, context.recipe.seed)
        left_out[f"of classes with over {most}"] = len(dataset.samples) - len(samples)
        dataset = replace(dataset, samples=tuple(samples))
    held_out = context.held_out if data.held_out is not None else dataset
    return context.leaving_out(left_out, dataset, held_out)


def without_dropped(dataset: Dataset, data: Data) -> Dataset:
    """The data set without the classes that a recipe drops, and photos of nothing else.

    Raises:
        WeaksegError: an unknown class, or no photo is left.
    """
    for name in (*data.drop_classes, *(data.only_classes or ())):
        if name not in dataset.classes:
            raise unknown_name("class", name, dataset.classes)
    dropped = data.dropped(dataset.classes)
    if not dropped:
        return dataset
    without = drop_classes(dataset, dropped)
    samples = tuple(
        after
        for before, after in zip(dataset.samples, without.samples, strict=True)
        if after.tags or not before.tags
    )
    if not samples:
        raise WeaksegError(f"No photo is left once the classes {', '.join(dropped)} are dropped.")
    return replace(without, samples=samples)


def outputs(context: Context) -> list[Output]:
    return [Output(context.folder / NAME / COUNTS)]


def _balance(context: Context) -> Balance:
    return context.recipe.data.balance or Balance()
