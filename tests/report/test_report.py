import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tiny import Lines, tiny_recipe
from weakseg.cli import main
from weakseg.data.masks import VOC_PALETTE, write_mask
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.opened import open_run
from weakseg.engine.record import Record, StepRecord, write_record
from weakseg.errors import WeaksegError
from weakseg.files import write_json
from weakseg.recipe import RECIPE, dump_recipe
from weakseg.report import build as building
from weakseg.report import thumbnails
from weakseg.report.build import build, page_of
from weakseg.report.charts import confusions, curves_of, line
from weakseg.report.thumbnails import MASK_BYTES, PHOTO_BYTES, class_ious, compare, encode_masks

HEIGHT, WIDTH = 60, 90
CLASSES = ("<b>cat</b>", "dog & co")
ODD = '<img src=x onerror="alert(1)">'
PHOTOS = [ODD, *(f"photo-{number:02}" for number in range(1, 24))]


def mask_of(number: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[10:50, 10 : 10 + width] = number % 2 + 1
    return mask


def make_run(folder: Path, truth: bool = True) -> Path:
    """A finished run of 24 photos of two classes; the later, the worse and the less sure."""
    data, out = folder / "data", folder / "run"
    rng = np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    for number, name in enumerate(PHOTOS):
        picture = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(picture).save(data / "images" / f"{name}.png")
        write_mask(out / "cam" / f"{name}.png", mask_of(number, 20))
        write_mask(out / "svm+crf" / f"{name}.png", mask_of(number, 60 - 2 * number))
        if truth:
            write_mask(data / "masks" / f"{name}.png", mask_of(number, 60))
    (data / "classes.txt").write_text("\n".join(CLASSES))
    with (data / "tags.csv").open("w", newline="") as file:
        rows = [[name, f"{CLASSES[number % 2]};"] for number, name in enumerate(PHOTOS)]
        csv.writer(file).writerows([["image", "tags"], *rows])
    recipe = tiny_recipe()
    (out / RECIPE).write_text(dump_recipe(recipe))
    steps = {"svm+crf": StepRecord(fingerprint="1", finished=True, seconds=1.5)}
    content = {"folder": str(data), "format": "tagged-folder", "split": "all", "photos": 24}
    write_record(out, Record(steps=steps, data={**content, "classes": list(CLASSES)}))
    sure = {name: round(0.95 - number / 50, 3) for number, name in enumerate(PHOTOS)}
    photos = {
        name: {"confidence": sure[name], "classes": {CLASSES[number % 2]: sure[name]}}
        for number, name in enumerate(PHOTOS)
    }
    write_json(out / "confidence.json", {"step": "svm+crf", "photos": photos})
    epochs = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    write_json(out / "classify" / "scores.json", {"epochs": epochs})
    if truth:
        row: dict[str, Any] = {
            "split": "all", "images": 24, "miou": 0.5, "mean_accuracy": 0.6, "pixel_accuracy": 0.7,
            "per_class": {"background": 0.9, CLASSES[0]: 0.4, CLASSES[1]: None}, "protocol": {},
        }  # fmt: skip
        surer = [{"left_out": s, "images": 24, "miou": 0.5 + s} for s in (0.0, 0.1, 0.2, 0.3)]
        told = {"step": "svm+crf", "pairs": 24, "spearman": 1.0, "spearman_within_class": 1.0}
        stages = [{**row, "name": "cam"}, {**row, "name": "svm+crf"}]
        write_json(out / "metrics.json", {"stages": stages, "confidence": {**told, "surer": surer}})
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(made: Path) -> Path:
    return build(open_run(made), InProcessExecutor(), Lines())


def table_of(page: Path) -> dict[str, Any]:
    text = page.read_text(encoding="utf-8")
    start = text.index('id="table">') + len('id="table">')
    found: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
    return found


def test_the_page_is_one_small_file_that_asks_for_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page.name == "index.html" and len(list(page.parent.iterdir())) == 1
    assert "http://" not in text and "https://" not in text
    assert ODD not in text and CLASSES[0] not in text
    pictures = text[text.index('id="chunk-0"') :]
    assert len(pictures) / len(PHOTOS) < 6000
    assert "Against the true masks" in text and "What is taken for what" in text


def test_a_photo_has_its_tags_confidence_and_ious(page: Path) -> None:
    table = table_of(page)
    assert table["steps"][table["last"]] == "svm+crf"
    rows = {row[0]: row for row in table["photos"]}
    assert rows.keys() == set(PHOTOS)
    _, split, tags, sure, iou, size, src, has = rows["photo-05"]
    assert table["splits"][split] == "all" and tags == [2] and sure == [850]
    assert iou[table["last"]] == [round(1000 * 50 / 60)]
    assert size == [WIDTH, HEIGHT] and (page.parent / src).resolve().is_file()
    shown = dict(zip([*table["steps"], "truth"], has, strict=True))
    assert [name for name, there in shown.items() if there] == ["cam", "svm+crf", "truth"]


def test_without_true_masks_it_is_the_same_page_without_their_figures(tmp_path: Path) -> None:
    page = build(open_run(make_run(tmp_path, truth=False)), InProcessExecutor(), Lines())
    text, table = page.read_text(encoding="utf-8"), table_of(page)
    assert "Against the true masks" not in text and "What is taken for what" not in text
    assert not table["truth"]
    assert all(value is None for row in table["photos"] for step in row[4] for value in step)


def test_many_photos_go_on_further_pages(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "PAGE_PHOTOS", 10)
    run = open_run(make_run(tmp_path))
    first = build(run, InProcessExecutor(), Lines())
    pages = [first, first.with_name("page-2.html"), first.with_name("page-3.html")]
    assert [len(table_of(page)["photos"]) for page in pages] == [10, 10, 4]
    found = [row[0] for page in pages for row in table_of(page)["photos"]]
    assert sorted(found) == sorted(PHOTOS)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert all(f'href="{other.name}"' in text for other in pages)
        assert ("Against the true masks" in text) == (page == first)


def test_a_page_is_known_to_be_of_what_the_run_holds(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    assert page_of(open_run(out)) is None
    page = build(open_run(out), InProcessExecutor(), Lines())
    assert page_of(open_run(out)) == page
    record = open_run(out).record
    record.steps["svm+crf"].fingerprint = "2"
    write_record(out, record)
    assert page_of(open_run(out)) is None


def test_the_command_names_the_page_or_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = make_run(tmp_path)
    monkeypatch.setattr("sys.argv", ["weakseg", "report", str(out), "--workers", "1"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"Report: {out / 'report' / 'index.html'}\n"
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and str(tmp_path / "data") in capsys.readouterr().err


def test_a_run_without_masks_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    for path in out.rglob("*.png"):
        path.unlink()
    with pytest.raises(WeaksegError, match="no masks yet"):
        build(open_run(out), InProcessExecutor(), Lines())


def test_small_masks_keep_their_ids() -> None:
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.choice([0, 3, 255], (6, 8)), np.ones((10, 10))) for _ in range(3)]
    encoded = encode_masks([*(mask.astype(np.uint8) for mask in masks), None], (60, 80))
    found = np.array(Image.open(io.BytesIO(encoded)).convert("RGBA"))
    assert found.shape == (60, 320, 4) and not found[:, 240:, 3].any()
    for place, mask in enumerate(masks):
        part = found[:, 80 * place : 80 * (place + 1)]
        ids = mask.astype(np.uint8)
        np.testing.assert_array_equal(part[..., 3] == 255, ids > 0)
        np.testing.assert_array_equal(part[ids > 0][:, :3], VOC_PALETTE[ids[ids > 0]])


def test_masks_that_are_hard_to_pack_get_smaller() -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 4, (300, 400), dtype=np.uint8) for _ in range(4)]
    encoded = encode_masks(noise, (300, 400))
    assert Image.open(io.BytesIO(encoded)).width < 4 * 160
    assert len(encoded) <= MASK_BYTES
    assert (PHOTO_BYTES + MASK_BYTES) * 4 / 3 < 6000


