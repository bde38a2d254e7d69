"""How long the page that mends masks lets a person wait, in Chromium, by real mouse events.

    python benchmarks/review_page.py --run runs/pixels --photos 50

On each of the photos that the run is least sure of, a stroke is drawn in the largest wrong region
(`benchmarks/strokes.py`), and the photo is accepted. Nobody pauses in between: a person who looks
at a photo before drawing gives the server more time to prepare. The review that is kept is one of a
copy of the run, of links.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from strokes import largest_wrong, true_mask
from weakseg.data.masks import BACKGROUND
from weakseg.engine.opened import open_run
from weakseg.engine.reviewed import NAME
from weakseg.refine.strokes import Stroke
from weakseg.review.photos import Review

READY = "#stage[aria-busy=false]"
WATCH = """() => {
  const state = document.getElementById("state"), stage = document.getElementById("stage");
  const now = () => performance.now();
  let start, done;
  const painted = () => requestAnimationFrame(() => setTimeout(() => done(now() - start)));
  new MutationObserver(() => { if (state.textContent === "Saved") painted(); })
    .observe(state, { childList: true });
  new MutationObserver(() => { if (stage.ariaBusy === "false") painted(); })
    .observe(stage, { attributeFilter: ["aria-busy"] });
  const begin = () => { start = now(); };
  stage.addEventListener("pointerup", begin, true);
  document.getElementById("accept").addEventListener("click", begin, true);
  window.wait = () => { window.waited = new Promise((resolve) => { done = resolve; }); };
}"""
"""Milliseconds from the mouse's release to the frame after the page has drawn the mask."""


@contextmanager
def served(run: Path, step: str | None, folder: Path) -> Iterator[str]:
    """The page's address, of a copy of a run whose review is empty."""
    copy = folder / run.resolve().name
    copy.mkdir()
    for path in run.resolve().iterdir():
        if path.name != NAME:
            (copy / path.name).symlink_to(path)
    command = [sys.executable, "-m", "weakseg", "review", str(copy), "--no-browser"]
    server = subprocess.Popen(
        command + (["--step", step] if step else []), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        yield server.stdout.readline().split()[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def draw(tab: Any, stroke: Stroke, name: str) -> None:
    """Drag a stroke with a class in hand, by the mouse."""
    tab.locator("#classes li").filter(has=tab.get_by_text(name, exact=True)).click()
    tab.locator("#size").fill(str(round(stroke.radius)))
    box, size = (
        tab.locator("#stage").bounding_box(),
        tab.evaluate(
            "(({ naturalWidth: width, naturalHeight: height }) => ({ width, height }))(photo)"
        ),
    )
    places = [
        (box["x"] + x / size["width"] * box["width"], box["y"] + y / size["height"] * box["height"])
        for x, y in stroke.points
    ]
    tab.mouse.move(*places[0])
    tab.mouse.down()
    for place in places[1:]:
        tab.mouse.move(*place)
    tab.evaluate("wait()")
    tab.mouse.up()


def measure(review: Review, photos: int, address: str, chromium: str) -> dict[str, list[float]]:
    """Seconds a stroke, and a photo accepted, of those that the run is least sure of."""
    from playwright.sync_api import sync_playwright

    strokes, nexts = list[float](), list[float]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab: Any = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.set_default_timeout(60_000)
        tab.goto(address)
        tab.wait_for_selector(READY)
        tab.evaluate(WATCH)
        for photo in review.order[:photos]:
            assert tab.locator("#name").inner_text() == photo
            stroke = largest_wrong(true_mask(review, photo), review.base(photo))
            name = stroke and [BACKGROUND, *review.run.classes][stroke.label]
            if stroke and name in review.named(photo):
                draw(tab, stroke, name)
                strokes.append(tab.evaluate("waited") / 1000)
            tab.evaluate("wait()")
            tab.locator("#accept").click()
            nexts.append(tab.evaluate("waited") / 1000)
        browser.close()
    return {"stroke to new mask": strokes, "accepted to next photo": nexts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--step", help="whose masks are mended; by default the last")
    parser.add_argument("--photos", type=int, default=50)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    review = Review.of(open_run(arguments.run), arguments.step)
    with (
        tempfile.TemporaryDirectory() as folder,
        served(arguments.run, arguments.step, Path(folder)) as address,
    ):
        found = measure(review, arguments.photos, address, arguments.chromium)
    for name, seconds in found.items():
        median, most = np.median(seconds), np.quantile(seconds, 0.95)
        print(
            f"{name}: median {median:.2f} s, p95 {most:.2f} s, of {len(seconds)}; "
            f"the first {seconds[0]:.2f} s"
        )


if __name__ == "__main__":
    main()
