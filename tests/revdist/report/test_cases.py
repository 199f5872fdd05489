"""revdist.report.cases: which pictures are shown, and the outline of a defect"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from revdist.data import images
from revdist.report import cases


def _sample(kind: str, number: int) -> images.Sample:
    return images.Sample(path=Path(f"{kind}/{number}.png"), kind=kind, mask=None)


def test_the_worst_come_first_and_the_typical_is_the_median() -> None:
    samples = [_sample(kind, number) for kind in ("crack", "good") for number in range(5)]
    scores = np.array([0.5, 0.9, 0.3, 2.0, 1.0, 0.1, 1.4, 0.2, 3.0, 1.0])
    assert cases.worst_escapes(samples, scores, 1.0) == [2, 0, 1, 4]  # what equals the threshold passes
    assert cases.worst_false_rejects(samples, scores, 1.0) == [8, 6]
    assert cases.typical(samples, scores) == [9, 1]


def test_an_outline_lies_outside_of_the_defect() -> None:
    picture = np.full((60, 80, 3), 90, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:30, 30:50] = True
    drawn = cases.outline(picture, mask)
    assert (drawn[mask] == 90).all()
    assert (drawn == 255).any()
    assert (cases.outline(picture, None) == picture).all()
