"""Turns what a GenICam camera sends into uint8 RGB, by the codes of the Pixel Format Naming Convention (PFNC).

Values of more than 8 bits become round(value * 255 / (2^bits - 1)): a fixed mapping, never one by the picture's own
range, and the same that training applies to deep picture files. Bayer patterns are narrowed first and then interpolated
along edges by OpenCV. YUV422 and YCbCr422 are of full range, YCbCr601 of the range of television (16 to 235).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from rejectd.contract.messages import PictureError, Pixels
from revdist.data.pictures import narrow

Bytes: TypeAlias = npt.NDArray[np.uint8]
Values: TypeAlias = npt.NDArray[np.uint16]

_BAYER = {
    "GR": cv2.COLOR_BayerGRBG2RGB_EA,
    "RG": cv2.COLOR_BayerRGGB2RGB_EA,
    "GB": cv2.COLOR_BayerGBRG2RGB_EA,
    "BG": cv2.COLOR_BayerBGGR2RGB_EA,
}
_SMALLEST_BAYER = 3  # pixels a side: smaller pictures have no neighbours to interpolate from


@dataclass(frozen=True, slots=True)
class Format:
    """How the pixels of one format lie in memory."""

    name: str
    stored_bits: int  # of a pixel, on average
    to_rgb: Callable[[Bytes, int, int], Pixels]  # takes the bytes of a picture, its height and its width


def rgb(data: bytes, *, code: int, width: int, height: int, padding: int = 0) -> Pixels:
    """The picture, uint8 (height, width, 3) RGB, of a buffer.

    Args:
        data: the buffer; what follows the picture, such as chunks, is left out.
        code: the pixel format.
        width: in pixels.
        height: in pixels.
        padding: bytes after each line.

    Raises:
        PictureError: if the format is not known, or the buffer too short.
    """
    pixel_format = FORMATS.get(code)
    if pixel_format is None:
        known = ", ".join(sorted(each_format.name for each_format in FORMATS.values()))
        raise PictureError(
            f"the camera sends the pixel format 0x{code:08x}", hint=f"set `pixel_format` to one of {known}"
        )
    line = -(-width * pixel_format.stored_bits // 8)
    wanted = height * (line + padding) - padding if padding else -(-width * height * pixel_format.stored_bits // 8)
    if len(data) < wanted or not wanted:
        raise PictureError(
            f"the camera sent {len(data)} bytes, and {width} x {height} pixels in {pixel_format.name} are {wanted}"
        )
    held = np.frombuffer(data, np.uint8, wanted)
    if padding:
        held = np.concatenate([held[row * (line + padding) :][:line] for row in range(height)])
    return pixel_format.to_rgb(held, height, width)


def _deep(bits: int) -> Callable[[Bytes, int], Bytes]:
    return lambda held, _count: _narrowed(held.view("<u2"), bits)


def _low_first(bits: int) -> Callable[[Bytes, int], Bytes]:
    """For formats such as Mono12p: the lowest bit of each value comes first, without a gap."""

    def unpacked(held: Bytes, count: int) -> Bytes:
        if bits == 12:
            first, middle, last = (_every(held, offset, 3, -(-count // 2)) for offset in range(3))
            values = [first | (middle & 0x0F) << 8, middle >> 4 | last << 4]
        else:
            parts = [_every(held, offset, 5, -(-count // 4)) for offset in range(5)]
            values = [(parts[i] >> 2 * i | parts[i + 1] << 8 - 2 * i) & 0x3FF for i in range(4)]
        return _narrowed(np.stack(values, axis=1).reshape(-1)[:count], bits)

    return unpacked


def _two_in_three(bits: int) -> Callable[[Bytes, int], Bytes]:
    """For GigE Vision's older formats such as Mono12Packed: the low bits of two values share the byte between them."""

    def unpacked(held: Bytes, count: int) -> Bytes:
        first, middle, last = (_every(held, offset, 3, -(-count // 2)) for offset in range(3))
        low = bits - 8
        mask = (1 << low) - 1
        pair = (first << low | middle & mask, last << low | middle >> 4 & mask)
        return _narrowed(np.stack(pair, axis=1).reshape(-1)[:count], bits)

    return unpacked


def _every(held: Bytes, offset: int, step: int, count: int) -> Values:
    """Every `step`-th byte as uint16; an odd last group is filled up with zeros."""
    taken = np.zeros(count, np.uint16)
    part = held[offset::step]
    taken[: len(part)] = part
    return taken


def _narrowed(values: Values, bits: int) -> Bytes:
    table = _table(bits)
    if bits < 16 and int(values.max()) >= len(table):
        raise PictureError(
            f"the camera sent the value {values.max()}, and {bits} bits hold 0 to {len(table) - 1}",
            hint="is `pixel_format` what the camera really sends?",
        )
    return np.take(table, values)


@functools.cache
def _table(bits: int) -> Bytes:
    highest = (1 << bits) - 1
    return narrow(np.arange(highest + 1, dtype=np.uint16)[:, None], highest)[:, 0]


def _grey(unpacked: Callable[[Bytes, int], Bytes]) -> Callable[[Bytes, int, int], Pixels]:
    def to_rgb(held: Bytes, height: int, width: int) -> Pixels:
        grey = unpacked(held, height * width).reshape(height, width)
        return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)

    return to_rgb


def _bayer(unpacked: Callable[[Bytes, int], Bytes], pattern: str) -> Callable[[Bytes, int, int], Pixels]:
    def to_rgb(held: Bytes, height: int, width: int) -> Pixels:
        if min(height, width) < _SMALLEST_BAYER:
            raise PictureError(f"a Bayer picture of {width} x {height} pixels is too small for its colours")
        mosaic = unpacked(held, height * width).reshape(height, width)
        return np.asarray(cv2.cvtColor(mosaic, _BAYER[pattern]), np.uint8)

    return to_rgb


def _colour(channels: int, order: slice) -> Callable[[Bytes, int, int], Pixels]:
    return lambda held, height, width: np.ascontiguousarray(held.reshape(height, width, channels)[:, :, order])


def _full_range(luma: int) -> Callable[[Bytes, int, int], Pixels]:
    """YUV 4:2:2 of full range; `luma` is 0 where the brightness comes first, else 1."""

    def to_rgb(held: Bytes, height: int, width: int) -> Pixels:
        pairs = _pairs(held, height, width)
        planes = (pairs[..., luma::2], pairs[..., 3 - luma : 4 - luma], pairs[..., 1 - luma : 2 - luma])  # Y, V, U
        full = [np.broadcast_to(plane, planes[0].shape).reshape(height, width) for plane in planes]
        return np.asarray(cv2.cvtColor(cv2.merge(full), cv2.COLOR_YCrCb2RGB), np.uint8)

    return to_rgb


def _television(luma: int) -> Callable[[Bytes, int, int], Pixels]:
    code = cv2.COLOR_YUV2RGB_UYVY if luma else cv2.COLOR_YUV2RGB_YUYV

    def to_rgb(held: Bytes, height: int, width: int) -> Pixels:
        pairs = _pairs(held, height, width)
        return np.asarray(cv2.cvtColor(pairs.reshape(height, width, 2), code), np.uint8)

    return to_rgb


def _pairs(held: Bytes, height: int, width: int) -> Bytes:
    if width % 2:
        raise PictureError(f"a picture in YUV 4:2:2 has an even width, and not {width}")
    return held.reshape(height, width // 2, 4)


def _plain(held: Bytes, _count: int) -> Bytes:
    return held


def _formats() -> dict[int, Format]:
    grey = {
        0x01080001: ("Mono8", 8, _plain),
        0x01100003: ("Mono10", 16, _deep(10)),
        0x01100005: ("Mono12", 16, _deep(12)),
        0x01100025: ("Mono14", 16, _deep(14)),
        0x01100007: ("Mono16", 16, _deep(16)),
        0x010A0046: ("Mono10p", 10, _low_first(10)),
        0x010C0047: ("Mono12p", 12, _low_first(12)),
        0x010C0004: ("Mono10Packed", 12, _two_in_three(10)),
        0x010C0006: ("Mono12Packed", 12, _two_in_three(12)),
    }
    formats = {code: Format(name, bits, _grey(unpacked)) for code, (name, bits, unpacked) in grey.items()}
    bayer = (
        (0x01080008, 1, "8", 8, _plain),
        (0x0110000C, 1, "10", 16, _deep(10)),
        (0x01100010, 1, "12", 16, _deep(12)),
        (0x0110002E, 1, "16", 16, _deep(16)),
        (0x010C0026, 1, "10Packed", 12, _two_in_three(10)),
        (0x010C002A, 1, "12Packed", 12, _two_in_three(12)),
    )
    for first, step, suffix, bits, unpacked in bayer:
        for number, pattern in enumerate(("GR", "RG", "GB", "BG")):
            formats[first + number * step] = Format(f"Bayer{pattern}{suffix}", bits, _bayer(unpacked, pattern))
    for number, pattern in enumerate(("BG", "GB", "GR", "RG")):
        formats[0x010A0052 + 2 * number] = Format(f"Bayer{pattern}10p", 10, _bayer(_low_first(10), pattern))
        formats[0x010C0053 + 2 * number] = Format(f"Bayer{pattern}12p", 12, _bayer(_low_first(12), pattern))
    return formats | {
        0x02180014: Format("RGB8", 24, _colour(3, slice(None))),
        0x02180015: Format("BGR8", 24, _colour(3, slice(None, None, -1))),
        0x02200016: Format("RGBa8", 32, _colour(4, slice(None, 3))),
        0x02200017: Format("BGRa8", 32, _colour(4, slice(2, None, -1))),
        0x02100032: Format("YUV422_8", 16, _full_range(0)),
        0x0210001F: Format("YUV422_8_UYVY", 16, _full_range(1)),
        0x0210003B: Format("YCbCr422_8", 16, _full_range(0)),
        0x02100043: Format("YCbCr422_8_CbYCrY", 16, _full_range(1)),
        0x0210003E: Format("YCbCr601_422_8", 16, _television(0)),
        0x02100044: Format("YCbCr601_422_8_CbYCrY", 16, _television(1)),
    }


FORMATS = _formats()
