"""The directory of a TIFF file, read and cut down to what describes the pixels before any library sees it.

A directory may point anywhere in the file, any number of times, so few bytes can ask for much memory. The orientation
tag, which some libraries follow and others don't, and the directories of previews and cameras are left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from revdist.data.picture_headers import ONE_PICTURE, Header
from revdist.errors import ImageError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _FORMAT = 256, 257, 258, 259, 262, 277, 339
_STRIPS, _PLANES, _TILE_WIDTH, _TILE_HEIGHT, _SUBFILE = 273, 284, 322, 323, 254
_KEPT = frozenset(
    {
        *(_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _FORMAT),
        *(266, _STRIPS, 278, 279, _PLANES),  # fill order, strips, planes
        *(_TILE_WIDTH, _TILE_HEIGHT, 324, 325),  # tiles
        *(317, 320, 338, 529, 530, 531, 532),  # predictor, colours, alpha
        *(282, 283, 296, 270, 271, 272, 305, 306),  # resolution and short texts: harmless, and nearly always there
    }
)
_SINGLE = frozenset(
    {_SUBFILE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANES, _TILE_WIDTH, _TILE_HEIGHT}
) | {266, 278, 282, 283, 296}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # by type
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LOSSLESS = {1, 5, 8, 32773, 32946}  # none, LZW, Deflate, PackBits, an older number of Deflate
_TAGS_MOST = 512
_VALUES_MOST = 300_000  # of one tag: tiles of 16 x 16 pixels in a picture of 75 megapixels
_PAGES_MOST = 32
_TILE_MOST = 4096 * 4096  # pixels
_AGAIN = "write the file again"


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a directory: TIFF, or BigTIFF with its numbers of 8 bytes."""

    order: str
    count: str  # of the tags
    entry: str  # tag, type, number of values
    pointer: str

    def read(self, kind: str, data: bytes, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + kind, data, at)
        except (struct.error, OverflowError):
            raise ImageError("the TIFF is cut off", hint=_AGAIN) from None

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize("=" + self.entry + self.pointer)


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    entries: dict[int, int]  # where the entry of a tag stands
    next: int


