"""The documentation: what it shows runs, what it quotes is said, and it has every key."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from PIL import Image

from conftest import REPOSITORY
from tiny import tiny_values
from weakseg.cli import _LISTS, app
from weakseg.data.synth import generate
from weakseg.export import EXPORTERS
from weakseg.methods import KINDS
from weakseg.recipe import load_recipe

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
NOTEBOOK = REPOSITORY / "examples" / "photos_to_masks.py"


def _fenced(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[Any]:
    shown = [
        (page, line)
        for page in PAGES
        for block in _fenced(page, "bash")
        for line in block.splitlines()
    ]
    readme = REPOSITORY / "README.md"
    lines = readme.read_text(encoding="utf-8").splitlines()
    shown += [(readme, line.strip()) for line in lines if line.startswith("    weakseg ")]
    for page, line in shown:
        if line.startswith("weakseg "):
            yield pytest.param(line, id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize("line", list(_commands()))
def test_every_command_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    context = typer.main.get_command(app).make_context("weakseg", list(words))
    command: Any = context.command
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)
    given = context.params
    if context.info_name == "run" and not given["recipe"].endswith(".yaml"):
        assert load_recipe(given["recipe"], given["overrides"] or []).steps
    if context.info_name == "list":
        assert given["what"] in _LISTS
    if context.info_name == "export":
        assert given["export_format"] in EXPORTERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_make_target_is_one(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8"))
    assert set(named) <= set(targets)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _fenced(page, "python")], ids=lambda page: page.stem
)
def test_python_that_is_shown_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(Path("photos"), images=8, seed=3)  # so few need no workers
    recipe = tiny_values(**{"cam+crf": None, "svm+crf": None}, report={"panels": 0})
    Path("mine.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    names: dict[str, Any] = {}
    for block in _fenced(page, "python"):
        exec(compile(block, page.name, "exec"), names)
    assert Path("runs/mine/run.json").is_file()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if _fenced(page, "yaml")], ids=lambda page: page.stem
)
def test_recipes_that_are_shown_are_whole(page: Path, tmp_path: Path) -> None:
    for block in _fenced(page, "yaml"):
        path = tmp_path / "shown.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_recipe(str(path)).steps


def test_every_message_is_one_that_is_said() -> None:
    said = [text for path in (REPOSITORY / "src").rglob("*.py") for text in _texts(path)]
    shown = [block.strip() for block in _fenced(REPOSITORY / "docs" / "troubleshooting.md", "text")]
    assert len(shown) >= 25
    assert [message for message in shown if not any(message in text for text in said)] == []


def _texts(path: Path) -> Iterator[str]:
    """The strings of a module, with … for what is put into them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_key_of_every_kind_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import reference

    page = reference.steps_page()
    for kind in KINDS.values():
        assert f"\n## {kind.name} {{ #{kind.name} }}\n" in page
    for section in reference.sections():
        for key in reference.keys(section):
            assert key.meaning, f"{section.__name__}.{key.name}"
            assert f"| `{key.name}` | {key.type} | {key.default} | {key.meaning} |" in page
    svm = {key.name: key for key in reference.keys(KINDS["svm"].settings)}
    assert svm["cycles"][1:3] == ("integer, 0 to 1,000", "`5`")
    assert svm["exclusion_threshold"].type == "number, -1 to 1, or `null`"
    classifier = {key.name: key for key in reference.keys(KINDS["classifier"].settings)}
    assert classifier["epochs"].default == "required"
    assert "(#section-sgd)" in classifier["optimizer"].type


def test_every_command_is_on_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("griffe")
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import reference

    page = reference.commands_page()
    for name in ("run", "label", "data check", "list"):
        assert f"\n## weakseg {name}\n" in page and f"Usage: weakseg {name} [OPTIONS]" in page


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(NOTEBOOK)], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "\nsvm+crf  " in ran.stdout


@pytest.mark.slow
def test_the_site_builds_without_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("zensical", "mkdocstrings", "griffe", "nbclient", "jupytext"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import docs

    docs.write_pages(tmp_path / "docs")
    _stand_in_for_what_runs_make(tmp_path / "docs")
    docs.build(tmp_path)
    assert "No issues found" in capfd.readouterr().out
    page = (tmp_path / "site" / "recipes.html").read_text(encoding="utf-8")
    assert "<code>svm_irn_three_step</code>" in page
    assert 'src="http' not in page  # what is read here is read by nobody else

    (tmp_path / "docs" / "python.md").write_text("[gone](gone.md)")
    with pytest.raises(SystemExit, match="warnings"):
        docs.build(tmp_path)


def _stand_in_for_what_runs_make(folder: Path) -> None:
    """Pictures and the notebook's page take a run: `make docs` makes them."""
    (folder / "notebook.md").write_text("# A notebook\n")
    text = "".join(page.read_text(encoding="utf-8") for page in folder.glob("*.md"))
    for place in set(re.findall(r"\((how-it-works/\w+\.png)\)", text)):
        (folder / place).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / place)


def test_a_link_that_leads_nowhere_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("griffe", "nbclient", "jupytext"):
        pytest.importorskip(name)
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    import docs

    (tmp_path / "a.html").write_text('<a id="x" href="b.html#y"></a><img src="none.png">')
    (tmp_path / "b.html").write_text('<a href="a.html#x"></a><a href="a.html#z"></a>')
    assert list(docs.dead_links(tmp_path)) == [
        "a.html: b.html#y",
        "a.html: none.png",
        "b.html: a.html#z",
    ]
