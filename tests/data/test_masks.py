from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from weakseg.data.masks import VOC_PALETTE, UnreadableMask, read_mask, write_mask

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


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "1", "LA"])
def test_refuses_other_modes(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(UnreadableMask, match=rf"a\.png .* mode {mode}.* one class id per pixel"):
        read_mask(tmp_path / "a.png")


def test_refuses_what_is_no_png(tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(UnreadableMask, match="no image of the kinds PNG"):
        read_mask(tmp_path / "a.png")


def test_refuses_a_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMask, match="no such file"):
        read_mask(tmp_path / "a.png")
