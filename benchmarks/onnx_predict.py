"""A network's ONNX file beside the network: equal masks, and what a photo takes on one thread.

    python benchmarks/onnx_predict.py --data VOC2012 --run runs/network --photos 24

Photos go from file to file, as `weakseg predict` takes them, with PyTorch (the backbone fused) and
with ONNX Runtime in turn. Times are of the CPU, medians of all photos, after one of each size.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from side_by_side import some_photos
from weakseg.data.images import read_photo
from weakseg.data.masks import read_mask
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.predict import find_network
from weakseg.export.onnx import export_onnx
from weakseg.methods.base import Item, Result
from weakseg.methods.networks import read_segmenter
from weakseg.methods.segment import TTA, Segment, segment_photos
from weakseg.progress import Silence
from weakseg.segment.onnx import OnnxModel

SIZES = [(375, 500), (333, 500), (281, 499), (500, 375), (97, 65), (513, 257)]


def agreement(network: Path, exported: Path, images: list[NDArray[np.uint8]]) -> None:
    """Logits of the file beside those of the network in float32, not fused, at `SIZES`."""
    plain, _ = read_segmenter(network, torch.device("cpu"))
    model = OnnxModel(exported)
    print("| image | equal labels, % | largest difference of a logit |\n|---|---|---|")
    for (height, width), image in zip(SIZES, cycle(images)):
        rows, columns = (
            np.arange(side) * of // side
            for side, of in zip((height, width), image.shape[:2], strict=True)
        )
        given = torch.from_numpy(image[rows][:, columns]).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            true = plain(given).numpy()
        found = model.logits(given.numpy())
        equal = 100 * (found.argmax(axis=1) == true.argmax(axis=1)).mean()
        print(f"| {height}x{width} | {equal:.4f} | {np.abs(found - true).max():.1e} |")


class Kept(InProcessExecutor):
    """Sets up its work once, as a worker does."""

    def __init__(self) -> None:
        self._made: dict[Any, Callable[[Any], Any]] = {}

    def map(
        self, make: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
    ) -> Iterator[Result]:
        if make not in self._made:
            self._made[make] = make()
        return map(self._made[make], items)


def seconds(model: Path, photo: Path, folder: Path, settings: Segment, executor: Kept) -> float:
    start = time.process_time()
    named = [(photo.stem, photo)]
    left_out = segment_photos(model, named, folder, executor, Silence(), "cpu", settings)
    assert not left_out, left_out
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="Its folder, or a network's file.")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--tta", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    photos = some_photos(arguments.data, arguments.photos)
    network = find_network(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        export_onnx(network, exported)
        print(f"{exported.stat().st_size / 1e6:.1f} MB")
        agreement(network, exported, [read_photo(photo) for photo in photos])
        executor = Kept()
        for views in (Segment(), TTA) if arguments.tta else (Segment(),):
            taken: dict[Path, list[float]] = {network: [], exported: []}
            equal = []
            for photo in photos:
                for model in taken:
                    out = Path(folder) / model.suffix[1:]
                    seconds(
                        model, photo, out, views, executor
                    )  # of its size, which is compiled for
                    taken[model].append(seconds(model, photo, out, views, executor))
                one, other = (
                    read_mask(Path(folder) / model.suffix[1:] / f"{photo.stem}.png")
                    for model in taken
                )
                equal.append((one == other).mean())
            torch_ms, onnx_ms = (1000 * statistics.median(times) for times in taken.values())
            print(f"{'TTA' if views == TTA else 'one view'}, {len(photos)} photos, one thread:")
            print(f"CPU ms a photo: PyTorch {torch_ms:.0f}, ONNX Runtime {onnx_ms:.0f}")
            print(f"ratio {torch_ms / onnx_ms:.2f}")
            print(f"equal pixels, %: {100 * np.mean(equal):.4f}, the worst {100 * min(equal):.3f}")


if __name__ == "__main__":
    main()
