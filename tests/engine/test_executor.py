import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from weakseg.engine.executor import (
    InProcessExecutor,
    LocalExecutor,
    ThreadExecutor,
    network_executor,
)
from weakseg.errors import WeaksegError


@dataclass(frozen=True)
class Squares:
    def __call__(self) -> Callable[[int], tuple[int, int, int]]:
        made = []

        def work(item: int) -> tuple[int, int, int]:
            made.append(item)
            return item**2, len(made), torch.get_num_threads()

        return work


@dataclass(frozen=True)
class Scaled:
    by: Mapping[str, int]

    def __call__(self) -> Callable[[int], int]:
        return lambda item: item * self.by["factor"]


@dataclass(frozen=True)
class Failing:
    kill: bool

    def __call__(self) -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 5:
                if self.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise WeaksegError("five is no number")
            return item

        return work


def test_results_come_in_order_from_single_threaded_workers_that_keep_what_they_made() -> None:
    with LocalExecutor(2) as executor:
        results = list(executor.map(Squares(), range(40)))
        again = list(executor.map(Squares(), range(2)))
        executor.rest()
        anew = list(executor.map(Squares(), range(20)))
    assert [square for square, _, _ in results] == [i**2 for i in range(40)]
    assert max(count for _, count, _ in results) >= 20
    assert {threads for _, _, threads in results} == {1}
    assert max(count for _, count, _ in again) > 1
    assert anew[0][1] == 1


def test_workers_may_be_given_what_has_no_hash() -> None:
    with LocalExecutor(1) as executor:
        assert list(executor.map(Scaled({"factor": 3}), range(12))) == list(range(0, 36, 3))
        assert list(executor.map(Scaled({"factor": 2}), range(12))) == list(range(0, 24, 2))


@dataclass(frozen=True)
class Processes:
    def __call__(self) -> Callable[[int], int]:
        return lambda item: os.getpid()


def test_few_items_need_no_worker_and_leave_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with LocalExecutor(2) as executor:
            here = list(executor.map(Squares(), range(8)))
            assert set(executor.map(Processes(), range(8))) == {os.getpid()}
            assert list(executor.map(Squares(), [])) == []
            elsewhere = set(executor.map(Processes(), range(9)))
            assert set(executor.map(Processes(), range(2))) <= elsewhere
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert here == [(item**2, item + 1, 1) for item in range(8)]
    assert os.getpid() not in elsewhere


IMPORTED = """
import sys
from dataclasses import dataclass

from weakseg.engine import evaluate, panels
from weakseg.engine.executor import LocalExecutor
from weakseg.methods import KINDS


@dataclass(frozen=True)
class Imported:
    def __call__(self):
        return lambda item: {"torch", "timm", "lightning"} & set(sys.modules)


if __name__ == "__main__":
    with LocalExecutor(1) as executor:
        print(*set().union(*executor.map(Imported(), range(9))))
"""


def test_a_worker_that_needs_no_network_imports_no_pytorch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(IMPORTED)
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


@dataclass(frozen=True)
class Meeting:
    """Each item waits for another one to be under way."""

    def __call__(self) -> Callable[[int], int]:
        two = threading.Barrier(2)

        def work(item: int) -> int:
            two.wait(timeout=60)
            return item

        return work


def test_threads_leave_what_comes_after_an_error() -> None:
    done = []

    def work(item: int) -> None:
        done.append(item)
        if item == 0:
            raise WeaksegError("nought")

    with pytest.raises(WeaksegError, match="nought"):
        list(ThreadExecutor().map(lambda: work, range(10_000)))
    assert len(done) < 10


def test_threads_work_at_once_and_give_results_in_order() -> None:
    assert list(ThreadExecutor().map(Meeting(), range(40))) == list(range(40))
    assert list(ThreadExecutor().map(Meeting(), [])) == []
    squares = [square for square, _, _ in ThreadExecutor().map(Squares(), range(40))]
    assert squares == [i**2 for i in range(40)]


@dataclass(frozen=True)
class Environment:
    def __call__(self) -> Callable[[str], str]:
        return lambda name: os.environ[name]


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", None, "256"),
        ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "7", "7"),
        ("THP_MEM_ALLOC_ENABLE", None, "1"),
        ("THP_MEM_ALLOC_ENABLE", "0", "0"),
    ],
)
def test_how_workers_use_memory_unless_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, name: str, own: str | None, expected: str
) -> None:
    monkeypatch.setenv(name, own or "")  # so that it is as before, after the test
    if not own:
        monkeypatch.delenv(name)
    with LocalExecutor(1) as executor:
        assert set(executor.map(Environment(), [name] * 9)) == {expected}


def test_an_error_of_a_worker_is_the_callers() -> None:
    with LocalExecutor(2) as executor, pytest.raises(WeaksegError, match="five is no number"):
        list(executor.map(Failing(kill=False), range(20)))
    with pytest.raises(WeaksegError, match="five is no number"):
        list(InProcessExecutor().map(Failing(kill=False), range(20)))
    with pytest.raises(WeaksegError, match="five is no number"):
        list(ThreadExecutor().map(Failing(kill=False), range(20)))


