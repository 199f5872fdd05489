"""Numbers of frames: what is missing between two of them, over wraps of 16 bits and beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejectd.cameras.genicam.frame_ids import GAP_MOST, NARROW, FrameIds, Step


def _after(*numbers: int, first: int = 1) -> FrameIds:
    ids = FrameIds(first)
    for number in numbers:
        ids.step(number)
    return ids


def test_each_number_that_was_skipped_is_named() -> None:
    ids = _after(100)
    assert ids.step(101) == Step()
    assert ids.step(105) == Step(missing=(102, 103, 104))
    assert ids.step(106) == Step()


def test_sixteen_bits_wrap_from_65535_to_1_and_a_gap_over_the_wrap_has_no_0() -> None:
    assert _after(NARROW).step(1) == Step()
    assert _after(65_533).step(3) == Step(missing=(65_534, 65_535, 1, 2))


def test_numbers_of_64_bits_go_on_above_16_bits() -> None:
    assert _after(NARROW).step(65_536) == Step()
    assert _after(2**40).step(2**40 + 3) == Step(missing=(2**40 + 1, 2**40 + 2))


def test_usb3_vision_counts_from_0_and_never_wraps() -> None:
    assert _after(first=0).step(2) == Step(missing=(0, 1))
    assert _after(65_535, first=0).step(1).restarted


def test_the_first_frames_of_a_stream_can_be_missing_and_a_camera_that_begins_anywhere_misses_nothing() -> None:
    assert FrameIds().step(1) == Step()
    assert FrameIds().step(3) == Step(missing=(1, 2))
    assert FrameIds().step(65_401) == Step()


def test_a_frame_that_lost_its_number_is_one_of_those_that_are_missing() -> None:
    ids = _after(10)
    ids.nameless()
    assert ids.step(12) == Step()
    ids.nameless()
    assert ids.step(15).missing == (14,)
    ids.nameless()
    assert ids.step(16) == Step()


def test_a_frame_that_comes_again_is_told_from_a_camera_that_counts_anew() -> None:
    ids = _after(50)
    assert ids.step(50) == Step(repeated=True)
    assert ids.step(48) == Step(repeated=True)
    assert ids.step(51) == Step()
    assert ids.step(30_000) == Step(restarted=True)
    assert ids.step(30_001) == Step()


@given(st.integers(1, NARROW), st.lists(st.integers(1, 300), max_size=30))
def test_no_number_is_lost_or_counted_twice_whatever_the_losses_are(start: int, leaps: list[int]) -> None:
    sent = [(start - 1 + offset) % NARROW + 1 for offset in range(sum(leaps) + 1)]
    ids, position, told = FrameIds(), 0, [start]
    ids.step(start)
    for leap in leaps:
        position += leap
        step = ids.step(sent[position])
        assert (step.restarted, step.repeated) == (False, False)
        told += [*step.missing, sent[position]]
    assert told == sent


@pytest.mark.parametrize("gap", [GAP_MOST, GAP_MOST + 1])
def test_a_gap_that_no_loss_can_explain_is_a_camera_that_counts_anew(gap: int) -> None:
    step = _after(20).step(20 + gap)
    assert step.restarted == (gap > GAP_MOST)
    assert len(step.missing) == (0 if step.restarted else gap - 1)
