"""The recipe: named steps and every number of a run, checked as a whole before anything starts."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from weakseg import safe_yaml
from weakseg.data.balance import Balance
from weakseg.errors import WeaksegError, listed, nearest, quoted, shortened, unknown_name
from weakseg.methods import KINDS
from weakseg.methods.base import Kind, Slot, Step
from weakseg.methods.settings import LARGEST_SIDE, MOST_EXAMPLES, Section
from weakseg.names import shipped_recipes

RECIPE = "recipe.yaml"
"""In a run's folder: the recipe, resolved."""

_MOST_PROBLEMS = 10
_MOST_NAMES = 30  # of steps, in a message
_MOST_KINDS = 15  # where each of many steps may lack its own
_STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_-]{0,63}")
RESERVED = frozenset(
    {"inspect", "balance", "assess", "confidence", "evaluate", "panels", "steps", "data"}
    | {"report", "review", "export"}
)
"""What no step can be called: parts of a run, and of a recipe."""

_OLD_SECTIONS = frozenset(
    {"backbone", "missing_tags", "classify", "localize", "svm", "crf", "cam_crf", "irn", "irn_crf"}
    | {"separate", "segment", "relabel", "evaluate"}
)


class Data(Section):
    """Which photos.

    Attributes:
        split: a split of the data set, or `all`.
        held_out: the split whose photos the trained segmentation network is tried on; by default
            the same as `split`. Nothing is learned from it, and its photos need no tags.
        every: 4 makes masks of every fourth photo alone, to try settings on; classifiers learn from
            all.
        drop_classes: classes whose tags are not used, nor photos of nothing else.
        only_classes: the classes that are used, and no others.
        balance: how many photos a class has at most (others are left out of the run) and at least
            (photos are repeated in training); see `weakseg.data.balance`.
        long_side: photos with a longer side, in pixels, are worked on at that size; their masks
            have the photo's own.
    """

    split: str = "train"
    held_out: str | None = None
    every: Annotated[int, Field(ge=1, le=MOST_EXAMPLES)] = 1
    drop_classes: tuple[str, ...] = ()
    only_classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    balance: Balance | None = None
    long_side: Annotated[int, Field(ge=32, le=2 * LARGEST_SIDE)] = 1024

    @property
    def balanced(self) -> bool:
        """Whether anything is left out or repeated."""
        return bool(self.drop_classes or self.only_classes or self.balance)

    def dropped(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes, of those of the data set, that are left out."""
        only = classes if self.only_classes is None else self.only_classes
        return tuple(c for c in classes if c in self.drop_classes or c not in only)


class Report(Section):
    """What is drawn.

    Attributes:
        panels: how many photos get a panel picture.
    """

    panels: Annotated[int, Field(ge=0, le=MOST_EXAMPLES)] = 12


class Frame(Section):
    """A recipe without its steps.

    Attributes:
        seed: of every draw; the same seed gives the same run.
        data: which photos.
        report: what is drawn.
    """

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: Data = Data()
    report: Report = Report()


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Attributes:
        seed: of every draw.
        data: which photos.
        steps: each after those that it reads, and else in the recipe's order; of no folder yet.
        report: what is drawn.
    """

    seed: int
    data: Data
    steps: tuple[Step, ...]
    report: Report

    def build(self, folder: Path, device: str = "cpu") -> tuple[Step, ...]:
        """The steps of a run in a folder, on a device as torch names it."""
        built: dict[str, Step] = {}
        for step in self.steps:
            draws = step.kind.draws
            built[step.name] = replace(
                step,
                inputs=tuple((slot, built[given.name]) for slot, given in step.inputs),
                folder=folder / step.name,
                seed=self.seed if draws is True or (draws and draws(step.settings)) else 0,
                long_side=self.data.long_side,
                device=device,
            )
        return tuple(built.values())


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and check it as a whole.

    Args:
        name_or_path: a shipped recipe's name, or the path of a YAML file.
        overrides: `step.key=value`, `data.key=value` or `seed=value`; values are YAML, and
            `step=null` leaves a step out.

    Raises:
        WeaksegError: an unknown name, a file that is no YAML, or steps, keys and values that the
            recipe can't have; one message lists every problem, up to ten.

    Examples:
        >>> import weakseg
        >>> recipe = weakseg.load_recipe("refined_pixel_labeling_cpu", ["svm.cycles=0"])
        >>> [step.name for step in recipe.steps][-2:]
        ['svm', 'svm+crf']
    """
    values = _parse(_read(name_or_path), name_or_path)
    for override in overrides:
        _apply(values, override)
    return check_recipe(values, name_or_path)


def check_recipe(values: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe's values; `origin` names them in the error.

    Raises:
        WeaksegError: lists every problem, up to ten.
    """
    if "steps" not in values and (old := _OLD_SECTIONS.intersection(values)):
        raise WeaksegError(
            f"Recipe {origin} has the form of an older weakseg ({', '.join(sorted(old))} beside "
            "data). Write each of these as a step with its kind and what it reads, such as "
            "`steps: {svm: {kind: svm, of: localize, ...}}`; a shipped recipe shows all of them."
        )
    problems: list[str] = []
    steps = values.get("steps")
    frame = _validated(
        Frame, {key: value for key, value in values.items() if key != "steps"}, "", problems
    )
    checked: list[Step] = []
    if isinstance(steps, dict) and any(value is not None for value in steps.values()):
        checked = _check_steps({k: v for k, v in steps.items() if v is not None}, problems)
    else:
        problems.append("steps: expected named steps, such as `classify: {kind: classifier, ...}`")
    if problems:
        shown = problems[:_MOST_PROBLEMS]
        if more := len(problems) - len(shown):
            shown.append(f"and {more} more")
        raise WeaksegError(f"Recipe {origin}: {'; '.join(shown)}.")
    return Recipe(frame.seed, frame.data, tuple(checked), frame.report)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    values = {
        "seed": recipe.seed,
        "data": recipe.data.model_dump(mode="json"),
        "steps": {step.name: _dumped(step) for step in recipe.steps},
        "report": recipe.report.model_dump(mode="json"),
    }
    return yaml.safe_dump(values, sort_keys=False)


def dump_settings(kind: Kind, settings: Any) -> dict[str, Any]:
    """A step's settings as JSON values."""
    values: dict[str, Any] = TypeAdapter(kind.settings).dump_python(settings, mode="json")
    return values


def _dumped(step: Step) -> dict[str, Any]:
    names = [given.name for _, given in step.inputs]
    of = {"of": names[0] if len(names) == 1 else names} if names else {}
    keep = {} if step.kept else {"keep": False}
    return {"kind": step.kind.name, **of, **keep, **dump_settings(step.kind, step.settings)}


def _check_steps(steps: Mapping[Any, Any], problems: list[str]) -> list[Step]:
    """The steps in an order in which they can run, as far as they have no problem."""
    alone: dict[str, Step] = {}
    of: dict[str, tuple[str, ...]] = {}
    spelled: dict[str, str] = {}
    for name, values in steps.items():
        if read := _read_step(name, values, steps, problems):
            alone[name], of[name] = read
            if (other := spelled.setdefault(name.lower(), name)) != name:
                problems.append(
                    f"{other} and {name} differ by case alone, and would share a folder on "
                    "macOS and Windows: rename one of them"
                )
    built: dict[str, Step] = {}
    for name in _ordered(of, problems):
        if alone[name].settings is None or any(other not in built for other in of[name]):
            continue  # which is said already
        inputs = _fill(alone[name], [built[other] for other in of[name]], problems)
        if inputs is not None:
            built[name] = replace(alone[name], inputs=tuple(inputs))
    problems += _unkept_faults(list(built.values()))
    return list(built.values())


def _read_step(
    name: Any, values: Any, steps: Mapping[Any, Any], problems: list[str]
) -> tuple[Step, tuple[str, ...]] | None:
    """A step without inputs, and the names of those that it wants; its settings None at fault."""
    if not isinstance(name, str) or not _STEP_NAME.fullmatch(name) or name.lower() in RESERVED:
        problems.append(
            f"{shortened(repr(name))} can't be a step's name, for which there are letters, digits "
            f"and + - _ (and which is none of {', '.join(sorted(RESERVED))})"
        )
        return None
    others = [other for other in steps if isinstance(other, str) and other != name]
    if not isinstance(values, dict):
        meant = _where_else(name, steps)
        problems.append(f"{name}: expected a step, such as {{kind: crf, of: svm}}{meant}")
        return None
    if "kind" not in values:
        whole = [one for one in others if isinstance(steps[one], dict) and "kind" in steps[one]]
        hint = nearest(name, whole)
        meant = f" (did you mean the step {hint}?)" if hint else ""
        problems.append(
            f"{name}: it has no kind{meant}; the kinds are {listed(list(KINDS), _MOST_KINDS)}: "
            "see weakseg list kinds"
        )
        return None
    kind = KINDS.get(values["kind"]) if isinstance(values["kind"], str) else None
    if kind is None:
        problems.append(f"{name}: {_unknown('kind', values['kind'], KINDS)}")
        return None
    of = values.get("of", ())
    names = tuple(of) if isinstance(of, list | tuple) else (of,)
    for other in names:
        if other != name and other not in others:
            problems.append(f"{name}.of: {_unknown('step', other, others)}")
    keep = values.get("keep", True)
    if not isinstance(keep, bool):
        problems.append(f"{name}.keep: expected true or false, given {shortened(repr(keep))}")
        keep = True
    own = {key: value for key, value in values.items() if key not in ("kind", "of", "keep")}
    settings = _validated(kind.settings, own, name, problems, kind, steps)
    return Step(name, kind, settings, (), Path(), 0, 0, "cpu", keep), tuple(map(str, names))


def _unknown(what: str, given: Any, known: Sequence[str] | Mapping[str, Any]) -> str:
    hint = nearest(given, known) if isinstance(given, str) else None
    meant = f" (did you mean {hint}?)" if hint else ""
    there = listed(list(known), _MOST_NAMES)
    return f"there is no {what} {shortened(repr(given))}{meant}; there are {there}"


def _ordered(of: Mapping[str, Sequence[str]], problems: list[str]) -> list[str]:
    """Names, each after those that it reads, and else in the recipe's order."""
    ordered: dict[str, None] = {}
    while waiting := [name for name in of if name not in ordered]:
        ready = (n for n in waiting if all(o in ordered or o not in of for o in of[n]))
        if (following := next(ready, None)) is None:
            names = listed(waiting, _MOST_NAMES)
            problems.append(f"{names}: each waits for another of them, or for itself, by its `of`")
            break
        ordered[following] = None
    return list(ordered)


def _fill(one: Step, given: Sequence[Step], problems: list[str]) -> list[tuple[str, Step]] | None:
    """What goes into which slot, by what it gives and by the order of `of`."""
    left, filled = list(given), []
    for slot in one.kind.takes:
        count = 0
        while left and left[0].gives & slot.accepts and (slot.several or not count):
            filled.append((slot.name, left.pop(0)))
            count += 1
        if count < (2 if slot.several else 1) and not (slot.optional and not count):
            problems.append(f"{one.name}.of: {_wanted(one, slot, given, left)}")
            return None
    if left:
        takes = "nothing" if not one.kind.takes else "no more"
        problems.append(
            f"{one.name}.of: kind {one.kind.name} takes {takes}, and is given {left[0].name}, "
            f"which gives {_gives(left[0])}"
        )
        return None
    return filled


def _wanted(one: Step, slot: Slot, given: Sequence[Step], left: Sequence[Step]) -> str:
    wanted = " or ".join(sorted(artefact.value for artefact in slot.accepts))
    several = "two or more of " if slot.several else ""
    said = f"kind {one.kind.name} takes {several}{wanted}"
    if left:
        return f"{said}, and {left[0].name} gives {_gives(left[0])}"
    return f"{said}, {'and no step is named' if not given else 'and too few are named'}"


def _gives(step: Step) -> str:
    return " and ".join(sorted(artefact.value for artefact in step.gives))


def _unkept_faults(steps: Sequence[Step]) -> Iterator[str]:
    """What is wrong with steps whose files are not written."""
    for step in steps:
        if step.kept:
            continue
        readers = [other for other in steps if any(one is step for _, one in other.inputs)]
        by_photo = [other.name for other in readers if other.kind.work]
        if step.kind.work is None:
            yield f"{step.name}.keep: a step of kind {step.kind.name} has to be kept"
        elif len(readers) != 1:
            names = listed([other.name for other in readers], _MOST_NAMES) or "none"
            yield (
                f"{step.name}.keep: what is not kept is computed by the one step that reads it; "
                f"here these do: {names}. Keep it, or leave the others out ({step.name}.keep=true, "
                "or STEP=null)"
            )
        elif not by_photo:
            yield f"{step.name}.keep: {readers[0].name} reads its files, so that it has to be kept"
        elif readers[0].tags is not step.tags:
            yield (
                f"{step.name}.keep: {readers[0].name} sees other tags than it, so that it has to "
                "be kept"
            )


def _validated(
    settings: Any,
    values: Any,
    place: str,
    problems: list[str],
    kind: Kind | None = None,
    steps: Mapping[Any, Any] | None = None,
) -> Any:
    try:
        return TypeAdapter(settings).validate_python(values)
    except ValidationError as error:
        for problem in _causes(error.errors()):
            problems.append(_describe(problem, place, _schema(settings), kind, steps or {}))
        return None


@cache
def _schema(settings: Any) -> dict[str, Any]:
    return TypeAdapter(settings).json_schema()


def _read(name_or_path: str) -> str:
    if name_or_path in shipped_recipes():
        return (files("weakseg") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown_name("recipe", name_or_path, shipped_recipes())
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeaksegError(f"The recipe {path} can't be read: {error}.") from error


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        values = safe_yaml.parse(text)
    except ValueError as error:
        raise WeaksegError(f"{origin} is no YAML: {error}.") from error
    if not isinstance(values, dict):
        raise WeaksegError(f"{origin} is no recipe: expected `steps:` with named steps.")
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    given = quoted(override)
    parts = key.split(".")
    if not equals or not all(parts):
        raise WeaksegError(f"Override {given}: expected step.key=value.")
    if parts[0] not in ("data", "report", "steps") and (len(parts) > 1 or parts[0] != "seed"):
        parts = ["steps", *parts]
    *sections, last = parts
    node = values
    for section in sections:
        if node.get(section) is None:
            node[section] = {}
        node = node[section]
        if not isinstance(node, dict):
            raise WeaksegError(f"Override {given}: {quoted(section)} is a value, no section.")
    try:
        node[last] = safe_yaml.parse(text)
    except ValueError as error:
        raise WeaksegError(f"Override {given}: the value is no YAML: {error}.") from error


def _causes(problems: Sequence[Any]) -> list[Any]:
    """Without the lists that are too short only because an item of them is wrong."""
    within = {problem["loc"][:-1] for problem in problems}
    return [p for p in problems if p["type"] != "too_short" or p["loc"] not in within]


def _describe(
    problem: Any,
    place: str,
    schema: dict[str, Any],
    kind: Kind | None,
    steps: Mapping[Any, Any],
) -> str:
    alternatives = _alternatives(schema)
    parts = [str(part) for part in problem["loc"] if part not in alternatives]
    where = shortened(".".join([*([place] if place else []), *parts]))
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_beside(problem["loc"], schema)
        meant = ""
        if len(problem["loc"]) == 1:
            known = ["kind", "of", "keep", *known] if kind else ["steps", *known]
            meant = _where_else(parts[0], steps)
        if not meant and (hint := nearest(str(problem["loc"][-1]), known)):
            meant = f" (did you mean {hint}?)"
        section = where.rpartition(".")[0] or "a recipe"
        of_kind = f", of kind {kind.name}," if kind and len(problem["loc"]) == 1 else ""
        return f"unknown key {where}{meant}; {section}{of_kind} has {', '.join(known)}"
    message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "list: [a, b]")
    said = problem["type"] in ("missing", "value_error")
    given = "" if said else f", given {shortened(repr(problem['input']))}"
    if problem["type"] == "string_type" and not isinstance(problem["input"], dict | list):
        given += "; what YAML reads as yes or no, a number or a date needs quotes to be a name"
    return f"{where}: {message}{given}" if where else message


def _where_else(key: str, steps: Mapping[Any, Any]) -> str:
    """Which steps of a recipe have a key that another has not."""
    places = [
        f"{name}.{key}"
        for name, values in steps.items()
        if isinstance(values, dict)
        and (kind := KINDS.get(str(values.get("kind"))))
        and key in _schema(kind.settings).get("properties", ())
    ]
    return f" (did you mean {' or '.join(places[:3])}?)" if places else ""


def _alternatives(schema: Any) -> frozenset[str]:
    """Parts of a problem's place that tell which of several kinds a section was taken for."""
    if isinstance(schema, list):
        return frozenset().union(*map(_alternatives, schema))
    if not isinstance(schema, dict):
        return frozenset()
    own = schema.get("discriminator", {}).get("mapping", ())
    return frozenset(own).union(*map(_alternatives, schema.values()))


def _keys_beside(place: Sequence[str | int], schema: dict[str, Any]) -> list[str]:
    """The keys of the section that a key, known or not, stands in."""
    sections, alternatives = [schema], _alternatives(schema)
    for part in place[:-1]:
        if part in alternatives:
            sections = [s for s in sections if s["properties"]["name"]["const"] == part]
        else:
            sections = [inner for section in sections for inner in _inside(section, part, schema)]
    return list(dict.fromkeys(key for section in sections for key in section["properties"]))


def _inside(
    section: dict[str, Any], part: str | int, schema: dict[str, Any]
) -> list[dict[str, Any]]:
    """What `part` of a section may be, of a JSON schema; only what has keys."""
    found, places = [], [section["properties"][part]]
    for place in places:
        places += [*place.get("anyOf", ()), *place.get("oneOf", ())]
        if "$ref" in place:
            places.append(schema["$defs"][place["$ref"].rpartition("/")[2]])
        if "properties" in place:
            found.append(place)
    return found
