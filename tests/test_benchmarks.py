"""The recipes of `benchmarks/`, and the commands that docs/benchmarks.md gives."""

import re
import shlex
from pathlib import Path

import pytest

from weakseg.recipe import load_recipe

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = sorted(REPOSITORY.glob("benchmarks/*.yaml"))
TEXT = (REPOSITORY / "docs" / "benchmarks.md").read_text(encoding="utf-8").replace("\\\n", "")
RUNS = re.findall(r"^    weakseg run (.+)$", TEXT, re.MULTILINE)
SCRIPTS = re.findall(r"^    python (benchmarks/\S+)", TEXT, re.MULTILINE)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole_and_says_how_to_start_it(path: Path) -> None:
    assert load_recipe(str(path)).steps
    comment = path.read_text(encoding="utf-8").split("\nseed:")[0]
    assert f"# Start: weakseg run benchmarks/{path.name} " in comment


@pytest.mark.parametrize("command", RUNS)
def test_every_command_names_a_recipe_and_overrides_that_it_can_have(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    words = iter(shlex.split(command, comments=True))
    recipe, *overrides = (word for word in words if not (word.startswith("--") and next(words)))
    assert load_recipe(recipe, overrides).steps


def test_every_command_names_a_script_that_is_there() -> None:
    assert RUNS and SCRIPTS
    assert [name for name in SCRIPTS if not (REPOSITORY / name).is_file()] == []
