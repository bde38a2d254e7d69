"""Masks of the held-out split after each step of a finished run (paper B, table 2), and panels.

    python benchmarks/steps.py --data ../shared/data/VOC2012 --run runs/three_step

CAMs and what refines them need the photos' tags, which the run never read of this split; those of
classes that the run dropped are dropped here as well. With `--tags classifier` they get the tags
that the run's classifier is surer of than 0.5, as they must where nobody has tagged the photos
(LID's validation set); the network of step 3 has no use for tags either way. A class with a
classifier of its own joins none of the masks. Masks and panels go to RUN/steps-given or
RUN/steps-classifier.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from weakseg.data.balance import drop_classes
from weakseg.data.dataset import Dataset, load_dataset
from weakseg.files import write_json
from weakseg.progress import progress_for
from weakseg.recipe import Recipe, load_recipe
from weakseg.stages import classify, evaluate, irn, localize, panels, pipeline, screen, segment
from weakseg.stages.base import Context
from weakseg.stages.executor import Executor, LocalExecutor

TRAINED = (classify.NAME, irn.NETWORK)
SEGMENTED = (segment.SEGMENT, segment.TTA)
SURE = 0.5


def tagged_by_classifier(
    dataset: Dataset, recipe: Recipe, folder: Path, executor: Executor
) -> Dataset:
    judge = screen.Judge(
        folder / classify.NAME / classify.CLASSIFIER,
        None,
        recipe.data.long_side,
        recipe.classify.precision,
        "cpu",
    )
    samples = [
        replace(
            sample, tags=tuple(t for t, s in zip(dataset.classes, scores, strict=True) if s > SURE)
        )
        for sample, scores in zip(
            dataset.samples, executor.map(judge, dataset.samples), strict=True
        )
    ]
    return replace(dataset, samples=samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--tags", choices=("given", "classifier"), default="given")
    parser.add_argument("--panels", type=int, default=8)
    arguments = parser.parse_args()
    recipe = load_recipe(
        str(arguments.run / "recipe.yaml"),
        ["localize.every=1", f"report.panels={arguments.panels}"],
    )
    folder = arguments.run / f"steps-{arguments.tags}"
    if folder.exists():
        shutil.rmtree(folder)  # of an earlier state of the run
    folder.mkdir()
    for name in (*TRAINED, *SEGMENTED):
        source = (arguments.run / name).resolve()
        if source.exists():
            (folder / name).symlink_to(source)
    data = recipe.data.model_copy(update={"split": recipe.data.held_out, "held_out": None})
    recipe = recipe.model_copy(update={"data": data, "separate": None, "relabel": None})
    dataset = drop_classes(load_dataset(arguments.data, data.split), data.drop_classes)
    measured = pipeline.measured(recipe)
    made_here = {localize.NAME, *recipe.mask_stages}
    with LocalExecutor() as executor:
        if arguments.tags == "classifier":
            dataset = tagged_by_classifier(dataset, recipe, folder, executor)
        context = Context(
            folder, recipe, dataset, dataset, executor, progress_for(), torch.device("cpu")
        )
        for stage in pipeline.stages(recipe):
            if stage.name in made_here:
                (folder / stage.name).mkdir(exist_ok=True)
                stage.run(context)
        rows = evaluate.evaluate_run(context, measured)
        write_json(folder / evaluate.METRICS, {"stages": rows})
        panels.run(context, measured)
    print("| step | images | mIoU | mean acc. | pixel acc. |\n|---|---|---|---|---|")
    for cells in evaluate.table(rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
