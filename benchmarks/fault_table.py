"""What balancing and the handling of missing tags are worth on tags at fault.

    python benchmarks/faults.py --data VOC2012 --out runs/faulty
    python benchmarks/fault_table.py --data runs/faulty --whole VOC2012 \\
        --out runs/fault_table

Each row is `svm_three_step` on the faulty tags with one thing changed; its figures are the
network's on the photos held out: mIoU over all classes, over those that lost photos, and of the one
that lost tags.
Up-sampling makes an epoch longer, on VOC two times: the row with the epochs doubled tells what that
alone is worth.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import weakseg
from weakseg.data.dataset import count_tags, load_dataset
from weakseg.files import read_json, write_json
from weakseg.recipe import Recipe, dump_settings

RECIPE, COMMON = "svm_three_step", ["report.panels=0", "own-maps=null", "relabel=null"]
MISSING = "person"
UP, DOWN = "data.balance={least: 40}", "data.balance={most: 40}"
BOTH = "data.balance={most: 40, least: 40}"


def variants(recipe: Recipe) -> dict[str, list[str]]:
    """Overrides of each row."""
    steps = {step.name: step for step in recipe.steps}
    classify, epochs = steps["classify"], steps["segmenter"].settings.epochs

    def screened(action: str) -> list[str]:
        first = {
            "kind": "classifier",
            "of": "pool",
            **dump_settings(classify.kind, classify.settings),
        }
        return [
            f"first={json.dumps(first)}",
            f"screen={{kind: missing_tags, of: first, action: {action}, confidence: 0.9}}",
            "classify.of=[pool, screen]",
        ]

    return {
        "as the tags are": [],
        "as the tags are, epochs doubled": [f"segmenter.epochs={2 * epochs}"],
        "up-sampled": [UP],
        "down-sampled": [DOWN],
        "up- and down-sampled": [BOTH],
        "missing tags added": screened("add"),
        "missing tags masked": screened("mask"),
        "up-sampled, missing tags masked": [UP, *screened("mask")],
        "up-sampled, missing tags added": [UP, *screened("add")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what faults.py made")
    parser.add_argument("--whole", type=Path, required=True, help="what it was made of")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--step", default="segment+tta", help="whose figures to show")
    parser.add_argument("--only", nargs="*", help="rows; by default all", metavar="ROW")
    parser.add_argument("overrides", nargs="*", help="step.key=value ...")
    arguments = parser.parse_args()
    before = count_tags(load_dataset(arguments.whole, "train").samples)
    after = count_tags(load_dataset(arguments.data, "train").samples)
    rare = [tag for tag in before if after[tag] <= before[tag] / 5]
    table = arguments.out / "fault_table.json"
    figures = read_json(table) if table.exists() else {}
    rows = variants(weakseg.load_recipe(RECIPE, [*COMMON, *arguments.overrides]))
    wanted = arguments.only or rows
    if unknown := set(wanted).difference(rows):
        parser.error(f"--only: there are no rows {unknown}; there are {', '.join(rows)}")
    for name in wanted:
        overrides = [*COMMON, *arguments.overrides, *rows[name]]
        run = weakseg.run(RECIPE, arguments.data, arguments.out, overrides)
        row = next(row for row in run.figures if row["name"] == arguments.step)
        of_rare = float(np.mean([row["per_class"][tag] for tag in rare]))
        figures[name] = [
            round(100 * value, 1) for value in (row["miou"], of_rare, row["per_class"][MISSING])
        ]
        write_json(table, figures)
        print(f"{name}: {figures[name]}", flush=True)
    print(f"\n| tags | mIoU, all | mIoU, {len(rare)} rare classes | {MISSING} |\n|---|---|---|---|")
    for name, values in figures.items():
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |")


if __name__ == "__main__":
    main()