@pytest.mark.parametrize("noisy", [0, 100, 180, 200, 220, 240, 260, 280, 300, 340, 400])
def test_masks_are_as_large_as_their_bytes_allow(
    monkeypatch: pytest.MonkeyPatch, noisy: int
) -> None:
    """Noise, of which bytes grow with the area, of some side; a smooth mask beside it."""
    rng = np.random.default_rng(noisy)
    masks = [np.zeros((400, 400), np.uint8), np.full((400, 400), 3, np.uint8)]
    masks[0][:noisy, :noisy] = rng.integers(0, 4, (noisy, noisy))
    found = encode_masks(masks, (400, 400))
    each = []
    for side in thumbnails.MASK_SIDES:
        monkeypatch.setattr(thumbnails, "MASK_SIDES", (side,))
        each.append(encode_masks(masks, (400, 400)))
    assert found == next((one for one in each if len(one) <= MASK_BYTES), each[-1])


def test_ious_are_as_the_naive_reference() -> None:
    rng = np.random.default_rng(0)
    mask, truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (2, 20, 30))
    expected = []
    for c in (1, 2):
        cells = list(zip(mask.ravel(), truth.ravel(), strict=True))
        shared = sum(m == c and t == c for m, t in cells)
        whole = sum((m == c or t == c) and t != 255 for m, t in cells)
        expected.append(shared / whole)

    def ious(mask: Any, truth: Any, class_ids: tuple[int, ...]) -> tuple[float | None, ...]:
        return class_ious(compare(mask, truth, "abcdefghi"), class_ids)

    assert ious(mask, truth, (1, 2, 9)) == (*map(pytest.approx, expected), None)
    assert ious(None, truth, (1,)) == ious(mask, None, (1,)) == (None,)


