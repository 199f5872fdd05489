"""Watches the parts of one product at one camera: learns how they look here, and gathers evidence of change.

Scores are compared with the held-out scores of the calibration, brightness, contrast and sharpness with the training
pictures of the bundle. Where things lie in a picture, and how often parts are rejected, no bundle says: the first parts
on the line are the reference for that, and for whatever an older bundle does not say.

A rejected part says nothing of how pictures look, because its defect changes that, unless all parts are rejected.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rejectd.drift.causes import Signs
from rejectd.drift.change import Change, Share, Values
from rejectd.drift.part import GRID, LOOKS, Reference

_FEW = 8  # reference values, of which fewer prove nothing
_ALL_REJECTED = 10  # more than so many in a row, and it is not the parts: their pictures count as well
_HELD = 3 * _ALL_REJECTED  # so long a row of rejects waits for a sign that says more than that
_SIGNS = 4  # that may alarm falsely: scores, looks, cells, rejects
_ALMOST = 0.99
LARGEST_BYTES = 8_000_000  # of a file: 2000 parts take 2 MB
DAMAGED = (OSError, ValueError, KeyError, EOFError, IndexError, NotImplementedError, zipfile.BadZipFile)


class Watched:
    """One product at one camera, judged by one bundle. For one thread."""

    def __init__(self, model: str, reference: Reference, learning: int) -> None:
        """`model`: its key; `learning`: how many of the first parts are the reference where the bundle has none."""
        self.model = model
        self._learning = learning
        self._reference = reference
        self._threshold = float("nan")
        self._first_cells: list[Values] = []
        self._first_looks: list[Values] = []
        self._rejected = 0
        self._seen = 0
        self._in_a_row = 0  # rejects
        self._row: list[tuple[Values, Values]] = []  # looks and cells of rejects whose pictures do not count yet
        self._score: Change | None = None
        self._score_before: Values | None = None  # evidence of an earlier run
        self._cells: Change | None = None
        self._looks: Change | None = None
        self._rejects: Share | None = None
        looks = [reference.looks[name] for name in LOOKS if name in reference.looks]
        if len(looks) == len(LOOKS) and len(looks[0]) >= _FEW and len(set(map(len, looks))) == 1:
            self._looks = Change(np.stack(looks, axis=1))

    @property
    def learnt(self) -> float:
        """Share of the first parts that have been seen."""
        return min(self._seen / self._learning, 1.0)

    def observe(self, score: float, threshold: float, looks: Sequence[float], cells: Values, limit: float) -> None:
        """Take one judged part. `limit`: mean number of parts until a false alarm."""
        limit /= _SIGNS
        rejected = score > threshold
        if not rejected:
            self._watch_scores(threshold)
            if self._score:
                self._score.observe(np.array([score]), limit)
        if self._rejects:
            self._rejects.observe(rejected, limit)
        self._take_looks(np.array(looks, np.float64), cells, limit, rejected)
        if not self._rejects:
            self._count(rejected)

    def _take_looks(self, looks: Values, cells: Values, limit: float, rejected: bool) -> None:
        """Look at the pictures of passing parts; at those of rejects, once so many came in a row, also at the first."""
        self._in_a_row = self._in_a_row + 1 if rejected else 0
        self._row = [*self._row, (looks, cells)] if rejected else [(looks, cells)]
        if not rejected or self._in_a_row > _ALL_REJECTED:
            for before in self._row:
                self._look(*before, limit)
            self._row = []

    def _look(self, looks: Values, cells: Values, limit: float) -> None:
        """Take how a picture looks."""
        if self._looks:
            self._looks.observe(looks, limit)
        if self._cells:
            self._cells.observe(cells, limit)
        else:
            self._first_cells.append(cells)
            self._first_looks.append(looks)

    def signs(self, limit: float) -> Signs:
        """How near each sign is to an alarm now."""
        limit /= _SIGNS
        rejects = self._rejects.share(limit) if self._rejects else 0.0
        held = _ALL_REJECTED // 2 <= self._in_a_row < _HELD
        return Signs(
            score=self._score.share(limit) if self._score else np.zeros((2, 1)),
            looks=self._looks.share(limit) if self._looks else np.zeros((2, len(LOOKS))),
            cells=self._cells.share(limit) if self._cells else np.zeros((2, GRID * GRID)),
            rejects=min(rejects, _ALMOST) if held else rejects,
        )

    def _watch_scores(self, threshold: float) -> None:
        """Compare with the held-out scores that pass at the threshold in force."""
        if threshold == self._threshold:
            return
        self._threshold = threshold
        passing = self._reference.scores[self._reference.scores <= threshold]
        before = self._score.evidence if self._score else self._score_before
        self._score = Change(passing[:, np.newaxis], before) if len(passing) >= _FEW else None

    def _count(self, rejected: bool) -> None:
        self._seen += 1
        self._rejected += rejected
        if self._seen >= self._learning:
            self._finish_learning()

    def _finish_learning(self) -> None:
        """The first parts are the reference from now on; where too few of them passed, learning begins again."""
        if len(self._first_cells) < _FEW:
            self._seen = self._rejected = 0
            self._first_cells, self._first_looks = [], []
            return
        self._cells = Change(np.stack(self._first_cells))
        self._rejects = Share(self._rejected, self._seen)
        self._looks = self._looks or Change(np.stack(self._first_looks))

    def saved(self) -> bytes:
        """The content of a file from which `restore` goes on."""
        arrays: Mapping[str, npt.ArrayLike] = {
            "model": np.frombuffer(self.model.encode(), np.uint8),
            "counts": np.array([self._seen, self._rejected]),
            "cells": np.array(self._first_cells, np.float32).reshape(-1, GRID * GRID),
            "looks": np.array(self._first_looks, np.float64).reshape(-1, len(LOOKS)),
            "cells_evidence": self._cells.evidence if self._cells else np.zeros(0),
            "looks_evidence": self._looks.evidence if self._looks else np.zeros(0),
            "score_evidence": self._score.evidence if self._score else np.zeros(0),
            "rejects_evidence": np.array(self._rejects.evidence if self._rejects else []),
        }
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes no mapping
        return file.getvalue()

    def restore(self, content: bytes) -> bool:
        """Go on where an earlier run was. Returns False, and changes nothing, if that was with another bundle.

        Raises:
            DAMAGED: if it is no such content.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            if arrays["model"].tobytes().decode() != self.model:
                return False
            seen, rejected = (int(count) for count in arrays["counts"])
            cells, looks = arrays["cells"].astype(np.float64), arrays["looks"].astype(np.float64)
            evidence = {name: arrays[f"{name}_evidence"] for name in ("cells", "looks", "score", "rejects")}
        kept = len(cells)
        fits = cells.shape == (kept, GRID * GRID) and looks.shape == (kept, len(LOOKS))
        if not fits or not 0 <= rejected <= seen or kept > seen:
            raise ValueError("its parts do not fit together")
        self._seen, self._rejected = seen, rejected
        self._first_cells, self._first_looks = list(cells), list(looks)
        if seen >= self._learning:
            self._finish_learning()
        self._score_before = _usable(evidence["score"])
        for change, name in ((self._cells, "cells"), (self._looks, "looks")):
            if change and evidence[name].shape == change.evidence.shape:
                change.evidence = _usable(evidence[name])
        if self._rejects and evidence["rejects"].shape == (len(self._rejects.evidence),):
            self._rejects.evidence = _usable(evidence["rejects"]).tolist()
        return True


def _usable(evidence: npt.NDArray[np.generic]) -> Values:
    return np.nan_to_num(np.maximum(evidence.astype(np.float64), 0.0), posinf=0.0)
