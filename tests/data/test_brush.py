"""Label Studio's brush, against a reader made from the format's description."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weakseg.data.brush import decode_brush, encode_brush

REGIONS = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def unpacked(packed: list[int]) -> list[int]:
    """The values, bit by bit."""
    bits = iter("".join(f"{byte:08b}" for byte in packed))

    def take(width: int) -> int:
        return int("".join(next(bits) for _ in range(width)), 2)

    count, word = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeats, width = take(1), widths[take(2)]
        length = take(width) + 1
        values += [take(word)] * length if repeats else [take(word) for _ in range(length)]
    return values


@given(REGIONS)
def test_a_brush_is_four_channels_a_pixel(region: np.ndarray) -> None:
    packed = encode_brush(region)
    values = np.array(unpacked(packed)).reshape(*region.shape, 4)
    assert (values == 255 * region[..., None]).all()
    assert np.array_equal(decode_brush(packed, *region.shape), region)


def test_a_run_longer_than_a_block() -> None:
    region = np.ones((300, 400), bool)
    region[0, 0] = False
    assert np.array_equal(decode_brush(encode_brush(region), 300, 400), region)


def test_values_that_do_not_repeat_are_read() -> None:
    """As the tool writes soft edges: here of two pixels, of which one is covered by half."""
    values = [9, 9, 9, 128, 9, 9, 9, 127]
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}" + f"0{0:02b}{7:03b}"
    bits += "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    packed = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert unpacked(packed) == values
    assert decode_brush(packed, 1, 2).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ([], "end too early"),
        ([256], "no bytes"),
        (encode_brush(np.ones((2, 3), bool)), "not those of 3 by 3"),
        (encode_brush(np.ones((3, 3), bool))[:-1], "end too early"),
    ],
)
def test_what_is_no_brush_is_refused(packed: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_brush(packed, 3, 3)
