"""revdist.data.pictures: what is taken, and that its pixels are right. What is refused: test_picture_weapons."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from picture_files import EIGHT_BIT, grey_tags, noise, png_chunk, saved, smooth, tiff_of, written
from PIL import Image

from revdist.data import images, pictures
from revdist.data.pictures import decode, is_picture, looks_like_a_picture


def pil(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def test_torch_is_not_imported():
    asked = "import sys, revdist.data.pictures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], timeout=60).returncode == 0


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_pixels_are_bit_identical_to_pil(kind, form):
    image = EIGHT_BIT[kind]
    if form == "BMP" and kind == "rgba":
        image = image.convert("RGB")
    data = saved(image, form, **({"lossless": True} if form == "WEBP" else {}))
    decoded = decode(data)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (17, 23, 3)
    assert np.array_equal(decoded, pil(data))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
def test_lossless_kinds_of_tiff_are_taken(compression):
    data = saved(EIGHT_BIT["rgb"], "TIFF", compression=compression)
    assert np.array_equal(decode(data), np.asarray(EIGHT_BIT["rgb"]))


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (120, 161)])
def test_jpeg_pixels_are_bit_identical_to_pil(sampling, progressive, shape):
    image = Image.fromarray(smooth(*shape))
    data = saved(image, "JPEG", quality=85, subsampling=sampling, progressive=progressive)
    assert np.array_equal(decode(data), pil(data))


@pytest.mark.parametrize(
    "factors",
    [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    ],
)
def test_jpeg_of_rarer_subsampling_is_bit_identical_to_pil(factors):
    good, data = cv2.imencode(".jpg", smooth(120, 161), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factors])
    assert good
    assert np.array_equal(decode(data.tobytes()), pil(data.tobytes()))


def test_jpeg_of_other_colours_and_with_restart_marks_is_bit_identical_to_pil():
    image = Image.fromarray(smooth(120, 161))
    for data in (
        saved(image.convert("L"), "JPEG"),
        saved(image.convert("CMYK"), "JPEG"),
        saved(image, "JPEG", keep_rgb=True),
        saved(image, "JPEG", restart_marker_rows=1),
    ):
        assert np.array_equal(decode(data), pil(data))


def test_what_follows_the_end_of_a_jpeg_is_not_read():
    data = saved(EIGHT_BIT["rgb"], "JPEG")
    second = io.BytesIO()
    EIGHT_BIT["rgb"].save(second, "MPO", save_all=True, append_images=[EIGHT_BIT["grey"].convert("RGB")])
    assert np.array_equal(decode(data + bytes(512)), decode(data))
    assert np.array_equal(decode(second.getvalue()), decode(data))


@pytest.mark.parametrize("highest", [65535, 4095, 1023, 256])
def test_every_value_is_narrowed_to_the_nearest(highest):
    values = np.arange(highest + 1, dtype=np.uint16)[:, None]
    exact = values.astype(np.float64) * 255 / highest
    assert (np.abs(pictures.narrow(values, highest) - exact) <= 0.5).all()


def test_16_bit_grey_is_divided_by_257_and_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for form in ("PNG", "TIFF"):
        decoded = decode(saved(Image.fromarray(values), form))
        assert np.array_equal(decoded, np.repeat(np.round(values / 257).astype(np.uint8)[..., None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_keeps_its_low_byte_and_its_order(suffix, channels):
    values = noise(300, 23, channels, kind=np.uint16)
    stored = values[..., [2, 1, 0, 3][:channels]]  # OpenCV writes BGR
    assert np.array_equal(decode(written(stored, suffix)), np.round(values[..., :3] / 257).astype(np.uint8))


@pytest.mark.parametrize(
    ("header", "values", "expected"),
    [
        (b"P5\n# a comment\n2 1\n255\n", bytes([7, 200]), [7, 200]),
        (b"P5 2 1 65535 ", bytes([0, 128, 1, 129]), [0, 1]),
        (b"P5 2 1 4095 ", bytes([15, 255, 0, 8]), [255, 0]),
    ],
)
def test_pgm_values_are_taken_against_the_highest_that_the_file_names(header, values, expected):
    assert decode(header + values)[0].tolist() == [[value] * 3 for value in expected]


def test_ppm_is_rgb():
    assert decode(b"P6 2 1 255\n" + bytes(range(6))).tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_tags_are_followed_in_no_format(form, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = EIGHT_BIT["rgb"]
    how = {"exif": exif} if form != "TIFF" else {"tiffinfo": {274: orientation}}
    plain = saved(image, form, **({"lossless": True} if form == "WEBP" else {}))
    tagged = saved(image, form, **how, **({"lossless": True} if form == "WEBP" else {}))
    assert tagged != plain
    assert np.array_equal(decode(tagged), decode(plain))


def test_16_bit_colour_is_turned_no_more_than_other_pictures():
    values = noise(9, 11, 3, kind=np.uint16)
    expected = np.round(values / 257).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    png = written(values[..., ::-1])
    assert np.array_equal(decode(png[:33] + png_chunk(b"eXIf", exif.tobytes()[6:]) + png[33:]), expected)
    tags = {tag: (kind, count, value) for tag, kind, count, value in grey_tags(11, 9)}
    tags |= {258: (3, 3, 8 + values.nbytes), 262: (3, 1, 2), 277: (3, 1, 3), 279: (4, 1, values.nbytes), 274: (3, 1, 6)}
    tiff = tiff_of([(tag, *rest) for tag, rest in tags.items()], values.tobytes() + struct.pack("<HHH", 16, 16, 16))
    assert np.array_equal(decode(tiff), expected)


def test_training_and_service_read_the_same_pixels(tmp_path):
    (tmp_path / "rgb.tif").write_bytes(saved(EIGHT_BIT["rgb"], "TIFF", tiffinfo={274: 6}))
    assert np.array_equal(images.read(tmp_path / "rgb.tif"), decode((tmp_path / "rgb.tif").read_bytes()))


def test_a_tiff_with_a_preview_of_itself_is_one_picture():
    pixels = bytes(range(16))
    first = tiff_of(grey_tags(), pixels)
    preview = len(first)
    small = tiff_of([*grey_tags(), (254, 4, 1, 1)], b"")[8:]
    data = first[:-4] + preview.to_bytes(4, "little") + small
    assert decode(data)[..., 0].tobytes() == pixels


def test_profiles_texts_and_previews_change_no_pixel():
    image = EIGHT_BIT["rgb"]
    profile = bytes(600)
    assert np.array_equal(decode(saved(image, "PNG", icc_profile=profile, dpi=(72, 72))), np.asarray(image))
    assert np.array_equal(decode(saved(image, "TIFF", icc_profile=profile, dpi=(72, 72))), np.asarray(image))


@pytest.mark.parametrize(
    "name", ["a.png", "A.JPG", "b.jpeg", "b.jpe", "b.jfif", "c.bmp", "d.tif", "e.TIFF", "f.webp", "g.pgm", "h.ppm"]
)
def test_pictures_are_known_by_their_suffix(name):
    assert is_picture(name)
    assert not looks_like_a_picture(name)


@pytest.mark.parametrize(
    "name", [".a.png", "a.png.tmp", "a.png.part", "a.png~", "~a.png", "a.txt", "png", "a.png.filepart", ".a.gif"]
)
def test_hidden_and_temporary_files_are_no_pictures(name):
    assert not is_picture(name)
    assert not looks_like_a_picture(name)


@pytest.mark.parametrize("name", ["a.gif", "A.HEIC", "b.avif", "c.jp2", "d.dng"])
def test_a_picture_that_is_not_taken_can_be_told_from_other_files(name):
    assert looks_like_a_picture(name)
    assert not is_picture(name)


def test_a_link_to_a_picture_is_read(tmp_path: Path):
    (tmp_path / "picture.png").write_bytes(saved(EIGHT_BIT["rgb"]))
    (tmp_path / "link.png").symlink_to("picture.png")
    assert pictures.content(tmp_path / "link.png") == (tmp_path / "picture.png").read_bytes()


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "growing.png"
    path.write_bytes(b"a" * 1000)
    status = path.stat()
    path.write_bytes(b"a" * 200_000)
    monkeypatch.setattr(os, "fstat", lambda _: status)
    assert len(pictures.content(path)) == 200_000
