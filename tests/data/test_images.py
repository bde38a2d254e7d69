import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from weakseg.data import images
from weakseg.data.images import UnreadablePhoto, narrow_depth, photo_size, read_photo
from weakseg.errors import WeaksegError

WHITE = (255, 255, 255)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF says: where the stored row 0 and column 0 lie in the scene, pixel by pixel."""
    height, width = stored.shape[:2]
    row_0, column_0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    shape = (height, width) if row_0 in ("top", "bottom") else (width, height)
    scene = np.zeros((*shape, 3), np.uint8)
    for r in range(height):
        for c in range(width):
            at = {}
            for side, offset in ((row_0, r), (column_0, c)):
                axis = 0 if side in ("top", "bottom") else 1
                from_start = side in ("top", "left")
                at[axis] = offset if from_start else shape[axis] - 1 - offset
            scene[at[0], at[1]] = stored[r, c]
    return scene


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation(tmp_path: Path, noise: np.ndarray, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    options |= {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise), exif=exif, **options)

    photo = read_photo(path)

    expected = upright(noise, orientation)
    assert photo.shape == expected.shape
    assert np.abs(photo.astype(int) - expected).max() <= (12 if suffix == "jpg" else 0)
    assert photo_size(path) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_undefined_orientation_is_upright(
    tmp_path: Path, noise: np.ndarray, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(noise), exif=exif)
    assert np.array_equal(read_photo(path), noise)
    assert photo_size(path) == (16, 24)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_does_not_spoil_the_photo(tmp_path: Path, noise: np.ndarray) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(read_photo(path), noise)
    assert photo_size(path) == (16, 24)


def test_result_is_writable_contiguous_rgb(tmp_path: Path, noise: np.ndarray) -> None:
    photo = read_photo(save(tmp_path / "a.png", Image.fromarray(noise)))
    assert photo.dtype == np.uint8
    assert photo.flags.writeable and photo.flags.c_contiguous


def test_grey(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("L", (2, 1), 77))
    assert read_photo(path).tolist() == [[[77] * 3] * 2]


def test_one_bit(tmp_path: Path) -> None:
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert read_photo(save(tmp_path / "a.png", bits)).tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert read_photo(save(tmp_path / f"a.{suffix}", image)).tolist() == [
        [[10, 20, 30], [200, 100, 50]]
    ]


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", image, transparency=0)
    assert read_photo(path).tolist() == [[list(WHITE), [200, 100, 50]]]


def test_palette_with_an_alpha_for_each_colour(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", image, transparency=b"\x80\xff")
    assert read_photo(path).tolist() == [[[127] * 3, [200, 100, 50]]]


@pytest.mark.parametrize(
    ("mode", "hidden", "shown", "pixel"),
    [
        ("RGBA", (9, 9, 9, 0), (10, 20, 30, 255), [10, 20, 30]),
        ("LA", (9, 0), (40, 255), [40, 40, 40]),
    ],
)
def test_transparent_pixels_are_white(
    tmp_path: Path, mode: str, hidden: tuple[int, ...], shown: tuple[int, ...], pixel: list[int]
) -> None:
    image = Image.new(mode, (2, 1), hidden)
    image.putpixel((1, 0), shown)
    assert read_photo(save(tmp_path / "a.png", image)).tolist() == [[list(WHITE), pixel]]


@pytest.mark.parametrize(("mode", "key"), [("L", 9), ("RGB", (9, 9, 9))])
def test_a_transparent_colour_is_white(
    tmp_path: Path, mode: str, key: int | tuple[int, ...]
) -> None:
    image = Image.new(mode, (1, 1), key)
    path = save(tmp_path / "a.png", image, transparency=key)
    assert read_photo(path).tolist() == [[list(WHITE)]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    grey = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    photo = read_photo(save(tmp_path / f"a.{suffix}", Image.fromarray(grey)))
    assert photo[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert (photo == photo[..., :1]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("depth", [8, 10, 12, 14, 16])
def test_values_of_fewer_bits_are_scaled_from_their_depth(
    tmp_path: Path, suffix: str, depth: int
) -> None:
    full = 2**depth - 1
    grey = np.array([[0, full // 3, full // 2, full]], np.uint16)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(grey))
    assert np.abs(read_photo(path)[0, :, 0].astype(int) - (0, 85, 127, 255)).max() <= 1
    assert narrow_depth(path) == (depth if depth < 16 else None)


def test_the_depth_is_what_the_file_says(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 250]], np.uint16))
    path = save(tmp_path / "a.tif", grey, tiffinfo={281: 4095})
    assert (read_photo(path)[0, 1, 0], narrow_depth(path)) == (16, 12)
    path = save(
        tmp_path / "b.tif", Image.fromarray(np.array([[0, 9999]], np.uint16)), tiffinfo={281: 4095}
    )
    assert narrow_depth(path) == 14


def test_a_photo_in_8_bits_is_scaled_from_none(tmp_path: Path, noise: np.ndarray) -> None:
    for suffix in ("png", "tif", "jpg"):
        assert narrow_depth(save(tmp_path / f"a.{suffix}", Image.fromarray(noise))) is None


@pytest.mark.parametrize(("highest", "depth"), [(1023, 10), (4095, 12), (16383, 14), (65535, None)])
def test_colour_in_16_bits_of_a_tiff_is_scaled_from_its_depth(
    tmp_path: Path, highest: int, depth: int | None
) -> None:
    path = tmp_path / "a.tif"
    pixels = struct.pack("<6H", 0, highest // 2, highest, highest, 0, 0)
    tags = [(256, 3, 2), (257, 3, 1), (258, 3, (16, 16, 16)), (259, 3, 1), (262, 3, 2)]
    tags += [(273, 4, 8), (277, 3, 3), (278, 3, 1), (279, 4, 12)]
    bits_at = 8 + 12
    table = bits_at + 6
    content = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        count, value = (3, bits_at) if isinstance(value, tuple) else (1, value)
        content += struct.pack("<HHII", tag, kind, count, value)
    start = b"II*\0" + struct.pack("<I", table)
    path.write_bytes(start + pixels + struct.pack("<3H", 16, 16, 16) + content + bytes(4))
    first, second = read_photo(path)[0].astype(int).tolist()
    assert first[2] == second[0] >= 216 and second[1:] == [first[0]] * 2
    assert first[0] <= 32 and abs(first[1] - 127) <= 40
    assert narrow_depth(path) == depth


def test_big_endian_16_bits_are_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = struct.pack(">2H", 0, 65535)
    tags = [(256, 2), (257, 1), (258, 16), (259, 1), (262, 1), (273, 8), (278, 1), (279, 4)]
    path.write_bytes(
        b"MM\0*"
        + struct.pack(">I", 12)
        + pixels
        + struct.pack(">H", len(tags))
        + b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
        + bytes(4)
    )
    assert read_photo(path)[0, :, 0].tolist() == [0, 255]


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    row = b"\0" + struct.pack(">3H", 0, 32768, 65535)
    header = struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b""))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )
    assert read_photo(path).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    """In a JPEG, Adobe's way, 0 is full ink; in a TIFF 255 is."""
    path = save(tmp_path / f"a.{suffix}", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    assert np.abs(read_photo(path).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("suffix", ["tif", "webp", "gif"])
def test_first_frame(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", red, save_all=True, append_images=[blue], **options)
    assert read_photo(path)[0, 0].tolist() == [255, 0, 0]


def test_phone_photo_with_a_second_picture(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    path = save(tmp_path / "a.jpg", red, format="MPO", save_all=True, append_images=[blue])
    assert read_photo(path)[0, 0, 0] > 250


def test_wrong_suffix_is_no_matter(tmp_path: Path, noise: np.ndarray) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path, "PNG")
    assert np.array_equal(read_photo(path), noise)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_truncated_photo(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(pixels))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadablePhoto, match=rf"a\.{suffix} can't be read: .*\. Replace"):
        read_photo(path)


def test_corrupt_photo(tmp_path: Path, noise: np.ndarray) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise))
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 12
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(UnreadablePhoto, match=r"a\.png can't be read"):
        read_photo(path)


