"""revdist.data.images"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from revdist.data import images, masks
from revdist.errors import DataError, ImageError


def test_prepared_pixels_are_those_of_the_golden_hash() -> None:
    y, x = np.mgrid[0:301, 0:407]
    pattern = np.stack([(x * 3 + y) % 256, (x * y // 7) % 256, (x - 2 * y) % 256], axis=-1).astype(np.uint8)
    prepared = images.prepare(pattern, (96, 128))
    # if this changes, every bundle's scores change: bump images.PREPROCESSING
    assert hashlib.sha256(prepared.tobytes()).hexdigest() == (
        "e21bbc52eaf74d3d6e5ad161f5ca4b0992977d90149c97a2c5f51da0cbd0ac17"
    )


def test_preparing_equals_pil_within_one_grey_level_and_plain_bilinear_does_not(good_cells: list[Path]) -> None:
    picture = images.read(good_cells[0]).copy()
    picture[::6] = 255  # fine lines, which a resize without antialiasing meets or misses
    prepared = images.prepare(picture, (96, 64)).astype(int)
    pil = np.asarray(Image.fromarray(picture).resize((64, 96), Image.Resampling.BILINEAR)).astype(int)
    aliased = cv2.resize(picture, (64, 96), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(prepared - pil).max() <= 1
    assert np.abs(prepared - aliased).max() > 10


def test_prepared_pixels_are_contiguous_and_read_only(noise: np.random.Generator) -> None:
    picture = noise.integers(0, 256, (50, 70, 3), np.uint8)
    for size in ((32, 64), (50, 70)):
        prepared = images.prepare(picture, size)
        assert prepared.shape == (*size, 3)
        assert prepared.flags.c_contiguous
        assert not prepared.flags.writeable
    assert picture.flags.writeable, "the caller's own array stays as it was"


def test_a_prepared_picture_is_handed_through(noise: np.random.Generator) -> None:
    prepared = images.prepare(noise.integers(0, 256, (50, 70, 3), np.uint8), (32, 64))
    assert images.prepare(prepared, (32, 64)) is prepared


def test_read_only_and_strided_pictures_can_be_prepared(noise: np.random.Generator) -> None:
    picture = noise.integers(0, 256, (60, 80, 3), np.uint8)
    expected = images.prepare(picture.copy(), (32, 32))
    frozen = picture.copy()
    frozen.flags.writeable = False
    assert np.array_equal(images.prepare(frozen, (32, 32)), expected)
    strided = np.repeat(picture, 2, axis=1)[:, ::2]
    assert np.array_equal(images.prepare(strided, (32, 32)), expected)


def test_red_stays_red(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "red.png")
    assert np.array_equal(images.read(tmp_path / "red.png"), red)
    assert images.prepare(red, (4, 4))[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(("mode", "expected"), [("L", 3), ("RGB", 3), ("RGBA", 3), ("P", 3), ("LA", 3), ("1", 3)])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, good_cells: list[Path], mode: str, expected: int) -> None:
    with Image.open(good_cells[0]) as picture:
        picture.convert(mode).save(tmp_path / "picture.png")
    read = images.read(tmp_path / "picture.png")
    assert read.shape == (300, 300, expected)
    assert read.dtype == np.uint8


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_full_range(
    tmp_path: Path, noise: np.random.Generator, channels: int, suffix: str
) -> None:
    deep = noise.integers(0, 65536, (9, 11, channels), np.uint16)
    deep[0, 0], deep[0, 1] = 0, 65535
    stored = deep[..., [2, 1, 0, 3][: max(channels, 3)]] if channels > 1 else deep  # OpenCV writes BGR
    assert cv2.imwrite(str(tmp_path / f"deep{suffix}"), stored)
    expected = np.rint(deep[..., :3] / 257).astype(np.uint8)
    assert np.array_equal(images.read(tmp_path / f"deep{suffix}"), np.broadcast_to(expected, (9, 11, 3)))


def test_arrays_of_a_camera_become_rgb(noise: np.random.Generator) -> None:
    grey = noise.integers(0, 256, (5, 7), np.uint8)
    assert np.array_equal(images.to_rgb(grey), np.dstack([grey] * 3))
    assert np.array_equal(images.to_rgb(grey[..., None]), np.dstack([grey] * 3))
    colour = noise.integers(0, 256, (5, 7, 4), np.uint8)
    assert np.array_equal(images.to_rgb(colour), colour[..., :3])
    assert images.to_rgb(np.full((2, 2), 65535, np.uint16)).max() == 255


def test_odd_arrays_are_refused() -> None:
    with pytest.raises(ImageError, match=r"shape \(4, 4, 2\)"):
        images.to_rgb(np.zeros((4, 4, 2), np.uint8))
    with pytest.raises(ImageError, match="float64"):
        images.to_rgb(np.zeros((4, 4)))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="not empty"):
        images.to_rgb(np.zeros((0, 4), np.uint8))
    with pytest.raises(ImageError, match="use to_rgb first"):
        images.prepare(np.zeros((4, 4), np.uint8), (32, 32))


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "nothing.png").touch()
    with pytest.raises(ImageError, match=r"nothing\.png: the file is empty"):
        images.read(tmp_path / "nothing.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.png: cannot be read: No such file"):
        images.read(tmp_path / "gone.png")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("Dear picture")
    with pytest.raises(ImageError, match=r"letter\.png: .*not a picture in a known format"):
        images.read(tmp_path / "letter.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_file_is_named_and_never_half_read(
    tmp_path: Path, good_cells: list[Path], suffix: str, share: float
) -> None:
    path = tmp_path / f"cut{suffix}"
    with Image.open(good_cells[0]) as picture:
        picture.save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=f"cut{suffix}"):
        images.read(path)


def test_pictures_are_listed_by_name_and_hidden_files_are_left_out(tmp_path: Path, good_cells: list[Path]) -> None:
    for name in ("b.PNG", "a.png", ".hidden"):
        shutil.copy(good_cells[0], tmp_path / name)
    assert [path.name for path in images.good_pictures(tmp_path)] == ["a.png", "b.PNG"]


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, good_cells: list[Path]) -> None:
    shutil.copy(good_cells[0], tmp_path)
    (tmp_path / "notes.txt").write_text("remember")
    with pytest.raises(DataError, match=r"notes\.txt: not a picture"):
        images.good_pictures(tmp_path)


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures in it"):
        images.good_pictures(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        images.good_pictures(tmp_path / "gone")
    (tmp_path / "inner").mkdir()
    with pytest.raises(DataError, match="a folder among the pictures"):
        images.good_pictures(tmp_path)


def test_the_layout_of_mvtec_is_read(magnetic_tile: Path) -> None:
    assert len(images.good_pictures(magnetic_tile)) == 300
    samples = images.labelled_pictures(magnetic_tile)
    assert sum(not sample.defective for sample in samples) == 100
    assert {sample.kind for sample in samples} == {"good", "blowhole", "break", "crack", "fray", "uneven"}
    assert all((sample.mask is None) != sample.defective for sample in samples)
    marked = [masks.read(sample.mask, (64, 64)) for sample in samples if sample.mask is not None]
    assert sum(mask.any() for mask in marked) > 100


def test_a_missing_mask_is_named(tmp_path: Path, good_cells: list[Path]) -> None:
    for kind in ("good", "crack"):
        (tmp_path / "test" / kind).mkdir(parents=True)
        shutil.copy(good_cells[0], tmp_path / "test" / kind / "one.png")
    assert [sample.mask for sample in images.labelled_pictures(tmp_path)] == [None, None]
    (tmp_path / "ground_truth" / "crack").mkdir(parents=True)
    with pytest.raises(DataError, match=r"one\.png: there is no mask .*one_mask\.png"):
        images.labelled_pictures(tmp_path)


def test_a_test_set_needs_good_and_defective_pictures(tmp_path: Path, good_cells: list[Path]) -> None:
    with pytest.raises(DataError, match="no folder test"):
        images.labelled_pictures(tmp_path)
    (tmp_path / "test" / "good").mkdir(parents=True)
    shutil.copy(good_cells[0], tmp_path / "test" / "good")
    with pytest.raises(DataError, match="both good and defective"):
        images.labelled_pictures(tmp_path)


def test_the_fingerprint_follows_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    paths = [tmp_path / "a", tmp_path / "b"]
    before = images.fingerprint(paths)
    assert images.fingerprint(paths[::-1]) == before
    (tmp_path / "b").write_bytes(b"3")
    assert images.fingerprint(paths) != before


def test_a_png_gives_its_pixels_back(tmp_path: Path, noise: np.random.Generator) -> None:
    picture = noise.integers(0, 256, (5, 7, 3), np.uint8)
    (tmp_path / "picture.png").write_bytes(images.encode_png(picture))
    assert np.array_equal(images.read(tmp_path / "picture.png"), picture)
