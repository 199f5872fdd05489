"""revdist.data.augment: copies of pictures, and patches in features that do not belong there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from revdist.data import augment
from revdist.evaluation import evaluate


def test_copies_differ_a_little_in_light_and_position(good_cells: list[Path]) -> None:
    pictures = evaluate.read_prepared(good_cells[:3], (64, 96))
    made = augment.copies(pictures, 2, seed=1)
    assert len(made) == 9
    assert all(ours is theirs for ours, theirs in zip(made[:3], pictures, strict=True)), "the pictures come first"
    for row, copy in enumerate(made[3:]):
        picture = pictures[row % 3]
        assert copy.dtype == np.uint8
        assert copy.shape == picture.shape
        assert not copy.flags.writeable
        apart = np.abs(copy.astype(float) - picture).mean()
        assert 0 < apart < 40, "another lamp, not another part"
    assert not np.array_equal(made[3], made[6]), "each copy differs"


def test_copies_are_a_function_of_the_seed(good_cells: list[Path]) -> None:
    pictures = evaluate.read_prepared(good_cells[:1], (64, 64))
    first, again, other = (augment.copies(pictures, 1, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert augment.copies(pictures, 0, 1) == pictures


def _maps(count: int) -> list[torch.Tensor]:
    """Three maps of a 64 x 96 picture where each value tells the row of the batch and the place."""
    sides = ((16, 24), (8, 12), (4, 6))
    return [
        1000 * torch.arange(count)[:, None, None, None]
        + torch.arange(height * width).reshape(1, 1, height, width)
        + 0.0
        for height, width in sides
    ]


def test_a_patch_comes_from_another_picture_and_lies_at_the_same_part_of_each_map() -> None:
    clean = _maps(6)
    changed = augment.paste(clean, 1.0, np.random.default_rng(3))
    for row in range(6):
        boxes = []
        for before, after in zip(clean, changed, strict=True):
            differs = (before != after)[row, 0]
            assert differs.any()
            donors = set((after[row, 0][differs] // 1000).int().tolist())
            assert len(donors) == 1
            assert donors != {row}
            where = differs.nonzero().float()
            assert len(where) == (where.max(0).values - where.min(0).values + 1).prod(), "a full rectangle"
            boxes.append((where.mean(0) + 0.5) / torch.tensor(differs.shape))
        coarse_cell = 1 / torch.tensor([4.0, 6.0])
        assert ((boxes[0] - boxes[2]).abs() <= coarse_cell).all()
        assert ((boxes[0] - boxes[1]).abs() <= coarse_cell).all()
    assert all(torch.equal(ours, fresh) for ours, fresh in zip(clean, _maps(6), strict=True)), "what was given stays"


def test_the_share_says_how_many_have_a_patch() -> None:
    clean = _maps(200)[2:]
    changed = augment.paste(clean, 0.5, np.random.default_rng(1))[0]
    count = int((changed != clean[0]).flatten(1).any(1).sum())
    assert 70 < count < 130
    assert torch.equal(augment.paste(clean, 0.0, np.random.default_rng(1))[0], clean[0])


def test_a_batch_of_one_takes_its_patch_from_itself() -> None:
    changed = augment.paste(_maps(1), 1.0, np.random.default_rng(3))
    assert changed[0].max() < 1000
    assert (changed[0] != _maps(1)[0]).any()
