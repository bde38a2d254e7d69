"""YAML that people write by hand: small, without surprises, or refused in one line."""

from collections import Counter
from typing import Any

import yaml

from weakseg.errors import quoted, shortened

MOST_CHARACTERS = 100_000
"""A recipe has some thousand; PyYAML takes seconds for more than this."""

MOST_VALUES = 10_000
"""Aliases can make billions of values of a few lines."""


def parse(text: str) -> Any:
    """The values of a document, of which no two share a part.

    Raises:
        ValueError: in one line, what is wrong and where: no YAML, a value that is not of the type
            that it looks like, a key that is there twice, aliases that hold themselves or come to
            more than `MOST_VALUES`.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check(node, {})
            return _unshared(loader.construct_document(node))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(shortened(str(error.problem or error.context), 200) + where) from None
    except yaml.YAMLError as error:
        raise ValueError(shortened(str(error), 200)) from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:  # int("x"), a 99th month: each type has its own ways to fail
            kind = node.tag.rpartition(":")[2]
            raise _error(f"{quoted(str(node.value))} is no {kind}", node) from None


def _check(node: yaml.Node, sizes: dict[yaml.Node, int]) -> int:
    """How many values a node stands for once its aliases are written out."""
    if node in sizes:
        if not sizes[node]:
            raise _error("a value holds itself", node)
        return sizes[node]
    sizes[node] = 0  # under way
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                raise _error(f"the key {quoted(key)} is there {count} times", node)
        inner = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    size = 1 + sum(_check(part, sizes) for part in inner)
    if size > MOST_VALUES:
        raise _error(f"it comes to more than {MOST_VALUES:,} values", node)
    sizes[node] = size
    return size


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _unshared(value: Any) -> Any:
    """A copy in which what YAML's aliases share stands for itself, to be overridden alone."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value
