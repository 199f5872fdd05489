"""Counts the frames that a camera numbered and that never arrived.

Frames of GigE Vision are numbered from 1 to 65535 and then from 1 again, or with 64 bits; 0 is no number there. USB3
Vision counts from 0 with 64 bits. A number that is missing was an exposure, and so a part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

NARROW = 65_535  # the highest number of 16 bits, and how many there are without 0
GAP_MOST = 10_000  # a longer gap is no loss: the camera began to count anew, or counts something else
_EARLY = 16  # a camera that begins with a number up to this one has begun with its first number


@dataclass(frozen=True, slots=True)
class Step:
    """What the number of a frame says about those before it."""

    missing: tuple[int, ...] = ()  # numbers that were skipped
    repeated: bool = False  # the number came before, or an earlier frame comes late
    restarted: bool = False  # the camera counts anew, and nobody knows how many frames were lost


class FrameIds:
    """The numbers of one stream."""

    def __init__(self, first: int = 1) -> None:
        """`first` is the number with which a camera begins: 1 with GigE Vision, 0 with USB3 Vision."""
        self._first = first
        self._last: int | None = None
        self._nameless = 0

    def nameless(self) -> None:
        """Take a frame whose number was lost with its first packet: it is one of those that will be missing."""
        self._nameless += 1

    def step(self, number: int) -> Step:
        """Take the number of the next frame."""
        nameless, self._nameless = self._nameless, 0
        step = self._step(number)
        return dataclasses.replace(step, missing=step.missing[nameless:])

    def _step(self, number: int) -> Step:
        before, self._last = self._last, number
        if before is None:
            early = self._first < number <= _EARLY
            return Step(missing=tuple(range(self._first, number)) if early else ())
        wraps = self._first == 1 and max(before, number) <= NARROW
        ahead = (number - before) % NARROW if wraps else number - before
        if 0 < ahead <= GAP_MOST:
            return Step(missing=tuple(_after(before, distance, wraps) for distance in range(1, ahead)))
        behind = (before - number) % NARROW if wraps else before - number
        if 0 <= behind <= _EARLY:
            self._last = before
            return Step(repeated=True)
        return Step(restarted=True)


def _after(number: int, distance: int, wraps: bool) -> int:
    return (number + distance - 1) % NARROW + 1 if wraps else number + distance
