"""The notebook's page: its cells, and what they print and show when they are run."""

import base64
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

_PATIENCE = 600
"""Seconds that a cell may take, and the start."""


def write_notebook(source: Path, folder: Path, working: Path) -> None:
    """Run a notebook as Jupyter does; write its page and `NAME.ipynb`, to be taken along.

    Args:
        source: Python with cells.
        folder: where `notebook.md`, its pictures and the notebook go.
        working: where it runs; a new folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = jupytext.read(source)
    working.mkdir(parents=True)
    client = NotebookClient(
        notebook,
        timeout=_PATIENCE,
        startup_timeout=_PATIENCE,
        kernel_name="python3",
        resources={"metadata": {"path": str(working)}},
    )
    client.execute()
    name = f"{source.stem}.ipynb"
    jupytext.write(notebook, folder / name)
    pictures = folder / "notebook"
    pictures.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_shown(output, pictures / f"{number}.png") for output in cell.outputs]
    parts.insert(1, f"[The notebook with its results]({name}), for Jupyter.")
    page = "\n\n".join(part for part in parts if part)
    (folder / "notebook.md").write_text(page + "\n", encoding="utf-8")


def _shown(output: Any, picture: Path) -> str:
    """What a cell printed or showed, as Markdown; nothing of what it said of its progress."""
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```" if output.name == "stdout" else ""
    if "image/png" in output.data:
        picture.write_bytes(base64.b64decode(output.data["image/png"]))
        return f"![What the cell shows]({picture.parent.name}/{picture.name})"
    return f"```text\n{output.data['text/plain']}\n```"
