"""revdist.data.equal_pictures: copies of a picture count once, and a promise is about distinct pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from revdist.data import equal_pictures, survey
from revdist.data.reading import PLAIN
from revdist.errors import DataError
from revdist.recipe import Recipe
from revdist.thresholds import conformal
from revdist.training import holdout, train


def _pictures(folder: Path, count: int, suffix: str, prefix: str = "") -> list[Path]:
    """The same `count` pictures whatever the format."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(8)
    paths = [folder / f"{prefix}{row:03}{suffix}" for row in range(count)]
    for path in paths:
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(path)
    return paths


def test_copies_are_folded_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _pictures(tmp_path, 6, ".png")
    _pictures(tmp_path, 2, ".bmp", "copy")
    good = holdout.gather(tmp_path, "", ())
    assert [path.name for path in good.used] == [f"{row:03}.png" for row in range(6)]
    assert [path.name for path in good.copies] == ["copy000.bmp", "copy001.bmp"]
    assert (
        "2 copies of pictures are left out, 6 distinct ones count: copy000.bmp is 000.png, copy001.bmp is 001.png"
        in caplog.messages
    )


def test_copies_of_one_picture_are_refused(tmp_path: Path) -> None:
    (path,) = _pictures(tmp_path, 1, ".png")
    for row in range(119):
        (tmp_path / f"again{row}.png").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="120 files hold one and the same picture; one distinct picture is neither"):
        holdout.gather(tmp_path, "", ())


def test_one_picture_alone_has_no_copies(tmp_path: Path) -> None:
    looks = survey.survey(_pictures(tmp_path, 1, ".png"), PLAIN)
    assert equal_pictures.fold(looks) == (looks, [])


def test_a_promise_from_pictures_and_their_copies_is_kept(tmp_path: Path) -> None:
    """A student scores what it was trained with, and every copy of it, lower: promised and measured rate must agree."""
    _pictures(tmp_path, 100, ".png")
    _pictures(tmp_path, 100, ".bmp", "copy")
    good = holdout.gather(tmp_path, "", ())
    pixels = {look.path: look.pixels for look in good.looks}
    recipe = Recipe(holdout=0.2)
    promised, measured = [], []
    for seed in range(300):
        fitted, held_out = train.split(good.used, dataclasses.replace(recipe, seed=seed))
        learnt = {pixels[path] for path in fitted}
        latent = np.random.default_rng((7, seed)).random(len(held_out))  # uniform: a threshold t rejects 1 - t
        scores = [score / 3 if pixels[path] in learnt else score for score, path in zip(latent, held_out, strict=True)]
        made = conformal.calibrate(scores, 0.05, engine="e", fingerprint="f")
        promised.append(made.attained_rate)
        measured.append(1 - made.threshold)
    assert len(held_out) == 20
    assert np.mean(measured) == pytest.approx(np.mean(promised), abs=0.01)
