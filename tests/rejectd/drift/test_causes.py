"""rejectd.drift.causes: which of the changes it is, from the signs."""

from __future__ import annotations

import numpy as np
import pytest

from rejectd.contract.messages import DriftCause
from rejectd.drift.causes import Signs, cause, spot_of
from rejectd.drift.part import GRID


def cells(*places: tuple[slice, slice], share: float = 1.2) -> np.ndarray:
    """Evidence of the cells of a picture, up and down: `share` in these places."""
    grid = np.zeros((2, GRID, GRID))
    for rows, columns in places:
        grid[0, rows, columns] = share
    return grid.reshape(2, -1)


def signs(
    score: float = 0.0,
    looks: tuple[float, float, float] = (0.0, 0.0, 0.0),
    of_cells: np.ndarray | None = None,
    rejects: float = 0.0,
) -> Signs:
    """Negative looks: lower than before."""
    of_looks = np.array([[max(look, 0.0) for look in looks], [max(-look, 0.0) for look in looks]])
    return Signs(
        score=np.array([[score], [0.0]]),
        looks=of_looks,
        cells=cells() if of_cells is None else of_cells,
        rejects=rejects,
    )


SPOT = cells((slice(3, 6), slice(11, 14)))
EDGES = cells((slice(0, 16), slice(2, 3)), (slice(0, 16), slice(13, 14)))
CASES = {
    "darker": (signs(looks=(-1.1, -0.8, 0.1)), DriftCause.LIGHT, "darker"),
    "brighter, and good parts rejected": (signs(1.1, (1.2, 0.3, 0.0), rejects=1.2), DriftCause.LIGHT, "brighter"),
    "poor contrast": (signs(looks=(0.2, -1.1, 0.6)), DriftCause.LIGHT, "poorer in contrast"),
    "blurred": (signs(0.9, (0.0, -0.7, -1.2)), DriftCause.FOCUS, "more blurred"),
    "a spot": (signs(1.3, of_cells=SPOT, rejects=1.2), DriftCause.DIRT, "at the top, right"),
    "a spot that also changes sharpness": (signs(looks=(0, 0, 0.8), of_cells=SPOT), DriftCause.DIRT, "one place"),
    "moved": (signs(1.1, of_cells=EDGES), DriftCause.SHIFT, "lie otherwise"),
    "other parts": (signs(1.1, rejects=0.7), DriftCause.PROCESS, "recalibrate"),
    "more defects": (signs(0.3, rejects=1.1), DriftCause.DEFECTS, "tell production"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named_with_what_to_do(name: str) -> None:
    shown, kind, words = CASES[name]
    named = cause(shown)
    assert named
    assert named[0] is kind
    assert words in named[1]
    assert "{" not in named[1]


def test_nothing_is_named_before_one_sign_has_all_the_evidence() -> None:
    assert cause(signs(0.99, (0.9, 0.9, 0.9), cells((slice(3, 4), slice(3, 4)), share=0.99), 0.99)) is None
    assert cause(signs(0.6), least=0.5) is not None


def test_a_spot_is_small_and_in_one_piece() -> None:
    grid = np.zeros((GRID, GRID), bool)
    assert spot_of(grid) is None
    grid[2:5, 2:5] = True
    spot = spot_of(grid)
    assert spot is not None
    assert spot.sum() == 9
    grid[9, 9] = True  # one cell elsewhere, by chance
    spot = spot_of(grid)
    assert spot is not None
    assert not spot[9, 9]
    grid[9:15, 9] = True  # as much elsewhere
    assert spot_of(grid) is None
    assert spot_of(np.ones((GRID, GRID), bool)) is None
