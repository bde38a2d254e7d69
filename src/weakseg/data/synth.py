"""A generated data set with exact masks, for demos, tests and benchmarks.

Every class is a body with one telling part: a car has wheels, an owl has a face. Bodies share one
family of outlines and take a new colour and texture in every image, and scenes hold bodies without
a part that belong to no class. So a classifier learns the parts, its activation maps miss the
bodies, and the later steps of a weakly supervised pipeline have something to recover.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from weakseg.data.masks import write_mask
from weakseg.errors import WeaksegError
from weakseg.files import write_atomically, write_text

Array = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Range = tuple[float, float]
Colour = tuple[float, float, float]
Point = tuple[float, float]
Window = tuple[slice, slice]

SIDES = (160, 240)
MAX_TAGS = 3
OBJECTS = (0.35, 0.35, 0.2, 0.1)  # the chance of 1, 2, 3 and 4 objects
PLACEMENTS = 12
VAL_EVERY, VAL_AT = 5, 2  # no divisor of the number of classes, so that val holds every class
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Shape:
    """A polygon, or a stroke where `width` is above 0.

    Attributes:
        paint: a name in `PAINTS`, "body" for the body's texture, or "accent" for a colour that
            is drawn anew for every object.
        points: float64 (n, 2), x to the right and y down.
        width: a stroke's width, in the units of `points`.
    """

    paint: str
    points: Array
    width: float = 0.0

    def mapped(self, matrix: Array, shift: Array | Point = (0, 0)) -> "Shape":
        """Returns the shape under `matrix`, (2, 2), and then shifted."""
        scale = float(np.sqrt(abs(np.linalg.det(matrix))))
        return Shape(self.paint, self.points @ matrix.T + shift, self.width * scale)


@dataclass(frozen=True)
class Kind:
    """A class: a body, limbs, and the telling part.

    Attributes:
        name: the tag.
        aspect: range of width / height of the body.
        power: range of the body's superellipse exponent; 2 is an ellipse, 4 nearly a box.
        taper: range of how much wider the body is at the bottom than in the middle.
        limbs: further shapes, in units of the body's half width and half height.
        part_at: where the telling part goes, in the same units.
        part_size: its scale, where the body's area is that of a square from -1 to 1.
        part: its shapes, about the origin, of radius about 1.
    """

    name: str
    aspect: Range
    power: Range
    taper: Range
    limbs: tuple[Shape, ...]
    part_at: tuple[Point, ...]
    part_size: float
    part: tuple[Shape, ...]


@dataclass(frozen=True)
class Ground:
    """The far or the near ground: colours from top to bottom, texture and its contrast."""

    top: Colour
    bottom: Colour
    texture: str
    contrast: float


@dataclass(frozen=True)
class Scene:
    """Two grounds that meet at a horizon, and the colours of what lies about.

    Attributes:
        horizon: range of the far ground's share of the height.
    """

    horizon: Range
    far: Ground
    near: Ground
    clutter: tuple[Colour, ...]


def _poly(paint: str, *points: Point) -> Shape:
    return Shape(paint, np.array(points, np.float64))


def _line(paint: str, width: float, *points: Point) -> Shape:
    return Shape(paint, np.array(points, np.float64), width)


def _curl(radii: Range, turns: Range, steps: int = 50, at: Point = (0, 0)) -> list[Point]:
    """Points from one radius to the other, while the angle runs over `turns`."""
    angle = 2 * np.pi * np.linspace(*turns, steps)
    radius = np.linspace(*radii, steps)
    x, y = at[0] + radius * np.cos(angle), at[1] + radius * np.sin(angle)
    return list(zip(x.tolist(), y.tolist(), strict=True))


def _ring(count: int, radius: float) -> list[Point]:
    return _curl((radius, radius), (0, 1 - 1 / count), count)


def _oval(paint: str, x: float, y: float, rx: float, ry: float) -> Shape:
    return _poly(paint, *((x + rx * u, y + ry * v) for u, v in _ring(40, 1)))


def _disc(paint: str, x: float, y: float, radius: float) -> Shape:
    return _oval(paint, x, y, radius, radius)


PAINTS: dict[str, Colour] = {
    "dark": (0.09, 0.09, 0.12),
    "light": (0.94, 0.92, 0.86),
    "amber": (0.95, 0.68, 0.16),
    "rose": (0.88, 0.48, 0.50),
    "leaf": (0.30, 0.52, 0.22),
    "glass": (0.68, 0.82, 0.88),
}

_WHEEL = (
    _disc("dark", 0, 0, 1.0),
    _disc("light", 0, 0, 0.62),
    *(_line("dark", 0.16, (-x, -y), (x, y)) for x, y in _ring(10, 0.62)[:5]),
    _disc("accent", 0, 0, 0.2),
)
_CAT_FACE = (
    *(_poly("body", (0.98 * s, -1.25), (s, -0.1), (0.2 * s, -0.75)) for s in (-1, 1)),
    _oval("body", 0, 0, 1.12, 0.95),
    *(_poly("rose", (0.85 * s, -0.98), (0.86 * s, -0.45), (0.45 * s, -0.75)) for s in (-1, 1)),
    *(_oval("amber", x, -0.12, 0.27, 0.24) for x in (-0.45, 0.45)),
    *(_oval("dark", x, -0.12, 0.09, 0.22) for x in (-0.45, 0.45)),
    _oval("light", 0, 0.42, 0.42, 0.28),
    _poly("rose", (-0.16, 0.2), (0.16, 0.2), (0, 0.42)),
    *(_line("light", 0.06, (0.35 * s, 0.42), (1.35 * s, y)) for s in (-1, 1) for y in (0.2, 0.6)),
)
_FISH_FACE = (
    _poly("accent", (-0.35, -1.0), (-0.05, -1.1), (0.15, 0.0), (-0.05, 1.1), (-0.35, 1.0)),
    *(_line("light", 0.14, (x, -0.85), (x + 0.2, 0), (x, 0.85)) for x in (0.3, 0.62)),
    _disc("light", -0.85, -0.2, 0.42),
    _disc("dark", -0.92, -0.2, 0.24),
    _line("dark", 0.1, (-1.55, 0.42), (-1.2, 0.5), (-0.95, 0.4)),
)
_BLOSSOM = (
    *(_disc("accent", x, y, 0.46) for x, y in _ring(8, 0.72)),
    *(_line("light", 0.07, (0, 0), (x, y)) for x, y in _ring(8, 0.95)),
    _disc("amber", 0, 0, 0.42),
    *(_disc("dark", x, y, 0.07) for x, y in _ring(6, 0.22)),
)
_OWL_FACE = (
    *(_disc("light", x, 0, 0.62) for x in (-0.55, 0.55)),
    *(_disc("amber", x, 0, 0.42) for x in (-0.55, 0.55)),
    *(_disc("dark", x, 0, 0.25) for x in (-0.55, 0.55)),
    _poly("amber", (-0.2, 0.3), (0.2, 0.3), (0, 0.85)),
)
_SHELL = (_disc("light", 0, 0, 1.0), _line("accent", 0.24, *_curl((0.05, 0.86), (0.1, 2.6))))

_CABIN = (
    _poly("body", (-0.62, -0.7), (-0.38, -1.45), (0.4, -1.45), (0.72, -0.7)),
    _poly("glass", (-0.42, -0.85), (-0.29, -1.3), (-0.02, -1.3), (-0.02, -0.85)),
    _poly("glass", (0.08, -0.85), (0.08, -1.3), (0.33, -1.3), (0.5, -0.85)),
)
_TAIL = (_line("body", 0.2, *_curl((0.55, 0.55), (-0.2, 0.25), at=(0.85, 0.05))),)
_FINS = (
    _poly("body", (0.8, 0), (1.5, -0.75), (1.3, 0), (1.5, 0.75)),
    _poly("body", (-0.2, -0.8), (0.5, -1.35), (0.5, -0.6)),
)
_STEM = (
    _line("leaf", 0.12, (0, -0.9), (0.05, -1.2), (0, -1.6)),
    _poly("leaf", (0.03, -1.0), (0.35, -1.3), (0.75, -1.25), (0.45, -1.02)),
)
_TUFTS = tuple(_poly("body", (0.75 * s, -0.6), (0.8 * s, -1.3), (0.2 * s, -0.9)) for s in (-1, 1))
_HORNS = tuple(_line("body", 0.16, (-0.65, -0.3), (x, -1.25)) for x in (-0.95, -0.65))

KINDS: tuple[Kind, ...] = (
    Kind("car", (1.5, 2.0), (2.4, 4.0), (0.0, 0.3), _CABIN,
         ((-0.55, 0.9), (0.55, 0.9)), 0.34, _WHEEL),
    Kind("cat", (0.8, 1.25), (1.9, 2.6), (0.0, 0.35), _TAIL, ((-0.3, -0.85),), 0.50, _CAT_FACE),
    Kind("fish", (1.3, 1.9), (1.7, 2.3), (-0.2, 0.2), _FINS, ((-0.42, 0.0),), 0.44, _FISH_FACE),
    Kind("flower", (0.8, 1.2), (2.0, 4.0), (-0.35, 0.25), _STEM, ((0.0, -1.6),), 0.47, _BLOSSOM),
    Kind("owl", (0.7, 1.05), (2.0, 2.8), (-0.1, 0.3), _TUFTS, ((0.0, -0.55),), 0.47, _OWL_FACE),
    Kind("snail", (1.5, 2.0), (1.9, 2.8), (0.0, 0.35), _HORNS, ((0.25, -0.55),), 0.50, _SHELL),
)  # fmt: skip

BODY_TEXTURES = ("mottle", "grain", "stripes", "spots", "checks")

_STONE, _BARK, _BUSH = (0.50, 0.49, 0.47), (0.36, 0.27, 0.20), (0.20, 0.36, 0.17)
SCENES: dict[str, Scene] = {
    "meadow": Scene((0.25, 0.5), Ground((0.42, 0.62, 0.85), (0.80, 0.87, 0.90), "mottle", 0.10),
        Ground((0.42, 0.56, 0.26), (0.24, 0.40, 0.15), "streaks", 0.16),
        (_STONE, _BUSH, (0.62, 0.60, 0.30))),
    "beach": Scene((0.25, 0.55), Ground((0.20, 0.45, 0.62), (0.45, 0.70, 0.75), "waves", 0.16),
        Ground((0.80, 0.72, 0.55), (0.70, 0.58, 0.42), "grain", 0.12),
        (_STONE, (0.85, 0.80, 0.72), (0.45, 0.33, 0.24))),
    "forest": Scene((0.4, 0.7), Ground((0.17, 0.28, 0.16), (0.34, 0.44, 0.24), "mottle", 0.20),
        Ground((0.42, 0.35, 0.22), (0.30, 0.23, 0.14), "grain", 0.20),
        (_BARK, _BUSH, (0.45, 0.38, 0.20))),
    "room": Scene((0.45, 0.7), Ground((0.76, 0.70, 0.62), (0.66, 0.58, 0.52), "stripes", 0.09),
        Ground((0.55, 0.40, 0.28), (0.40, 0.28, 0.19), "waves", 0.16),
        ((0.30, 0.36, 0.46), (0.72, 0.66, 0.52), (0.50, 0.28, 0.24))),
    "street": Scene((0.4, 0.65), Ground((0.58, 0.42, 0.36), (0.50, 0.36, 0.32), "bricks", 0.18),
        Ground((0.46, 0.46, 0.48), (0.34, 0.34, 0.37), "grain", 0.14),
        (_STONE, (0.26, 0.30, 0.36), (0.66, 0.60, 0.44))),
    "dusk": Scene((0.45, 0.7), Ground((0.28, 0.24, 0.46), (0.88, 0.56, 0.42), "waves", 0.08),
        Ground((0.32, 0.28, 0.34), (0.22, 0.20, 0.27), "mottle", 0.16),
        ((0.24, 0.22, 0.30), (0.38, 0.28, 0.34), _BARK)),
    "snow": Scene((0.3, 0.6), Ground((0.56, 0.64, 0.74), (0.76, 0.80, 0.85), "mottle", 0.10),
        Ground((0.90, 0.92, 0.95), (0.74, 0.79, 0.87), "mottle", 0.08),
        (_BARK, (0.28, 0.36, 0.34), (0.60, 0.62, 0.68))),
}  # fmt: skip


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Array:
    """Noise of four octaves, (H, W) in -1..1; `cell` is the coarsest grain in pixels."""
    height, width = shape
    total = np.zeros(shape)
    for octave in range(4):
        size = max(cell / 2**octave, 1.0)
        grid = rng.standard_normal([int(side / size) + 2 for side in shape]).astype(np.float32)
        box = (0, 0, width / size, height / size)
        fine = Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR, box)
        total += 0.6**octave * np.asarray(fine)
    return np.clip(total / 1.6, -1, 1)


def _texture(rng: np.random.Generator, shape: tuple[int, int], name: str, cell: float) -> Array:
    """A field of the named texture, (H, W) in -1..1; `cell` is its period in pixels."""
    if name == "mottle":
        return _noise(rng, shape, 4 * cell)
    if name == "grain":
        return 0.4 * _noise(rng, shape, 4 * cell) + 0.6 * _noise(rng, shape, 2.0)
    if name in ("streaks", "waves"):
        axis = 0 if name == "streaks" else 1
        smooth: Array = ndimage.gaussian_filter1d(rng.standard_normal(shape), cell, axis=axis)
        smooth /= 2 * smooth.std()
        return np.clip(smooth + 0.5 * _noise(rng, shape, 4 * cell), -1, 1)
    y, x = np.mgrid[: shape[0], : shape[1]] / cell
    if name == "bricks":
        row = np.floor(y)
        mortar = (y - row < 0.18) | ((x / 2 + row / 2) % 1 < 0.09)
        return np.where(mortar, 1.0, 0.5 * _noise(rng, shape, cell))
    turn = rng.uniform(0, np.pi)
    warp = 0.5 * _noise(rng, shape, 6 * cell)
    across: Array = np.sin((x * np.cos(turn) + y * np.sin(turn) + warp) * np.pi)
    along: Array = np.sin((y * np.cos(turn) - x * np.sin(turn) + warp) * np.pi)
    if name == "stripes":
        return np.clip(2 * across, -1, 1)
    return np.clip(4 * across * along - (1.6 if name == "spots" else 0), -1, 1)


def _background(rng: np.random.Generator, scene: Scene, height: int, width: int) -> Array:
    """Both grounds, (H, W, 3)."""
    tone = rng.normal(0, 0.05, 3)
    grounds = []
    for ground in (scene.far, scene.near):
        field = _texture(rng, (height, width), ground.texture, rng.uniform(5, 10))
        field = ground.contrast * field[..., None]
        ramp = np.linspace(ground.top, ground.bottom, height)[:, None]
        grounds.append(ramp * (1 + rng.normal(0, 0.25, 3) * field) + field + tone)
    bend = 0.04 * height * _noise(rng, (1, width), width / 2)[0]
    edge = rng.uniform(*scene.horizon) * height + bend + rng.normal(0, 0.06) * np.arange(width)
    far: Array = np.clip(edge - np.arange(height)[:, None] + 0.5, 0, 1)[..., None]
    return far * grounds[0] + (1 - far) * grounds[1]


def _colour(rng: np.random.Generator, saturation: Range, value: Range) -> Colour:
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))


def _muted(rng: np.random.Generator) -> Colour:
    return _colour(rng, (0.1, 0.65), (0.2, 0.85))


def _stray(rng: np.random.Generator, scene: Scene) -> Array:
    """A colour of a thing that belongs to no class, mostly one that suits the scene."""
    if rng.uniform() < 0.3:
        return np.array(_muted(rng))
    return np.array(scene.clutter[rng.integers(len(scene.clutter))]) + rng.normal(0, 0.06, 3)


def _unlike(rng: np.random.Generator, surroundings: Array) -> Array:
    """A colour that doesn't hide in the surroundings' mean colour."""
    while True:
        colour = np.array(_muted(rng))
        if np.linalg.norm(colour - surroundings) > 0.3:
            return colour


@dataclass(frozen=True)
class _Thing:
    """What was drawn in a window of the frame, with room for its shadow.

    Attributes:
        window: rows and columns of the frame.
        body: coverage by the body's texture, (h, w).
        part: coverage by the telling part, (h, w).
        details: what has a colour of its own, (h, w, 4), as from `_raster`.
    """

    window: Window
    body: Array
    part: Array
    details: Array

    @property
    def cover(self) -> Array:
        return np.maximum(self.body, self.details[..., 3])


def _raster(shapes: Sequence[Shape], window: Window, accent: Colour) -> Array:
    """Anti-aliased drawing, (h, w, 4): colour times coverage, and coverage."""
    rows, columns = window
    size = tuple(SUPERSAMPLING * (side.stop - side.start) for side in (columns, rows))
    image = Image.new("RGBA", size)
    draw = ImageDraw.Draw(image)
    paints = {**PAINTS, "body": (0.0, 0.0, 0.0), "accent": accent}
    for shape in shapes:
        ink = (*(round(255 * c) for c in paints[shape.paint]), 255)
        points = ((shape.points - (columns.start, rows.start)) * SUPERSAMPLING).ravel().tolist()
        if shape.width:
            draw.line(points, ink, max(1, round(shape.width * SUPERSAMPLING)), "curve")
        else:
            draw.polygon(points, ink)
    return np.asarray(image.convert("RGBa").reduce(SUPERSAMPLING), np.float64) / 255


def _outline(rng: np.random.Generator, kind: Kind) -> Shape:
    """A slightly wobbly superellipse that fills -1..1."""
    power, taper = rng.uniform(*kind.power), rng.uniform(*kind.taper)
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = np.cos(np.arange(2, 6)[:, None] * turn + rng.uniform(0, 6, (4, 1)))
    wobble = 1 + rng.normal(0, 0.012, 4) @ waves
    x, y = (np.sign(f) * np.abs(f) ** (2 / power) * wobble for f in (np.cos(turn), np.sin(turn)))
    return Shape("body", np.stack([x * (1 + taper * y), y], 1))


def _draw(
    rng: np.random.Generator, kind: Kind, frame: tuple[int, int], size: float, bare: bool = False
) -> _Thing:
    """A thing at a random place in the frame; a bare one is a body without limbs and part."""
    root = np.sqrt(rng.uniform(*kind.aspect))
    half = np.array([root, 1 / root])
    body = [s.mapped(np.diag(half)) for s in (_outline(rng, kind), *(() if bare else kind.limbs))]
    spots = () if bare else kind.part_at
    part = [s.mapped(np.eye(2) * kind.part_size, half * at) for at in spots for s in kind.part]

    turn = rng.normal(0, 0.22)
    pose = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pose[:, 0] *= rng.choice((-1, 1))
    corners = np.concatenate([s.points for s in body + part]) @ pose.T
    low, high = corners.min(0), corners.max(0)
    limits = np.array(frame[::-1])
    room = limits - (high - low) + 0.4 * size
    centre = -low - 0.2 * size + room * rng.uniform(size=2)
    body, part = ([s.mapped(pose, centre) for s in shapes] for shapes in (body, part))
    left, top = np.clip(centre + low - size - 2, 0, limits - 1).astype(int).tolist()
    right, bottom = np.clip(centre + high + size + 2, (left + 1, top + 1), limits).astype(int)
    window = slice(top, int(bottom)), slice(left, int(right))

    accent = _colour(rng, (0.55, 0.9), (0.35, 0.75))
    textured = [s for s in body + part if s.paint == "body"]
    flat = [s for s in body + part if s.paint != "body"]
    return _Thing(
        window,
        _raster(textured, window, accent)[..., 3],
        _raster(part, window, accent)[..., 3],
        _raster(flat, window, accent),
    )


def _place(
    rng: np.random.Generator,
    canvas: Array,
    thing: _Thing,
    light: Array,
    colour: Array | None = None,
) -> None:
    """Paint the thing, its shading and its shadow; without a colour, one that stands out."""
    canvas = canvas[thing.window]
    cover = thing.cover
    radius = np.sqrt(cover.sum() / np.pi) + 1
    soft = ndimage.gaussian_filter(cover, 0.3 * radius)
    shadow = ndimage.shift(soft, -0.35 * radius * light, order=1)
    canvas *= (1 - 0.45 * shadow * (1 - cover))[..., None]
    if colour is None:
        ring = soft * (1 - cover)
        colour = _unlike(rng, np.tensordot(ring, canvas, 2) / (ring.sum() + 1e-6))
    second = _muted(rng) if rng.uniform() < 0.3 else colour * rng.uniform(0.5, 0.8)
    texture = _texture(rng, cover.shape, str(rng.choice(BODY_TEXTURES)), rng.uniform(3, 8))
    weight = 0.5 + 0.5 * rng.uniform(0.3, 0.9) * texture[..., None]
    slope = np.stack(np.gradient(soft)) * radius
    shade = 1 + 0.45 * np.tensordot(light, slope, 1) + 0.06 * _noise(rng, cover.shape, 6)
    skin = (colour + (second - colour) * weight) * shade[..., None]
    canvas += thing.body[..., None] * (skin - canvas)
    canvas *= 1 - thing.details[..., 3:]
    canvas += thing.details[..., :3] * shade[..., None]


def _photographed(rng: np.random.Generator, canvas: Array) -> Bytes:
    """Uneven light, blur, grain and rounding to uint8."""
    height, width = canvas.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    slope_y, slope_x, vignette = *rng.normal(0, 0.08, 2), 0.12 * rng.uniform()
    light = 1 + slope_y * y + slope_x * x - vignette * (x**2 + y**2)
    photo: Array = np.clip(canvas * light[..., None], 0, 1) ** rng.uniform(0.8, 1.1)
    blur = rng.uniform(0.3, 0.8)
    photo = ndimage.gaussian_filter(photo, (blur, blur, 0))
    photo += rng.normal(0, rng.uniform(0.01, 0.03), canvas.shape)
    return np.rint(np.clip(photo, 0, 1) * 255).astype(np.uint8)


def make_scene(rng: np.random.Generator, first: int) -> tuple[Bytes, Bytes, Bytes]:
    """Draw a photo and its exact masks.

    Args:
        rng: the only source of chance.
        first: class id, 1..len(KINDS), that the scene surely shows.

    Returns:
        photo: uint8 (H, W, 3), H and W within `SIDES`.
        mask: uint8 (H, W), 0 background, 1..len(KINDS) classes, 1 to `MAX_TAGS` of them.
        objects: uint8 (H, W), 0 background, 1..len(OBJECTS) the objects, in the order in which
            they were drawn.
    """
    height, width = frame = tuple(rng.integers(SIDES[0], SIDES[1] + 1, 2).tolist())
    side = min(frame)
    scene = SCENES[str(rng.choice(tuple(SCENES)))]
    canvas = _background(rng, scene, height, width)
    turn = rng.uniform(-0.9, 0.9)
    light = np.array([-np.cos(turn), np.sin(turn)])

    def stray(size: float) -> _Thing:
        return _draw(rng, KINDS[rng.integers(len(KINDS))], frame, side * size, bare=True)

    small, large = rng.integers((3, 0), (9, 3))
    for size in (*rng.uniform(0.02, 0.08, small), *rng.uniform(0.1, 0.2, large)):
        _place(rng, canvas, stray(size), light, _stray(rng, scene))

    mask, objects = np.zeros((2, *frame), np.uint8)
    parts = np.zeros(frame, bool)
    count = 1 + int(rng.choice(len(OBJECTS), p=OBJECTS))
    present = [first]
    while len(present) < count:
        anew = rng.uniform() < 0.6 and len(set(present)) < MAX_TAGS
        present.append(int(rng.integers(len(KINDS)) + 1 if anew else rng.choice(present)))
    for class_id in present:
        size = side * rng.uniform(0.22, 0.34) / count**0.3
        for attempt in range(PLACEMENTS):
            thing = _draw(rng, KINDS[class_id - 1], frame, size * 0.97**attempt)
            inside = thing.cover > 0.5
            ids, taken = mask[thing.window], parts[thing.window]
            if (ids[inside] > 0).mean() < 0.2 and not taken[inside].any():
                _place(rng, canvas, thing, light)
                ids[inside] = class_id
                objects[thing.window][inside] = objects.max() + 1
                taken |= thing.part > 0.5
                break

    for size in rng.uniform(0.03, 0.09, rng.integers(0, 4)):
        thing = stray(size)
        inside = thing.cover > 0.5
        if not parts[thing.window][inside].any():
            _place(rng, canvas, thing, light, _stray(rng, scene))
            mask[thing.window][inside] = 0
            objects[thing.window][inside] = 0
    return _photographed(rng, canvas), mask, objects


def generate(root: Path, images: int, seed: int) -> None:
    """Write a generated data set in the VOC devkit's layout, with masks of classes and of objects.

    Image `i` depends on `seed` and `i` alone, so a larger set continues a smaller one. One image
    in five goes to `val.txt`, the others to `train.txt`.

    Args:
        root: a folder that is empty or doesn't exist.
        images: how many, at least 1; every class appears from `len(KINDS)` on.
        seed: at least 0.

    Raises:
        WeaksegError: if a number is out of range, or the folder holds something or can't be
            written.
    """
    if images < 1 or seed < 0:
        raise WeaksegError(
            f"Can't generate {images} images with seed {seed}. "
            "Give at least 1 image, and a seed of at least 0."
        )
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise WeaksegError(
            f"{root} isn't an empty folder, and nothing is written over. "
            "Choose a new folder, or remove this one first."
        )
    names = [kind.name for kind in KINDS]
    splits: dict[str, list[str]] = {"train": [], "val": []}
    tags = ["image,tags"]
    for index in range(images):
        rng = np.random.default_rng((seed, index))
        photo, mask, objects = make_scene(rng, 1 + index % len(KINDS))
        image_id = f"{index:06d}"
        with write_atomically(root / "JPEGImages" / f"{image_id}.jpg") as path:
            Image.fromarray(photo).save(path, quality=int(rng.integers(70, 93)))
        write_mask(root / "SegmentationClass" / f"{image_id}.png", mask)
        write_mask(root / "SegmentationObject" / f"{image_id}.png", objects)
        splits["val" if index % VAL_EVERY == VAL_AT else "train"].append(image_id)
        tags.append(f"{image_id},{' '.join(names[c - 1] for c in np.unique(mask[mask > 0]))}")
    lists = {f"ImageSets/Segmentation/{split}.txt": ids for split, ids in splits.items()}
    for name, lines in {**lists, "classes.txt": names, "tags.csv": tags}.items():
        write_text(root / name, "".join(f"{line}\n" for line in lines))
