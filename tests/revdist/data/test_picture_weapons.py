"""revdist.data.pictures: files that are damaged, hostile or of another kind are refused, soon and with words."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_files import EIGHT_BIT, grey_tags, noise, png_chunk, png_of, saved, smooth, tiff_of, written
from PIL import Image

from revdist.data.pictures import Limits, content, decode
from revdist.errors import ImageError

JPEG = saved(Image.fromarray(smooth(160, 200)), "JPEG", quality=90)
SMALL = Limits(max_file_mb=1, max_megapixels=1)


def refused(data: bytes, cause: str, limits: Limits = SMALL) -> str:
    with pytest.raises(ImageError, match=cause) as error:
        decode(data, limits)
    return str(error.value)


@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a folder", "a device"])
@pytest.mark.timeout(20)
def test_only_a_regular_file_is_opened(kind, tmp_path: Path):
    path = tmp_path / "a.png"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as peer:
        if kind == "a socket":
            peer.bind(str(path))
        with pytest.raises(ImageError, match=f"is {kind}, not a file"):
            content(path)


def test_a_file_that_becomes_a_pipe_before_it_is_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"picture")
    status = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda _: status)
    with pytest.raises(ImageError, match="is a pipe"):
        content(path)


def test_the_size_of_a_file_is_limited_while_it_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.png"
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(ImageError, match="larger than 1 MB"):
        content(path, SMALL)
    path.write_bytes(bytes(1000))
    status = path.stat()
    path.write_bytes(bytes(2_000_000))
    monkeypatch.setattr(os, "fstat", lambda _: status)  # as small as it was when it was opened
    with pytest.raises(ImageError, match="larger than 1 MB"):
        content(path, SMALL)


def test_the_message_names_what_allows_more():
    limits = Limits(max_megapixels=0.0001, larger_picture="`max_megapixels` of the camera allows more")
    told = refused(saved(EIGHT_BIT["rgb"]), "23 x 17 pixels are more than 0.0001 megapixels", limits)
    assert told.endswith("`max_megapixels` of the camera allows more")


def _tiff_header(width: int, height: int) -> bytes:
    return tiff_of(grey_tags(width, height), bytes(16))


HUGE = {
    "PNG": png_of(png_chunk(b"IDAT", zlib.compress(bytes(100))), width=13_000, height=13_000),
    "TIFF": _tiff_header(13_000, 13_000),
    "BMP": saved(EIGHT_BIT["rgb"], "BMP")[:18] + struct.pack("<ii", 13_000, -13_000) + bytes(100),
    "WebP": b"RIFF"
    + struct.pack("<I", 30)
    + b"WEBPVP8X"
    + bytes([10, 0, 0, 0, 0, 0, 0, 0])
    + b"\x00\x32\x00" * 2
    + bytes(8),
    "PPM": b"P6 13000 13000 255\n" + bytes(100),
    "JPEG": JPEG[: JPEG.index(b"\xff\xc0") + 5]
    + struct.pack(">HH", 65_500, 65_500)
    + JPEG[JPEG.index(b"\xff\xc0") + 9 :],
}


@pytest.mark.parametrize("form", HUGE)
def test_a_huge_picture_is_refused_by_its_header(form):
    begun = time.perf_counter()
    refused(HUGE[form], "more than 50 megapixels", Limits(max_megapixels=50))
    assert time.perf_counter() - begun < 0.1


def test_postscript_in_the_guise_of_a_picture_starts_no_program(tmp_path: Path):
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n%%EOF\n"
    asked = f"import sys; from revdist.data.pictures import decode; decode({data!r})"
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(
        [sys.executable, "-c", asked], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60
    )
    assert "is PostScript, which is not taken" in ended.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "not a picture in a known format"),
        (saved(EIGHT_BIT["rgb"], "GIF"), "is a GIF"),
        (b"\0\0\0\x1cftypheic" + bytes(40), "is HEIC"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "is AVIF"),
        (b"%PDF-1.7", "is a PDF"),
        (b"P2 2 1 255\n7 200\n", "not a picture in a known format"),
        (saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "floating-point"),
        (saved(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF"), "values of 32 bits have no known range"),
        (saved(EIGHT_BIT["rgb"], "TIFF", compression="jpeg"), "a TIFF with compression 7"),
        (saved(EIGHT_BIT["bilevel"], "TIFF", compression="group4"), "a TIFF with compression 4"),
    ],
)
def test_what_is_of_another_kind_is_named(data, cause):
    refused(data, cause)


def test_several_pictures_in_a_file_are_refused_by_name():
    more = {"save_all": True, "append_images": [EIGHT_BIT["grey"].convert("RGB")]}
    refused(saved(EIGHT_BIT["rgb"], "PNG", **more), "animated PNG")
    refused(saved(EIGHT_BIT["rgb"], "WEBP", **more), "animated WebP")
    refused(saved(EIGHT_BIT["rgb"], "TIFF", **more), "TIFF of several pages")


def test_a_jpeg_whose_end_was_replaced_is_refused():
    refused(JPEG[: len(JPEG) // 2] + b"\xff\xd9", "the JPEG is damaged: .*premature end")


def test_a_jpeg_without_its_end_mark_is_refused():
    refused(JPEG[:-2], "the JPEG is damaged")


def test_a_jpeg_with_zeros_in_its_middle_is_refused():
    middle = len(JPEG) // 2
    refused(JPEG[:middle] + bytes(400) + JPEG[middle + 400 :], "the JPEG is damaged")


def test_a_damaged_cmyk_jpeg_is_refused_too():
    data = saved(EIGHT_BIT["rgb"].convert("CMYK"), "JPEG")
    refused(data[:-60] + b"\xff\xd9", "the JPEG is damaged")


def test_a_jpeg_of_many_scans_is_refused():
    data = saved(EIGHT_BIT["rgb"], "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    refused(data[:-2] + scan * 120 + b"\xff\xd9", "more than 100 scans")


@pytest.mark.parametrize("kind", ["rgb.png", "grey.png", "rgb16.png"])
def test_every_flipped_bit_of_a_png_is_seen(kind):
    data = {
        "rgb.png": saved(EIGHT_BIT["rgb"]),
        "grey.png": saved(EIGHT_BIT["grey"]),
        "rgb16.png": written(noise(7, 9, 3, kind=np.uint16)),
    }[kind]
    expected = decode(data)
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        try:
            assert np.array_equal(decode(bytes(damaged), SMALL), expected)
        except ImageError:
            continue


def test_a_png_whose_chunks_unpack_to_much_costs_nothing():
    bomb = zlib.compress(bytes(1_000_000), 9)
    texts = [png_chunk(b"zTXt", b"text\0\0" + bomb), png_chunk(b"iCCP", b"name\0\0" + bomb)] * 400
    data = png_of(*texts, png_chunk(b"IDAT", zlib.compress(bytes(4 * 5))))
    begun = time.perf_counter()
    assert decode(data).shape == (4, 4, 3)
    assert time.perf_counter() - begun < 0.2


def test_a_png_that_unpacks_to_more_than_its_pixels_costs_no_more_than_its_pixels():
    data = png_of(png_chunk(b"IDAT", zlib.compress(bytes(300_000_000), 1)))
    begun = time.perf_counter()
    assert decode(data).shape == (4, 4, 3)
    assert time.perf_counter() - begun < 0.2


def test_a_png_of_countless_chunks_is_refused():
    begun = time.perf_counter()
    refused(png_of(*[png_chunk(b"tEXt", b"")] * 200_000), "more than 100000 chunks")
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize(
    ("tag", "cause"),
    [
        ((273, 4, 500_000, 8), "tag 273 has 500000 values"),
        ((324, 4, 400_000_000, 8), "tag 324 has 400000000 values"),
        ((322, 4, 1, 1_000_000), "tiles of"),
        ((256, 2, 1, 4), "no usable tag 256"),
        ((258, 3, 1, 12), "12 bits have no known range"),
        ((339, 3, 1, 2), "signed numbers of 8 bits"),
        ((257, 4, 2, 8), "tag 257 has 2 values"),
        ((273, 4, 5, 8), "more strips than rows"),
        ((273, 4, 200_000, 8), "cut off"),
    ],
)
def test_a_tiff_whose_tags_ask_for_too_much_or_too_odd_is_refused(tag, cause):
    tags = {number: rest for number, *rest in grey_tags()}
    tags |= {323: [4, 1, 4096]} if tag[0] == 322 else {}
    tags[tag[0]] = list(tag[1:])
    refused(tiff_of([(number, *rest) for number, rest in tags.items()], bytes(16)), cause)


def test_a_16_bit_tiff_in_planes_is_refused_for_opencv_mixes_them_up():
    values = noise(3, 9, 11, kind=np.uint16)
    tags = {tag: (kind, count, value) for tag, kind, count, value in grey_tags(11, 9)}
    tags |= {258: (3, 1, 16), 262: (3, 1, 2), 277: (3, 1, 3), 279: (4, 1, values.nbytes), 284: (3, 1, 2)}
    refused(tiff_of([(tag, *rest) for tag, rest in tags.items()], values.tobytes()), "not in planes")


def test_a_tiff_whose_pages_lead_in_a_circle_is_refused():
    refused(tiff_of([*grey_tags(), (254, 4, 1, 1)], bytes(16), following=24), "several pages")


def test_a_tiff_cannot_point_at_the_same_bytes_a_thousand_times():
    profile = [(40_000 + number, 7, 900_000, 8) for number in range(450)]
    data = tiff_of([*grey_tags(), *profile], bytes(900_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode(data).shape == (4, 4, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB


def test_a_compressed_bmp_is_refused():
    data = bytearray(saved(EIGHT_BIT["grey"], "BMP"))
    data[30] = 1
    refused(bytes(data), "a compressed BMP")


@pytest.mark.parametrize(
    "name", ["rgb.png", "rgb.jpg", "rgb.tif", "rgb.bmp", "rgb.webp", "rgb.ppm", "rgb16.png", "rgb16.tif"]
)
def test_a_truncated_file_is_refused_wherever_it_ends(name):
    data = FILES[name]
    for length in range(1, len(data) - 1, max(1, len(data) // 150)):
        with pytest.raises(ImageError):
            decode(data[:length], SMALL)


FILES = {
    **{
        f"rgb.{suffix}": saved(Image.fromarray(smooth(40, 52)), form)
        for suffix, form in (("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP"), ("webp", "WEBP"), ("ppm", "PPM"))
    },
    "rgb.tif": written(smooth(40, 52), ".tif"),
    "raw.tif": saved(Image.fromarray(smooth(40, 52)), "TIFF"),
    "deflate.tif": saved(Image.fromarray(smooth(40, 52)), "TIFF", compression="tiff_adobe_deflate"),
    "palette.png": saved(EIGHT_BIT["palette"]),
    "rgb16.png": written(noise(17, 23, 3, kind=np.uint16)),
    "rgb16.tif": written(noise(17, 23, 3, kind=np.uint16), ".tif"),
    "progressive.jpg": saved(Image.fromarray(smooth(40, 52)), "JPEG", progressive=True),
    "cmyk.jpg": saved(EIGHT_BIT["rgb"].convert("CMYK"), "JPEG"),
    "rgba.webp": saved(EIGHT_BIT["rgba"], "WEBP", lossless=True),
}
damages = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8)


@pytest.mark.parametrize("name", FILES)
@given(damages=damages)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_random_damage_is_an_error_or_a_picture_of_its_size_and_never_more(name, damages):
    """A PNG tells every damage. A JPEG tells most, an uncompressed file none of its pixels: they have no checksums."""
    data = bytearray(FILES[name])
    for place, value in damages:
        data[int(place * len(data))] = value
    try:
        decoded = decode(bytes(data), SMALL)
    except ImageError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.shape[2] == 3
    if name.endswith(".png"):
        assert np.array_equal(decoded, decode(FILES[name]))
