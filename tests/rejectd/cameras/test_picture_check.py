"""What counts as a usable picture."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.cameras.picture_check import Check


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_a_good_picture_is_not_copied_and_cannot_be_written(make_picture):
    pixels = noise(48, 64)
    checked = Check(None, 25)(make_picture(pixels))
    assert np.shares_memory(checked.pixels, pixels)
    assert not checked.pixels.flags.writeable
    assert pixels.flags.writeable
    assert not checked.fault


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 30), st.integers(1, 30))
def test_the_region_is_cut_exactly_or_refused(x, y, w, h):
    pixels = noise(24, 32)
    now = time.monotonic_ns()
    from rejectd.contract.messages import Picture

    checked = Check((x, y, w, h), 0)(Picture(pixels=pixels, captured_ns=now, captured_unix_ns=0))
    if x + w <= 32 and y + h <= 24:
        assert np.array_equal(checked.pixels, pixels[y : y + h, x : x + w])
        assert checked.pixels.flags.c_contiguous
        assert not checked.pixels.flags.writeable
    else:
        assert checked.pixels is None
        assert checked.fault == f"the region [{x}, {y}, {w}, {h}] exceeds the picture of 32 x 24 pixels"


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        (np.zeros((0, 1920), np.uint8), "empty picture of shape (0, 1920)"),
        (np.zeros((0, 1920, 3), np.uint8), "empty picture of shape (0, 1920, 3)"),
        (np.zeros((24, 32), np.uint8), "shape (24, 32) instead of (height, width, 3)"),
        (np.zeros((24, 32, 4), np.uint8), "shape (24, 32, 4) instead of"),
        (np.zeros((24, 32, 3), np.uint16), "uint16 instead of uint8"),
    ],
)
def test_a_malformed_array_is_a_faulty_picture(pixels, fault, make_picture):
    checked = Check((0, 0, 8, 8), 25)(make_picture(pixels))
    assert checked.pixels is None
    assert fault in checked.fault


def test_a_change_of_one_value_anywhere_is_not_a_repeat(make_picture):
    check = Check(None, 2)
    pixels = noise(240, 320)
    assert not check(make_picture(pixels)).fault
    for place in [(0, 0, 0), (239, 319, 2), (121, 7, 1), (60, 300, 0)]:
        pixels = pixels.copy()
        pixels[place] ^= 1
        assert not check(make_picture(pixels)).fault
    assert check(make_picture(pixels.copy())).fault == "frozen: 2 identical pictures in a row"


def test_a_frozen_camera_is_noticed_behind_a_region(make_picture):
    check = Check((0, 0, 8, 8), 2)
    assert not check(make_picture(noise(24, 32))).fault
    assert check(make_picture(noise(24, 32))).fault.startswith("frozen")


def test_0_switches_the_frozen_check_off(make_picture):
    check = Check(None, 0)
    assert not any(check(make_picture(1)).fault for _ in range(100))


def test_looking_for_repeats_in_a_5_megapixel_stream_costs_less_than_a_millisecond(make_picture):
    check = Check(None, 25)
    shown = [make_picture(noise(2048, 2448, seed)) for seed in range(4)]
    check(shown[0])
    took = []
    for picture in shown[1:]:
        began = time.perf_counter()
        check(picture)
        took.append(time.perf_counter() - began)
    assert min(took) < 1e-3
