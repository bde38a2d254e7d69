"""The page in a browser: keys, strokes, undo, acceptance; skipped where there is no Chromium."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

READY = "#stage[aria-busy=false]"
PATIENCE = 60_000


@pytest.fixture(scope="module")
def out(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "<b>out</b>"
    shutil.copytree(finished, folder)
    told = json.loads((folder / "confidence.json").read_text())
    for number, photo in enumerate(told["photos"].values()):
        photo["confidence"] = [0.314, 0.004, 0.62][min(number, 2)]
    (folder / "confidence.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def address(out: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "weakseg", "review", str(out), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().split()[0]
    server.send_signal(signal.SIGINT)
    server.wait(30)


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(PATIENCE)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.goto(address)
    page.wait_for_selector(READY)
    yield page
    page.close()
    assert wrong == []


def saved(page: Any) -> None:
    expect(page.locator("#state")).to_have_text("Saved", timeout=PATIENCE)


def drag(page: Any, button: str = "left", at: float = 0.5) -> None:
    box = page.locator("#stage").bounding_box()
    x, y = box["x"] + 0.2 * box["width"], box["y"] + at * box["height"]
    page.mouse.move(x, y)
    page.mouse.down(button=button)
    page.mouse.move(x + 0.3 * box["width"], y, steps=4)
    page.mouse.up(button=button)
    saved(page)


def pixels(page: Any) -> int:
    """How many pixels of the mask are shown."""
    count: int = page.evaluate(
        """() => { const canvas = document.querySelector("#mask");
        const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return all.filter((value, index) => index % 4 === 3 && value).length; }"""
    )
    return count


def test_the_least_sure_photo_comes_first_and_is_not_said_to_be_0_percent_sure(page: Any) -> None:
    expect(page.locator("#place")).to_have_text("1 of 10")
    expect(page.locator("#sure")).to_have_text("under 1 % sure")
    page.keyboard.press("d")
    expect(page.locator("#sure")).to_have_text("31 % sure")


def test_a_photo_is_mended_and_accepted_by_hand_and_key(page: Any, out: Path) -> None:
    photo = page.locator("#name").inner_text()
    strokes = out / "review" / "strokes" / f"{photo}.json"
    before = pixels(page)

    def kept() -> list[str]:
        return [one["name"] for one in json.loads(strokes.read_text())["strokes"]]

    page.keyboard.press("1")
    held = page.locator("#classes .held .name").inner_text()
    drag(page)
    assert kept() == [held]
    assert pixels(page) > before
    after = pixels(page)
    drag(page, "right")
    assert kept() == [held, "background"]
    page.keyboard.press("Control+z")
    saved(page)
    assert kept() == [held]
    assert pixels(page) == after
    page.keyboard.press("Control+z")
    saved(page)
    assert not strokes.exists()
    assert pixels(page) == before
    page.keyboard.press("Control+Shift+z")
    saved(page)
    page.keyboard.press("Control+y")
    saved(page)
    assert kept() == [held, "background"]
    page.keyboard.press("Enter")
    expect(page.locator("#name")).not_to_have_text(photo)
    assert (out / "review" / "accepted" / f"{photo}.png").is_file()
    page.keyboard.press("a")
    expect(page.locator("#name")).to_have_text(photo)
    assert "accepted" in (page.locator("#strip .now").get_attribute("class") or "")


def test_undo_takes_back_an_acceptance_before_the_strokes_under_it(page: Any, out: Path) -> None:
    photo = page.locator("#name").inner_text()
    accepted = out / "review" / "accepted" / f"{photo}.png"
    drag(page)
    drawn = pixels(page)
    page.keyboard.press("Enter")
    expect(page.locator("#name")).not_to_have_text(photo)
    page.keyboard.press("a")
    expect(page.locator("#sure")).to_have_text("accepted")
    page.keyboard.press("Control+z")
    expect(page.locator("#sure")).not_to_have_text("accepted")
    expect(page.locator("#stage")).to_have_attribute("aria-busy", "false")
    assert not accepted.exists()
    assert pixels(page) == drawn
    assert (out / "review" / "strokes" / f"{photo}.json").is_file()
    page.keyboard.press("Control+z")
    saved(page)
    assert not (out / "review" / "strokes" / f"{photo}.json").exists()


def test_keys_move_hide_and_choose(page: Any) -> None:
    first = page.locator("#place").inner_text()
    page.keyboard.press("d")
    assert page.locator("#place").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#place").inner_text() == first
    page.keyboard.press("h")
    assert "hidden" in page.locator("#stage").get_attribute("class")
    page.keyboard.press("h")
    page.keyboard.down(" ")
    assert "hidden" in page.locator("#stage").get_attribute("class")
    page.keyboard.up(" ")
    assert "hidden" not in page.locator("#stage").get_attribute("class")
    page.keyboard.press("e")
    assert page.locator("#classes .held .name").inner_text() == "background"
    size = page.locator("#size")
    before = int(size.input_value())
    page.keyboard.press("]")
    assert int(size.input_value()) > before
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert int(size.input_value()) < before


def test_all_photos_are_accepted_by_keys_alone(page: Any, out: Path) -> None:
    count = page.locator("#strip button").count()
    place = page.locator("#place")
    while not place.inner_text().startswith("1 "):
        page.keyboard.press("a")
    for number in range(1, int(place.inner_text().split()[-1]) + 1):
        expect(place).to_have_text(f"{number} of {count}")
        page.wait_for_selector(READY)
        expect(page.locator("#strip .now")).to_be_in_viewport(ratio=0.9)
        page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("All photos are accepted")
    assert len(list((out / "review" / "accepted").iterdir())) == count
    expect(page.locator("#sure")).to_have_text("accepted")


def test_arrows_hold_the_class_above_and_below(page: Any) -> None:
    held = page.locator("#classes .held .name")
    first = held.inner_text()
    page.keyboard.press("ArrowUp")
    expect(held).to_have_text("background")
    page.keyboard.press("ArrowUp")
    expect(held).to_have_text("background")
    page.keyboard.press("ArrowDown")
    expect(held).to_have_text(first)


def test_enter_and_space_are_of_the_button_that_the_tab_key_has_reached(page: Any) -> None:
    crf, place = page.locator("#crf"), page.locator("#place").inner_text()
    for key in ("Enter", " "):
        before = crf.get_attribute("class") or ""
        crf.focus()
        page.keyboard.press(key)
        assert (crf.get_attribute("class") or "") != before
    page.locator("#hide").click()
    page.keyboard.press(" ")
    page.locator("#hide").click()
    assert page.locator("#stage").get_attribute("class") == ""
    assert page.locator("#place").inner_text() == place


def test_a_tag_is_given_and_lost(page: Any, out: Path) -> None:
    page.keyboard.press("d")
    page.wait_for_selector(READY)
    photo = page.locator("#name").inner_text()
    names = page.locator("#classes .name")
    own = names.all_inner_texts()
    new = next(
        name
        for name in page.evaluate(
            "[...document.querySelectorAll('#names option')].map(o => o.value)"
        )
        if name not in own
    )
    page.keyboard.press("t")
    page.keyboard.type(new)
    page.keyboard.press("Enter")
    page.locator("#classes .name", has_text=new).wait_for()
    assert new in json.loads((out / "review" / "tags.json").read_text())[photo]
    page.locator("#classes li", has_text=new).hover()
    page.locator("#classes li", has_text=new).locator("button").click()
    page.locator("#classes .name", has_text=new).wait_for(state="detached")
    assert new not in json.loads((out / "review" / "tags.json").read_text())[photo]


def test_teaching_says_how_many_masks_follow(page: Any) -> None:
    drag(page, at=0.3)
    page.locator("#teach").click()
    expect(page.locator("#taught")).to_contain_text("masks follow", timeout=PATIENCE)
