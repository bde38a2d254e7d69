"""A run's figures on the photos that no number of its recipe was chosen on: all but every n-th.

python benchmarks/held_out.py --data ../shared/data/VOC2012 --run runs/cpu --every 4
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from weakseg.data.dataset import load_dataset
from weakseg.progress import progress_for
from weakseg.recipe import load_recipe
from weakseg.stages import evaluate, pipeline
from weakseg.stages.base import Context
from weakseg.stages.executor import LocalExecutor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--every", type=int, default=4, help="left out: every n-th photo")
    arguments = parser.parse_args()
    recipe = load_recipe(str(arguments.run / "recipe.yaml"))
    whole = load_dataset(arguments.data, recipe.data.split)
    used = set(whole.samples[:: arguments.every])
    dataset = replace(whole, samples=tuple(s for s in whole.samples if s not in used))
    device = torch.device("cpu")
    with LocalExecutor() as executor:
        context = Context(arguments.run, recipe, dataset, dataset, executor, progress_for(), device)
        stages = [stage for stage in pipeline.measured(recipe) if not stage.held_out]
        rows = evaluate.evaluate_run(context, stages)
    for name, images, miou, mean_accuracy, pixel_accuracy in evaluate.table(rows):
        print(f"| {name} | {images} | {miou} | {mean_accuracy} | {pixel_accuracy} |")


if __name__ == "__main__":
    main()
