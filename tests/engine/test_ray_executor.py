import itertools
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import yaml

from tiny import Lines, masks, tiny_recipe, tiny_values
from weakseg.engine import ray_executor, runner
from weakseg.engine.executor import executor_named, network_executor
from weakseg.engine.ray_executor import RayExecutor
from weakseg.errors import WeaksegError
from weakseg.memory import cores_here
from weakseg.methods.base import Executor, Item, Result
from weakseg.names import RAY
from weakseg.version import VERSION

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]

COMMAND = [sys.executable, "-m", "weakseg"]


def _run(data: Path, out: Path, *options: str, **environment: str) -> Path:
    recipe = out.with_name("tiny.yaml")
    recipe.write_text(yaml.safe_dump(tiny_values()))
    command = [*COMMAND, "run", recipe, "--data", data, "--out", out, "--workers", "2", *options]
    ran = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "raylet" not in ran.stdout
    return out


def test_a_run_on_ray_has_the_same_bytes_and_leaves_nothing_behind(
    photos: Path, finished: Path, tmp_path: Path
) -> None:
    with TemporaryDirectory() as short:  # paths of sockets are short
        places = {"HOME": str(tmp_path), "TMPDIR": short}
        out = _run(photos, tmp_path / "out", "--executor", "ray", **places)
        assert [path.name for path in Path(short).iterdir() if "weakseg" in path.name] == []
    assert masks(out) == masks(finished)
    assert (out / "metrics.json").read_bytes() == (finished / "metrics.json").read_bytes()
    assert not (tmp_path / ".ray").exists()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node on this machine, of one core, to which others can be added."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # loopback alone
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # which Ray reads when it is imported
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # nodes import this file
        from ray.cluster_utils import Cluster

        options = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=options)
        yield cluster
        cluster.shutdown()


@dataclass(frozen=True)
class Squares:
    def __call__(self) -> Callable[[int], tuple[int, int, int, int]]:
        made = []

        def work(item: int) -> tuple[int, int, int, int]:
            made.append(item)
            return item**2, len(made), torch.get_num_threads(), os.getpid()

        return work


@dataclass(frozen=True)
class Failing:
    """Ends its process at item 30: always, or until there is a file; or fails there."""

    ended: Path | None = None
    always: bool = False

    def __call__(self) -> Callable[[int], int]:
        def work(item: int) -> int:
            if item == 30:
                if self.ended is None:
                    raise WeaksegError("thirty is no number")
                if self.always or not self.ended.exists():
                    self.ended.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            return item

        return work


class Losing(RayExecutor):
    """Has a second node, and loses it after some results."""

    def __init__(self, cluster: Any, after: int) -> None:
        super().__init__(address=cluster.address)
        self._nodes, self._second = cluster, cluster.add_node(num_cpus=1, object_store_memory=2**27)
        self.left = after

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        for result in super().map(make, items):
            self.left -= 1
            if self.left == 0:
                self._nodes.remove_node(self._second, allow_graceful=False)
            yield result


def test_actors_keep_what_they_made_and_are_replaced(
    cluster: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with RayExecutor(address=cluster.address) as executor:
        assert executor.workers == 1
        few = list(executor.map(Squares(), range(8)))
        results = list(executor.map(Squares(), range(200)))
        with pytest.raises(WeaksegError, match=r"^thirty is no number$"):
            list(executor.map(Failing(), range(60)))
        ended = tmp_path / "ended"
        assert list(executor.map(Failing(ended), range(60))) == list(range(60))
        assert ended.exists()
        with pytest.raises(WeaksegError, match="workers of Ray have ended over the same photos"):
            list(executor.map(Failing(ended, always=True), range(60)))
    assert {process for *_, process in few} == {os.getpid()}
    assert [square for square, *_ in results] == [item**2 for item in range(200)]
    assert {threads for _, _, threads, _ in results} == {1}
    assert max(made for _, made, _, _ in results) > 64
    assert os.getpid() not in {process for *_, process in results}
    assert capfd.readouterr().out == ""


def test_a_node_that_is_lost_loses_no_photo(
    photos: Path, finished: Path, cluster: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished / "classify", out / "classify")
    for name in ("run.json", "recipe.yaml"):
        shutil.copy(finished / name, out / name)
    with Losing(cluster, after=25) as executor:
        assert executor.workers == 2
        runner.run(tiny_recipe(), photos, out, executor, Lines(), torch.device("cpu"))
        assert executor.left < 0
    assert masks(out) == masks(finished)


def squares(executor: Executor, count: int = 40) -> list[int]:
    return [square for square, *_ in executor.map(Squares(), range(count))]


def test_actors_with_a_gpu_and_those_without_make_way_for_each_other(cluster: Any) -> None:
    expected = [item**2 for item in range(40)]
    node = cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=2**27)
    try:
        with RayExecutor(address=cluster.address) as executor:
            on_gpus = network_executor(executor, "cuda:0")
            assert on_gpus.workers == 1
            for one in (executor, on_gpus):
                assert squares(one) == expected
    finally:
        cluster.remove_node(node)


