"""Counts the memory that pictures take, and decides which of them there is room for.

A picture counts from the moment it is read until its last holder lets go of it: a frame in flight, a record that waits
for the disk, or the view of a camera. As the budget fills up, pictures are given up in this order: those kept for
viewing, the anomaly maps of rejects, the evidence of rejects. A verdict needs none of them: the model's input is small,
and its queue is bounded.
"""

from __future__ import annotations

import weakref

import numpy as np

from rejectd.contract.messages import AnomalyMap, Pixels

VIEW = 0.5  # share of the budget above which views are given up
MAP = 0.75  # share of the budget above which anomaly maps are given up
EVIDENCE = 1.0  # share of the budget above which evidence is given up


class Memory:
    """The memory budget for pictures. Safe for any number of threads."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: dict[int, int] = {}  # bytes by the identity of the array that owns them

    def count(self, array: Pixels | AnomalyMap) -> None:
        """Count a picture or map for as long as it lives, with the whole array that it is a view of."""
        owner: np.ndarray = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) not in self._held:
            self._held[id(owner)] = owner.nbytes
            weakref.finalize(owner, self._held.pop, id(owner), None).atexit = False

    @property
    def held_bytes(self) -> int:
        """How many bytes pictures take now."""
        return sum(list(self._held.values()))

    def has_room(self, share: float) -> bool:
        """Whether pictures take no more than this part of the budget."""
        return self.held_bytes <= share * self._budget_bytes
