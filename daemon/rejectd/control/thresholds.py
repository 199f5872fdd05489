"""Chooses the threshold that judges: that of an order, of the settings, or of the calibration. Pure.

A threshold is a number in the unit of one bundle's scores on one engine. With another bundle it lets defects pass or
rejects every part, and no single frame looks wrong. So each threshold names the bundle that it is meant for, or lies
in the range that the calibration makes likely.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Product
from rejectd.control.standing_orders import ThresholdOrder
from rejectd.inspector import Model

BEYOND = 1.5  # a threshold above so many times the calibrated one may let defects pass


class ThresholdError(RejectdError):
    """The threshold of the settings is not meant for the bundle."""


class Source(StrEnum):
    """Where a threshold comes from."""

    ORDER = "order"
    SETTINGS = "settings"
    CALIBRATION = "calibration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold for one bundle, and where it comes from."""

    value: float
    source: Source
    why: str = ""  # why the threshold of the settings does not hold; empty if there is nothing to say


def choose(product: Product, model: Model, order: ThresholdOrder | None = None) -> Threshold:
    """The threshold that holds for a model: the order for it, else what the settings mean for it, else its calibration.

    Raises:
        ThresholdError: if the threshold of the settings names no bundle, and is unlikely for this one.
    """
    if order and holds(order, model):
        return Threshold(value=order.value, source=Source.ORDER)
    calibrated = Threshold(value=model.calibration.threshold, source=Source.CALIBRATION)
    if product.threshold is None:
        return calibrated
    if product.threshold_for is None:
        _check_likely(product.threshold, model)
    elif not model.digest.startswith(product.threshold_for):
        why = f"the threshold {product.threshold:g} of the settings is for bundle {product.threshold_for[:12]}"
        why += f", the bundle in force is {model.digest[:12]}: its calibrated threshold holds"
        return Threshold(value=calibrated.value, source=Source.CALIBRATION, why=why)
    return Threshold(value=product.threshold, source=Source.SETTINGS)


def at_start(product: Product, model: Model) -> Threshold:
    """The threshold of a product whose bundle is the one that the settings name.

    Raises:
        ThresholdError: also if the threshold is meant for another bundle, since nobody would notice otherwise.
    """
    threshold = choose(product, model)
    if threshold.why:
        raise ThresholdError(
            f"products.{model.product}.threshold {product.threshold:g} is for bundle {product.threshold_for}, but "
            f"{product.bundle} is {model.digest}",
            hint="name this one in threshold_for if it is meant for it, or remove both: the calibrated threshold is "
            f"{model.calibration.threshold:.6g}",
        )
    return threshold


def holds(order: ThresholdOrder, model: Model) -> bool:
    """Whether an order was given for this bundle on this engine."""
    return (order.bundle, order.engine) == (model.digest, model.engine)


def doubt(value: float, model: Model) -> str:
    """What is strange about a threshold in force, for people; empty if nothing is."""
    low, high = _likely(model)
    if value > high:
        return f"is more than {BEYOND:g} times the calibrated {model.calibration.threshold:.4g}: defects may pass"
    if value < low:
        return f"is below {low:.4g}, the lowest score of a held-out good part: good parts are rejected"
    return ""


def _likely(model: Model) -> tuple[float, float]:
    return float(model.calibration.scores[0]), BEYOND * model.calibration.threshold


def _check_likely(value: float, model: Model) -> None:
    low, high = _likely(model)
    if not low <= value <= high:
        raise ThresholdError(
            f"products.{model.product}.threshold {value:g} is not within {low:.6g} (the lowest held-out good score) "
            f"and {high:.6g} ({BEYOND:g} times the calibrated threshold) of bundle {model.digest[:12]} on "
            f"{model.engine}",
            hint=f"if it is meant for this bundle, add `threshold_for: {model.digest[:12]}`; or remove it: the "
            f"calibrated threshold is {model.calibration.threshold:.6g}",
        )
