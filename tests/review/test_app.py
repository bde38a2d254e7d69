"""What the review's server keeps, gives and refuses."""

import io
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from weakseg.data.masks import read_mask
from weakseg.engine.opened import open_run
from weakseg.engine.reviewed import Strokes
from weakseg.errors import WeaksegError
from weakseg.refine.strokes import Mender
from weakseg.review.app import Desk, make_app
from weakseg.review.photos import Review

PORT, TOKEN = 8123, "a-token"
ADDRESS = f"http://127.0.0.1:{PORT}"
ORIGIN = {"origin": ADDRESS}


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def client_of(out: Path, **headers: str) -> TestClient:
    client = TestClient(
        make_app(Review.of(open_run(out)), TOKEN, PORT), base_url=ADDRESS, headers=headers
    )
    client.get("/", params={"token": TOKEN})
    return client


@pytest.fixture
def client(out: Path) -> TestClient:
    return client_of(out, **ORIGIN)


@pytest.fixture
def photo(client: TestClient) -> dict[str, Any]:
    first: dict[str, Any] = client.get("/overview").json()["photos"][0]
    return first


def ids(content: bytes) -> NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(content)))


def stroke(name: str, *points: tuple[float, float]) -> dict[str, Any]:
    return {"name": name, "points": [[*point] for point in points], "radius": 5}


def test_only_who_has_the_token_and_asks_on_this_machine_is_let_in(out: Path) -> None:
    app = make_app(Review.of(open_run(out)), TOKEN, PORT)
    stranger = TestClient(app, base_url=ADDRESS, follow_redirects=False)
    assert stranger.get("/overview").status_code == 403
    assert stranger.get("/static/main.js").status_code == 403
    assert stranger.get("/", params={"token": "another"}).status_code == 403
    let_in = stranger.get("/", params={"token": TOKEN})
    assert let_in.status_code == 303
    cookie = let_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/overview").status_code == 200
    for host in ("evil.example", f"evil.example:{PORT}", f"127.0.0.1:{PORT + 1}"):
        assert stranger.get("/overview", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1:8123"])
def test_what_changes_something_comes_from_the_page_alone(out: Path, origin: str | None) -> None:
    client = client_of(out)
    asked = client.get("/overview").json()["photos"][0]["id"]
    headers = {"origin": origin} if origin else {}
    answer = client.post("/accept", params={"id": asked}, json={"accepted": True}, headers=headers)
    assert answer.status_code == 403
    assert not (out / "review").exists()


def test_the_page_runs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace(ADDRESS, "")


def test_photos_come_by_need(out: Path) -> None:
    photos = open_run(out).photos("svm+crf")
    sure = {photo: {"confidence": place / 10} for place, photo in enumerate(photos[::-1])}
    (out / "confidence.json").write_text(json.dumps({"step": "svm+crf", "photos": sure}))
    shown = client_of(out).get("/overview").json()["photos"]
    assert [one["id"] for one in shown] == photos[::-1]
    assert shown[0]["confidence"] == 0


def test_the_least_sure_of_the_run_comes_first(out: Path, client: TestClient) -> None:
    known = [one["confidence"] for one in client.get("/overview").json()["photos"]]
    assert known == sorted(open_run(out).confidence.values())
    assert 0 <= known[0] < known[-1] <= 1


def test_strokes_are_kept_with_the_mask_that_they_make(
    out: Path, client: TestClient, photo: dict[str, Any]
) -> None:
    asked, tag = {"id": photo["id"]}, photo["tags"][0]
    given = {"strokes": [stroke(tag, (10, 10), (40, 12))], "crf": True}
    label = open_run(out).classes.index(tag) + 1
    mask = ids(client.post("/strokes", params=asked, json=given).content)
    assert mask[10, 10] == mask[11, 30] == label
    assert (read_mask(out / "review" / "mended" / f"{photo['id']}.png") == mask).all()
    assert (open_run(out).mask(photo["id"]) == mask).all()
    anew = client_of(out)
    assert anew.get("/strokes", params=asked).json() == given
    assert (ids(anew.get("/mask", params=asked).content) == mask).all()
    client.post("/strokes", params=asked, json={"strokes": [], "crf": True})
    assert not [path for path in (out / "review").rglob("*") if path.is_file()]


def test_an_accepted_mask_is_the_one_that_was_seen_until_it_is_drawn_on(
    out: Path, client: TestClient, photo: dict[str, Any]
) -> None:
    asked = {"id": photo["id"]}
    given = {"strokes": [stroke("background", (20, 20))], "crf": False}
    mask = ids(client.post("/strokes", params=asked, json=given).content)
    client.post("/accept", params=asked, json={"accepted": True})
    path = out / "review" / "accepted" / f"{photo['id']}.png"
    assert (read_mask(path) == mask).all()
    assert client.get("/overview").json()["photos"][0]["accepted"]
    given["strokes"] = [stroke("background", (20, 20)), stroke("background", (60, 20))]
    client.post("/strokes", params=asked, json=given)
    assert not path.exists()


def test_a_lost_tag_leaves_the_mask_and_a_new_one_can_be_drawn(
    out: Path, client: TestClient, photo: dict[str, Any]
) -> None:
    asked, lost = {"id": photo["id"]}, photo["tags"][0]
    classes = open_run(out).classes
    new = next(name for name in classes if name not in photo["tags"])
    given = {"strokes": [stroke(lost, (10, 10)), stroke("background", (50, 50))], "crf": True}
    client.post("/strokes", params=asked, json=given)
    tags = [new, *photo["tags"][1:]]
    left = client.post("/tags", params=asked, json={"tags": tags}).json()
    assert set(left["tags"]) == set(tags)
    assert [one["name"] for one in left["strokes"]] == ["background"]
    mask = ids(client.get("/mask", params=asked).content)
    assert classes.index(lost) + 1 not in mask
    given["strokes"] = [stroke(new, (30, 30))]
    mask = ids(client.post("/strokes", params=asked, json=given).content)
    assert mask[30, 30] == classes.index(new) + 1


@pytest.mark.parametrize("asked", ["nothing", "../recipe", ""])
def test_there_is_nothing_but_the_runs_photos(client: TestClient, asked: str) -> None:
    for path in ("/photo", "/mask", "/strokes"):
        assert client.get(path, params={"id": asked}).status_code == 404


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"strokes": [{"name": "background", "points": [], "radius": 1}]}, 422),
        ({"strokes": [{"name": "background", "points": [[1, 2]], "radius": 0}]}, 422),
        ({"strokes": [{"name": "background", "points": [[1e9, 2]], "radius": 1}]}, 422),
        ({"strokes": [{"name": "unicorn", "points": [[1, 2]], "radius": 1}]}, 409),
        ({"strokes": [], "more": 1}, 422),
        ([], 422),
    ],
)
def test_what_is_no_stroke_is_refused(
    out: Path, client: TestClient, photo: dict[str, Any], given: Any, status: int
) -> None:
    answer = client.post("/strokes", params={"id": photo["id"]}, json=given)
    assert answer.status_code == status
    assert not (out / "review").exists()


