"""What the segmentation network of a recipe reaches when it learns from true masks.

    python benchmarks/upper_bound.py --data ../shared/data/VOC2012 --out runs/upper_bound

The same network, schedule and photos as in the recipe, with the data set's masks in the place of
pseudo masks: the bound against which retention is measured. No recipe does this.
"""

import argparse
from pathlib import Path

import torch

from weakseg.data.dataset import load_dataset
from weakseg.data.masks import write_mask
from weakseg.files import write_json
from weakseg.progress import progress_for
from weakseg.recipe import load_recipe
from weakseg.stages import evaluate, pipeline, segment
from weakseg.stages.base import Context
from weakseg.stages.executor import LocalExecutor

SEGMENTED = (segment.SEGMENT, segment.TTA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="three_step_cpu")
    parser.add_argument("overrides", nargs="*", help="section.key=value ...")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    dataset = load_dataset(arguments.data, recipe.data.split)
    held_out = load_dataset(arguments.data, recipe.data.held_out, untagged=True)
    masks = arguments.out / recipe.segment.masks
    for folder in (masks, *(arguments.out / n for n in (segment.NETWORK, *SEGMENTED))):
        folder.mkdir(parents=True, exist_ok=True)
    for sample in dataset.samples:
        write_mask(masks / f"{sample.id}.png", sample.mask.read())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with LocalExecutor() as executor:
        context = Context(
            arguments.out, recipe, dataset, held_out, executor, progress_for(), device
        )
        segment.train(context)
        segment.run(context)
        segment.run_tta(context)
        measured = [stage for stage in pipeline.measured(recipe) if stage.held_out]
        rows = evaluate.evaluate_run(context, measured)
    for row in rows:
        row["protocol"]["masks"] = "ground truth (upper bound)"
    write_json(arguments.out / evaluate.METRICS, {"stages": rows})
    print(
        "| network on true masks | images | mIoU | mean acc. | pixel acc. |\n|---|---|---|---|---|"
    )
    for cells in evaluate.table(rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
