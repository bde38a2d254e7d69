"""Data and runs in object storage, on a real server of this machine."""

import errno
import http.client
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import weakseg
from tiny import Lines, masks, tiny_values
from weakseg import stores
from weakseg.cli import USER_ERROR
from weakseg.data.check import check_dataset
from weakseg.data.dataset import load_dataset
from weakseg.engine import executor
from weakseg.engine.fingerprints import Digests
from weakseg.errors import WeaksegError
from weakseg.files import (
    absolute,
    read_bytes,
    read_json,
    remove,
    write_bytes,
    write_folder,
    write_text,
)

obstore = pytest.importorskip("obstore")
moto = pytest.importorskip("moto.server")
s3_backends = pytest.importorskip("moto.s3.models").s3_backends

STEPS: dict[str, Any] = {
    "given": {"kind": "folder", "holds": "masks"},
    "large": {"kind": "components", "of": "given", "least_share": 0.02},
    "few": {"kind": "tags", "only": []},
}


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    content: bytes


Forward = Callable[[], Answer]
Hear = Callable[[str, str, Forward], Answer]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class Machine(NamedTuple):
    """A machine that has a cache of its own, and a bucket."""

    use: Callable[[str], None]
    bucket: str


@pytest.fixture
def machine(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex}"
    connection = http.client.HTTPConnection(server.removeprefix("http://"))
    connection.request("PUT", f"/{bucket}")
    assert connection.getresponse().status == 200
    connection.close()

    def use(name: str) -> None:
        monkeypatch.setenv(stores.CACHE, str(tmp_path / name))
        stores._open.cache_clear()

    use("here")
    yield Machine(use, bucket)
    stores._open.cache_clear()


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "FEW", 100)


@pytest.fixture
def recipe(photos: Path, tmp_path: Path) -> Path:
    classes = [name for name in load_dataset(photos).classes]
    steps = {**STEPS, "few": {**STEPS["few"], "only": classes[:1]}}
    steps["given"] = {**STEPS["given"], "path": str(photos / "SegmentationClass")}
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump({"data": {"split": "all"}, "report": {"panels": 2}, "steps": steps})
    )
    return path


def start(recipe: Path, data: Path | str, out: Path | str) -> tuple[weakseg.Run, list[str]]:
    lines = Lines()
    return weakseg.run(recipe, data, out, workers=1, device="cpu", progress=lines), lines.said


def objects(bucket: str, folder: str) -> dict[str, bytes]:
    store = stores._open(f"s3://{bucket}", os.getpid())
    found = (meta["path"] for page in store.list(folder) for meta in page)
    return {key.removeprefix(f"{folder}/"): bytes(store.get(key).bytes()) for key in found}