def test_confusions_are_shares_of_what_occurs() -> None:
    counts = np.array([[8, 0, 2, 0], [0, 0, 0, 0], [5, 0, 4, 1]])
    found = confusions(counts, ("background", "cat", "dog"))
    assert found
    assert found.names == ["background", "dog"]
    assert found.shares == [[0.8, 0.2, 0.0], [0.5, 0.4, 0.1]]
    assert found.pairs[:2] == [("dog", "background", 0.5), ("background", "dog", 0.2)]
    assert confusions(np.zeros((3, 4), np.int64), ("background", "cat", "dog")) is None


def test_curves_are_found_wherever_a_training_has_them() -> None:
    content = {"f1": 0.5, "head": {"epochs": [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 1}]}}
    (curve,) = curves_of("pixels", content)
    assert (curve.step, curve.figure, curve.values) == ("pixels head", "loss", [3.0, 1.0])
    assert line([1.0, None, 3.0], 100, 10) == "0.0,10.0 100.0,0.0"


class Opened:
    """A page in a browser, with what it asked for and complained of."""

    def __init__(self, browser: Any, page: Path) -> None:
        self.tab = browser.new_page(viewport={"width": 1100, "height": 1600})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda line: self.complaints.append(line.text))
        self.tab.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.tab.goto(page.as_uri())
        self.tab.wait_for_selector(".tile img[src]")

    def names(self) -> list[str]:
        """What the tiles are of, once the page has drawn what it was asked to before."""
        self.tab.evaluate("() => new Promise(requestAnimationFrame)")
        tiles = self.tab.locator(".tile").all()
        places = [(t.bounding_box()["y"], t.bounding_box()["x"], t.inner_text()) for t in tiles]
        return [text.splitlines()[0] for _, _, text in sorted(places)]

    def style(self, selector: str, name: str) -> str:
        script = "(element, name) => getComputedStyle(element)[name]"
        found: str = self.tab.locator(selector).first.evaluate(script, name)
        return found


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Opened]:
    found = Opened(browser, page)
    yield found
    assert found.complaints == []
    folder = page.parents[2].as_uri()
    assert all(url.startswith(("data:", folder)) for url in found.asked)
    found.tab.close()


def test_photos_are_sorted_and_filtered(opened: Opened) -> None:
    tab = opened.tab
    assert opened.names() == PHOTOS[::-1]  # the least sure first; names are text
    tab.select_option("#sort", "name")
    assert sorted(opened.names()) == sorted(PHOTOS)
    tab.select_option("#sort", "iou")
    assert opened.names() == PHOTOS[::-1]
    tab.check("#reverse")
    assert opened.names() == PHOTOS
    tab.get_by_role("button", name=CLASSES[1]).click()
    assert opened.names() == PHOTOS[1::2]
    assert tab.inner_text("#count") == "12 of 24 photos"
    tab.fill("#search", "0")
    assert opened.names() == [name for name in PHOTOS[1::2] if "0" in name]
    tab.fill("#search", "no such photo")
    assert opened.names() == [] and tab.is_visible("#none")


def test_steps_are_flipped_through_and_laid_over(opened: Opened) -> None:
    tab = opened.tab
    place = opened.style(".tile .masks", "backgroundPosition")
    tab.locator("#steps").get_by_role("button", name="cam", exact=True).click()
    assert opened.style(".tile .masks", "backgroundPosition") != place
    tab.locator("#steps").get_by_role("button", name="photo").click()
    assert opened.style(".tile .masks", "visibility") == "hidden"
    tab.locator("#steps").get_by_role("button", name="true masks").click()
    assert opened.style(".tile .masks", "visibility") == "visible"
    tab.fill("#opacity", "25")
    assert opened.style(".tile .masks", "opacity") == "0.25"
    assert opened.style(".tile .masks", "filter") == "none"
    tab.keyboard.press("o")
    assert "edge" in opened.style(".tile .masks", "filter")


def test_a_click_opens_the_photo_large(opened: Opened) -> None:
    tab = opened.tab
    tab.locator(".tile").first.click()
    assert tab.is_visible("#large")
    name = tab.inner_text("#large-name")
    for selector in (".stage .full", ".stage .full-mask"):
        tab.wait_for_selector(f"{selector}:not([hidden])")
        width = tab.locator(selector).evaluate("image => image.naturalWidth")
        assert width == WIDTH
    assert "cat" in tab.inner_text("#large-classes") or "dog" in tab.inner_text("#large-classes")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#large-name") != name
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#large")


def test_figures_and_recipe_are_behind_their_buttons(opened: Opened) -> None:
    tab = opened.tab
    tab.get_by_role("button", name="Figures").click()
    for text in ("Against the true masks", "Trainings", "Time", "Does confidence tell?"):
        assert tab.get_by_role("heading", name=text).is_visible()
    tab.get_by_role("button", name="Recipe").click()
    assert "kind: crf" in tab.inner_text("pre")


def test_it_stands_alone(browser: Any, page: Path, tmp_path: Path) -> None:
    alone = tmp_path / "moved.html"
    alone.write_bytes(page.read_bytes())
    opened = Opened(browser, alone)
    opened.tab.locator(".tile").first.click()
    opened.tab.wait_for_selector(".stage img[src^='data:']")
    assert opened.tab.locator(".stage .full").is_hidden()
    opened.tab.close()