def test_a_cluster_without_a_gpu_is_told_so(cluster: Any) -> None:
    said = r"no node of the Ray cluster has a GPU\. Start nodes that have one"
    with RayExecutor(address=cluster.address) as executor, pytest.raises(WeaksegError, match=said):
        squares(network_executor(executor, "cuda"))


def test_a_cluster_may_be_that_of_the_environment(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    with RayExecutor(address="auto") as executor:
        context = executor._cluster.ray.get_runtime_context()
        assert context.gcs_address == cluster.address


def test_no_more_is_read_ahead_than_can_be_held(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_SPREAD", 1)
    read = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            read.append(item)
            yield item

    with RayExecutor(address=cluster.address) as executor:
        found = [square for square, *_ in itertools.islice(executor.map(Squares(), items()), 200)]
    assert found == [item**2 for item in range(200)]
    assert len(read) <= 200 + 2 * ray_executor._ITEMS


def test_a_node_of_another_version_is_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "VERSION", "another")
    said = f"^A node of the Ray cluster has weakseg {VERSION}, and this one another: install the"
    with RayExecutor(address=cluster.address) as executor, pytest.raises(WeaksegError, match=said):
        squares(executor)


def starting_once(place: Path) -> type:
    """Workers of which one starts, if that."""

    class Worker(ray_executor._Worker):
        def __init__(self) -> None:
            if place.exists():
                raise ImportError("No module named 'timm'")
            place.mkdir()
            super().__init__()

    return Worker


def test_workers_that_do_not_start_leave_the_work_to_those_that_do(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_Worker", starting_once(tmp_path / "one"))
    node = cluster.add_node(num_cpus=1, object_store_memory=2**27)
    try:
        with RayExecutor(address=cluster.address) as executor:
            failed = executor._cores._failed
            items = itertools.takewhile(
                lambda _: len(failed) < ray_executor._TRIES, itertools.count()
            )
            results = list(executor.map(Squares(), items))
            assert len(failed) == ray_executor._TRIES
    finally:
        cluster.remove_node(node)
    assert [square for square, *_ in results] == [item**2 for item in range(len(results))]
    assert len({process for *_, process in results}) == 1


def test_why_no_worker_starts_is_one_line(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_Worker", starting_once(tmp_path))
    with RayExecutor(address=cluster.address) as executor, pytest.raises(WeaksegError) as caught:
        squares(executor)
    said = str(caught.value)
    assert said == (
        "Ray starts no worker, \"ImportError: No module named 'timm'\". All nodes need this version"
        " of weakseg, with the extras that the recipe asks for here."
    )


def test_before_there_is_a_cluster_the_cores_of_this_machine_count() -> None:
    with executor_named(RAY, None, None) as executor:
        assert isinstance(executor, RayExecutor) and executor.workers == cores_here()


def test_sockets_have_a_short_path_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ray_executor._folder() as place:
        assert Path(place).is_dir() and len(place) <= ray_executor._LONGEST_PLACE
    assert not Path(place).exists()


def test_a_wrong_address_is_one_line() -> None:
    with pytest.raises(WeaksegError, match=r"no Ray cluster to connect to at '127\.0\.0\.1:1'"):
        RayExecutor(address="127.0.0.1:1").__enter__()
