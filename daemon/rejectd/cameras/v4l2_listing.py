"""Lists Video4Linux devices that give pictures, with their formats and sizes, as the kernel describes them."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from rejectd.cameras.discovery import Reachable

Ioctl = Callable[[int, int, bytearray], object]

_QUERYCAP, _ENUM_FMT, _ENUM_FRAMESIZES = 0x80685600, 0xC0405602, 0xC02C564A  # of linux/videodev2.h
_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000
_CAPABILITY, _FORMAT, _SIZE = struct.Struct("16s32s32s3I12x"), struct.Struct("3I32sI16x"), struct.Struct("9I8x")
_DISCRETE = 1
_MOST = 64  # formats, or sizes of one, that are asked for


def _ioctl(device: int, request: int, answer: bytearray) -> object:
    return fcntl.ioctl(device, request, answer)


def discover(
    listed: Path = Path("/sys/class/video4linux"), devices: Path = Path("/dev"), ioctl: Ioctl = _ioctl
) -> Iterator[Reachable]:
    """Yield the devices that capture pictures; those that do not answer are left out."""
    names = (
        sorted((entry.name for entry in listed.iterdir()), key=lambda name: (len(name), name))
        if listed.is_dir()
        else []
    )
    for name in names:
        camera = _look(devices / name, ioctl)
        if camera:
            yield camera


def _look(device: Path, ioctl: Ioctl) -> Reachable | None:
    try:
        opened = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        _, card, bus, _, all_capabilities, own = _CAPABILITY.unpack(_asked(ioctl, opened, _QUERYCAP, _CAPABILITY.size))
        if not (own if all_capabilities & _DEVICE_CAPS else all_capabilities) & _CAPTURE:
            return None
        formats = list(_formats(ioctl, opened))
        sizes = {code: list(_sizes(ioctl, opened, code)) for code, _ in formats}
    except OSError:
        return None
    finally:
        os.close(opened)
    largest = max((size for of_format in sizes.values() for size in of_format), default=None)
    described = [
        f"{_letters(code)} ({name}): {', '.join(f'{width} x {height}' for width, height in sizes[code]) or 'any size'}"
        for code, name in formats
    ]
    return Reachable(
        kind="v4l2",
        name=str(device),
        model=_text(card),
        address=_text(bus),
        size=largest,
        formats=tuple(_letters(code) for code, _ in formats),
        settings={"device": str(device)},
        details=lambda: described,
    )


def _formats(ioctl: Ioctl, device: int) -> Iterator[tuple[int, str]]:
    """Yield code and name of each pixel format."""
    for index in range(_MOST):
        request = _FORMAT.pack(index, _CAPTURE, 0, b"", 0)
        try:
            *_, name, code = _FORMAT.unpack(_asked(ioctl, device, _ENUM_FMT, _FORMAT.size, request))
        except OSError:
            return
        yield code, _text(name)


def _sizes(ioctl: Ioctl, device: int, code: int) -> Iterator[tuple[int, int]]:
    """Yield (width, height) that a format has; of a range, its largest."""
    for index in range(_MOST):
        request = _SIZE.pack(index, code, *[0] * 7)
        try:
            _, _, kind, *values = _SIZE.unpack(_asked(ioctl, device, _ENUM_FRAMESIZES, _SIZE.size, request))
        except OSError:
            return
        if kind != _DISCRETE:
            yield values[1], values[4]
            return
        yield values[0], values[1]


def _asked(ioctl: Ioctl, device: int, request: int, size: int, content: bytes = b"") -> bytearray:
    answer = bytearray(content.ljust(size, b"\0"))
    ioctl(device, request, answer)
    return answer


def _letters(code: int) -> str:
    return code.to_bytes(4, "little").decode("ascii", "replace").strip()


def _text(content: bytes) -> str:
    return content.split(b"\0", 1)[0].decode("utf-8", "replace")
