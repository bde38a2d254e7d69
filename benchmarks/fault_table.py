"""What balancing and the handling of missing tags are worth on tags at fault.

    python benchmarks/faults.py --data ../shared/data/VOC2012 --out runs/faulty
    python benchmarks/fault_table.py --data runs/faulty --whole ../shared/data/VOC2012 \\
        --out runs/fault_table

Each row is a recipe on the faulty tags with one thing changed; its figures are the network's on the
photos held out: mIoU over all classes, over those that lost photos, and of the one that lost tags.
Up-sampling makes an epoch longer, on VOC two times: the row with the epochs doubled tells what that
alone is worth.
"""

import argparse
from pathlib import Path

import numpy as np

from variants import figures_of
from weakseg.data.dataset import count_tags, load_dataset
from weakseg.files import read_json, write_json
from weakseg.recipe import load_recipe
from weakseg.stages.executor import LocalExecutor

MISSING = "person"
UP, DOWN = "data.balance={least: 40}", "data.balance={most: 40}"
BOTH = "data.balance={most: 40, least: 40}"
ADDED, MASKED = (
    f"missing_tags={{action: {action}, confidence: 0.9}}" for action in ("add", "mask")
)
LONGER = "as the tags are, epochs doubled"
VARIANTS = {
    "as the tags are": [],
    LONGER: [],
    "up-sampled": [UP],
    "down-sampled": [DOWN],
    "up- and down-sampled": [BOTH],
    "missing tags added": [ADDED],
    "missing tags masked": [MASKED],
    "up-sampled, missing tags masked": [UP, MASKED],
    "up-sampled, missing tags added": [UP, ADDED],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="what faults.py made")
    parser.add_argument("--whole", type=Path, required=True, help="what it was made of")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--recipe", default="svm_three_step")
    parser.add_argument("--stage", default="segment+tta", help="whose figures to show")
    parser.add_argument("--only", choices=VARIANTS, nargs="*", default=list(VARIANTS))
    parser.add_argument("overrides", nargs="*", help="section.key=value ...")
    arguments = parser.parse_args()
    before = count_tags(load_dataset(arguments.whole, "train").samples)
    after = count_tags(load_dataset(arguments.data, "train").samples)
    rare = [tag for tag in before if after[tag] <= before[tag] / 5]
    table = arguments.out / "fault_table.json"
    figures = read_json(table) if table.exists() else {}
    with LocalExecutor() as executor:
        for name in arguments.only:
            overrides = ["report.panels=0", "relabel=null", *VARIANTS[name], *arguments.overrides]
            recipe = load_recipe(arguments.recipe, overrides)
            if name == LONGER:
                overrides.append(f"segment.epochs={2 * recipe.segment.epochs}")
                recipe = load_recipe(arguments.recipe, overrides)
            rows = figures_of(recipe, arguments.data, arguments.out, executor)
            row = rows[arguments.stage]
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
