"""A run's figures on the photos that no number of its recipe was chosen on: all but every n-th.

python benchmarks/held_out.py --data VOC2012 --run runs/cpu --every 4
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from weakseg import open_run
from weakseg.data.dataset import load_dataset
from weakseg.engine import confidence, evaluate
from weakseg.engine.context import Context
from weakseg.engine.executor import LocalExecutor
from weakseg.files import read_json
from weakseg.progress import progress_for
from weakseg.tables import print_figures, print_reliability


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--every", type=int, default=4, help="left out: every n-th photo")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    whole = load_dataset(arguments.data, run.recipe.data.split)
    used, masked = set(whole.samples[:: arguments.every]), set(run.photos(run.masks))
    samples = tuple(s for s in whole.samples if s not in used and s.id in masked)
    steps = tuple(step for step in run.steps.values() if step.kind.photos != "held out")
    with tempfile.TemporaryDirectory() as folder, LocalExecutor() as executor:
        context = Context(
            folder=Path(folder),
            recipe=replace(run.recipe, data=run.recipe.data.model_copy(update={"every": 1})),
            steps=steps,
            dataset=replace(whole, samples=samples),
            held_out=whole,
            cpu=executor,
            network=executor,
            progress=progress_for(),
            device=torch.device("cpu"),
        )
        confidence.run(context)
        evaluate.run(context)
        found = read_json(Path(folder) / evaluate.METRICS)
        print_figures(found["stages"])
        if "confidence" in found:
            print_reliability(found["confidence"])


if __name__ == "__main__":
    main()
