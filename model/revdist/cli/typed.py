"""Turns the text of an option of `revdist` into its value, or says what is expected."""

from __future__ import annotations

import argparse


def threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads, write 1 or more")
    return int(text)


def duration(text: str) -> float:
    """Turn a time with its unit, such as 10m, into seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = text[:-1], text[-1:]
    try:
        seconds = float(number) * units[unit]
    except (ValueError, KeyError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time, write 90s, 10m or 2h") from None
    if not 0 < seconds < 1e7:
        raise argparse.ArgumentTypeError(f"{text!r} must be over 0 and at most some months")
    return seconds


def scales(text: str) -> tuple[int, ...]:
    scales = text.split(",")
    if not all(scale.isdecimal() for scale in scales):
        raise argparse.ArgumentTypeError(f"{text!r} are no scales, write 2 or 1,2,3")
    return tuple(sorted(map(int, scales)))


def numbers(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers, write 4 or 1,2,4,8")
    return tuple(sorted(set(map(int, numbers))))


def size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, write 256 or 256x320 (height x width)")
    return int(sides[0]), int(sides[-1])


def extent(text: str) -> tuple[float, str]:
    """Turn a length, such as 12, 12px or 0.3mm, into a number and its unit, px or mm."""
    unit = text[-2:] if text[-2:] in ("px", "mm") else ""
    try:
        return float(text.removesuffix(unit)), unit or "px"
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no length, write 12 (pixels) or 0.3mm") from None


def area(text: str) -> tuple[int, int, int, int]:
    """Parse x,y,width,height."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no area, write X,Y,WIDTH,HEIGHT")
    x, y, width, height = (int(part) for part in parts)
    return x, y, width, height


def limits(text: str) -> tuple[float, ...]:
    """Parse one to three numbers of 0 or more."""
    try:
        numbers_given = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers_given = ()
    if not 1 <= len(numbers_given) <= 3 or not all(0 <= number < 1e6 for number in numbers_given):
        raise argparse.ArgumentTypeError(f"{text!r} are no limits, write such as 20,5,0")
    return numbers_given
