"""Pictures for people: maps and masks over photos, side by side."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from weakseg.data.masks import IGNORE, VOC_PALETTE

Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

_HEAT = np.array([[0, 0, 96], [0, 96, 224], [64, 224, 160], [255, 224, 32], [224, 32, 0]], float)
_UNCERTAIN = np.array([255, 255, 255], float)
_EDGE = np.array([255, 255, 255], float)
_MARGIN, _CAPTION = 6, 22


def overlay_mask(photo: Picture, mask: NDArray[np.uint8], strength: float = 0.6) -> Picture:
    """A mask (H, W) in VOC's colours over its photo, outlined; uncertain pixels are whitened."""
    colours = VOC_PALETTE.astype(float)[mask]
    colours[mask == IGNORE] = _UNCERTAIN
    grey = photo.mean(axis=2, keepdims=True)
    shown = np.where(mask[..., None] == 0, 0.75 * grey, _blend(grey, colours, strength))
    shown[_edges(mask)] = _EDGE
    return shown.astype(np.uint8)


def overlay_heat(photo: Picture, heat: NDArray[np.float32], strength: float = 0.6) -> Picture:
    """A map (H, W) in [0, 1] over its photo, from blue (0) to red (1)."""
    place = np.clip(heat, 0, 1) * (len(_HEAT) - 1)
    stops = np.arange(len(_HEAT))
    colours = np.stack([np.interp(place, stops, channel) for channel in _HEAT.T], axis=-1)
    return _blend(photo.mean(axis=2, keepdims=True), colours, strength).astype(np.uint8)


def draw_panel(
    columns: Sequence[tuple[str, Picture]], legend: Sequence[tuple[str, int]]
) -> Image.Image:
    """Pictures of one size side by side under their captions, with the classes' colours below.

    Args:
        columns: caption and picture of each; at least one.
        legend: names of classes and their mask ids.
    """
    height, width = columns[0][1].shape[:2]
    panel = Image.new(
        "RGB",
        (
            len(columns) * (width + _MARGIN) + _MARGIN,
            height + 2 * (_CAPTION + _MARGIN),
        ),
        "white",
    )
    draw = ImageDraw.Draw(panel)
    font = ImageFont.load_default(size=14)
    for i, (caption, picture) in enumerate(columns):
        left = _MARGIN + i * (width + _MARGIN)
        draw.text((left, _MARGIN // 2), caption, fill="black", font=font)
        panel.paste(Image.fromarray(picture), (left, _CAPTION))
    left, top = _MARGIN, _CAPTION + height + _MARGIN
    for name, class_id in legend:
        draw.rectangle((left, top, left + 14, top + 14), fill=tuple(VOC_PALETTE[class_id].tolist()))
        draw.text((left + 20, top - 2), name, fill="black", font=font)
        left += 36 + int(draw.textlength(name, font=font))
    return panel


def _edges(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour has another id."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, 1:] != mask[:, :-1]
    edges[:-1] |= mask[1:] != mask[:-1]
    return edges


def _blend(under: NDArray[np.floating], over: NDArray[np.floating], strength: float) -> Picture:
    mixed: Picture = (1 - strength) * under + strength * over
    return mixed
