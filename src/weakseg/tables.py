"""Tables on a terminal: figures, and what is said of masks without ground truth."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from weakseg.stages import evaluate as evaluation

_MOST_CLASSES = 40


def print_figures(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `metrics.json`."""
    table = Table("stage", "images", "mIoU", "mean acc.", "pixel acc.", "protocol")
    for column in table.columns[1:5]:
        column.justify = "right"
    for cells, row in zip(evaluation.table(rows), rows, strict=True):
        table.add_row(*cells, evaluation.describe_protocol(row))
    _print(table)


def print_assessment(assessment: dict[str, Any]) -> None:
    """The classes of `assessment.json`, those with remarks first and, of very many, alone."""
    from weakseg.stages import assess  # imports PyTorch, which figures alone can do without

    entries = sorted(assessment["classes"], key=lambda entry: not entry["remarks"])
    if len(entries) > _MOST_CLASSES:
        entries = [entry for entry in entries if entry["remarks"]][:_MOST_CLASSES]
    table = Table(
        "class",
        "photos",
        "AP (guess)",
        "covers",
        "empty",
        "full",
        "no seeds",
        "as CAM",
        "remarks",
        title=f"{assessment['masks']}, without ground truth",
        caption=(
            "AP: average precision in % on tags held out, and of guesses. Covers: median % of a "
            f"photo. Empty, full: photos of which under {100 * assess.EMPTY:g} %, over "
            f"{100 * assess.FULL:g} % is covered. As CAM: median IoU in % of CAM and mask."
        ),
        caption_justify="left",
    )
    for column in table.columns[1:-1]:
        column.justify = "right"
    for cells in assess.table(entries):
        table.add_row(*cells)
    _print(table)
    if left := len(assessment["classes"]) - len(entries):
        print(f"{left} more classes: see {assess.ASSESSMENT}")


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
