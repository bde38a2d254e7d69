"""Errors that a user can cause, and how they read."""

import difflib
from collections.abc import Iterable


class WeaksegError(Exception):
    """An error that the user can cause and mend.

    The message is one line: what was given, what was expected, the remedy. The command line
    prints it and exits with code 2; everything else that is raised is a defect of the program.
    """


def shortened(text: str, most: int = 60) -> str:
    """A text on one line, cut to `most` characters: what was given may be a whole file."""
    line = " ".join(text[: 2 * most].split())
    return line if len(text) <= most else f"{line[:most]}..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, or None."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> WeaksegError:
    """Error for a name that no registry holds; lists the known names and the nearest one."""
    names = sorted(known)
    hint = nearest(name, names)
    suggestion = f" Did you mean {hint!r}?" if hint else ""
    listed = shortened(", ".join(names), 500)
    return WeaksegError(f"Unknown {kind} {shortened(name)!r}.{suggestion} Known: {listed}.")
