"""What each idea of refined pixel-labeling (paper A) is worth: a recipe with one thing changed.

    python benchmarks/ablation.py --data ../shared/data/VOC2012 --out runs/ablation

The classifier is trained once, on all tags; the masks are made for every n-th photo. All variants
run in one folder, so that each redoes only the stages that its change touches.
"""

import argparse
import json
from pathlib import Path

from variants import figures_of
from weakseg.networks.backbones import Backbone
from weakseg.recipe import Recipe, load_recipe
from weakseg.stages.executor import LocalExecutor

COLUMNS = ("cam-oracle", "svm", "svm+crf", "cam+crf")


def variants(recipe: Recipe) -> dict[str, list[str]]:
    """Overrides of each variant; those that redo the CAMs come last."""
    changed = {
        "as in the recipe": [],
        "no exclusion": ["svm.exclusion_threshold=null"],
        "no cycles": ["svm.cycles=0"],
        "no exclusion, no cycles": ["svm.exclusion_threshold=null", "svm.cycles=0"],
        "uniform sampling": ["svm.sampling=uniform"],
        "linear kernel": ["svm.kernel=linear"],
        "paper's thresholds": ["svm.foreground_threshold=0.2", "svm.background_threshold=0.05"],
    }
    section = recipe.backbone
    stages = Backbone(section.name, "none", section.output_stride, section.dilated).stages
    chosen = recipe.localize.feature_stages
    width = sum(stages[i].channels for i in chosen)
    for indices in ([1], [2], [3], [1, 2], [2, 3], [0, 1, 2], [1, 2, 3], [1, 2, 3, 4]):
        if tuple(indices) == chosen:
            continue
        override = [f"localize.feature_stages={indices}"]
        if isinstance(recipe.svm.gamma, float):
            # The same multiple of scikit-learn's "scale", which is 1 / channels here.
            channels = sum(stages[i].channels for i in indices)
            override.append(f"svm.gamma={recipe.svm.gamma * width / channels}")
        strides = ", ".join(str(stages[i].stride) for i in indices)
        changed[f"features of strides {strides}"] = override
    changed["single-scale CAM"] = ["localize.scales=[1.0]", "localize.feature_scales=[1.0]"]
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--recipe", default="refined_pixel_labeling_cpu")
    parser.add_argument("--every", type=int, default=4, help="masks for every n-th photo")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    common = [f"localize.every={arguments.every}", "report.panels=0"]
    figures = {}
    with LocalExecutor() as executor:
        for name, overrides in variants(load_recipe(arguments.recipe)).items():
            recipe = load_recipe(arguments.recipe, [*common, *overrides])
            rows = figures_of(recipe, arguments.data, arguments.out, executor)
            figures[name] = {row["name"]: round(100 * row["miou"], 2) for row in rows.values()}
            print(f"{name}: {figures[name]}", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=2))
    print(f"\n| variant | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for name, row in figures.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.1f}' for column in COLUMNS)} |")


if __name__ == "__main__":
    main()
