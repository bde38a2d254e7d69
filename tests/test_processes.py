import multiprocessing
import subprocess
import sys
from pathlib import Path

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


@HAS_FORKS
def test_fresh_processes_see_the_environment_and_no_script_and_end_with_their_parent(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        said = [parent.stdout.readline().strip() for _ in range(4)]
        assert said == ["script", "one", "two", "waiting"]
        parent.kill()
        rest, _ = parent.communicate(timeout=60)  # their end of the pipe is closed as well
    assert rest == ""


@HAS_FORKS
def test_a_fork_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORK)
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "waiting"
        parent.kill()
        parent.communicate(timeout=60)
