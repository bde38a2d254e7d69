import itertools

import pytest

from weakseg.safe_yaml import MOST_CHARACTERS, parse


def _bomb(levels: int = 9, width: int = 9) -> str:
    names = [f"x{level}" for level in range(levels)]
    lines = [f"{names[0]}: &{names[0]} [{', '.join(['lol'] * width)}]"]
    for below, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{below}'] * width)}]")
    return "\n".join(lines)


MERGES = "a: &a {x: 1}\n" + "\n".join(
    f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}' if i else '*a'] * 9)}]}}" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [1", "in line 1"),
        ("a: 1\nb: 2001-99-99", "'2001-99-99' is no timestamp in line 2"),
        ("a: !!int x", "'x' is no int in line 1"),
        ("a: !!int ''", "is no int"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ("a: !!float [1]", "expected a scalar node"),
        ("a: !!python/object:os.system {}", "could not determine a constructor"),
        (f"a: {'1' * 5000}", "is no int"),
        ("a: {[1]: 2}", "unhashable"),
        ("a: *b", "undefined alias"),
        ("a: {<<: 3}", "for merging"),
        ("a: \0", "special characters"),
        ("[" * 1000, "nested too deeply"),
        ("[" * 1000 + "]" * 1000, "nested too deeply"),
        ("a: &a [*a]", "holds itself in line 1"),
        ("a: &a {b: {c: *a}}", "holds itself"),
        ("a: 1\nb: 2\na: 3", "the key 'a' is there 2 times in line 1"),
        ("a:\n  b: {c: 1, c: 1}", "the key 'c' is there 2 times in line 2"),
        (_bomb(), "more than 10,000 values"),
        (MERGES, "more than 10,000 values"),
        ("a: " + "b" * MOST_CHARACTERS, "100,003 characters"),
        (f"*{'b' * 50_000}", "undefined alias"),
    ],
)
def test_what_is_refused_is_said_in_one_short_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message and len(message) < 300


def test_aliases_and_merges_are_written_out() -> None:
    values = parse("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}")
    assert values == {"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}}
    values["b"]["y"].append(4)
    assert values["a"]["y"] == values["c"]["y"] == [2]


def test_nothing_is_none() -> None:
    assert parse("") is None
