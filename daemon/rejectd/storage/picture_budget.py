"""How much memory pictures take, and what of them there is room for.

A picture counts from its reading until nobody has it any more, whoever that is: a frame in flight, a record that waits
for the disk, the view of a camera. Beyond the budget pictures are given up in this order: what is kept for viewing, the
maps of rejects, the evidence of rejects. A verdict needs none of them: what is inspected is small, and has a queue.
"""

from __future__ import annotations

import weakref

import numpy as np

from rejectd.contract.messages import AnomalyMap, Pixels

VIEW = 0.5  # parts of the budget, above which views are given up
MAP = 0.75  # ... maps
EVIDENCE = 1.0  # ... evidence


class Memory:
    """Safe for any number of threads."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: dict[int, int] = {}  # bytes by the identity of what holds them

    def count(self, array: Pixels | AnomalyMap) -> None:
        """Count a picture or map, and whatever it is a part of, for as long as it lives."""
        owner: np.ndarray = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if id(owner) not in self._held:
            self._held[id(owner)] = owner.nbytes
            weakref.finalize(owner, self._held.pop, id(owner), None).atexit = False

    @property
    def held_bytes(self) -> int:
        """What pictures take now."""
        return sum(list(self._held.values()))

    def has_room(self, share: float) -> bool:
        """Whether pictures take no more than this part of the budget."""
        return self.held_bytes <= share * self._budget_bytes
