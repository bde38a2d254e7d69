import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from weakseg.data.masks import (
    VOC_PALETTE,
    MaskFile,
    OneClass,
    UnreadableMask,
    numbered_classes,
    read_mask,
    read_prediction,
    write_classes,
    write_mask,
)
from weakseg.files import stamp

MASKS = npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=40))


@pytest.mark.parametrize(
    ("id_", "colour"),
    [
        (0, (0, 0, 0)),
        (1, (128, 0, 0)),
        (2, (0, 128, 0)),
        (15, (192, 128, 128)),
        (20, (0, 64, 128)),
        (255, (224, 224, 192)),
    ],
)
def test_palette_has_the_colours_of_voc(id_: int, colour: tuple[int, int, int]) -> None:
    assert tuple(VOC_PALETTE[id_]) == colour


def test_palette_tells_all_ids_apart_and_cannot_be_changed() -> None:
    assert len(np.unique(VOC_PALETTE, axis=0)) == 256
    with pytest.raises(ValueError, match="read-only"):
        VOC_PALETTE[0] = 1


@settings(max_examples=50, deadline=None)
@given(mask=MASKS, transposed=st.booleans())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray, transposed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "mask.png"
    mask = mask.T if transposed else mask
    write_mask(path, mask)
    assert np.array_equal(read_mask(path), mask)


def test_file_is_a_palette_png_with_voc_colours(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "007.png"
    write_mask(path, np.array([[0, 15, 255]], np.uint8))
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        assert image.getpalette() == VOC_PALETTE.ravel().tolist()
        assert np.asarray(image.convert("RGB"))[0, 1].tolist() == [192, 128, 128]
    assert [p.name for p in path.parent.iterdir()] == ["007.png"]


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2), int), np.zeros((2, 2, 1), np.uint8), np.zeros((2, 2), bool)]
)
def test_write_takes_ids_only(tmp_path: Path, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected a uint8 \(H, W\) mask"):
        write_mask(tmp_path / "a.png", mask)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["P", "L"])
def test_reads_palette_and_grey(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (3, 2), 7)
    if mode == "P":
        image.putpalette(VOC_PALETTE.tobytes())
    image.save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert mask.dtype == np.uint8
    assert mask.flags.writeable
    assert mask.tolist() == [[7] * 3] * 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "LA"])
def test_refuses_other_modes(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableMask, match=rf"a\.png .* mode {mode}.* one class id per pixel"):
        read_mask(tmp_path / "a.png")


def test_refuses_what_is_no_png(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(UnreadableMask, match="no image of the kinds PNG, TIFF"):
        read_mask(tmp_path / "a.png")


def test_refuses_a_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMask, match="no such file"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["P", "L"])
def test_reads_tiff(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8))
    if mode == "P":
        image.putpalette(VOC_PALETTE.tobytes())
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    assert read_mask(tmp_path / "a.tif").tolist() == [[0, 1], [2, 255]]


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[255, 0]]
    with pytest.raises(UnreadableMask, match="mode 1"):
        read_prediction(tmp_path / "a.png")


def test_refuses_jpeg_in_tiff(tmp_path: Path) -> None:
    Image.new("L", (16, 16), 3).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(UnreadableMask, match="compressed as JPEG, which changes ids"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("read", [read_mask, read_prediction])
def test_refuses_ids_that_a_program_numbered_anew(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    colours = VOC_PALETTE[np.array([[0, 15, 2, 2]], np.uint8)]
    Image.fromarray(colours).quantize(3).save(tmp_path / "a.png")
    with pytest.raises(UnreadableMask, match=r"a\.png .* that saved it numbered them anew"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("palette", "fault"),
    [
        (VOC_PALETTE.tobytes(), None),
        (VOC_PALETTE[:3].tobytes(), None),
        (np.repeat(np.arange(256, dtype=np.uint8), 3).tobytes(), None),
        (bytes([0, 0, 0, 255, 255, 255, 9, 9, 9]), "its palette is not VOC's"),
    ],
)
def test_predictions_have_the_palette_of_voc_or_grey(
    tmp_path: Path, palette: bytes, fault: str | None
) -> None:
    ids = np.array([[0, 1, 2]], np.uint8)
    image = Image.fromarray(ids)
    image.putpalette(palette)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png"), ids)
    if fault is None:
        assert np.array_equal(read_prediction(tmp_path / "a.png"), ids)
    else:
        with pytest.raises(UnreadableMask, match=fault):
            read_prediction(tmp_path / "a.png")


def test_a_prediction_in_grey_has_no_colours(tmp_path: Path) -> None:
    Image.new("L", (3, 2), 7).save(tmp_path / "a.png")
    assert read_prediction(tmp_path / "a.png").tolist() == [[7] * 3] * 2


def test_a_mask_of_one_class_that_another_number_stands_for(tmp_path: Path) -> None:
    file = MaskFile.of(tmp_path / "a.png")
    write_mask(file.path, np.array([[0, 255], [255, 0]], np.uint8))
    mask = OneClass(file, 255)
    assert mask.read().tolist() == [[0, 1], [1, 0]]
    assert (str(mask), mask.stamp()) == (str(file.path), stamp(file.path))
    write_mask(file.path, np.array([[0, 128, 255]], np.uint8))
    assert OneClass(file, 128).read().tolist() == [[0, 1, 255]]
    with pytest.raises(UnreadableMask, match=r"a\.png has the ids \[128\], where 0 and 255"):
        mask.read()


def test_what_ids_mean_is_written_so_that_no_class_can_be_taken_for_it(tmp_path: Path) -> None:
    write_classes(tmp_path, ["a cat", "7"])
    text = (tmp_path / "classes.txt").read_text()
    assert text == "0\tbackground\n1\ta cat\n2\t7\n255\tignored\n"
    assert numbered_classes(text.splitlines()) == ("a cat", "7")
    assert numbered_classes(["a cat", "7"]) is None
    assert numbered_classes([]) is None
    with pytest.raises(ValueError, match="not 1, 2, 3"):
        numbered_classes(["1\tcat", "3\tdog"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
def test_a_pipe_is_no_mask(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(UnreadableMask, match="it is no regular file"):
        read_mask(tmp_path / "1.png")
