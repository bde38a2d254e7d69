from pathlib import Path

import pytest
import torch

from tiny import Lines, Start, tiny_recipe
from weakseg.data.synth import generate
from weakseg.recipe import Recipe
from weakseg.stages import runner
from weakseg.stages.executor import Executor, InProcessExecutor


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "data"
    generate(folder, images=10, seed=3)
    return folder


@pytest.fixture(scope="session")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny recipe; to be copied before it is changed."""
    out = tmp_path_factory.mktemp("run") / "out"
    runner.run(tiny_recipe(), photos, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    return out


@pytest.fixture(scope="session")
def start() -> Start:
    def run(
        data: Path, out: Path, recipe: Recipe | None = None, executor: Executor | None = None
    ) -> Lines:
        lines = Lines()
        runner.run(
            recipe or tiny_recipe(),
            data,
            out,
            executor or InProcessExecutor(),
            lines,
            torch.device("cpu"),
        )
        return lines

    return run
