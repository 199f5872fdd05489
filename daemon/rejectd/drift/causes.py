"""Names what has changed, from how near each sign is to an alarm. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from rejectd.contract.messages import DriftCause
from rejectd.drift.change import DOWN, UP, Values
from rejectd.drift.part import GRID

_NEAR = 0.5  # a sign with this share of the evidence for an alarm counts as well, once another has alarmed
_CELL_NEAR = 0.3  # the same for the cells of the picture, once one of them counts
_SPOT_SIDE = GRID // 2  # cells: what is larger is no spot
_SPOT_SHARE = 0.7  # share of the changed cells that lie together in a spot

Mask: TypeAlias = npt.NDArray[np.bool_]  # (GRID, GRID)


TELLS = {
    DriftCause.DEFECTS: "more parts are rejected than before, while passing parts and pictures are as before: these "
    "are likely true defects; look at the latest rejects and tell production",
    DriftCause.PROCESS: "passing parts are no longer like those of the calibration, while light and focus are as "
    "before: see what changed in production; if it is meant to stay, recalibrate with new good pictures, or train",
    DriftCause.LIGHT: "pictures are {how} than those of the training: check lamp, exposure and stray light; if it is "
    "meant to stay, recalibrate",
    DriftCause.FOCUS: "pictures are {how} than those of the training: clean the lens, then refocus, and look for "
    "vibration",
    DriftCause.DIRT: "a spot stays in one place of the pictures, {how}: clean lens, glass and background; if it is on "
    "the parts, a tool leaves it",
    DriftCause.SHIFT: "parts lie otherwise in the picture, or look otherwise, than in the first parts that were seen: "
    "check camera mount, guide and trigger; if it is meant to stay, train again",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Signs:
    """How near each sign is to an alarm: logarithm of its evidence by that of its limit; from 1 on it is one."""

    score: Values  # (2, 1) up and down; of passing parts
    looks: Values  # (2, 3) brightness, contrast, sharpness
    cells: Values  # (2, GRID * GRID)
    rejects: float

    @property
    def shares(self) -> dict[str, float]:
        """The nearest of each sign."""
        brightness, contrast, sharpness = (float(self.looks[:, column].max(initial=0)) for column in range(3))
        return {
            "score": float(self.score.max(initial=0)),
            "brightness": brightness,
            "contrast": contrast,
            "sharpness": sharpness,
            "place": float(self.cells.max(initial=0)),
            "rejects": self.rejects,
        }


def cause(signs: Signs, least: float = 1.0) -> tuple[DriftCause, str] | None:
    """What has changed, and a sentence for people; None while no sign has `least` of the evidence for an alarm."""
    if max(signs.shares.values()) < least:
        return None
    kind, how = _cause(signs)
    return kind, TELLS[kind].format(how=how)


def _cause(signs: Signs) -> tuple[DriftCause, str]:
    shares = signs.shares
    placed = shares["place"] >= _NEAR
    changed = (signs.cells.max(axis=0, initial=0) >= (_CELL_NEAR if placed else np.inf)).reshape(-1, GRID)
    light = max(shares["brightness"], shares["contrast"])
    spot = spot_of(changed)
    if spot is None and shares["sharpness"] >= min(max(_NEAR, light), 1.0):  # blur takes contrast as well
        return DriftCause.FOCUS, "sharper" if _is_up(signs.looks[:, 2]) else "more blurred"
    if spot is not None:
        return DriftCause.DIRT, _where(spot)
    if light >= _NEAR:
        column, words = (0, _BRIGHTNESS) if shares["brightness"] >= shares["contrast"] else (1, _CONTRAST)
        return DriftCause.LIGHT, words[0] if _is_up(signs.looks[:, column]) else words[1]
    if placed:
        return DriftCause.SHIFT, ""
    if shares["score"] >= _NEAR:
        return DriftCause.PROCESS, ""
    return DriftCause.DEFECTS, ""


_BRIGHTNESS = ("brighter", "darker")
_CONTRAST = ("richer in contrast", "poorer in contrast")


def _is_up(share: Values) -> bool:
    return bool(share[UP] >= share[DOWN])


def spot_of(changed: Mask) -> Mask | None:
    """The spot that changed cells form: most of them lie together, in a small part of the picture. None: no spot."""
    if not changed.any():
        return None
    _, labels, about, _ = cv2.connectedComponentsWithStats(changed.astype(np.uint8), connectivity=8)
    largest = 1 + int(np.argmax(about[1:, cv2.CC_STAT_AREA]))
    small = max(about[largest, cv2.CC_STAT_WIDTH], about[largest, cv2.CC_STAT_HEIGHT]) <= _SPOT_SIDE
    together = about[largest, cv2.CC_STAT_AREA] >= _SPOT_SHARE * changed.sum()
    return np.asarray(labels == largest) if small and together else None


def _where(spot: Mask) -> str:
    """The middle of a spot, in words."""
    row, column = (float(np.median(at)) / (GRID - 1) for at in np.nonzero(spot))
    down = "at the top" if row < 1 / 3 else "in the middle" if row < 2 / 3 else "at the bottom"
    across = "left" if column < 1 / 3 else "centre" if column < 2 / 3 else "right"
    return f"{down}, {across}"
