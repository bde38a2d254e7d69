"""Build the documentation: `python scripts/docs.py OUT` puts its pages together and makes OUT/site.

Pages that are made of the code, the pictures and the notebook's page are in no commit: this makes
them. Whatever is warned of fails, and so does a link that leads nowhere.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import reference
from notebook import write_notebook
from pictures import draw_pictures

REPOSITORY = Path(__file__).resolve().parents[1]
NOTEBOOK = REPOSITORY / "examples" / "photos_to_masks.py"
PAGES = {
    "reference/steps.md": reference.steps_page,
    "reference/recipes.md": reference.recipes_page,
    "reference/formats.md": reference.formats_page,
    "reference/commands.md": reference.commands_page,
    "reference/api.md": reference.api_page,
}
"""The pages that are made of the code."""

_COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_SNIPPET = "<!-- README: {} -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="a new folder")
    out = parser.parse_args().out.resolve()
    write_pages(out / "docs")
    draw_pictures(out / "docs" / "how-it-works", out / "pictures")
    write_notebook(NOTEBOOK, out / "docs", out / "notebook")
    build(out)


def write_pages(folder: Path) -> None:
    """All pages but the notebook's, without pictures that are made by a run."""
    shutil.copytree(REPOSITORY / "docs", folder)
    for source, name in _COPIED.items():
        shutil.copyfile(REPOSITORY / source, folder / name)
    for name, page in PAGES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), encoding="utf-8")
    recipes = folder / "recipes.md"
    text = recipes.read_text(encoding="utf-8")
    table = table_of((REPOSITORY / "README.md").read_text(encoding="utf-8"), "recipe")
    recipes.write_text(text.replace(_SNIPPET.format("recipe"), table), encoding="utf-8")


def table_of(text: str, first: str) -> str:
    """The table of a text whose first column is called so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    return "\n".join(lines[start:end])


def build(out: Path) -> None:
    """Build OUT/docs, and end the program where that gives a warning."""
    shutil.copyfile(REPOSITORY / "zensical.toml", out / "zensical.toml")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=out, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = built.stdout.decode(errors="replace")
    print(said, end="")
    if built.returncode or "warning" in said.lower() or "griffe:" in said:
        sys.exit("The documentation has warnings.")
    if dead := list(dead_links(out / "site")):
        sys.exit("\n".join(["These links lead nowhere:", *dead]))
    print(out / "site" / "index.html")


def dead_links(site: Path) -> Iterator[str]:
    """Links and pictures of a site's pages, within the site, that are not there."""
    pages = {path: _Page.of(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = place / "index.html" if place.is_dir() else place
            there = place in pages and (not parts.fragment or parts.fragment in pages[place].ids)
            if not (there if place.suffix == ".html" else place.is_file()):
                yield f"{path.relative_to(site)}: {link}"


class _Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    @classmethod
    def of(cls, path: Path) -> "_Page":
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.ids.add(value)


if __name__ == "__main__":
    main()
