import numpy as np
import pytest

from weakseg.data.masks import VOC_PALETTE
from weakseg.drawing import draw_panel, overlay_heat, overlay_mask

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_a_mask_shows_in_its_colour_and_its_photo_beneath() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20] = 3
    mask[30:] = 255
    shown = overlay_mask(PHOTO, mask, strength=1.0)
    assert (shown[10:19] == VOC_PALETTE[3]).all()
    assert (shown[[9, 19]] == 255).all()  # the outline
    assert (shown[30:] == 255).all()
    np.testing.assert_allclose(shown[0, :, 0], 0.75 * PHOTO[0].mean(axis=1), atol=1)


def test_heat_goes_from_blue_to_red() -> None:
    heat = np.linspace(0, 1, 60, dtype=np.float32)[None].repeat(40, axis=0)
    shown = overlay_heat(PHOTO, heat, strength=1.0).astype(int)
    assert shown[0, 0, 2] > shown[0, 0, 0]
    assert shown[0, -1, 0] > shown[0, -1, 2]


@pytest.mark.parametrize("count", [1, 5])
def test_a_panel_has_a_place_for_each_picture_and_a_legend(count: int) -> None:
    panel = np.asarray(draw_panel([("photo", PHOTO)] * count, [("cat", 3)]))
    places = sum(
        (panel[y : y + 40, x : x + 60] == PHOTO).all()
        for y in range(15, 30)
        for x in range(panel.shape[1] - 59)
    )
    assert places == count
    assert (panel == VOC_PALETTE[3]).all(axis=2).any()
