"""Decode picture files: the one decoder of training and of the service, which must see the same pixels.

Files are not trusted. A file must be a regular file of a limited size with one picture, in one of a few formats that
its content shows, with a limited number of pixels. Damaged files are refused, as far as their format shows damage.
Orientation tags are ignored in all formats, because a line camera does not turn. Nothing here imports torch.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from revdist.data import picture_headers, tiff_header
from revdist.data.picture_headers import Header
from revdist.errors import ImageError as ImageError

Pixels: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Values: TypeAlias = npt.NDArray[Any]  # uint8, uint16 or int32 (H, W) or (H, W, 3)

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif"),
    *(".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm"),
)
_OTHERS = (
    *(".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw"),
    *(".pbm", ".pnm", ".pcx", ".tga", ".exr", ".psd", ".eps", ".ps", ".svg", ".ico", ".dib", ".mpo"),
)
_TEMPORARY = ("~", ".tmp", ".part", ".partial", ".crdownload", ".filepart")
_SIDE_MOST = 65_535  # pixels: the longest side of a JPEG
_SCANS_MOST = 100  # of a JPEG: 10 are usual, and each costs a pass over all pixels
_FULL = 65_535  # of 16 bits
NARROW = 14  # bits: 16-bit pictures that need no more are data of fewer bits
_DEPTHS = (8, 10, 12, 14, 16)
_ROWS = 64  # rows that are narrowed at once, to need little memory
BROKEN = (  # all errors that PIL's decoders raise for a broken file
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(AssertionError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError),
)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest file and picture, the depth of values, and a hint how to read larger ones."""

    max_file_mb: float = 2000
    max_megapixels: float = 250
    bits: int = 0  # bits of deep values that count, unless `decode` is told otherwise
    larger_file: str = "set REVDIST_MAX_FILE_MB to more"
    larger_picture: str = "set REVDIST_MAX_MEGAPIXELS to more"

    @property
    def max_bytes(self) -> int:
        return int(self.max_file_mb * 1e6)

    def check_file(self, size: int) -> None:
        """Check a file's size in bytes. Raises ImageError where it is too large."""
        if size > self.max_bytes:
            raise ImageError(f"the file is larger than {self.max_file_mb:g} MB", hint=self.larger_file)

    def check_picture(self, height: int, width: int) -> None:
        """Check a picture's size. Raises ImageError where it is too large, or empty."""
        if not (0 < height <= _SIDE_MOST and 0 < width <= _SIDE_MOST):
            raise ImageError(f"a picture of {width} x {height} pixels", hint=f"a side has 1 to {_SIDE_MOST} pixels")
        if height * width > self.max_megapixels * 1e6:
            raise ImageError(
                f"{width} x {height} pixels are more than {self.max_megapixels:g} megapixels", hint=self.larger_picture
            )


DEFAULT = Limits()


def is_picture(name: str) -> bool:
    """Whether a file is a picture by its name: it has a picture's suffix and is neither hidden nor temporary."""
    return not _passing(name) and Path(name).suffix.lower() in SUFFIXES


def looks_like_a_picture(name: str) -> bool:
    """Whether a person would expect a file of this name to be shown, although `is_picture` does not take it."""
    return not _passing(name) and Path(name).suffix.lower() in _OTHERS


def _passing(name: str) -> bool:
    return name.startswith((".", "~")) or name.lower().endswith(_TEMPORARY)


