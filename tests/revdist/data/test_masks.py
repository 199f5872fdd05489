"""Masks of any tool are read right, or refused with the file and the reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from revdist.data import images, mask_names, masks
from revdist.errors import DataError, ImageError

MARKED = np.zeros((40, 60), bool)
MARKED[10:20, 15:40] = True


def _palette(background: int = 0) -> Image.Image:
    image = Image.fromarray(np.where(MARKED, 2, 0).astype(np.uint8), "P")
    image.putpalette([background, 0, 0, 128, 0, 0, 0, 128, 0])
    return image


def _labelled(values: npt.NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values)


def _two(low: int, high: int, kind: type = np.uint8) -> Image.Image:
    return _labelled(np.where(MARKED, high, low).astype(kind))


def _rgba(colour: npt.NDArray[np.generic] | int, alpha: npt.NDArray[np.generic] | int) -> Image.Image:
    pixels = np.zeros((*MARKED.shape, 4), np.uint8)
    pixels[..., :3] = np.broadcast_to(np.asarray(colour, np.uint8), MARKED.shape)[..., None]
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


def _labels() -> Image.Image:
    values = np.where(MARKED, 1, 0).astype(np.uint8)
    values[12:14, 15:40] = 2
    return _labelled(values)


@pytest.mark.parametrize(
    "image",
    [
        *(_two(0, 1), _two(0, 100), _two(0, 255), _two(0, 255, np.uint16), _two(0, 65535, np.uint16)),
        *(_two(0, 1, np.int32), _palette(), _labels(), _two(0, 255).convert("1")),
        _labelled(np.stack([np.zeros_like(MARKED), MARKED, np.zeros_like(MARKED)], 2).astype(np.uint8) * 128),
        *(_rgba(0, MARKED * 255), _rgba(255, MARKED * 90), _rgba(MARKED * 255, 255), _rgba(MARKED * 255, 128)),
        *(_rgba(MARKED * 255, MARKED * 255),),
    ],
)
def test_any_value_but_zero_is_defective(tmp_path: Path, image: Image.Image) -> None:
    path = tmp_path / ("mask.tif" if image.mode == "I" else "mask.png")
    image.save(path)
    assert np.array_equal(masks.decode(path), MARKED)
    assert np.array_equal(masks.read(path, (40, 60), (40, 60)), MARKED)


def test_a_jpeg_of_two_values_is_read_and_one_whose_noise_hides_the_mask_is_refused(tmp_path: Path) -> None:
    _two(0, 255).save(tmp_path / "plain.jpg", quality=90)
    assert np.mean(masks.decode(tmp_path / "plain.jpg") ^ MARKED) < 0.01
    _two(0, 1).save(tmp_path / "low.jpg", quality=90)
    with pytest.raises(ImageError, match=r"low\.jpg: is a JPEG whose values are not plainly two.*save it as PNG"):
        masks.decode(tmp_path / "low.jpg")


@pytest.mark.parametrize(
    ("image", "cause"),
    [
        (_two(255, 0), "it looks inverted"),
        (_two(1, 0), "it looks inverted"),
        (_palette(background=200), "has 2 values and none is 0"),
        (_rgba(np.roll(MARKED, 20, 1) * 255, MARKED * 255), "its colours and its transparency say different things"),
        (_labelled(np.random.default_rng(1).integers(0, 256, MARKED.shape, np.uint8)), "it looks like a picture"),
    ],
)
def test_what_is_not_plain_is_refused_with_file_and_reason(tmp_path: Path, image: Image.Image, cause: str) -> None:
    image.save(tmp_path / "odd.png")
    with pytest.raises(ImageError, match=rf"odd\.png: .*({cause})"):
        masks.decode(tmp_path / "odd.png")


def test_a_mask_of_another_size_is_scaled_and_one_of_another_shape_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    _two(0, 255).save(path)
    assert np.array_equal(masks.read(path, (40, 60), (400, 600)), MARKED)
    with pytest.raises(ImageError, match="is 60x40 pixels, its picture 300x300: another shape"):
        masks.read(path, (40, 60), (300, 300))


@pytest.mark.parametrize("name", ["000_mask.png", "000.png", "000_mask.bmp", "000.tif", "000_mask.jpg", "000.PNG"])
def test_a_mask_is_taken_where_its_name_is_plain(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "ground_truth" / "crack"
    folder.mkdir(parents=True)
    (folder / name).touch()
    assert mask_names.find(tmp_path, "crack", Path("test/crack/000.jpg")) == folder / name


def test_a_missing_mask_tells_what_is_expected_and_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "ground_truth" / "crack"
    folder.mkdir(parents=True)
    (folder / "000_label.png").touch()
    with pytest.raises(DataError, match=r"no mask .*000_mask\.png; in it are 000_label\.png; name it 000_mask\.png"):
        mask_names.find(tmp_path, "crack", Path("000.png"))
    (folder / "000_mask.bmp").touch()
    (folder / "000_mask.tif").touch()
    with pytest.raises(DataError, match=r"000\.png: has 2 masks: 000_mask\.bmp, 000_mask\.tif"):
        mask_names.find(tmp_path, "crack", Path("000.png"))


def test_masks_in_a_folder_of_another_name_are_not_taken_for_no_masks(tmp_path: Path) -> None:
    assert not mask_names.has_masks(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="masks are looked for in ground_truth, and here is"):
        mask_names.has_masks(tmp_path)


@pytest.mark.parametrize("name", ["OK", "Good", "ok", "GOOD", "normal"])
def test_another_usual_name_of_the_good_folder_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level("INFO")
    for kind in (name, "crack"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        _two(0, 9).save(tmp_path / "test" / kind / "000.png")
    assert [sample.defective for sample in images.labelled_pictures(tmp_path)].count(False) == 1
    assert f"test/{name} is taken as the good pictures" in caplog.text
    (tmp_path / "test" / "good").mkdir()
    with pytest.raises(DataError, match="which of them holds the good pictures"):
        images.labelled_pictures(tmp_path)


def test_what_systems_put_beside_pictures_is_left_alone_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("Thumbs.db", "desktop.ini", "._000.png", ".DS_Store"):
        (tmp_path / name).write_text("no picture")
    (tmp_path / "@eaDir").mkdir()
    _two(0, 9).save(tmp_path / "000.png")
    assert [path.name for path in images.pictures_in(tmp_path)] == ["000.png"]
    assert "@eaDir, Thumbs.db, desktop.ini left alone, which systems put there" in caplog.text
