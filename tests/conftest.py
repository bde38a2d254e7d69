import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import sync_playwright
from threadpoolctl import threadpool_limits

from tiny import Lines, Start, tiny_recipe
from weakseg.data.synth import generate
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.methods.base import Executor
from weakseg.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights that may lie beside the checkout."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("there is no folder shared/ beside the checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in worker processes: sums of another number of threads may round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium; tests with it are skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield chromium
        chromium.close()


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
