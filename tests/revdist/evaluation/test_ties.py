"""revdist.evaluation.ties"""

from __future__ import annotations

import pytest

from revdist.evaluation import ties


def test_pictures_with_equal_scores_are_named_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    ties.tell(["good/a.png", "good/b.png", "crack/c.png"], [0.5, 0.25, 0.5], "test pictures")
    assert "2 test pictures share their score with another" in caplog.text
    assert "good/a.png = crack/c.png" in caplog.text
    assert "b.png" not in caplog.text


def test_without_equal_scores_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    ties.tell(["a.png", "b.png"], [0.5, 0.25], "test pictures")
    assert not caplog.records
