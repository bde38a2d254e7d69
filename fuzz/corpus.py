"""Valid inputs of every kind, small: what is spoilt is a copy of these."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from PIL import Image

from fuzz import DONE
from tiny import BACKBONE, CELLS, EVERY_KIND, IRN, SEGMENT, Lines, tiny_recipe
from weakseg.data.masks import write_mask
from weakseg.data.outlines import run_lengths
from weakseg.data.synth import generate
from weakseg.engine import runner
from weakseg.engine.executor import InProcessExecutor
from weakseg.engine.opened import open_run
from weakseg.engine.reviewed import DrawnStroke, Reviewed, Strokes
from weakseg.export import EXPORTERS
from weakseg.export.choose import Choice
from weakseg.export.write import export
from weakseg.names import shipped_recipes
from weakseg.networks.backbones import Backbone
from weakseg.recipe import dump_recipe, load_recipe

_IMAGES = 6
CLASSES = ("cat", "dog", "búho ☂")


def build(folder: Path) -> None:
    """Make the inputs in a folder, which is removed before; a folder a kind."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _pictures(folder)
    _datasets(folder)
    run = _run(folder)
    _exported(folder, run)
    _weights(folder)
    (folder / DONE).touch()


def _pixels(rng: np.random.Generator, channels: int = 3) -> Image.Image:
    shape = (24, 32, channels) if channels > 1 else (24, 32)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def _mask(rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((24, 32), np.uint8)
    mask[4:16, 5:20] = rng.integers(1, 4)
    mask[12:20, 18:30] = rng.integers(1, 4)
    mask[0] = 255
    return mask


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    photos, masks = folder / "photos", folder / "masks"
    photos.mkdir()
    masks.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    _pixels(rng).save(photos / "turned.jpg", exif=exif)
    _pixels(rng).save(photos / "progressive.jpg", progressive=True)
    _pixels(rng).convert("CMYK").save(photos / "cmyk.jpg")
    _pixels(rng).save(photos / "rgb.png")
    _pixels(rng, 4).save(photos / "rgba.png")
    _pixels(rng).convert("P").save(photos / "palette.gif")
    _pixels(rng).save(photos / "rgb.webp")
    _pixels(rng).save(photos / "rgb.bmp")
    _pixels(rng).save(photos / "lzw.tif", compression="tiff_lzw")
    deep = rng.integers(0, 4096, (24, 32)).astype(np.uint16)
    Image.fromarray(deep).save(photos / "deep.png")
    Image.fromarray(deep).save(photos / "deep.tif")
    write_mask(masks / "voc.png", _mask(rng))
    Image.fromarray(_mask(rng)).save(masks / "grey.png")
    Image.fromarray(_mask(rng)).save(masks / "grey.tif")
    Image.fromarray(_mask(rng) > 0).save(masks / "bits.png")


def _tagged(folder: Path, name: str = "images") -> list[str]:
    """Photos in a folder of a data set, and their ids."""
    (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(1)
    ids = [f"{'' if name == 'images' else Path(name).name}photo{n}" for n in range(4)]
    for image in ids:
        _pixels(rng).save(folder / name / f"{image}.jpg")
    return ids


def _datasets(folder: Path) -> None:
    rng = np.random.default_rng(2)
    data = folder / "tags_csv"
    ids = _tagged(data)
    with (data / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "tags"])
        rows.writerows([f"{image}.jpg", ";".join(CLASSES[: n % 4])] for n, image in enumerate(ids))
    (data / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    (data / "splits").mkdir()
    (data / "splits" / "train.txt").write_text("\n".join(ids[:3]))
    for image in ids[:2]:
        write_mask(data / "masks" / f"{image}.png", _mask(rng))

    data = folder / "voc"
    ids = _tagged(data, "JPEGImages")
    (data / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    (data / "Annotations").mkdir()
    (data / "ImageSets" / "Segmentation").mkdir(parents=True)
    (data / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(ids))
    for number, image in enumerate(ids):
        name = CLASSES[number % 3]
        (data / "Annotations" / f"{image}.xml").write_text(
            f"<annotation><filename>{image}.jpg</filename><object><name>{name}</name>"
            "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
            "</annotation>",
            encoding="utf-8",
        )
        write_mask(data / "SegmentationClass" / f"{image}.png", _mask(rng))

    data = folder / "ilsvrc"
    ids = _tagged(data, "Data/DET/val")
    (data / "Annotations" / "DET" / "val").mkdir(parents=True)
    (data / "ImageSets" / "DET").mkdir(parents=True)
    lines = "".join(f"{image} {number}\n" for number, image in enumerate(ids, start=1))
    (data / "ImageSets" / "DET" / "val.txt").write_text(lines)
    (data / "map_det.txt").write_text("n01 1 cat\nn02 2 dog\n")
    for number, image in enumerate(ids):
        (data / "Annotations" / "DET" / "val" / f"{image}.xml").write_text(
            f"<annotation><object><name>n0{1 + number % 2}</name></object></annotation>"
        )

    data = folder / "coco"
    ids = _tagged(data)
    (data / "annotations").mkdir()
    square = [[2, 2, 20, 2, 20, 15, 2, 15]]
    runs = {"size": [24, 32], "counts": [100, 20, 648]}
    packed = run_lengths(np.array([[100, 120], [124, 144]]), 24, 32)
    annotations = [
        {"id": n, "image_id": n % 4, "category_id": 1 + n % 3, "iscrowd": int(n == 5)}
        | {"segmentation": (square, runs, packed)[n % 3 if n != 5 else 1]}
        for n in range(8)
    ]
    content = {
        "images": [
            {"id": n, "file_name": f"{image}.jpg", "height": 24, "width": 32}
            for n, image in enumerate(ids)
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)],
    }
    (data / "annotations" / "instances_train.json").write_text(json.dumps(content))

    for name in ("cat", "dog"):
        _tagged(folder / "per_class", name)
    (folder / "names").mkdir()


def _run(folder: Path) -> Path:
    """A finished run of networks of every kind, with a review begun."""
    data, out = folder / "run" / "data", folder / "run" / "out"
    generate(data, _IMAGES, seed=3)
    steps = {**IRN, **SEGMENT, **CELLS, "taught": EVERY_KIND["taught"]}
    torch.set_num_threads(1)
    recipe = tiny_recipe(**steps)
    (data.parent / "recipe.yaml").write_text(dump_recipe(recipe))
    runner.run(recipe, data, out, InProcessExecutor(), Lines(), torch.device("cpu"))
    run = open_run(out)
    reviewed = Reviewed.of(out)
    first, second = run.photos(run.masks)[:2]
    name = run.dataset().samples[0].tags[0]
    stroke = DrawnStroke(name=name, points=[(10, 10), (30, 30)], radius=4)
    reviewed.draw(first, Strokes(strokes=[stroke]), run.mask(first))
    reviewed.accept(second, run.mask(second))
    reviewed.tag(first, [name])
    return out


def _exported(folder: Path, out: Path) -> None:
    """What tools give back, and one network of each kind."""
    run = open_run(out)
    given = (("coco", "coco"), ("cvat", "cvat"), ("label-studio", "label_studio"))
    for name, kind in (*given, ("coco-panoptic", "panoptic"), ("yolo", "yolo")):
        place = folder / f"mended_{kind}" / "given"
        export(run, EXPORTERS[name], place, Choice(), InProcessExecutor(), Lines())
        if (packed := place / "annotations.zip").is_file():
            shutil.unpack_archive(packed, place)
        (place.parent / "data").symlink_to(run.record.data["folder"])
    onnx = folder / "onnx"
    onnx.mkdir()
    export(
        run,
        EXPORTERS["onnx"],
        onnx / "model.onnx",
        Choice("segmenter"),
        InProcessExecutor(),
        Lines(),
    )
    networks = folder / "networks"
    networks.mkdir()
    for path in sorted(out.glob("*/*.safetensors")):
        with safetensors.safe_open(path, "np") as file:
            if file.metadata() is not None:
                shutil.copy(path, networks / f"{path.parent.name}-{path.name}")
    recipes = folder / "recipes"
    recipes.mkdir()
    (recipes / "tiny.yaml").write_text(dump_recipe(run.recipe))
    for name in shipped_recipes():
        (recipes / f"{name}.yaml").write_text(dump_recipe(load_recipe(name)))


def _weights(folder: Path) -> None:
    model = Backbone(BACKBONE["name"], "none").model
    weights = folder / "weights"
    weights.mkdir()
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    torch.save(state, weights / "state.pth")
    torch.save({"state_dict": state, "epoch": 3}, weights / "wrapped.pth")
    safetensors.torch.save_file(state, weights / "state.safetensors")
    checkpoint = {"state_dict": state, "callbacks": {}, "loops": {}, "epoch": 1, "global_step": 3}
    checkpoint |= {"optimizer_states": [], "lr_schedulers": []}
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    maps = folder / "maps"
    (maps / "given").mkdir(parents=True)
    rng = np.random.default_rng(4)
    data = maps / "data"
    ids = _tagged(data)
    (data / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    rows = "".join(f"{image},{CLASSES[0]};{CLASSES[1]}\n" for image in ids)
    (data / "tags.csv").write_text(f"image,tags\n{rows}")
    scores = rng.random((2, 6, 8), dtype=np.float32)
    safetensors.numpy.save_file({"scores": scores}, maps / "given" / "photo0.safetensors")
    np.savez(maps / "given" / "photo1.npz", scores=scores)
    np.savez_compressed(maps / "given" / "photo2.npz", scores)
    for name in CLASSES[:2]:
        _pixels(rng, 1).save(maps / "given" / f"photo3_{name}.png")
