"""Regions as Label Studio's brush stores them: run lengths of RGBA bytes, packed into bits.

The format is that of @thi.ng/rle-pack. 32 bits: how many values; 5 bits: the bits of a value, less
1; 4 x 4 bits: four widths of lengths, less 1. Then blocks: a bit that says whether one value
repeats, 2 bits that choose a width, the length less 1 in that width, and the value, or the values.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORD = 8
_WIDTHS = (3, 4, 8, 16)
_CHANNELS = 4
_LONGEST = 2 ** _WIDTHS[-1]  # values a block
_HALF = 128  # of the alpha channel: what a brush covers


def encode_brush(region: NDArray[np.bool_]) -> list[int]:
    """A region (H, W) as bytes: its pixels are 255 in all four channels, the others 0."""
    row = region.ravel()
    starts = np.concatenate([[0], np.flatnonzero(row[1:] != row[:-1]) + 1])
    lengths = np.diff(np.append(starts, row.size)) * _CHANNELS
    bits = [f"{row.size * _CHANNELS:032b}{_WORD - 1:05b}"]
    bits += [f"{width - 1:04b}" for width in _WIDTHS]
    for inside, length in zip(row[starts].tolist(), lengths.tolist(), strict=True):
        value = "1" * _WORD if inside else "0" * _WORD
        while length:
            block = min(length, _LONGEST)
            choice = next(i for i, width in enumerate(_WIDTHS) if block <= 2**width)
            bits.append(f"1{choice:02b}{block - 1:0{_WIDTHS[choice]}b}{value}")
            length -= block
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))
    return packed.tolist()


def decode_brush(packed: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The region (H, W) that bytes cover by half and more.

    Raises:
        ValueError: they are no such bytes, or those of another size.
    """
    if not all(type(byte) is int and 0 <= byte < 256 for byte in packed):
        raise ValueError("a brush's run lengths are no bytes")
    bits = np.unpackbits(np.array(packed, np.uint8)).astype(np.uint8)
    reader = _Bits(bits)
    count, word = reader.number(32), reader.number(5) + 1
    widths = [reader.number(4) + 1 for _ in range(4)]
    if word != _WORD or count != height * width * _CHANNELS:
        raise ValueError(f"a brush's run lengths are not those of {height} by {width} pixels")
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeats = reader.number(1)
        length = reader.number(widths[reader.number(2)]) + 1
        if at + length > count:
            raise ValueError("a brush's run lengths are longer than they say")
        values[at : at + length] = reader.values(1 if repeats else length)
        at += length
    return values.reshape(height, width, _CHANNELS)[..., -1] >= _HALF


class _Bits:
    """Reads numbers from bits, the highest first."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self._bits = bits
        self._text = (bits + ord("0")).tobytes().decode("ascii")
        self._at = 0

    def number(self, width: int) -> int:
        return int(self._text[self._take(width) : self._at], 2)

    def values(self, count: int) -> NDArray[np.uint8]:
        start = self._take(count * _WORD)
        return np.packbits(self._bits[start : self._at])

    def _take(self, width: int) -> int:
        start, self._at = self._at, self._at + width
        if self._at > len(self._bits):
            raise ValueError("a brush's run lengths end too early")
        return start