def upload(folder: Path, bucket: str, name: str) -> None:
    store = stores._open(f"s3://{bucket}", os.getpid())
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(f"{name}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def pictures(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(".png")}


def test_a_run_in_a_store_has_the_masks_of_a_local_one_and_resumes_on_another_machine(
    machine: Machine, recipe: Path, photos: Path, tmp_path: Path
) -> None:
    start(recipe, photos, tmp_path / "local")
    upload(photos, machine.bucket, "data")
    data, out = f"s3://{machine.bucket}/data", f"s3://{machine.bucket}/runs/one"

    done, _ = start(recipe, data, out)
    kept = objects(machine.bucket, "runs/one")
    assert pictures(kept) == masks(tmp_path / "local")
    assert {"run.json", "recipe.yaml", "metrics.json", "report/index.html"} <= kept.keys()
    assert stores.OWNER not in kept
    assert json.loads(kept["run.json"])["data"]["folder"] == data
    assert done.figures == read_json(tmp_path / "local" / "metrics.json")["stages"]

    machine.use("elsewhere")
    again, said = start(recipe, data, out)
    assert all(f"{name}: up to date" in said for name in ("inspect", "given", "large", "evaluate"))
    assert not list((again.folder / "given").glob("*.jpg"))
    photo = again.photos("large")[0]
    assert not stores.is_here(again.folder / "large" / f"{photo}.png")
    opened = weakseg.open_run(out)
    local = weakseg.open_run(tmp_path / "local")
    assert (opened.mask(photo) == local.mask(photo)).all()
    assert stores.is_here(opened.mask_file(photo))


@pytest.mark.slow
def test_a_network_learns_from_photos_that_are_not_here_yet(
    machine: Machine, photos: Path, tmp_path: Path
) -> None:
    data, out = f"s3://{machine.bucket}/photos", f"s3://{machine.bucket}/run"
    upload(photos, machine.bucket, "photos")
    recipe = tmp_path / "recipe.yaml"
    others = dict.fromkeys(name for name in tiny_values()["steps"] if name != "classify")
    for epochs in (1, 2):
        recipe.write_text(yaml.safe_dump(tiny_values(**others, classify={"epochs": epochs})))
        _, said = start(recipe, data, out)
        machine.use("elsewhere")
    assert "inspect: up to date" in said
    place = stores.place_of(data)
    assert place is not None
    assert all(stores.is_here(photo) for photo in (place / "JPEGImages").iterdir())
    weakseg.run(recipe, photos, tmp_path / "local", workers=1, device="cpu", progress=Lines())
    network = "classify/classifier.safetensors"
    assert objects(machine.bucket, "run")[network] == (tmp_path / "local" / network).read_bytes()


def test_what_a_store_lost_is_made_again_alone(
    machine: Machine, recipe: Path, photos: Path
) -> None:
    out = f"s3://{machine.bucket}/run"
    done, _ = start(recipe, photos, out)
    before = objects(machine.bucket, "run")
    lost = f"large/{done.photos('large')[1]}.png"
    stores._open(f"s3://{machine.bucket}", os.getpid()).delete(f"run/{lost}")

    machine.use("elsewhere")
    again, said = start(recipe, photos, out)
    assert any(line.startswith("large: 1 files are not as they were written") for line in said)
    assert pictures(objects(machine.bucket, "run")) == pictures(before)
    assert stores.is_here(again.folder / lost)


def test_a_run_that_was_killed_goes_on(
    machine: Machine, recipe: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(recipe, photos, tmp_path / "local")
    out, put, count = f"s3://{machine.bucket}/run", stores.put, iter(range(1000))

    class Killed(BaseException):
        pass

    def kill(file: Path, path: Path) -> None:
        if path.suffix == ".png" and next(count) == 13:
            raise Killed
        put(file, path)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "put", kill)
        patch.setattr(stores._Owner, "leave", lambda self: self._ended.set())
        patch.setattr("os.getpid", lambda: 2**22 + 1)  # of a process that has ended
        with pytest.raises(Killed):
            start(recipe, photos, out)
    assert stores.OWNER in objects(machine.bucket, "run")
    assert len(pictures(objects(machine.bucket, "run"))) == 13

    _, said = start(recipe, photos, out)
    assert any("large: 3 of 10 done before" in line for line in said)
    assert pictures(objects(machine.bucket, "run")) == masks(tmp_path / "local")


def command(recipe: Path, data: Path, out: str, before: str = "") -> subprocess.Popen[str]:
    """`weakseg run`, in a process group of its own."""
    script = f"from weakseg import stores\n{before}\nfrom weakseg.cli import main\nmain()"
    arguments = ["run", recipe, "--data", data, "--out", out, "--workers", 1, "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def done(process: subprocess.Popen[str]) -> tuple[int, str]:
    """How a process has ended, and what it said."""
    _, said = process.communicate()
    return process.returncode, said


class Kills:
    """Kills a process and its workers at the `number`th PUT of an object with an ending.

    Attributes:
        process: what is killed; set before the PUT can come.
        stored: whether the object is put before the kill.
    """

    def __init__(self, ending: str, number: int, stored: bool) -> None:
        self._ending, self._left, self._stored = ending, number, stored
        self._started = threading.Event()
        self._lock = threading.Lock()

    def start(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._started.set()

    def hear(self, method: str, path: str, forward: Forward) -> Answer:
        if method != "PUT" or not path.endswith(self._ending):
            return forward()
        with self._lock:
            self._left -= 1
            if self._left == 0:
                answer = forward() if self._stored else Answer(503, [], b"")
                self._started.wait()
                os.killpg(self._process.pid, signal.SIGKILL)
                return answer
        return forward()


@pytest.mark.slow
def test_a_process_that_is_killed_amid_steps_comes_to_the_bytes_of_one_that_is_not(
    server: str,
    machine: Machine,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tmp_path / "tiny.yaml"
    without = dict.fromkeys(("seed", "svm", "svm+crf", "cam+crf"))
    recipe.write_text(yaml.safe_dump(tiny_values(**without)))
    start(recipe, photos, tmp_path / "local")
    out = f"s3://{machine.bucket}/run"
    kills = [("last.ckpt", 2, True), (".safetensors", 4, False), (".png", 5, True)]
    for number, (ending, count, stored) in enumerate(kills):
        machine.use(f"machine {number % 2}")
        kill = Kills(ending, count, stored)
        with Between(server, kill.hear) as address:
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            kill.start(process := command(recipe, photos, out))
            status, said = done(process)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server)
        assert status == -signal.SIGKILL, said
        assert stores.OWNER in objects(machine.bucket, "run")
    start(recipe, photos, out)
    kept = objects(machine.bucket, "run")
    expected = masks(tmp_path / "local")
    assert {name: content for name, content in kept.items() if name in expected} == expected
    assert pictures(kept).keys() <= expected.keys() and stores.OWNER not in kept
    assert kept["metrics.json"] == (tmp_path / "local" / "metrics.json").read_bytes()


def take_over(bucket: str, key: str, minutes: int = 0, host: str = "elsewhere") -> dict[str, Any]:
    """Have another machine own a folder, which renewed that some minutes ago; what it says."""
    other: dict[str, Any] = {
        "pid": 1,
        "host": host,
        "since": "2020-01-01",
        "id": "other",
        "beats": minutes,
    }
    stores._open(f"s3://{bucket}", os.getpid()).put(key, json.dumps(other).encode())
    (account,) = s3_backends.values()
    (stored,) = (b.buckets[bucket] for b in account.values() if bucket in b.buckets)
    stored.keys[key].last_modified -= timedelta(minutes=minutes)
    return other


@pytest.mark.slow
def test_a_run_whose_folder_was_taken_over_ends_and_writes_nothing_more(
    server: str, machine: Machine, recipe: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, key = f"s3://{machine.bucket}/run", f"run/{stores.OWNER}"
    before = """
import os
import urllib.request

stores._BEAT, lose = 0.01, stores._Owner._lose

def told(self):
    lose(self)
    urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/lost").close()

stores._Owner._lose = told
"""
    lost, kept = threading.Event(), dict[str, bytes]()
    count = itertools.count(1)

    def hear(method: str, path: str, forward: Forward) -> Answer:
        if path == "/lost":
            lost.set()
            return Answer(200, [], b"")
        answer = forward()
        if method == "PUT" and "/large/" in path and path.endswith(".png") and next(count) == 4:
            take_over(machine.bucket, key)
            assert lost.wait(100)
            kept.update(objects(machine.bucket, "run"))
        return answer

    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        status, said = done(command(recipe, photos, out, before))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    machine.use("here")
    *_, last = said.splitlines()
    assert status == USER_ERROR and "Traceback" not in said
    assert last.startswith(f"Error: {out} was taken over by another run, for ")
    assert said.count("taken over") == 1
    assert len([name for name in kept if name.startswith("large/")]) == 4
    assert objects(machine.bucket, "run") == kept
    assert json.loads(kept[stores.OWNER])["host"] == "elsewhere"


def test_a_folder_that_was_lost_is_not_given_back_for_its_new_owner(machine: Machine) -> None:
    folder = absolute(f"s3://{machine.bucket}/run")
    said = "run was taken over by another run"
    with pytest.raises(WeaksegError, match=said), stores.owned(folder):
        other = take_over(machine.bucket, f"run/{stores.OWNER}")
    assert json.loads(objects(machine.bucket, "run")[stores.OWNER]) == other
    with pytest.raises(WeaksegError, match=said):
        write_text(folder / "x.txt", "x")
    assert not (folder / "x.txt").exists()
    with pytest.raises(WeaksegError, match=said):
        remove(folder / "y.txt")


@pytest.mark.parametrize("taken", [True, False])
def test_a_loss_is_seen_while_work_goes_on(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    key, folder = f"run/{stores.OWNER}", absolute(f"s3://{machine.bucket}/run")
    lost, lose = threading.Event(), stores._Owner._lose

    def told(owner: stores._Owner) -> None:
        lose(owner)
        lost.set()

    monkeypatch.setattr(stores._Owner, "_lose", told)
    monkeypatch.setattr(stores, "_BEAT", 0.001)
    said = "run was taken over by another run"
    with pytest.raises(WeaksegError, match=said), stores.owned(folder):
        if taken:
            take_over(machine.bucket, key)
        else:
            stores._open(f"s3://{machine.bucket}", os.getpid()).delete(key)
        assert lost.wait(60)
        with pytest.raises(WeaksegError, match=said):
            write_text(folder / "x.txt", "x")
    assert objects(machine.bucket, "run").keys() == ({stores.OWNER} if taken else set())


def test_a_renewal_that_fails_is_made_up_for_by_the_next(
    server: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts, renewed = itertools.count(), threading.Event()

    def hear(method: str, path: str, forward: Forward) -> Answer:
        if method != "PUT" or not path.endswith(stores.OWNER):
            return forward()
        number = next(puts)
        answer = Answer(403, [], b"") if number == 1 else forward()
        if number == 3:
            renewed.set()
        return answer

    monkeypatch.setattr(stores, "_BEAT", 0.001)
    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machine.use("here")
        with stores.owned(folder := absolute(f"s3://{machine.bucket}/run")):
            assert renewed.wait(60)
            write_text(folder / "x.txt", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    machine.use("here")
    assert objects(machine.bucket, "run") == {"x.txt": b"x"}


@pytest.mark.parametrize("note", [str(2**22 + 1), str(2**99), ""])
def test_a_loss_of_a_process_that_has_ended_is_nobody_elses(machine: Machine, note: str) -> None:
    folder = absolute(f"s3://{machine.bucket}/run")
    folder.mkdir(parents=True)
    (folder / stores._LOST).write_text(note)
    write_text(folder / "x.txt", "x")
    assert objects(machine.bucket, "run") == {"x.txt": b"x"}


def test_a_loss_that_no_disk_has_room_to_note_is_said_at_the_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = absolute(f"s3://{machine.bucket}/run")

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield path

    with pytest.raises(WeaksegError, match="taken over by another run"), stores.owned(folder):
        other = take_over(machine.bucket, f"run/{stores.OWNER}")
        monkeypatch.setattr(stores, "_partial", full)
    assert json.loads(objects(machine.bucket, "run")[stores.OWNER]) == other


def test_a_lease_that_has_expired_is_taken_over_by_the_next_run(
    machine: Machine, recipe: Path, photos: Path
) -> None:
    out, key = f"s3://{machine.bucket}/run", f"run/{stores.OWNER}"
    take_over(machine.bucket, key, minutes=19)
    with pytest.raises(WeaksegError) as caught:
        start(recipe, photos, out)
    said = str(caught.value)
    assert said.startswith(f"{out} is in use by another run (process 1 on elsewhere, since")
    assert "\n" not in said
    assert objects(machine.bucket, "run").keys() == {stores.OWNER}

    take_over(machine.bucket, key, minutes=21)
    start(recipe, photos, out)
    kept = objects(machine.bucket, "run")
    assert "metrics.json" in kept and stores.OWNER not in kept


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[]", b"[" * 100_000, b'{"id": 3}', b'{"id":1,"pid":"x","host":1,"since":1}'],
)
def test_a_local_runs_empty_lock_that_was_uploaded_is_nobodys(
    machine: Machine, content: bytes
) -> None:
    stores._open(f"s3://{machine.bucket}", os.getpid()).put(f"run/{stores.OWNER}", content)
    with stores.owned(folder := absolute(f"s3://{machine.bucket}/run")):
        write_text(folder / "x.txt", "x")
        assert json.loads(objects(machine.bucket, "run")[stores.OWNER])["pid"] == os.getpid()
    assert objects(machine.bucket, "run") == {"x.txt": b"x"}


def test_a_lock_that_another_file_takes_the_place_of_is_lost(machine: Machine) -> None:
    folder = absolute(f"s3://{machine.bucket}/run")
    with pytest.raises(WeaksegError, match="was taken over"), stores.owned(folder):
        stores._open(f"s3://{machine.bucket}", os.getpid()).put(f"run/{stores.OWNER}", b"")
    assert objects(machine.bucket, "run") == {stores.OWNER: b""}


def test_an_owner_that_leaves_just_before_it_is_read_is_waited_for_no_longer(
    server: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = f"run/{stores.OWNER}"
    take_over(machine.bucket, key)
    leave = stores._open(f"s3://{machine.bucket}", os.getpid()).delete

    def hear(method: str, path: str, forward: Forward) -> Answer:
        answer = forward()
        if method == "PUT" and answer.status == 412:
            leave(key)
        return answer

    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machine.use("here")
        with stores.owned(absolute(f"s3://{machine.bucket}/run")):
            assert json.loads(objects(machine.bucket, "run")[stores.OWNER])["pid"] == os.getpid()


def test_a_lock_that_was_put_and_answered_by_an_error_is_ones_own(
    server: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = itertools.count()

    def hear(method: str, path: str, forward: Forward) -> Answer:
        answer = forward()
        lost = method == "PUT" and next(puts) in (0, 2)  # each is sent again
        return Answer(503, [], b"") if lost else answer

    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machine.use("here")
        with stores.owned(folder := absolute(f"s3://{machine.bucket}/run")):
            pass
        assert next(puts) == 4
        write_text(folder / "x.txt", "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    machine.use("here")
    assert objects(machine.bucket, "run").keys() == {"x.txt"}


@pytest.mark.parametrize(
    ("content", "who"),
    [(None, "process 1 on a third, since 2020-01-01"), (b"", "just begun")],
)
def test_of_two_that_take_over_at_once_one_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, content: bytes | None, who: str
) -> None:
    key = f"run/{stores.OWNER}"
    take_over(machine.bucket, key, minutes=21)
    age = stores._age

    def beaten(meta: Any) -> timedelta:
        found = age(meta)
        if content is None:
            take_over(machine.bucket, key, host="a third")
        else:
            stores._open(f"s3://{machine.bucket}", os.getpid()).put(key, content)
        return found

    monkeypatch.setattr(stores, "_age", beaten)
    folder = absolute(f"s3://{machine.bucket}/run")
    said = rf"in use by another run \({who}\)"
    with pytest.raises(WeaksegError, match=said), stores.owned(folder):
        pass
    kept = objects(machine.bucket, "run")[stores.OWNER]
    assert kept == content or json.loads(kept)["host"] == "a third"


def test_a_folder_is_replaced_as_a_whole(machine: Machine) -> None:
    place = absolute(f"s3://{machine.bucket}/some") / "export"
    for content in ({"a/x": b"1", "y": b"2"}, {"a/z": b"3"}):
        with write_folder(place) as folder:
            for name, text in content.items():
                write_text(folder / name, text.decode())
                assert not any(".partial-" in key for key in objects(machine.bucket, "some"))
        assert objects(machine.bucket, "some/export") == content
        found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
        assert found == content
    with pytest.raises(RuntimeError), write_folder(place):
        raise RuntimeError
    assert objects(machine.bucket, "some/export") == {"a/z": b"3"}
    assert [path.name for path in place.parent.iterdir()] == ["export"]


def test_an_address_may_be_that_of_one_object(machine: Machine) -> None:
    address = f"s3://{machine.bucket}/some/recipe.txt"
    write_text(absolute(f"s3://{machine.bucket}/some") / "recipe.txt", "x")
    machine.use("elsewhere")
    assert absolute(address).read_text() == "x"


def test_a_cache_that_cannot_be_written_is_named(machine: Machine, tmp_path: Path) -> None:
    write_text(absolute(f"s3://{machine.bucket}/some") / "x.txt", "x")
    (tmp_path / "taken").touch()
    machine.use("taken")
    with pytest.raises(WeaksegError, match=r"Can't write .*WEAKSEG_CACHE names the folder"):
        absolute(f"s3://{machine.bucket}/some")


def test_an_object_that_is_here_is_not_read_again(
    server: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(absolute(f"s3://{machine.bucket}/some") / "recipe.txt", "x")
    machine.use("elsewhere")
    read: list[str] = []

    def hear(method: str, path: str, forward: Forward) -> Answer:
        if method == "GET" and "list-type" not in path:
            read.append(path)
        return forward()

    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for _ in range(2):
            for name in ("some/recipe.txt", "some"):
                absolute(f"s3://{machine.bucket}/{name}")
    assert read == [f"/{machine.bucket}/some/recipe.txt"]


def later(bucket: str, key: str) -> None:
    """Have an object be two seconds younger than it is."""
    (account,) = s3_backends.values()
    (stored,) = (b.buckets[bucket] for b in account.values() if bucket in b.buckets)
    stored.keys[key].last_modified += timedelta(seconds=2)


@pytest.mark.parametrize("content", ["longer", "y"])
@pytest.mark.parametrize("suffix", [".txt", ".png"])
def test_what_another_machine_wrote_takes_the_place_of_what_is_here(
    machine: Machine, content: str, suffix: str
) -> None:
    address, name = f"s3://{machine.bucket}/some", f"a{suffix}"
    write_text(here := absolute(address) / name, "x")
    machine.use("elsewhere")
    write_text(absolute(address) / name, content)
    later(machine.bucket, f"some/{name}")
    machine.use("here")
    absolute(address)
    assert stores.is_here(here) is (suffix == ".txt")
    assert read_bytes(here) == content.encode()


def test_what_another_machine_removed_is_gone_here(machine: Machine) -> None:
    address = f"s3://{machine.bucket}/some"
    for name in ("a/x.txt", "a/y.txt"):
        write_text(absolute(address) / name, name)
    machine.use("elsewhere")
    remove(absolute(address) / "a/x.txt")
    assert objects(machine.bucket, "some") == {"a/y.txt": b"a/y.txt"}
    machine.use("here")
    assert [file.name for file in (absolute(address) / "a").iterdir()] == ["y.txt"]
    machine.use("elsewhere")
    remove(absolute(address) / "a/y.txt")
    machine.use("here")
    assert not absolute(address).exists()


@pytest.mark.parametrize("name", ["x.txt", "other.txt"])
def test_what_is_written_here_amid_a_listing_stays(
    server: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    address = f"s3://{machine.bucket}/some"
    write_text(absolute(address) / "x.txt", "x")
    machine.use("elsewhere")
    place = stores.place_of(address)
    assert place is not None

    def hear(method: str, path: str, forward: Forward) -> Answer:
        answer = forward()
        if "list-type" in path:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text("written here")
        return answer

    with Between(server, hear) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy)
        absolute(address)
    assert (place / name).read_text() == "written here"
    assert (place / "x.txt").is_file()


def test_one_run_at_a_time_writes_into_a_folder(machine: Machine) -> None:
    address = f"s3://{machine.bucket}/run"
    folder = absolute(address)
    with stores.owned(folder):
        said = rf"{address} is in use .*process {os.getpid()} on "
        with pytest.raises(WeaksegError, match=said), stores.owned(folder):
            pass
        assert stores.OWNER in objects(machine.bucket, "run")
    with stores.owned(folder):
        pass
    assert objects(machine.bucket, "run") == {}


def test_a_run_of_another_user_of_this_machine_is_left_alone(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(process: int, signal: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    take_over(machine.bucket, f"run/{stores.OWNER}", minutes=21)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    monkeypatch.setattr("os.kill", refuse)
    folder = absolute(f"s3://{machine.bucket}/run")
    with pytest.raises(WeaksegError, match="process 1 on elsewhere"), stores.owned(folder):
        pass


def test_the_owner_on_another_machine_counts_until_its_lease_ends(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = absolute(f"s3://{machine.bucket}/run")
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        patch.setattr(stores._Owner, "leave", lambda self: self._ended.set())
        with stores.owned(folder):
            pass
    with pytest.raises(WeaksegError, match="on elsewhere, since"), stores.owned(folder):
        pass
    monkeypatch.setattr(stores, "_age", lambda meta: stores._LEASE)
    with stores.owned(folder):
        pass


def test_a_server_that_fails_one_request_in_ten_changes_nothing(
    server: str,
    machine: Machine,
    recipe: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start(recipe, photos, tmp_path / "local")
    upload(photos, machine.bucket, "data")
    failed: list[str] = []
    count = itertools.count(1)
    lock = threading.Lock()

    def hear(method: str, path: str, forward: Forward) -> Answer:
        with lock:
            number = next(count)
        if number % 10:
            return forward()
        failed.append(path)
        return Answer(503, [], b"")

    with Between(server, hear) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        machine.use("here")
        start(recipe, f"s3://{machine.bucket}/data", f"s3://{machine.bucket}/run")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    machine.use("here")
    assert len(failed) > 10
    assert pictures(objects(machine.bucket, "run")) == masks(tmp_path / "local")


def test_data_in_a_store_are_listed_in_pages_and_read_when_they_are_asked_for(
    machine: Machine, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_PAGE", 3)
    upload(photos, machine.bucket, "data")
    root = absolute(f"s3://{machine.bucket}/data")
    local, listed = load_dataset(photos), load_dataset(root)
    assert [(s.id, s.tags) for s in listed.samples] == [(s.id, s.tags) for s in local.samples]
    assert not any(stores.is_here(sample.image) for sample in listed.samples)
    before = Digests().files(listed.samples)
    assert [line for line in check_dataset(root).lines()][1:] == [
        line for line in check_dataset(photos).lines()
    ][1:]
    assert all(stores.is_here(sample.image) for sample in listed.samples)

    absolute(f"s3://{machine.bucket}/data")
    assert all(stores.is_here(sample.image) for sample in listed.samples)
    machine.use("elsewhere")
    assert Digests().files(load_dataset(root).samples) == before


def test_photos_that_find_no_room_are_read_into_memory(
    machine: Machine, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(photos, machine.bucket, "data")
    root = absolute(f"s3://{machine.bucket}/data")
    monkeypatch.setattr(stores, "_ROOM", 2**62)
    assert check_dataset(root).usable
    assert not any(stores.is_here(sample.image) for sample in load_dataset(root).samples)


def test_a_worker_elsewhere_reads_and_writes_by_the_path_alone(machine: Machine) -> None:
    write_text(absolute(f"s3://{machine.bucket}/some") / "x.json", '{"a": 1}')
    machine.use("elsewhere")
    place = stores.place_of(f"s3://{machine.bucket}/some")
    assert place is not None and not place.exists()
    assert read_json(place / "x.json") == {"a": 1}
    write_text(place / "y.json", "{}")
    assert objects(machine.bucket, "some") == {"x.json": b'{"a": 1}', "y.json": b"{}"}
    with pytest.raises(WeaksegError, match="There is no file"):
        read_json(place / "z.json")


def test_writing_and_removing_reach_the_store(machine: Machine) -> None:
    folder = absolute(f"s3://{machine.bucket}/some")
    write_text(folder / "a/x.txt", "x")
    write_bytes(folder / "a/y.bin", b"y" * (6 * 2**20))
    write_text(folder / "a/x.txt", "other")
    kept = objects(machine.bucket, "some")
    assert kept == {"a/x.txt": b"other", "a/y.bin": b"y" * (6 * 2**20)}
    remove(folder / "a")
    assert objects(machine.bucket, "some") == {}
    assert not (folder / "a").exists()


def test_files_that_are_just_being_written_stay(machine: Machine) -> None:
    address = f"s3://{machine.bucket}/some"
    write_text(absolute(address) / "x.txt", "x")
    partial = absolute(address) / f"{stores.PARTIAL}y"
    partial.write_text("half")
    assert sorted(file.name for file in absolute(address).iterdir()) == [partial.name, "x.txt"]


def test_keys_that_lead_out_of_the_folder_are_refused(machine: Machine, tmp_path: Path) -> None:
    connection = http.client.HTTPConnection(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
    connection.request("PUT", f"/{machine.bucket}/some/%2E%2E/%2E%2E/escaped.txt", body=b"x")
    assert connection.getresponse().status == 200
    connection.close()
    with pytest.raises(WeaksegError, match=r"some/\.\./\.\./escaped.txt"):
        absolute(f"s3://{machine.bucket}/some")
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://bucket/a", "is of gs:, where"),
        ("s3://bucket", "names no folder"),
        ("s3://bucket/", "names no folder"),
        ("s3://bucket/a/../../b", "names no folder"),
        ("s3://../a", "names no folder"),
    ],
)
def test_addresses_of_other_kinds_are_refused(address: str, said: str) -> None:
    with pytest.raises(WeaksegError, match=said):
        absolute(address)


def test_windows_is_told_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.name", "nt")
        with pytest.raises(WeaksegError) as caught:
            stores.place_of("s3://bucket/a")
    assert str(caught.value) == "s3://bucket/a: stores need Linux or macOS. Copy the folder here."


def test_a_bucket_that_is_not_there_is_said_in_one_line(machine: Machine) -> None:
    with pytest.raises(WeaksegError, match="s3://no-such-bucket/a can't be used") as error:
        absolute("s3://no-such-bucket/a")
    assert "\n" not in str(error.value)


def test_places_are_named_by_their_addresses(machine: Machine) -> None:
    place = stores.place_of("s3://bucket/a b/c")
    assert place is not None
    assert stores.address_of(place) == "s3://bucket/a b/c"
    assert stores.named(f"There is no {place}.") == "There is no s3://bucket/a b/c."
    assert stores.address_of(place.parents[3] / "other") is None


class Between:
    """A proxy of a server: `hear(method, path, forward)` answers each request."""

    def __init__(self, server: str, hear: Hear) -> None:
        host = server.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))

                def forward() -> Answer:
                    connection = http.client.HTTPConnection(host)
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    found = Answer(answer.status, answer.getheaders(), answer.read())
                    connection.close()
                    return found

                status, headers, content = hear(self.command, self.path, forward)
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                sized = dict(headers).get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", sized or str(len(content)))
                self.end_headers()
                with suppress(OSError):  # a process that was killed waits for no answer
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
