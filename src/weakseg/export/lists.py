"""JSON files of long lists, written an entry at a time: nothing of them is held."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO


class JsonList:
    """A list in a file that is written to: an entry a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before = "[\n"

    def add(self, entry: Any) -> None:
        self._file.write(f"{self._before}{json.dumps(entry, ensure_ascii=False)}")
        self._before = ",\n"

    def close(self) -> None:
        self._file.write("\n]" if self._before == ",\n" else "[]")


@contextmanager
def json_list(path: Path) -> Iterator[JsonList]:
    """A JSON file that is a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        entries = JsonList(file)
        yield entries
        entries.close()
        file.write("\n")


@contextmanager
def json_lists(
    path: Path, head: Mapping[str, Any], names: Sequence[str]
) -> Iterator[list[JsonList]]:
    """A JSON file that is an object of short values, and of lists that grow side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_name(f"{path.name}.{name}") for name in names]
    with ExitStack() as stack:
        files = [
            stack.enter_context(part.open("w+", encoding="utf-8", newline="\n")) for part in parts
        ]
        lists = [JsonList(file) for file in files]
        yield lists
        with path.open("w", encoding="utf-8", newline="\n") as whole:
            opening = json.dumps(head, ensure_ascii=False)
            whole.write(opening[:-1])
            for name, one, file in zip(names, lists, files, strict=True):
                one.close()
                whole.write(f",\n{json.dumps(name)}: ")
                file.seek(0)
                shutil.copyfileobj(file, whole)
            whole.write("}\n")
    for part in parts:
        part.unlink()
