"""Puts another product or bundle in force between two frames. Every step that can fail comes before the switch."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rejectd.contract.messages import RejectdError
from rejectd.control.orders import Orders, Switched
from rejectd.control.self_test import GoldenCheck, Outcome, complaint
from rejectd.control.thresholds import Threshold
from rejectd.inspector import Inspector, Model
from rejectd.ledger import Ledger

_MIXED_S = 5.0  # how long a replaced model is kept at least


class ChangeoverError(RejectdError):
    """A changeover failed; the line goes on with the product and bundle that it had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A changeover that was carried out."""

    model: Model
    threshold: Threshold
    outcomes: Sequence[Outcome]
    switched: Switched


class Changeover:
    """Carries out changeovers. Owned by the thread of commands."""

    def __init__(
        self, inspector: Inspector, golden: GoldenCheck, ledger: Ledger, orders: Orders, max_batch: int
    ) -> None:
        self._inspector, self._golden, self._ledger, self._orders = inspector, golden, ledger, orders
        self._max_batch = max_batch
        self._unload_later: dict[str, float] = {}  # models that are not in force, and since when

    def carry_out(self, product: str, path: Path, cameras: Sequence[str], stop: threading.Event) -> Done:
        """Load and warm a bundle, prove it with the threshold that will hold, then put it in force.

        Raises:
            RejectdError: if any of these steps fails; the bundle in force stays in force then.
        """
        loaded_before = {model.key for model in self._inspector.models.values()}
        model = self._inspector.load(product, path)
        try:
            threshold = self._orders.threshold_for(model)
            model = self._inspector.set_threshold(model.key, threshold.value)
            self._golden.warm(model, self._max_batch, stop)
            outcomes = self._golden.challenge(model, stop)
            if failure := complaint(outcomes, decisions=True):
                raise ChangeoverError(f"no changeover: {failure}", hint="the line goes on with what it had")
            switched = self._orders.change_over(model, threshold, cameras, path.name)
        except RejectdError:
            if model.key not in loaded_before:
                self._unload_later[model.key] = time.monotonic()
            raise
        if switched.before.key != model.key:
            self._unload_later[switched.before.key] = time.monotonic()
        return Done(model=model, threshold=threshold, outcomes=outcomes, switched=switched)

    def unload(self) -> None:
        """Unload models that are no longer in force, once no frame in flight needs them."""
        old = time.monotonic() - _MIXED_S
        for key in [key for key, since in self._unload_later.items() if since < old]:
            if all(frame.model != key for frame in self._ledger.in_flight()):
                del self._unload_later[key]
                self._inspector.unload(key)