def tiff(data: bytes) -> Header:
    """Check the directory of a TIFF file. Raises ImageError for what is not one plain picture of whole numbers."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    layout = _Layout(order, "Q", "HHQ", "Q") if big else _Layout(order, "H", "HHI", "I")
    (start,) = layout.read(layout.pointer, data, 8 if big else 4)
    directory = _directory(data, layout, start)
    _check_pages(data, layout, directory.next)
    kept = {tag: at for tag, at in directory.entries.items() if tag in _KEPT}
    _check_counts(data, layout, kept)
    tags = {tag: _values(data, layout, at) for tag, at in kept.items()}
    height, width = _one(tags, _HEIGHT), _one(tags, _WIDTH)
    bits = tags.get(_BITS) or (1,)
    _check_values(tags, bits)
    samples = _one(tags, _SAMPLES, 1)
    if len(tags.get(_STRIPS, ())) > height * samples:
        raise ImageError("the TIFF is damaged: there are more strips than rows", hint=_AGAIN)
    tile = _one(tags, _TILE_HEIGHT, 1) * _one(tags, _TILE_WIDTH, 1)
    if tile > _TILE_MOST:
        raise ImageError(f"the TIFF has tiles of {tile / 1e6:.0f} megapixels", hint="save it without tiles")
    deep_colour = bits[0] == 16 and samples > 1
    return Header(height=height, width=width, data=_cut_down(data, layout, directory), deep_colour=deep_colour)


def _check_values(tags: dict[int, tuple[int, ...]], bits: tuple[int, ...]) -> None:
    """Check that values have a known range and are stored without loss."""
    compression, photometric = _one(tags, _COMPRESSION, 1), _one(tags, _PHOTOMETRIC, 0)
    if compression not in _LOSSLESS:
        raise ImageError(
            f"is a TIFF with compression {compression}, which is not taken",
            hint="save it without compression or with LZW or Deflate",
        )
    formats = set(tags.get(_FORMAT) or (1,))
    if 3 in formats:
        raise ImageError("floating-point values have no known range", hint="save it as 8 or 16 bit")
    if bits == (32,) and formats in ({1}, {2}) and photometric == 1:
        return  # their range is what the user states
    if formats != {1} or set(bits) - {1, 2, 4, 8, 16}:
        sign = "whole" if formats == {1} else "signed"
        raise ImageError(f"{sign} numbers of {max(bits)} bits have no known range", hint="save it as 8 or 16 bit")
    planes = _one(tags, _PLANES, 1) if _one(tags, _SAMPLES, 1) > 1 else 1
    if bits[0] == 16 and (photometric not in (1, 2) or planes != 1):
        raise ImageError(
            "this kind of 16-bit picture is not supported", hint="save it as 16-bit grey or RGB, not in planes"
        )


def _directory(data: bytes, layout: _Layout, start: int) -> _Directory:
    (count,) = layout.read(layout.count, data, start)
    if not 0 < count <= _TAGS_MOST:
        raise ImageError(f"the TIFF is damaged: a directory of {count} tags", hint=_AGAIN)
    first = start + struct.calcsize("=" + layout.count)
    places = [first + row * layout.entry_bytes for row in range(count)]
    entries = {layout.read("H", data, at)[0]: at for at in places}
    if len(entries) != count:
        raise ImageError("the TIFF is damaged: a tag stands in it twice", hint=_AGAIN)
    (following,) = layout.read(layout.pointer, data, first + count * layout.entry_bytes)
    return _Directory(start, entries, following)


def _check_pages(data: bytes, layout: _Layout, at: int) -> None:
    """Check that only previews of the first picture follow it."""
    for _ in range(_PAGES_MOST):
        if at == 0:
            return
        directory = _directory(data, layout, at)
        subfile = {tag: at for tag, at in directory.entries.items() if tag == _SUBFILE}
        _check_counts(data, layout, subfile)
        if not _one({tag: _values(data, layout, at) for tag, at in subfile.items()}, _SUBFILE, 0) & 1:
            break
        at = directory.next
    raise ImageError("holds several pictures (a TIFF of several pages)", hint=ONE_PICTURE)


def _check_counts(data: bytes, layout: _Layout, entries: dict[int, int]) -> None:
    """Check that tags ask for no more bytes than the file has, and have one value where only one makes sense."""
    total = 0
    for tag, at in entries.items():
        _, kind, count = layout.read(layout.entry, data, at)
        if kind not in _BYTES or count > _VALUES_MOST or (tag in _SINGLE and count != 1):
            raise ImageError(f"the TIFF is damaged: tag {tag} has {count} values of type {kind}", hint=_AGAIN)
        total += _BYTES[kind] * count
    if total > len(data):
        raise ImageError("the TIFF is cut off", hint=_AGAIN)


def _values(data: bytes, layout: _Layout, at: int) -> tuple[int, ...]:
    """Return the values of a tag if they are whole numbers; the file was checked to hold their bytes."""
    _, kind, count = layout.read(layout.entry, data, at)
    where, size = at + struct.calcsize("=" + layout.entry), _BYTES[kind] * count
    if size > struct.calcsize("=" + layout.pointer):
        (where,) = layout.read(layout.pointer, data, where)
    if where + size > len(data):
        raise ImageError("the TIFF is cut off", hint=_AGAIN)
    return layout.read(f"{count}{_INTEGERS[kind]}", data, where) if kind in _INTEGERS else ()


def _one(tags: dict[int, tuple[int, ...]], tag: int, default: int | None = None) -> int:
    values = tags.get(tag, () if default is None else (default,))
    if len(values) == 0:
        raise ImageError(f"the TIFF is damaged: there is no usable tag {tag}", hint=_AGAIN)
    return values[0]


def _cut_down(data: bytes, layout: _Layout, directory: _Directory) -> bytes:
    """Return the file with a directory that has the kept tags alone."""
    kept = [at for tag, at in directory.entries.items() if tag in _KEPT]
    if len(kept) == len(directory.entries) and directory.next == 0:
        return data
    view = memoryview(data)
    shorter = b"".join(
        [
            struct.pack(layout.order + layout.count, len(kept)),
            *(view[at : at + layout.entry_bytes] for at in kept),
            struct.pack(layout.order + layout.pointer, 0),
        ]
    )
    return b"".join([view[: directory.start], shorter, view[directory.start + len(shorter) :]])
