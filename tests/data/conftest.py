"""A small generator of data folders."""

import shutil
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Folder = Callable[..., Path]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _photos(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 3), "teal").save(folder / name)


@pytest.fixture
def tagged_folder(tmp_path: Path) -> Folder:
    """Writes images/ of 3 x 4 pixels, tags.csv, and whatever other text files are asked for."""

    def write(names: Sequence[str], tags_csv: str, texts: Mapping[str, str] | None = None) -> Path:
        root = tmp_path / "set"
        _photos(root / "images", names)
        for path, text in {"tags.csv": tags_csv, **(texts or {})}.items():
            _write(root / path, text)
        return root

    return write


@pytest.fixture
def voc_folder(tmp_path: Path) -> Folder:
    """Writes JPEGImages/ of 3 x 4 pixels, and text files."""

    def write(ids: Sequence[str], texts: Mapping[str, str]) -> Path:
        root = tmp_path / "VOC2012"
        _photos(root / "JPEGImages", [f"{i}.jpg" for i in ids])
        for path, text in texts.items():
            _write(root / path, text)
        return root

    return write


@pytest.fixture
def any_folder(tmp_path: Path) -> Folder:
    """Writes photos of 3 x 4 pixels, named by path and no two alike, and text files.

    What is in a folder NAME.tar is in a file of that name.
    """

    def write(photos: Sequence[str], texts: Mapping[str, str] | None = None) -> Path:
        root = tmp_path / "set"
        root.mkdir()
        for number, name in enumerate(photos):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3), (0, 30 * number, 0)).save(root / name)
        for path, text in (texts or {}).items():
            _write(root / path, text)
        for folder in root.glob("*.tar"):
            unpacked = folder.rename(folder.with_suffix(".folder"))
            with tarfile.open(folder, "w") as tar:
                tar.add(unpacked, ".")
            shutil.rmtree(unpacked)
        return root

    return write


@pytest.fixture
def noise() -> np.ndarray:
    """Smooth enough for JPEG to keep, and without any symmetry: uint8 (16, 24, 3)."""
    y, x = np.mgrid[:16, :24]
    return np.stack([x * 10, y * 15, (x * 3 + y * 7) % 256], axis=2).astype(np.uint8)
