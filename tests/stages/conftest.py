from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tiny import TINY
from weakseg.data.synth import generate
from weakseg.recipe import Recipe, check_recipe
from weakseg.stages import runner
from weakseg.stages.executor import Executor, InProcessExecutor


class Lines:
    """A progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, name: str, total: int, done: int = 0):
        from contextlib import nullcontext

        self.said.append(f"{name}: {done} of {total} done before")
        return nullcontext(lambda count: None)


def tiny_recipe(**sections: dict) -> Recipe:
    values = {**TINY, **{k: {**TINY.get(k, {}), **v} for k, v in sections.items()}}
    return check_recipe(values, "tiny")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "data"
    generate(folder, images=10, seed=3)
    return folder


Start = Callable[..., Lines]


@pytest.fixture
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


def masks(out: Path) -> dict[str, bytes]:
    """Every mask, map and picture of a run."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.suffix in (".png", ".safetensors")
    }
