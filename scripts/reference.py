"""Pages of the documentation that are made of the code: keys, recipes, formats, commands, names."""

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Any, NamedTuple

from griffe import Docstring, DocstringAttribute, DocstringSectionKind
from pydantic import BaseModel, TypeAdapter

import weakseg
from weakseg.data.formats import FORMATS
from weakseg.export import EXPORTERS
from weakseg.methods import KINDS
from weakseg.methods.base import Gives, Kind, Slot
from weakseg.names import shipped_recipes
from weakseg.recipe import Frame

_ROLES = {
    "seed": "It says where things are, roughly: a seed for the steps behind it.",
    "refiner": "It makes masks or maps better.",
    "network": "It trains a network, or brings one.",
}

_OF_ALL = """
Every step has these keys, too:

| key | | default | what it means |
|---|---|---|---|
| `kind` | a kind of this page | required | what the step does |
| `of` | a step's name, or a list of them | none | the steps that it reads |
| `keep` | yes or no | `true` | `false`: no files: the one step that reads it computes them |
"""


class Key(NamedTuple):
    """A key of a section of a recipe.

    Attributes:
        name: in the recipe.
        type: what it takes, with its range.
        default: as YAML has it, "required", or "its own" of a section; Markdown, as the others.
        meaning: on one line.
    """

    name: str
    type: str
    default: str
    meaning: str


def sections() -> list[Any]:
    """The types of everything that has keys in a recipe, a step's kinds first."""
    found: dict[Any, None] = {}
    for kind in KINDS.values():
        _collect(kind.settings, found)
    _collect(Frame, found)
    return list(found)


def keys(section: Any) -> list[Key]:
    """The keys of a section, in its order."""
    schema = TypeAdapter(section).json_schema()
    meanings = _meanings(section)
    required = schema.get("required", ())
    return [
        Key(
            name,
            _type(value),
            "required" if name in required else _default(value),
            _line(meanings[name]),
        )
        for name, value in schema.get("properties", {}).items()
    ]


def steps_page() -> str:
    """Every kind of step and its keys, and the sections that several have."""
    own = {kind.settings for kind in KINDS.values()}
    shared = [section for section in sections() if section not in own and section is not Frame]
    parts = [
        "# Every key of every step",
        "A recipe names steps, and each has a `kind`. Here are all kinds, in a run's order, and"
        " every key that they take. A number out of its range, or a key that is none, is refused"
        " before anything runs.",
        "On the command line `STEP.KEY=VALUE` sets one, by the name that the recipe gives the step:"
        " `svm.cycles=0`, `svm+crf.kernels.iterations=5`.",
        _OF_ALL.strip(),
        "## The run",
        "What a recipe has beside its `steps`.",
        _table(keys(Frame)),
    ]
    parts += [_kind(kind) for kind in KINDS.values()]
    parts += ["## Sections", "What a key of the above holds, where it is no single value."]
    for section in shared:
        name = section.__name__
        parts += [f"### {_title(name)} {{ #{_anchor(name)} }}", *_body(section)]
    return "\n\n".join(parts) + "\n"


