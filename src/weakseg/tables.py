"""Tables on a terminal: figures, and what is said of masks without ground truth."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from weakseg.engine import assess

_MOST_CLASSES = 40


def print_figures(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of `metrics.json`."""
    table = Table("step", "images", "mIoU", "mean acc.", "pixel acc.", "protocol")
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in rows:
        shares = (_percent(row[f], ".1f") for f in ("miou", "mean_accuracy", "pixel_accuracy"))
        table.add_row(row["name"], str(row["images"]), *shares, describe_protocol(row))
    _print(table)


def print_reliability(found: dict[str, Any]) -> None:
    """How well confidence tells the true IoU, as `metrics.json` has it."""
    first, *others = (_percent(entry["miou"], ".1f") for entry in found["surer"])
    overall, within = (
        "-" if found[key] is None else f"{found[key]:.2f}"
        for key in ("spearman", "spearman_within_class")
    )
    print(
        f"Confidence of {found['step']}: Spearman with the true IoU {overall} over "
        f"{found['pairs']} pairs of photo and class, {within} within a class; mIoU {first}, "
        f"without the least sure 10, 20, 30 % of the photos {', '.join(others)}"
    )


def print_assessment(masks: str, classes: Sequence[dict[str, Any]]) -> None:
    """What is said of masks without ground truth: of classes, those with remarks first.

    Of very many these alone.

    Args:
        masks: the step whose masks they are.
        classes: as `assessment.json` has them.
    """
    entries = sorted(classes, key=lambda entry: not entry["remarks"])
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
        title=f"{masks}, without ground truth",
        caption=(
            "AP: average precision in % on tags held out, and of guesses. Covers: median % of a "
            f"photo. Empty, full: photos of which under {100 * assess.EMPTY:g} %, over "
            f"{100 * assess.FULL:g} % is covered. As CAM: median IoU in % of CAM and mask."
        ),
        caption_justify="left",
    )
    for column in table.columns[1:-1]:
        column.justify = "right"
    for cells in class_cells(entries):
        table.add_row(*cells)
    _print(table)
    if left := len(classes) - len(entries):
        print(f"{left} more classes: see {assess.ASSESSMENT}")


def describe_protocol(row: dict[str, Any]) -> str:
    """How a row's figures came about, for people."""
    protocol = row["protocol"]
    parts = [row["split"], "255 ignored"]
    if protocol.get("skipped"):
        parts.append(f"{protocol['skipped']} photos without a prediction skipped")
    if "dropped" in protocol:
        parts.append(f"dropped, so background: {', '.join(protocol['dropped'])}")
    if "foreground" in protocol:
        parts[1] = f"{protocol['foreground']} is the class"
    if "threshold" in protocol:
        parts.append(f"threshold {protocol['threshold']} by {protocol['threshold_source']}")
    parts += [
        f"{key} {' and '.join(protocol[key]) if key == 'of' else protocol[key]}"
        for key in ("folder", "uncertain", "start", "masks", "agreeing", "loss", "tta", "of")
        if key in protocol
    ]
    if row.get("abo") is not None:
        parts.append(f"ABO {100 * row['abo']:.1f} of {row['objects']} objects")
    return ", ".join(parts)


def class_cells(classes: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Entries for people: shares in percent, counts, remarks."""
    return [
        (
            entry["name"],
            str(entry["photos"]),
            f"{_percent(entry['average_precision'])} ({_percent(entry['base_rate'])})",
            _percent(entry["coverage"]),
            str(entry["nearly_empty"]),
            str(entry["nearly_full"]),
            "-" if entry["without_seeds"] is None else str(entry["without_seeds"]),
            _percent(entry["cam_agreement"]),
            "; ".join(entry["remarks"]),
        )
        for entry in classes
    ]


def _percent(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(100 * value, form)


def _print(table: Table) -> None:
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
