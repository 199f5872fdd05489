"""revdist.thresholds.outliers"""

from __future__ import annotations

import numpy as np
import pytest

from revdist.thresholds import outliers


def test_the_highest_scores_are_the_suspects_the_highest_first() -> None:
    scores = np.array([1.0, 3.0, 2.0, 3.0, 0.5, 1.5, 1.2])
    names = list("abcdefg")
    found = outliers.find(names, [each.upper() for each in names], scores)
    assert [each.file for each in found] == ["b", "d", "c", "f", "g"]
    assert [each.sha256 for each in found] == ["B", "D", "C", "F", "G"]
    assert [each.score for each in found] == [3, 3, 2, 1.5, 1.2]
    assert not any(each.outlier for each in found)


@pytest.mark.parametrize("n", [20, 60, 300])
def test_bad_parts_among_good_ones_are_outliers_and_do_not_hide_one_another(n: int) -> None:
    scores = np.random.default_rng(n).gamma(8, size=n)
    scores[:3] = 60, 70, 80  # seven times the median
    assert np.flatnonzero(outliers.outliers(scores)).tolist() == [0, 1, 2]


def test_few_sets_of_good_pictures_have_an_outlier_also_of_a_skewed_law() -> None:
    rng = np.random.default_rng(0)
    for draw in (rng.exponential, rng.gumbel):
        flagged = [outliers.outliers(draw(size=100)).any() for _ in range(100)]
        assert np.mean(flagged) < 0.15


def test_scores_that_are_all_equal_have_no_outlier() -> None:
    assert not outliers.outliers(np.ones(70)).any()
    assert not outliers.outliers(np.ones(1)).any()