@pytest.mark.parametrize("read", [read_photo, photo_size])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>404</html>", "it is no image of the kinds BMP, GIF, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is no image"),
        (None, "no such file"),
    ],
)
def test_no_photo_at_all(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None, reason: str
) -> None:
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadablePhoto, match=reason) as caught:
        read(path)
    assert isinstance(caught.value, WeaksegError)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [read_photo, photo_size])
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb(tmp_path: Path, read: Callable[[Path], object], side: int) -> None:
    path = tmp_path / "a.bmp"
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<2i", side, side)
    path.write_bytes(data)
    with pytest.raises(UnreadablePhoto, match=r"more than 89,478,485 pixels"):
        read(path)


def test_pixel_limit_is_exact(
    tmp_path: Path, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(noise))
    monkeypatch.setattr(images, "MAX_PIXELS", noise[..., 0].size)
    read_photo(path)
    monkeypatch.setattr(images, "MAX_PIXELS", noise[..., 0].size - 1)
    with pytest.raises(UnreadablePhoto, match="pixels"):
        read_photo(path)


def test_floating_point_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.new("F", (2, 2), 0.5))
    with pytest.raises(UnreadablePhoto, match="floating-point"):
        read_photo(path)


def test_32_bit_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.new("I", (2, 2), 70_000))
    with pytest.raises(UnreadablePhoto, match="32 bits"):
        read_photo(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_size_comes_from_the_header_alone(
    tmp_path: Path, suffix: str, noise: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / f"a.{suffix}", Image.fromarray(noise))

    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert photo_size(path) == (16, 24)
