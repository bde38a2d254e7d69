"""What the tables of recipes with one thing changed share: a run, and its figures."""

from pathlib import Path
from typing import Any

import torch

from weakseg.files import read_json
from weakseg.progress import progress_for
from weakseg.recipe import Recipe
from weakseg.stages import evaluate, runner
from weakseg.stages.executor import Executor


def figures_of(
    recipe: Recipe, data: Path, out: Path, executor: Executor
) -> dict[str, dict[str, Any]]:
    """Run a recipe in the folder `out`, as far as it isn't up to date; its rows by their names."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runner.run(recipe, data, out, executor, progress_for(), device)
    return {row["name"]: row for row in read_json(out / evaluate.METRICS)["stages"]}
