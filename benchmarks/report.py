"""How long a run's page takes to be made, and to open, sort and filter in Chromium.

The photos and masks of a run are linked under other names until there are as many as are asked for;
with --once each is drawn once and its picture repeated, which measures the page and not its making.

python benchmarks/report.py --run runs/pixels --photos 1000
python benchmarks/report.py --run runs/pixels --photos 10000 --once
"""

import argparse
import csv
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from weakseg import open_run
from weakseg.data.dataset import load_dataset
from weakseg.data.masks import MaskFile, write_mask
from weakseg.engine.confidence import CONFIDENCE
from weakseg.engine.context import mask_steps
from weakseg.engine.executor import InProcessExecutor, LocalExecutor
from weakseg.engine.opened import Run
from weakseg.engine.record import RECORD
from weakseg.files import read_json, write_json
from weakseg.methods.base import Executor, Item, Result
from weakseg.progress import progress_for
from weakseg.recipe import RECIPE
from weakseg.report.build import build

FIRST = "document.querySelector('.tile img[src]')?.complete"
AFTER = """act => new Promise(done => {
  const start = performance.now();
  act();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
ACTS = {
    "sort": "() => { const s = document.getElementById('sort'); s.value = 'name'; "
    "s.dispatchEvent(new Event('change')); }",
    "filter by tag": "() => document.querySelector('#tags button').click()",
    "all tags again": "() => document.querySelector('#tags button').click()",
    "another step": "() => document.querySelector('#steps button:nth-child(2)').click()",
    "to the middle": "() => scrollTo(0, document.body.scrollHeight / 2)",
}


class Once(InProcessExecutor):
    """Works on one of the items that are of the same file."""

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        work = make()
        known: dict[Path, Result] = {}
        for item in items:
            key = item.sample.image.resolve()  # type: ignore[attr-defined]
            if key not in known:
                known[key] = work(item)
            yield known[key]


def repeat(run: Run, photos: int, folder: Path) -> Run:
    """A run of some photos whose files are links to those of another."""
    record = run.record.data
    dataset = load_dataset(Path(record["folder"]), record["split"], record["format"])
    masked = set(run.photos(run.masks))
    samples = [sample for sample in dataset.samples if sample.id in masked]
    data, out = folder / "data", folder / "run"
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True)
    out.mkdir()
    for name in (RECIPE, RECORD, "metrics.json", "assessment.json"):
        if (run.folder / name).is_file():
            shutil.copy(run.folder / name, out)
    steps = [s for s in mask_steps(run.steps.values(), held_out=False) if s.folder.is_dir()]
    for step in steps:
        (out / step.name).mkdir()
    sure = read_json(run.folder / CONFIDENCE)
    tags, its = [], {}
    for number in range(photos):
        sample = samples[number % len(samples)]
        name = f"{sample.id}-{number // len(samples)}"
        tags.append([name, ";".join(sample.tags)])
        its[name] = sure["photos"][sample.id]
        (data / "images" / f"{name}{sample.image.suffix}").symlink_to(sample.image)
        for step in steps:
            (out / step.name / f"{name}.png").symlink_to(step.folder / f"{sample.id}.png")
        if isinstance(sample.mask, MaskFile):
            (data / "masks" / f"{name}.png").symlink_to(sample.mask.path)
        elif sample.mask:
            write_mask(data / "masks" / f"{name}.png", sample.mask.read())
    (data / "classes.txt").write_text("\n".join(dataset.classes), encoding="utf-8")
    with (data / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "tags"], *tags])
    write_json(out / CONFIDENCE, {**sure, "photos": its})
    content = read_json(out / RECORD)
    its_data = {"folder": str(data), "format": "tagged-folder", "split": "all", "photos": photos}
    content["data"].update(its_data)
    write_json(out / RECORD, content)
    return open_run(out)


def open_in_chromium(page: Path, chromium: str) -> dict[str, float]:
    """Seconds to the first pictures and until all is there, and of what a person does then."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab: Any = browser.new_page(bypass_csp=True, viewport={"width": 1360, "height": 860})
        tab.set_default_timeout(300_000)
        start = time.monotonic()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_function(FIRST)
        found = {"first pictures": time.monotonic() - start}
        tab.wait_for_load_state("load")
        found["all of it"] = time.monotonic() - start
        for name, act in ACTS.items():
            found[name] = tab.evaluate(f"({AFTER})({act})") / 1000
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="a finished run's folder")
    parser.add_argument("--photos", type=int, required=True)
    parser.add_argument("--once", action="store_true", help="draw each of the run's photos once")
    parser.add_argument("--times", type=int, default=3, help="the page is opened so often")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = repeat(open_run(arguments.run), arguments.photos, Path(folder))
        start = time.monotonic()
        executor: Executor = Once() if arguments.once else LocalExecutor()
        page = build(run, executor, progress_for())
        executor.rest()
        made = time.monotonic() - start
        print(
            f"{arguments.photos} photos: {page.stat().st_size / 1e6:.1f} MB, made in {made:.1f} s"
        )
        tries = [open_in_chromium(page, arguments.chromium) for _ in range(arguments.times)]
        median = {name: statistics.median(t[name] for t in tries) for name in tries[0]}
        print(json.dumps({name: round(seconds, 3) for name, seconds in median.items()}))


if __name__ == "__main__":
    main()
