import io

import pytest

from weakseg import progress
from weakseg.progress import LineProgress, progress_for


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(float(second) for second in range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    stream = io.StringIO()
    shown = progress_for(stream)
    assert isinstance(shown, LineProgress)
    with shown.track("svm", total=10, done=4) as advance:
        for _ in range(6):
            advance(1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "svm: 6/10, 0.1/s, 40 s left"
    assert lines[-1].startswith("svm: 10/10") and "left" not in lines[-1]
    assert len(lines) == 3


def test_bars_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress_for(stream).track("svm", total=2) as advance:
        advance(1)
        advance(1)
    assert "2/2" in stream.getvalue()
