import subprocess
import sys
from pathlib import Path

import pytest

from weakseg.refine import compiled as module

SCRIPT = """
from weakseg.refine.compiled import compiled


@compiled
def inner(number):
    return number + 1


@compiled
def outer(number):
    return inner(number) * 2


print(outer(3), sum(outer.stats.cache_hits.values()))
"""


def test_compiles_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folder(function: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(module, "_Cache", no_folder)

    @module.compiled
    def double(number: int) -> int:
        return 2 * number

    assert double(3) == 6


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_what_is_broken_in_the_cache_is_compiled_anew(tmp_path: Path, suffix: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def run() -> str:
        command = [sys.executable, str(script)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run() == "8 0\n"
    assert run() == "8 1\n"
    broken = list((tmp_path / "__pycache__").glob(f"*{suffix}"))
    assert broken
    for file, kept in zip(broken, (0, 10), strict=False):
        file.write_bytes(file.read_bytes()[:kept])
    assert run() == "8 0\n"
    assert run() == "8 1\n"