def content(path: Path, limits: Limits = DEFAULT) -> bytes:
    """Read a regular file. Raises ImageError, without the path, and OSError. Does not wait for pipes."""
    _check_regular(path.stat())  # before it is opened: opening alone can move a device
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        _check_regular(status)
        limits.check_file(status.st_size)
        pieces, size, ahead = [], 0, status.st_size + 1
        while piece := os.read(descriptor, min(ahead, limits.max_bytes + 1 - size)):
            pieces.append(piece)
            size += len(piece)
            limits.check_file(size)
            ahead = max(1 << 16, status.st_size + 1 - size)
    finally:
        os.close(descriptor)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_regular(status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise ImageError(f"is {_KINDS.get(kind, 'no file')}, not a file", hint="put a picture there")
    if status.st_size == 0:
        raise ImageError("the file is empty")


def decode(data: bytes, limits: Limits = DEFAULT, *, bits: int = 0) -> Pixels:
    """Decode a PNG, JPEG, TIFF, BMP, WebP, PGM or PPM file to uint8 (H, W, 3) RGB.

    Grey is repeated, alpha dropped. `bits`: how many of a deep value carry it, 8 to 16; 0: not stated, and a 16-bit
    value becomes round(value / 257). Raises ImageError, without the path, for what is damaged, too large, not one
    picture, of another kind, or over what the stated bits hold.
    """
    return to_rgb8_of(values(data, limits), bits or limits.bits)


def values(data: bytes, limits: Limits = DEFAULT) -> Values:
    """Decode a file to its own values: uint8 (H, W[, 3]), or deep: uint16 (H, W[, 3]) or int32 (H, W).

    Raises ImageError as `decode` does.
    """
    if not data:
        raise ImageError("the file is empty")
    return _DECODERS[picture_headers.kind(data)](data, limits)


def to_rgb8_of(stored: Values, bits: int) -> Pixels:
    """Convert what `values` returns to uint8 (H, W, 3). Raises ImageError as `to_rgb8` does."""
    return to_rgb8(stored, bits) if stored.dtype != np.uint8 else _repeated(np.asarray(stored, np.uint8))


def to_rgb8(deep: Values, bits: int) -> Pixels:
    """Convert deep values of `bits` bits to uint8 (H, W, 3). Raises ImageError where values need more bits."""
    highest = (1 << (bits or 16)) - 1
    if deep.dtype != np.uint16 and not bits:
        raise ImageError(
            f"values of {deep.dtype.itemsize * 8} bits have no known range; the highest here is {deep.max()}",
            hint=f"say how many bits they have: --bits {usual_bits(int(deep.max()))}, or save it as 8 or 16 bit",
        )
    if bits and (deep.min() < 0 or deep.max() > highest):
        beyond = deep.min() if deep.min() < 0 else deep.max()
        raise ImageError(
            f"has the value {beyond}, and {bits} bits hold 0 to {highest}",
            hint="is it another camera or format, or are the bits another number?",
        )
    return _repeated(narrow(deep, highest))


def usual_bits(highest: int) -> int:
    """Return the usual camera depth for a highest value, in bits: 8, 10, 12, 14 or 16."""
    return next((bits for bits in _DEPTHS if highest < 1 << bits), _DEPTHS[-1])


def narrow(deep: npt.NDArray[Any], highest: int = _FULL) -> npt.NDArray[np.uint8]:
    """Return round(value * 255 / highest) for whole numbers 0..highest; highest is at most 65,535."""
    narrowed = np.empty(deep.shape, np.uint8)
    for row in range(0, len(deep), _ROWS):
        part = deep[row : row + _ROWS].astype(np.uint32)
        part *= 255
        if highest == _FULL:
            part += 32_895  # with the shift the same for all 65,536 values, in a third of the time
            part >>= 16
        else:
            part += highest // 2
            part //= highest
        narrowed[row : row + _ROWS] = part
    return narrowed


def _jpeg(data: bytes, limits: Limits) -> Values:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        limits.check_picture(height, width)
        if data.count(b"\xff\xda") > _SCANS_MOST:
            raise ImageError(f"the JPEG has more than {_SCANS_MOST} scans", hint="save it again")
        if colours not in ("CMYK", "YCCK"):
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"), np.uint8)
        simplejpeg.decode_jpeg(data, "CMYK")  # libjpeg's warnings are errors here; with PIL they are lost
    except ValueError as error:
        raise ImageError(f"the JPEG is damaged: {error}", hint="write the file again") from None
    return _rgb(JpegImageFile, data)


def _with_header(read_header: Callable[[bytes], Header], kind: type[ImageFile]) -> Callable[[bytes, Limits], Values]:
    def decoder(data: bytes, limits: Limits) -> Values:
        header = read_header(data)
        limits.check_picture(header.height, header.width)
        return _colour16(header.data) if header.deep_colour else _rgb(kind, header.data)

    return decoder


def _rgb(kind: type[ImageFile], data: bytes) -> Values:
    """Decode a file with a named decoder of PIL, not with whichever decoder accepts it."""
    try:
        with kind(io.BytesIO(data)) as image:
            image.load()  # decodes all of it, so that a truncated file is found here
            if image.mode.startswith("I"):
                return _deep(np.asarray(image), image.mode)
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except BROKEN as error:
        raise ImageError(f"the picture is damaged: {error}", hint="write the file again") from error


def _deep(grey: npt.NDArray[Any], mode: str) -> Values:
    """Return uint16 in the processor's byte order, or int32 where the format does not say that there are 16 bits."""
    return grey.astype(np.uint16) if mode.startswith("I;16") else grey.astype(np.int32)


def _colour16(data: bytes) -> npt.NDArray[np.uint16]:
    """Decode 16-bit colour, of which PIL would keep only the high byte."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"the picture is damaged: {error}", hint="write the file again") from error
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] < 3:
        raise ImageError("this kind of 16-bit picture is not supported", hint="save it as 16-bit PNG or TIFF")
    return np.asarray(decoded[..., 2::-1], np.uint16)  # BGR or BGRA -> RGB


def _pnm(data: bytes, limits: Limits) -> Values:
    header = picture_headers.pnm(data)
    limits.check_picture(header.height, header.width)
    kind = np.dtype(np.uint8 if header.highest < 256 else ">u2")
    count = header.height * header.width * header.channels
    if len(data) - header.start < count * kind.itemsize:
        raise ImageError("the PGM or PPM is cut off", hint="write the file again")
    stored = np.frombuffer(data, kind, count, header.start).reshape(header.height, header.width, header.channels)
    if stored.max() > header.highest:
        raise ImageError(f"the PGM or PPM has values over {header.highest}, the highest that it names")
    pixels = stored if header.channels == 3 else stored[..., 0]
    if header.highest == _FULL:
        return pixels.astype(np.uint16)
    return np.asarray(pixels if header.highest == 255 else narrow(pixels, header.highest), np.uint8)


def _repeated(pixels: npt.NDArray[np.uint8]) -> Pixels:
    return np.repeat(pixels[:, :, np.newaxis], 3, axis=2) if pixels.ndim == 2 else pixels


_DECODERS: dict[str, Callable[[bytes, Limits], Values]] = {
    "JPEG": _jpeg,
    "PNG": _with_header(picture_headers.png, PngImageFile),
    "TIFF": _with_header(tiff_header.tiff, TiffImageFile),
    "BMP": _with_header(picture_headers.bmp, BmpImageFile),
    "WebP": _with_header(picture_headers.webp, WebPImageFile),
    "PNM": _pnm,
}
