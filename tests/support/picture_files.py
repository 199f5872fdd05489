"""Picture files for tests: of every kind that is taken, and what a library would not write."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image


def noise(*shape: int, kind: type = np.uint8) -> npt.NDArray[np.generic]:
    return np.random.default_rng(5).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    """What a camera sees rather than noise: (H, W, 3)."""
    coarse = np.random.default_rng(7).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def written(pixels: npt.NDArray[np.generic], suffix: str = ".png") -> bytes:
    good, data = cv2.imencode(suffix, pixels)
    assert good
    return data.tobytes()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(*chunks: bytes, width: int = 4, height: int = 4) -> bytes:
    """A grey PNG of 8 bits with these chunks after its header."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def tiff_of(tags: list[tuple[int, int, int, int]], pixels: bytes, following: int = 0) -> bytes:
    """A TIFF of these tags (number, type, count, value), with its pixels from byte 8 on."""
    directory = 8 + len(pixels)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return (
        struct.pack("<2sHI", b"II", 42, directory)
        + pixels
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", following)
    )


def grey_tags(width: int = 4, height: int = 4) -> list[tuple[int, int, int, int]]:
    """The tags of an uncompressed grey TIFF of 8 bits in one strip."""
    one = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    return [(tag, kind, 1, value) for tag, kind, value in [*one, (278, 4, height), (279, 4, width * height)]]


EIGHT_BIT = {
    "grey": Image.fromarray(noise(17, 23)),
    "rgb": Image.fromarray(noise(17, 23, 3)),
    "rgba": Image.fromarray(noise(17, 23, 4)),
    "palette": Image.fromarray(noise(17, 23, 3)).quantize(16),
    "bilevel": Image.fromarray(noise(17, 23)).convert("1"),
}
