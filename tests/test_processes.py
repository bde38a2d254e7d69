import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

SCRIPT = """
import os
from weakseg.processes import FreshProcesses

print("script", flush=True)
context = FreshProcesses("weakseg.errors")
for value in ("one", "two"):
    os.environ["VALUE"] = value
    process = context.Process(target=exec, args=("import os; print(os.environ['VALUE'])",))
    process.start()
    process.join()
queue = context.Queue()
context.Process(target=queue.get).start()
print("waiting", flush=True)
input()
"""


FORK = """
import multiprocessing
from weakseg.processes import end_with_parent

context = multiprocessing.get_context("fork")
queue = context.Queue()

def wait():
    end_with_parent()
    print("waiting", flush=True)
    queue.get()

context.Process(target=wait).start()
input()
"""

HAS_FORKS = pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="there are no forks"
)


@contextmanager
def _started(script: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    path = folder / "script.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        yield parent, parent.stdout


@HAS_FORKS
def test_fresh_processes_see_the_environment_and_no_script_and_end_with_their_parent(
    tmp_path: Path,
) -> None:
    with _started(SCRIPT, tmp_path) as (parent, said):
        assert [said.readline().strip() for _ in range(4)] == ["script", "one", "two", "waiting"]
        parent.kill()
        rest, _ = parent.communicate(timeout=60)  # their end of the pipe is closed as well
    assert rest == ""


@HAS_FORKS
def test_a_fork_ends_with_its_parent(tmp_path: Path) -> None:
    with _started(FORK, tmp_path) as (parent, said):
        assert said.readline().strip() == "waiting"
        parent.kill()
        parent.communicate(timeout=60)
