"""revdist.report.verdict: what a person reads first"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from revdist.report import verdict
from revdist.report.gather import Figures
from revdist.thresholds import conformal


@pytest.mark.parametrize(
    ("missed", "rejected", "pictures", "statuses"),
    [
        (0, 0, 400, ["good", "good", "good"]),
        (2, 0, 400, ["good", "caution", "good"]),
        (6, 0, 4, ["caution", "bad", "good"]),
        (0, 7, 400, ["good", "good", "bad"]),  # 7 of 7 good ones: they differ from the held-out ones
    ],
)
def test_the_verdict_follows_from_promise_and_test(
    figures: Figures, missed: int, rejected: int, pictures: int, statuses: list[str]
) -> None:
    assert figures.test is not None
    measured = dataclasses.replace(figures.test.evaluation, escape_rate=missed / 7, false_reject_rate=rejected / 7)
    made = conformal.calibrate(np.linspace(0.1, 0.2, pictures), 0.01, engine="e", fingerprint="f")
    assert figures.test.unlike, "the cells are of another module, and look otherwise"
    test = dataclasses.replace(figures.test, evaluation=measured, unlike=())
    changed = dataclasses.replace(figures, calibration=made, test=test)
    assert [each.status for each in verdict.findings(changed)] == statuses
    assert f"Missed {missed} of 7 defective test parts and rejected {rejected} of 7" in verdict.headline(changed)
