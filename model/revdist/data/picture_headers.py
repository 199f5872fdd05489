"""Read and check the header of a picture file before any library decodes the file.

A library decodes only what was checked here: one picture, of a known size, without the parts that do not describe its
pixels. Hostile files are made of such parts: profiles, texts and previews. Orientation tags are dropped with them.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from revdist.errors import ImageError

ONE_PICTURE = "save one picture in a file"

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"P5", "PNM"),
    (b"P6", "PNM"),
    (b"BM", "BMP"),
)
_OTHERS = (
    (b"GIF8", "a GIF"),
    (b"%!", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "a PDF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL", "JPEG XL"),
    (b"8BPS", "a Photoshop file"),
    (b"v/1\x01", "OpenEXR"),
    (b"PK\x03\x04", "a ZIP archive"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"hevc": "HEIC"}

_PNG_NEEDED = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_PNG_CHUNKS_MOST = 100_000  # 800 MB in the usual pieces of 8 KB
_BMP_PLAIN = (0, 3, 6)  # compression codes of plain files: without or with masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The size of a picture, and the file without parts that do not describe its pixels."""

    height: int
    width: int
    data: bytes
    deep_colour: bool = False  # more than one channel of 16 bits


def kind(data: bytes) -> str:
    """Return the format by content: PNG, JPEG, TIFF, BMP, WebP or PNM. Raises ImageError for any other format."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    other = next((name for signature, name in _OTHERS if data.startswith(signature)), "")
    if data[4:8] == b"ftyp":
        other = _BRANDS.get(data[8:12], "a video or a picture of a phone")
    if other:
        raise ImageError(f"is {other}, which is not taken", hint="save it as PNG, JPEG, TIFF, BMP or WebP")
    raise ImageError("not a picture in a known format", hint="PNG, JPEG, TIFF, BMP and WebP are taken")


def png(data: bytes) -> Header:
    """Check every chunk of a PNG file by its checksum. Raises ImageError."""
    view = memoryview(data)
    position, pieces, name, dropped = 8, [view[:8]], b"", False
    for _ in range(_PNG_CHUNKS_MOST):
        length = int.from_bytes(view[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            raise ImageError("the PNG is cut off", hint="write the file again")
        name = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageError(f"the PNG is damaged: wrong checksum of chunk {name!r}", hint="write the file again")
        if name == b"acTL":
            raise ImageError("holds several pictures (animated PNG)", hint=ONE_PICTURE)
        if name in _PNG_NEEDED:
            pieces.append(view[position:end])
        else:
            dropped = True
        position = end
        if name == b"IEND":
            break
    else:
        raise ImageError(f"the PNG has more than {_PNG_CHUNKS_MOST} chunks", hint="save it again")
    if data[12:16] != b"IHDR" or len(pieces[1]) != 25:
        raise ImageError("the PNG is damaged: there is no header", hint="write the file again")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    whole = b"".join(pieces) if dropped else data
    return Header(height=height, width=width, data=whole, deep_colour=depth == 16 and colour != 0)


def bmp(data: bytes) -> Header:
    """Read the size of a BMP file. Raises ImageError for a compressed one, whose decoder is dangerously slow."""
    try:
        (length,) = struct.unpack_from("<I", data, 14)
        if length == 12:
            width, height = struct.unpack_from("<HH", data, 18)
            compression = 0
        else:
            width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    except struct.error:
        raise ImageError("the BMP is cut off", hint="write the file again") from None
    if compression not in _BMP_PLAIN:
        raise ImageError("is a compressed BMP, which is not taken", hint="save it as PNG")
    return Header(height=abs(height), width=width, data=data)


def webp(data: bytes) -> Header:
    """Read the size of a WebP file. Raises ImageError for one that is cut off or animated."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise ImageError("the WebP is cut off", hint="write the file again")
    name = data[12:16]
    if name == b"VP8X":
        if data[20] & 2:
            raise ImageError("holds several pictures (animated WebP)", hint=ONE_PICTURE)
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif name == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    else:
        raise ImageError("the WebP is damaged: there is no header", hint="write the file again")
    return Header(height=height, width=width, data=data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A PGM or PPM file: where its values begin, and the highest that they can be."""

    height: int
    width: int
    channels: int
    highest: int
    start: int


_BETWEEN = rb"(?:\s+(?:#[^\n]*\n\s*)*)"
_PLAIN = re.compile(rb"P([56])" + (_BETWEEN + rb"(\d{1,9})") * 3 + rb"\s")


def pnm(data: bytes) -> Plain:
    """Read the header of a binary PGM or PPM file. Raises ImageError."""
    match = _PLAIN.match(data[:4096])
    if match is None:
        raise ImageError("the PGM or PPM is damaged: there is no header", hint="write the file again")
    form, width, height, highest = (int(group) for group in match.groups())
    if not 0 < highest < 65536:
        raise ImageError(f"the PGM or PPM has values up to {highest}", hint="save it as PNG")
    channels = 1 if form == 5 else 3
    return Plain(height=height, width=width, channels=channels, highest=highest, start=match.end())