def test_a_killed_worker_is_one_clear_error() -> None:
    with LocalExecutor(1) as executor, pytest.raises(WeaksegError, match="--workers 1"):
        list(executor.map(Failing(kill=True), range(20)))


NO_GUARD = """
from weakseg.engine.executor import LocalExecutor
from test_executor import Squares

with LocalExecutor(1) as executor:
    print(len(list(executor.map(Squares(), range(10)))) == 10)
"""

OWN_WORK = """
from dataclasses import dataclass
from weakseg.engine.executor import LocalExecutor

@dataclass(frozen=True)
class Squares:
    def __call__(self):
        return lambda number: number * number
"""


def _run_script(text: str, script: Path | None) -> "subprocess.CompletedProcess[str]":
    """As a file, or from standard input."""
    if script:
        script.write_text(text)
    return subprocess.run(
        [sys.executable, str(script or "-")],
        input=None if script else text,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])},
        check=False,
    )


@pytest.mark.parametrize("from_file", [True, False])
def test_a_script_needs_no_guard_for_what_workers_can_import(
    tmp_path: Path, from_file: bool
) -> None:
    ran = _run_script(NO_GUARD, tmp_path / "script.py" if from_file else None)
    assert ran.stdout == "True\n", ran.stderr


def test_a_script_with_a_guard_may_define_the_work(tmp_path: Path) -> None:
    body = NO_GUARD.partition("\n\n")[2].replace("with", "if __name__ == '__main__':\n  with", 1)
    ran = _run_script(OWN_WORK + body.replace("    print", "      print"), tmp_path / "script.py")
    assert ran.stdout == "True\n", ran.stderr


LATER = """
import test_executor

if __name__ == "__main__":
    with LocalExecutor(1) as executor:
        found = [
            list(executor.map(make, range(10)))
            for make in (test_executor.Squares(), Squares(), test_executor.Squares())
        ]
    print([len(one) for one in found])
"""


def test_workers_that_began_without_a_scripts_work_make_way_for_some_that_know_it(
    tmp_path: Path,
) -> None:
    ran = _run_script(OWN_WORK + LATER, tmp_path / "script.py")
    assert ran.stdout == "[10, 10, 10]\n", ran.stderr


@pytest.mark.parametrize("from_file", [True, False])
def test_a_script_whose_work_workers_cant_import_is_told_so(
    tmp_path: Path, from_file: bool
) -> None:
    body = NO_GUARD.partition("\n\n")[2]
    ran = _run_script(OWN_WORK + body, tmp_path / "script.py" if from_file else None)
    last = ran.stderr.splitlines()[-1]
    assert "WeaksegError" in last and 'if __name__ == "__main__"' in last
    assert "a file that they can import" in last and "memory" not in last


def test_workers_start_where_a_system_holds_no_signals_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    monkeypatch.setattr("multiprocessing.resource_tracker._HAVE_SIGMASK", False)
    with LocalExecutor(1) as executor:
        assert os.getpid() not in set(executor.map(Processes(), range(9)))


def test_only_a_gpu_has_an_executor_of_its_own() -> None:
    with LocalExecutor(1) as executor:
        assert network_executor(executor, "cpu") is executor
        on_gpu = network_executor(executor, "cuda:0")
    assert isinstance(on_gpu, ThreadExecutor) and on_gpu.workers == 2


@dataclass(frozen=True)
class Unknown:
    """Importable here, and in no worker."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _only_here, ()

    def __call__(self) -> Callable[[int], int]:
        return abs


def _only_here() -> Unknown:
    if multiprocessing.parent_process() is not None:
        raise AttributeError("it is in no file")
    return Unknown()


def test_what_workers_cant_import_is_no_want_of_memory() -> None:
    with (
        LocalExecutor(1) as executor,
        pytest.raises(WeaksegError, match="a file that they can import"),
    ):
        list(executor.map(Unknown(), range(20)))


INTERRUPTED = """
from dataclasses import dataclass
from pathlib import Path

from weakseg.engine.executor import LocalExecutor


@dataclass(frozen=True)
class Same:
    def __call__(self):
        return abs


class Items(list):
    def __iter__(self):
        yield from range(9)
        print("workers start", flush=True)
        while True:  # reading would go on waiting after an interrupt that comes just before
            pass


if __name__ == "__main__":
    try:
        with LocalExecutor(2) as executor:
            list(executor.map(Same(), Items()))
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_ctrl_c_while_workers_start_is_the_parents_alone(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "workers start\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = (
        "from weakseg.engine.executor import LocalExecutor\n"
        "from test_executor import Squares\n"
        "if __name__ == '__main__':\n"
        "    with LocalExecutor(2) as executor:\n"
        "        list(executor.map(Squares(), range(9)))\n"
        "        print('working', flush=True)\n"
        "        input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "working\n"
        parent.kill()
        rest, _ = parent.communicate(timeout=60)  # the workers' end of the pipe is closed as well
    assert rest == ""
