"""Every source of pseudo masks, with and without the segmentation network, and with TTA.

    python benchmarks/combinations.py --data ../shared/data/VOC2012 --out runs/combinations

Masks are measured on the photos that they were made for, the networks on the photos held out. All
combinations run in one folder, so that each redoes only the stages that its change touches.
"""

import argparse
import json
from pathlib import Path

from variants import figures_of
from weakseg.files import read_json, write_json
from weakseg.recipe import load_recipe
from weakseg.stages.executor import LocalExecutor

COMBINATIONS = {
    "SVM": ["segment.masks=svm+crf"],
    "CAM": ["segment.masks=cam+crf"],
    "IRN": ["segment.masks=irn"],
    "SVM, then IRN": ["segment.masks=irn", "irn.start=svm+crf"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--recipe", default="svm_three_step")
    parser.add_argument("--irn", default="three_step_cpu", help="the recipe to take irn from")
    parser.add_argument("--only", choices=COMBINATIONS, nargs="*", default=list(COMBINATIONS))
    parser.add_argument("overrides", nargs="*", help="section.key=value ...")
    arguments = parser.parse_args()
    irn = load_recipe(arguments.irn).irn.model_dump(mode="json")
    table = arguments.out / "combinations.json"
    figures = read_json(table) if table.exists() else {}
    with LocalExecutor() as executor:
        for name in arguments.only:
            overrides = [f"irn={json.dumps(irn)}", "relabel=null", *COMBINATIONS[name]]
            overrides += arguments.overrides
            recipe = load_recipe(arguments.recipe, overrides)
            rows = figures_of(recipe, arguments.data, arguments.out, executor)
            taught_by = rows[recipe.segment.masks]
            found = (taught_by, rows["segment"], rows["segment+tta"])
            figures[name] = [round(100 * row["miou"], 2) for row in found]
            write_json(table, figures)
            print(f"{name}: {figures[name]}", flush=True)
    print("\n| source | masks | DeepLabv3+ | DeepLabv3+ with TTA |\n|---|---|---|---|")
    for name, row in figures.items():
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |")


if __name__ == "__main__":
    main()
