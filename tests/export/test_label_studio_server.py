"""Label Studio's own server takes what is exported and gives it back, where it is installed."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from handmade import CLASSES, Made
from weakseg.data.mended import find_tool

COMMAND = shutil.which("label-studio")
STARTS_WITHIN = 600.0  # seconds: it makes its database first

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMMAND is None, reason="label-studio is not installed"),
]


@pytest.fixture
def server(made: Made, tmp_path: Path) -> Iterator[str]:
    """The address of a server that may read the export in `out/`."""
    httpx = pytest.importorskip("httpx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    settings = {
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path / "out"),
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "COLLECT_ANALYTICS": "false",
    }
    command = [str(COMMAND), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    command += ["--port", str(port), "--data-dir", str(tmp_path / "server")]
    command += ["--username", "a@b.cd", "--password", "Secret12!", "--user-token", "0" * 40]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            end = time.monotonic() + STARTS_WITHIN
            while True:
                assert process.poll() is None and time.monotonic() < end, "it does not start"
                try:
                    if httpx.get(f"{address}/health", timeout=STARTS_WITHIN).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(1)
            yield address
        finally:
            process.terminate()
            process.wait()


def test_predictions_are_imported_and_come_back(made: Made, tmp_path: Path, server: str) -> None:
    httpx = pytest.importorskip("httpx")
    out = made.export("label-studio", tmp_path / "out")
    headers = {"Authorization": f"Token {'0' * 40}"}
    with httpx.Client(base_url=server, headers=headers, timeout=STARTS_WITHIN) as client:

        def call(method: str, place: str, **content: object) -> object:
            answer = client.request(method, f"/api/{place}", **content)
            assert answer.is_success, answer.text
            return answer.json()

        view = (out / "labels.xml").read_text(encoding="utf-8")
        project = call("POST", "projects", json={"title": "masks", "label_config": view})
        number = project["id"]  # type: ignore[index]
        place = {"project": number, "path": str(out / "images"), "use_blob_urls": True}
        call("POST", "storages/localfiles", json={**place, "title": "photos"})
        tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
        call("POST", f"projects/{number}/import", json=tasks)
        for prediction in call("GET", f"predictions?project={number}"):  # type: ignore[attr-defined]
            task = call("GET", f"tasks/{prediction['task']}")
            photo = client.get(task["data"]["image"])  # type: ignore[index]
            assert photo.is_success and photo.content[:3] in (b"\xff\xd8\xff", b"\x89PN")
            drawn = {"result": prediction["result"]}
            call("POST", f"tasks/{prediction['task']}/annotations", json=drawn)
        exported = client.get(f"/api/projects/{number}/export?exportType=JSON")
    (tmp_path / "export.json").write_bytes(exported.content)
    tool = find_tool(tmp_path / "export.json")
    assert tool
    find = tool.open(tmp_path / "export.json", CLASSES)
    for sample in made.samples:
        (mask,) = find(sample)
        assert np.array_equal(mask.read(), made.certain(sample.id))
