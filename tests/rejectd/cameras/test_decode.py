"""Picture files become the same pixels as in training."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from rejectd.cameras.decode import UnreadableError, decode, is_picture
from revdist import images


def noise(*shape: int, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(5).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def written(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    good, data = cv2.imencode(suffix, pixels)
    assert good
    return data.tobytes()


EIGHT_BIT = {
    "grey": Image.fromarray(noise(17, 23)),
    "rgb": Image.fromarray(noise(17, 23, 3)),
    "rgba": Image.fromarray(noise(17, 23, 4)),
    "palette": Image.fromarray(noise(17, 23, 3)).quantize(16),
    "bilevel": Image.fromarray(noise(17, 23)).convert("1"),
}


@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_png_is_bit_identical_to_pil(kind):
    decoded = decode(saved(EIGHT_BIT[kind]))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, np.asarray(EIGHT_BIT[kind].convert("RGB")))


def test_16_bit_grey_is_divided_by_257_and_rounded():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode(saved(Image.fromarray(values)))
    assert np.array_equal(decoded[..., 0], np.round(values / 257).astype(np.uint8))
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


def test_16_bit_colour_keeps_its_low_byte_and_its_order():
    values = noise(17, 23, 3, kind=np.uint16)
    assert np.array_equal(decode(written(values[..., ::-1])), np.round(values / 257).astype(np.uint8))


FILES = {
    **{f"{kind}.png": saved(image) for kind, image in EIGHT_BIT.items()},
    "grey16.png": saved(Image.fromarray(noise(17, 23, kind=np.uint16))),
    "grey16.tif": written(noise(17, 23, kind=np.uint16), ".tif"),
    "rgb16.png": written(noise(17, 23, 3, kind=np.uint16)),
    "rgba16.png": written(noise(17, 23, 4, kind=np.uint16)),
    "rgb16.tif": written(noise(17, 23, 3, kind=np.uint16), ".tif"),
    "rgb.jpg": saved(EIGHT_BIT["rgb"], "JPEG", quality=90),
    "cmyk.jpg": saved(EIGHT_BIT["rgb"].convert("CMYK"), "JPEG"),
    "rgb.bmp": saved(EIGHT_BIT["rgb"], "BMP"),
    "rgb.tif": saved(EIGHT_BIT["rgb"], "TIFF"),
    "rgb.webp": saved(EIGHT_BIT["rgb"], "WEBP"),
    "rgba.webp": saved(EIGHT_BIT["rgba"], "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_the_model_library_reads_the_same_pixels(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    assert np.array_equal(decode(FILES[name]), images.read(tmp_path / name))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"not a picture at all", "not a picture of a known kind"),
        (FILES["rgb.png"][:200], "broken"),
        (FILES["rgb.jpg"][:-300], "broken"),
        (FILES["rgb.tif"][:300], "broken"),
        (saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "floating-point"),
        (saved(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "outside of 0..65535"),
    ],
)
def test_what_cannot_be_judged_says_why(data, cause):
    with pytest.raises(UnreadableError, match=cause):
        decode(data)


@pytest.mark.parametrize("name", ["a.png", "A.JPG", "b.jpeg", "c.bmp", "d.tif", "e.TIFF", "f.webp"])
def test_pictures_are_known_by_their_suffix(name):
    assert is_picture(name)


@pytest.mark.parametrize(
    "name", [".a.png", "a.png.tmp", "a.png.part", "a.png~", "~a.png", "a.txt", "png", "a.png.filepart"]
)
def test_hidden_and_temporary_files_are_no_pictures(name):
    assert not is_picture(name)
