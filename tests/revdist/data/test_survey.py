"""What a set of pictures is, told or refused before anything is learnt from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from revdist.data import images, pictures, survey
from revdist.data.reading import PLAIN, Reading
from revdist.errors import DataError, ImageError


def _save(folder: Path, name: str, values: npt.NDArray[np.generic]) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(values).save(folder / name)
    return folder / name


def _set(folder: Path, highest: int, step: int = 1, count: int = 3) -> list[Path]:
    """16-bit pictures with values up to `highest`, multiples of `step`."""
    generator = np.random.default_rng(3)
    return [
        _save(folder, f"{row}.png", (generator.integers(0, highest // step + 1, (12, 16)) * step).astype(np.uint16))
        for row in range(count)
    ]


@pytest.mark.parametrize(("highest", "bits"), [(1023, 10), (4095, 12), (2224, 12), (16383, 14), (255, 8)])
def test_data_of_fewer_bits_in_16_bit_files_is_refused_with_the_bits_to_state(
    tmp_path: Path, highest: int, bits: int
) -> None:
    looks = survey.survey(_set(tmp_path, highest), PLAIN)
    with pytest.raises(DataError, match=rf"{bits}-bit data.*--bits {bits} \(or --bits 16"):
        survey.check(looks, PLAIN)
    survey.check(survey.survey(_set(tmp_path, highest), Reading(bits=bits)), Reading(bits=bits))


def test_a_stated_depth_spreads_the_values_over_all_levels(tmp_path: Path) -> None:
    path = _save(tmp_path, "a.png", np.array([[0, 2048, 4095]], np.uint16))
    assert images.read(path, Reading(bits=12))[0, :, 0].tolist() == [0, 128, 255]
    assert images.read(path)[0, :, 0].tolist() == [0, 8, 16]


def test_full_and_left_aligned_data_is_taken_as_it_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    survey.check(survey.survey(_set(tmp_path / "full", 65535), PLAIN), PLAIN)
    assert not caplog.messages
    survey.check(survey.survey(_set(tmp_path / "left", 65520, step=16), PLAIN), PLAIN)
    (line,) = caplog.messages
    assert "12-bit data, left-aligned" in line


def test_values_over_a_stated_depth_are_refused(tmp_path: Path) -> None:
    paths = _set(tmp_path, 65535)
    with pytest.raises(ImageError, match="12 bits hold 0 to 4095") as error:
        survey.survey(paths, Reading(bits=12))
    assert "3 pictures cannot be read" in str(error.value)
    assert "are the bits another number?" in str(error.value)


def test_whole_numbers_of_32_bits_are_read_where_they_fit_the_stated_bits(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.int32).reshape(16, 16)
    path = _save(tmp_path, "a.tif", values)
    with pytest.raises(ImageError, match="the highest here is 255; say how many bits they have: --bits 8"):
        images.read(path)
    assert np.array_equal(images.read(path, Reading(bits=8))[..., 0], values)
    below = _save(tmp_path, "b.tif", values - 1)
    with pytest.raises(ImageError, match="has the value -1, and 8 bits hold 0 to 255"):
        images.read(below, Reading(bits=8))


def test_colour_of_16_bits_has_a_depth_as_well(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 3), np.uint16)
    values[..., 2] = 4095  # BGR: red
    cv2.imwrite(str(tmp_path / "a.png"), values)
    assert images.read(tmp_path / "a.png", Reading(bits=12))[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="12-bit data"):
        survey.check(survey.survey([tmp_path / "a.png"], PLAIN), PLAIN)


@pytest.mark.parametrize(("level", "word"), [(0, "black"), (255, "saturated"), (90, "of one colour")])
def test_a_useless_set_is_refused_by_name_and_a_single_useless_picture_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, level: int, word: str
) -> None:
    useless = [_save(tmp_path, f"u{row}.png", np.full((8, 8), level, np.uint8)) for row in range(2)]
    with pytest.raises(DataError, match=f"all 2 pictures are useless, 2 of them {word}: u0.png, u1.png"):
        survey.check(survey.survey(useless, PLAIN), PLAIN)
    plain = _save(tmp_path, "plain.png", np.arange(64, dtype=np.uint8).reshape(8, 8))
    survey.check(survey.survey([useless[0], plain], PLAIN), PLAIN)
    assert f"1 of 2 pictures are {word}: u0.png" in caplog.messages


def _turned(folder: Path) -> None:
    tags = Image.Exif()
    tags[274] = 6
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "turned.jpg", exif=tags)


def _large(folder: Path) -> None:
    _save(folder, "large.png", np.arange(600, dtype=np.uint8).reshape(10, 20, 3))


def _grey(folder: Path) -> None:
    _save(folder, "grey.png", np.arange(64, dtype=np.uint8).reshape(8, 8))


@pytest.mark.parametrize(
    ("add", "told"),
    [
        (_turned, "orientation tags differ: 1 of 4 pictures are tagged as turned, turned.jpg; tags are not followed"),
        (_large, "2 sizes and aspect ratios, 8x8 (3), 20x10 (1): all are brought to the model's input"),
        (_grey, "1 grey pictures beside 3 in colour: grey is taken as colour; grey are grey.png"),
    ],
)
def test_what_differs_within_a_set_is_one_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, add: Callable[[Path], None], told: str
) -> None:
    caplog.set_level(logging.INFO)
    for row in range(3):
        _save(tmp_path, f"{row}.png", np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + np.uint8(row))
    add(tmp_path)
    survey.check(survey.survey(images.pictures_in(tmp_path), PLAIN), PLAIN)
    (line,) = caplog.messages
    assert told in line


def test_copies_have_the_same_pixels_in_any_format_and_other_sizes_do_not(tmp_path: Path) -> None:
    values = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    paths = [_save(tmp_path, name, values) for name in ("a.png", "b.bmp", "c.tif")]
    paths.append(_save(tmp_path, "d.png", values.reshape(4, 16, 3)))
    hashes = [picture.pixels for picture in survey.survey(paths, PLAIN)]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]


def test_a_depth_of_cameras_is_guessed_from_the_highest_value() -> None:
    assert [pictures.usual_bits(highest) for highest in (1, 255, 256, 1023, 4095, 4096, 65535)] == [
        *(8, 8, 10, 10, 12, 14, 16)
    ]