def test_a_body_without_end_is_cut_off(client: TestClient, photo: dict[str, Any]) -> None:
    answer = client.post("/strokes", params={"id": photo["id"]}, content=b" " * (9 * 2**20))
    assert answer.status_code == 413


def test_masks_that_nobody_touched_follow_what_was_drawn(
    out: Path, client: TestClient, photo: dict[str, Any]
) -> None:
    asked = {"id": photo["id"]}
    nothing = client.post("/teach", json={})
    assert (nothing.status_code, "Nothing is drawn" in nothing.text) == (409, True)
    client.post("/tags", params=asked, json={"tags": []})  # all that is in it is background
    client.post("/accept", params=asked, json={"accepted": True})
    changed = client.post("/teach", json={}).json()["changed"]
    shares = [share for _, share in changed]
    assert shares == sorted(shares, reverse=True)
    assert photo["id"] not in dict(changed)
    for name, _ in changed:
        taught = read_mask(out / "review" / "taught" / f"{name}.png")
        assert (ids(client.get("/mask", params={"id": name}).content) == taught).all()
        assert (open_run(out).mask(name) == taught).all()
    assert client.post("/teach", json={}).json()["changed"] == []


def test_damaged_files_of_a_review_are_named(
    out: Path, client: TestClient, photo: dict[str, Any]
) -> None:
    path = out / "review" / "strokes" / f"{photo['id']}.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"strokes": 3}')
    answer = client.get("/strokes", params={"id": photo["id"]})
    assert answer.status_code == 409
    assert str(path) in answer.json()["error"]


def test_a_step_without_masks_is_refused(out: Path) -> None:
    with pytest.raises(WeaksegError, match="Steps that make some: cam, "):
        Review.of(open_run(out), "classify")
    assert Review.of(open_run(out), "cam").step.name == "cam"


def test_a_stroke_needs_no_torch(out: Path) -> None:
    script = (
        "import sys\n"
        "from weakseg.engine.opened import open_run\n"
        "import weakseg.review.app\n"
        "from weakseg.review.photos import Review\n"
        "from weakseg.engine.reviewed import Strokes\n"
        "review = Review.of(open_run(sys.argv[1]))\n"
        "photo = review.order[0]\n"
        "strokes = Strokes.model_validate(\n"
        "    {'strokes': [{'name': 'background', 'points': [(9, 9)], 'radius': 3}]})\n"
        "review.mended(review.mender(photo), strokes)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(out)], check=True)


def test_tags_that_are_no_classes_are_said_before_a_page_is_served(out: Path) -> None:
    run = open_run(out)
    name = run.photos("svm+crf")[0]
    (out / "review").mkdir(exist_ok=True)
    (out / "review" / "tags.json").write_text(json.dumps({name: ["unicorn"]}))
    with pytest.raises(WeaksegError, match=r"tags.json gives .* the tag 'unicorn', which is no"):
        Review.of(run)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[Event, Event, list[str]]:
    """The first mender is held up: whether it was begun, whether it may go on, what was made."""
    begun, go_on, made = Event(), Event(), list[str]()
    original = Review.mender

    def mender(self: Review, photo: str) -> Mender:
        found = original(self, photo)
        made.append(photo)
        if len(made) == 1:
            begun.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(Review, "mender", mender)
    return begun, go_on, made


def test_what_mends_a_photo_is_made_once(out: Path, slow: tuple[Event, Event, list[str]]) -> None:
    begun, go_on, made = slow
    review = Review.of(open_run(out))
    first, second = review.order[:2]
    desk = Desk(review)
    desk.mask(first)
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(desk.draw, first, Strokes())
        desk.draw(second, Strokes())
        go_on.set()
        drawn.result(60)
    assert made == [first, second]


def test_what_was_being_made_of_old_tags_mends_nothing(
    out: Path, slow: tuple[Event, Event, list[str]]
) -> None:
    begun, go_on, _ = slow
    review = Review.of(open_run(out))
    photo = next(one for one in review.order if review.base(one).any())
    desk = Desk(review)
    desk.mask(photo)
    assert begun.wait(60)
    desk.tag(photo, [])
    go_on.set()
    desk._ahead.shutdown()
    assert not ids(desk.draw(photo, Strokes())).any()