def recipes_page() -> str:
    """Every shipped recipe, whole."""
    parts = [
        "# The shipped recipes, whole",
        "Each is a file that `weakseg run NAME` reads. A recipe of your own is a copy with other"
        " numbers: `weakseg run mine.yaml`.",
    ]
    for name, summary in shipped_recipes().items():
        text = (files("weakseg") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        parts += [f"## {name}", summary, f"```yaml\n{text.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def formats_page() -> str:
    """What the layouts of data sets want, and what masks are exported as."""
    parts = [
        "# Data formats",
        "How a folder of photos may be laid out. `--format auto`, the default, tries them in this"
        " order.",
    ]
    for name, layout in FORMATS.items():
        parts += [f"## {name}", layout.summary + ".", inspect.getdoc(type(layout)) or ""]
    parts += [
        "## Exports",
        "What `weakseg export --format NAME` writes; [exports](../exports.md) has the details.",
        "| format | |\n|---|---|\n"
        + "\n".join(f"| `{name}` | {one.summary} |" for name, one in EXPORTERS.items()),
    ]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    """The help of every command."""
    import typer

    from weakseg.cli import app

    parts = [
        "# Every command",
        "As `--help` shows it. `--debug` anywhere shows the traceback of an error.",
    ]
    for name, command in commands(typer.main.get_command(app)):
        context = command.make_context(name, [], resilient_parsing=True, max_content_width=96)
        title = f"weakseg {name}"
        text = command.get_help(context).replace(f"Usage: {name} ", f"Usage: {title} ")
        parts += [f"## {title}", f"```text\n{text.strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """The commands of the command line: what is typed behind `weakseg`, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def api_page() -> str:
    """Every public name, as mkdocstrings shows it."""
    parts = [
        "# Every name",
        "Everything that `import weakseg` gives. Nothing is imported before it is used: `import"
        " weakseg` takes no time, and the algorithms need no more than they compute with.",
    ]
    homes = {name: getattr(weakseg, name).__module__ for name in weakseg.__all__[1:]}
    titles = {"weakseg.api": "Runs", "weakseg.localize": "Maps", "weakseg.refine": "Refiners"}
    titles["weakseg.metrics"] = "Figures"
    said = set()
    for name, home in homes.items():
        title = next((t for place, t in titles.items() if home.startswith(place)), None)
        if title and title not in said:
            said.add(title)
            parts.append(f"## {title}")
        parts.append(f"::: weakseg.{name}")
    return "\n\n".join(parts) + "\n"


def _kind(kind: Kind) -> str:
    takes = "; ".join(map(_slot, kind.takes)) or "nothing"
    gives = "by its settings" if callable(kind.gives) else _artefacts(kind.gives)
    role = f" {_ROLES[kind.role]}" if kind.role else ""
    head = [
        f"## {kind.name} {{ #{kind.name} }}",
        f"{kind.summary[0].upper()}{kind.summary[1:]}.{role}",
        f"Reads: {takes}. Gives: {gives}.",
    ]
    return "\n\n".join([*head, *_body(kind.settings)])


def _slot(slot: Slot) -> str:
    count = "two or more of " if slot.several else ""
    return f"{count}{_artefacts(slot.accepts, ' or ')}{' (or none)' if slot.optional else ''}"


def _artefacts(names: Gives, between: str = ", ") -> str:
    return between.join(sorted(artefact.value for artefact in names))


def _body(section: Any) -> list[str]:
    prose = [part.value for part in _parsed(section) if part.kind is DocstringSectionKind.text]
    table = keys(section)
    return [*prose, *([_table(table)] if table else [])]


def _table(rows: Iterable[Key]) -> str:
    lines = ["| key | takes | default | what it means |", "|---|---|---|---|"]
    for row in rows:
        lines.append(f"| `{row.name}` | {row.type} | {row.default} | {row.meaning} |")
    return "\n".join(lines)


def _collect(given: Any, found: dict[Any, None]) -> None:
    """All classes with keys that a type hint names, and those that their keys name."""
    if isinstance(given, type) and (
        issubclass(given, BaseModel) or dataclasses.is_dataclass(given)
    ):
        if given in found:
            return
        found[given] = None
        hints = typing.get_type_hints(given, include_extras=True)
        for name in TypeAdapter(given).json_schema().get("properties", {}):
            _collect(hints[name], found)
    for inner in typing.get_args(given):
        _collect(inner, found)


def _parsed(section: Any) -> list[Any]:
    parts: list[Any] = Docstring(inspect.cleandoc(section.__doc__ or "")).parse("google")
    return parts


def _meanings(section: Any) -> dict[str, str]:
    """What a section's docstring, or one that it inherits from, says of each key."""
    found: dict[str, str] = {}
    for home in reversed(section.__mro__):
        if not home.__module__.startswith("weakseg"):
            continue
        for part in _parsed(home):
            if part.kind is DocstringSectionKind.attributes:
                entries: list[DocstringAttribute] = part.value
                found |= {entry.name: entry.description for entry in entries}
    return found


def _type(schema: dict[str, Any]) -> str:
    """What a value may be, in words, with a link where it has keys of its own."""
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return ", or ".join(dict.fromkeys(map(_type, schema[several])))
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return _array(schema)
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "yes or no"}
    words |= {"null": "`null`"}
    return f"{words[schema['type']]}{_range(schema)}"


def _array(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return "list: " + "; ".join(map(_type, schema["prefixItems"]))
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most:
        count = f" of {least} to {most}" if least else f" of up to {most}"
    else:
        count = f" of {least} or more" if least else ""
    return f"list{count}: {_type(schema['items'])}"


def _range(schema: dict[str, Any]) -> str:
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    over = "over " if "exclusiveMinimum" in schema else ""
    under = "under " if "exclusiveMaximum" in schema else ""
    if high is None:
        return f", {over}{_number(low)}{'' if over else ' or more'}"
    if low is None:
        return f", {under or 'up to '}{_number(high)}"
    return f", {over}{_number(low)} to {under}{_number(high)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default", {})
    if isinstance(default, dict):
        return "its own"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _link(name: str) -> str:
    return f"[{_title(name)}](#{_anchor(name)})"


def _title(name: str) -> str:
    """What people call a class of settings."""
    return name.removesuffix("Section").removesuffix("Settings")


def _anchor(name: str) -> str:
    return f"section-{_title(name).lower()}"


def _line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
