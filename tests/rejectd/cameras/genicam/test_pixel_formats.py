"""Pixel formats: known pixels in each format come out in the right order, colour and depth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rejectd.cameras.genicam.pixel_formats import FORMATS, rgb
from rejectd.contract.messages import PictureError
from revdist.data import pictures

CODES = {pixel_format.name: code for code, pixel_format in FORMATS.items()}
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _bits_low_first(values: list[int], bits: int) -> bytes:
    """By PFNC: the lowest bit of the first value is the lowest bit of the first byte."""
    whole = sum(value << bits * place for place, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


def _two_in_three(values: list[int], bits: int) -> bytes:
    """By GigE Vision: high bits of one, the low bits of both, high bits of the other."""
    packed = b""
    for one, other in zip(values[::2], values[1::2], strict=True):
        low = bits - 8
        mask = (1 << low) - 1
        packed += bytes([one >> low, (one & mask) | (other & mask) << 4, other >> low])
    return packed


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deep_values_are_narrowed_by_a_fixed_mapping_and_not_by_what_the_picture_holds(bits: int) -> None:
    highest = (1 << bits) - 1
    values = np.array([[0, 1, highest // 2, highest - 1]], "<u2")
    pixels = rgb(values.tobytes(), code=CODES[f"Mono{bits}"], width=4, height=1)
    assert pixels[0, :, 0].tolist() == [round(int(value) * 255 / highest) for value in values[0]]
    dark = rgb((values // 16).tobytes(), code=CODES[f"Mono{bits}"], width=4, height=1)
    assert dark.max() == round((highest - 1) // 16 * 255 / highest)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_deep_picture_of_the_camera_and_the_same_in_a_file_for_training_have_the_same_pixels(bits: int) -> None:
    values = np.random.default_rng(2).integers(0, 1 << bits, (20, 30)).astype("<u2")
    file = cv2.imencode(".png", values)[1].tobytes()
    from_camera = rgb(values.tobytes(), code=CODES[f"Mono{bits}"], width=30, height=20)
    np.testing.assert_array_equal(from_camera, pictures.decode(file, bits=bits))


@pytest.mark.parametrize(
    ("name", "bits", "pack"),
    [
        ("Mono10p", 10, _bits_low_first),
        ("Mono12p", 12, _bits_low_first),
        ("Mono10Packed", 10, _two_in_three),
        ("Mono12Packed", 12, _two_in_three),
    ],
)
def test_packed_values_come_out_as_those_that_are_not_packed(name: str, bits: int, pack) -> None:  # type: ignore[no-untyped-def]
    values = np.random.default_rng(1).integers(0, 1 << bits, (6, 10)).astype("<u2")
    packed = pack([int(value) for value in values.ravel()], bits)
    plain = rgb(values.tobytes(), code=CODES[f"Mono{bits}"], width=10, height=6)
    np.testing.assert_array_equal(rgb(packed, code=CODES[name], width=10, height=6), plain)


def test_a_packed_picture_with_an_odd_number_of_pixels_is_whole() -> None:
    values = [1000, 2000, 4095, 7, 9, 11, 13, 15, 3000]
    pixels = rgb(_bits_low_first(values, 12), code=CODES["Mono12p"], width=3, height=3)
    assert pixels[..., 1].ravel().tolist() == [round(value * 255 / 4095) for value in values]


@pytest.mark.parametrize("pattern", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("suffix", ["8", "10", "12", "16", "10p", "12p", "10Packed", "12Packed"])
def test_each_bayer_pattern_shows_red_as_red_and_blue_as_blue(pattern: str, suffix: str) -> None:
    bits = int("".join(sign for sign in suffix if sign.isdigit()))
    order = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[pattern]
    full = (1 << bits) - 1
    for colour, wanted in (("R", RED), ("G", GREEN), ("B", BLUE)):
        cell = np.array([[order[0], order[1]], [order[2], order[3]]]) == colour
        values = np.tile(cell, (4, 4)).astype(int) * full
        if suffix.endswith("p"):
            data = _bits_low_first(values.ravel().tolist(), bits)
        elif suffix.endswith("Packed"):
            data = _two_in_three(values.ravel().tolist(), bits)
        else:
            data = values.astype("u1" if bits == 8 else "<u2").tobytes()
        pixels = rgb(data, code=CODES[f"Bayer{pattern}{suffix}"], width=8, height=8)
        assert pixels[4, 4].tolist() == list(wanted)


@pytest.mark.parametrize(
    ("name", "pixel"),
    [("RGB8", [10, 20, 30]), ("BGR8", [30, 20, 10]), ("RGBa8", [10, 20, 30, 99]), ("BGRa8", [30, 20, 10, 99])],
)
def test_colours_come_out_in_the_order_red_green_blue(name: str, pixel: list[int]) -> None:
    pixels = rgb(bytes(pixel * 6), code=CODES[name], width=3, height=2)
    assert pixels.shape == (2, 3, 3)
    assert pixels[1, 2].tolist() == [10, 20, 30]


def _yuv(colour: tuple[int, int, int], *, television: bool) -> tuple[int, int, int]:
    """ITU-R BT.601: full range as in JPEG, or that of television."""
    red, green, blue = colour
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - luma) * 0.564, (red - luma) * 0.713
    if television:
        luma, u, v = 16 + luma * 219 / 255, u * 224 / 255, v * 224 / 255
    return round(luma), max(0, min(255, round(128 + u))), max(0, min(255, round(128 + v)))


@pytest.mark.parametrize(
    ("name", "luma_first", "television"),
    [
        ("YUV422_8", True, False),
        ("YUV422_8_UYVY", False, False),
        ("YCbCr422_8", True, False),
        ("YCbCr422_8_CbYCrY", False, False),
        ("YCbCr601_422_8", True, True),
        ("YCbCr601_422_8_CbYCrY", False, True),
    ],
)
def test_yuv_shows_the_colours_that_went_in(name: str, luma_first: bool, television: bool) -> None:
    for colour in (RED, GREEN, BLUE, (200, 120, 40)):
        y, u, v = _yuv(colour, television=television)
        pair = [y, u, y, v] if luma_first else [u, y, v, y]
        pixels = rgb(bytes(pair * 4), code=CODES[name], width=4, height=2)
        assert np.abs(pixels.astype(int) - colour).max() <= 3


def test_what_follows_a_picture_or_its_lines_is_no_part_of_it() -> None:
    padded = rgb(bytes([1, 2, 99, 3, 4, 99, 77, 77]), code=CODES["Mono8"], width=2, height=2, padding=1)
    assert padded[..., 0].tolist() == [[1, 2], [3, 4]]


def test_a_short_buffer_a_strange_format_and_values_beyond_the_depth_are_faulty_pictures_and_say_why() -> None:
    with pytest.raises(PictureError, match="sent 11 bytes, and 4 x 3 pixels in Mono8 are 12"):
        rgb(bytes(11), code=CODES["Mono8"], width=4, height=3)
    with pytest.raises(PictureError, match=r"0x12345678; set `pixel_format` to one of BGR8.*Mono8"):
        rgb(bytes(12), code=0x12345678, width=4, height=3)
    with pytest.raises(PictureError, match="sent 0 bytes"):
        rgb(b"", code=CODES["Mono8"], width=0, height=0)
    with pytest.raises(PictureError, match="value 1024, and 10 bits hold 0 to 1023"):
        rgb(np.full(4, 1024, "<u2").tobytes(), code=CODES["Mono10"], width=2, height=2)
    with pytest.raises(PictureError, match="even width"):
        rgb(bytes(12), code=CODES["YUV422_8"], width=3, height=2)
    with pytest.raises(PictureError, match="too small"):
        rgb(bytes(4), code=CODES["BayerRG8"], width=2, height=2)
