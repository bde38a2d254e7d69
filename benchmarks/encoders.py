"""Encoder, IRNet's threshold, test-time augmentation, and a class on its own (paper B, table 3).

    python benchmarks/encoders.py --data ../shared/data/VOC2012 --out runs/encoders

As in the paper the tags of `person` are removed, and with them photos of nothing else. In the rows
with its own classifier the CAM of a binary one, on the same photos, joins the masks that the
network learns. All figures are means over the same classes of the photos held out: `person` counts
in every row, with an IoU of 0 where it is never found. All rows run in one folder, so that each
redoes only the stages that its change touches.
"""

import argparse
from pathlib import Path

import numpy as np

from variants import figures_of
from weakseg.files import read_json, write_json
from weakseg.recipe import load_recipe
from weakseg.stages.executor import LocalExecutor

# name: which encoder, which threshold, whether the class has a classifier of its own
VARIANTS = {
    "first": (0, 0, False),
    "person": (0, 0, True),
    "threshold": (0, 1, False),
    "encoder": (1, 1, False),
}
COLUMNS = ("encoder", "IRNet thr.", "TTA", "own classifier", "mIoU", "mIoU of the others")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--recipe", default="three_step_cpu")
    parser.add_argument(
        "--encoders", nargs=2, default=["efficientnet_lite1", "efficientnet_lite2"], metavar="NAME"
    )
    parser.add_argument("--thresholds", nargs=2, type=float, default=[0.5, 0.3], metavar="SCORE")
    parser.add_argument("--class-name", default="person", help="the class that is left out")
    parser.add_argument("--only", choices=VARIANTS, nargs="*", default=list(VARIANTS))
    parser.add_argument("overrides", nargs="*", help="section.key=value ...")
    arguments = parser.parse_args()
    left_out = arguments.class_name
    masks = load_recipe(arguments.recipe, arguments.overrides).segment.masks
    table = arguments.out / "encoders.json"
    figures = read_json(table) if table.exists() else {}
    with LocalExecutor() as executor:
        for name in arguments.only:
            encoder, threshold, own = VARIANTS[name]
            encoder, threshold = arguments.encoders[encoder], arguments.thresholds[threshold]
            overrides = [
                "report.panels=0",
                f"data.drop_classes=[{left_out}]",
                f"irn.threshold={threshold}",
                f"segment.backbone.name={encoder}",
                *arguments.overrides,
            ]
            if own:
                separate = f"separate={{class_name: {left_out}, masks: {masks}}}"
                overrides += [separate, "segment.masks=merged"]
            rows = figures_of(
                load_recipe(arguments.recipe, overrides), arguments.data, arguments.out, executor
            )
            figures[name] = [
                [encoder, threshold, tta, own, *_figures(rows[stage]["per_class"], left_out)]
                for stage, tta in (("segment", False), ("segment+tta", True))
            ]
            write_json(table, figures)
            print(f"{name}: {figures[name]}", flush=True)
    print(f"\n| {' | '.join((*COLUMNS, left_out))} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for rows in (figures[name] for name in VARIANTS if name in figures):
        for encoder, threshold, tta, own, *values in rows:
            yes_no = ("yes" if value else "no" for value in (tta, own))
            cells = (encoder, f"{threshold:g}", *yes_no, *(f"{value:.1f}" for value in values))
            print(f"| {' | '.join(cells)} |")


def _figures(per_class: dict[str, float | None], left_out: str) -> list[float]:
    """mIoU in percent: of all classes, of all but the one left out, and its own IoU."""
    found = {name: np.nan if iou is None else 100 * iou for name, iou in per_class.items()}
    its_own = found.pop(left_out)
    others = list(found.values())
    groups = ([*others, its_own], others, [its_own])
    return [round(float(np.nanmean(values)), 2) for values in groups]


if __name__ == "__main__":
    main()
