import io
import time

import pytest

from weakseg import progress
from weakseg.progress import LineProgress, Silence, progress_for


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    shown = progress_for(stream)
    assert isinstance(shown, LineProgress)
    with shown.track("svm", total=24, done=4) as advance:
        for _ in range(20):
            clock.now += 5
            advance(1)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "svm: 7/24",
        "svm: 10/24",
        "svm: 13/24",
        "svm: 16/24, 0.2/s, 40 s left",
        "svm: 19/24, 0.2/s, 25 s left",
        "svm: 22/24, 0.2/s, 10 s left",
        "svm: 24/24, 0.2/s",
    ]


@pytest.mark.parametrize("seconds", [0.25, 2])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_time_left_is_told_before_it_has_settled(
    terminal: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first item takes as long as workers need to start; others tell what is left."""
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    clock, stream = Clock(monkeypatch), Terminal() if terminal else io.StringIO()
    with progress_for(stream).track("inspect", total=160) as advance:
        clock.now += 21
        advance(1)
        for _ in range(9):
            clock.now += seconds
            advance(1)
        assert "left" not in stream.getvalue()
        for _ in range(10):
            clock.now += seconds
            advance(1)
    expected = (
        f"{140 * seconds:.0f} s left"
        if not terminal
        else ("0:04:40" if seconds == 2 else "0:00:35")
    )
    assert expected in stream.getvalue()


def test_bars_on_a_terminal() -> None:
    stream = Terminal()
    with progress_for(stream).track("svm", total=2) as advance:
        advance(1)
        advance(1)
    assert "2/2" in stream.getvalue()


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    silence = Silence()
    silence.say("words")
    with silence.track("svm", total=2) as advance:
        advance(2)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("búho ☂ \u200d a/b.png: 3 of 4", "búho ☂ \u200d a/b.png: 3 of 4"),
        ("a\x1b[2J\x07b", "a\\x1b[2J\\x07b"),
        ("a\u202egnp.b", "a\\u202egnp.b"),
        ("a\u2028b\rc", "a\\u2028b\\rc"),
    ],
)
def test_what_would_command_a_terminal_is_escaped(text: str, shown: str) -> None:
    stream = io.StringIO()
    LineProgress(stream).say(text)
    assert stream.getvalue() == f"{shown}\n"
