"""rejectd.control.thresholds: which threshold holds for a bundle, and when that of the settings is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rejectd.contract.settings import FolderCamera, Product
from rejectd.control.standing_orders import ThresholdOrder
from rejectd.control.thresholds import Source, ThresholdError, at_start, choose, doubt
from rejectd.inspector import InspectorError, Model, check_depth
from revdist.thresholds import conformal

CALIBRATED = 2.0
LOWEST = 1.0


def model(digest: str = "ab" * 32, engine: str = "torch-cpu-float32") -> Model:
    """One whose held-out pictures score 1 to 2, and whose threshold is the highest."""
    calibration = conformal.calibrate([LOWEST, 1.5, CALIBRATED], 0.1, engine=engine, fingerprint="f")
    return Model(
        key=f"cell@{digest}",
        product="cell",
        digest=digest,
        engine=engine,
        teacher="t",
        size=(64, 64),
        picture_size=None,
        bits=0,
        calibration=calibration,
        threshold=calibration.threshold,
        golden=[],
    )


def product(threshold: float | None = None, meant_for: str | None = None) -> Product:
    return Product(bundle=Path("cell"), threshold=threshold, threshold_for=meant_for)


def order(value: float, *, bundle: str = "ab" * 32, engine: str = "torch-cpu-float32") -> ThresholdOrder:
    return ThresholdOrder(value=value, configured=None, bundle=bundle, engine=engine)


def test_an_order_comes_before_the_settings_and_these_before_the_calibration() -> None:
    chosen = choose(product(1.5), model(), order(1.2))
    assert (chosen.value, chosen.source) == (1.2, Source.ORDER)
    assert choose(product(1.5), model()).source is Source.SETTINGS
    assert (choose(product(), model()).value, choose(product(), model()).source) == (CALIBRATED, Source.CALIBRATION)


@pytest.mark.parametrize("other", [order(1000, bundle="cd" * 32), order(1000, engine="torch-cpu-int8")])
def test_an_order_for_another_bundle_or_engine_does_not_hold(other: ThresholdOrder) -> None:
    assert choose(product(), model(), other).value == CALIBRATED


@pytest.mark.parametrize("value", [LOWEST, 1.5 * CALIBRATED, 2.5])
def test_a_threshold_that_names_no_bundle_holds_where_the_calibration_makes_it_likely(value: float) -> None:
    assert choose(product(value), model()).value == at_start(product(value), model()).value == value
    assert doubt(value, model()) == ""


@pytest.mark.parametrize("value", [0.99, 3.01, 1e-9, 1000])
def test_elsewhere_it_is_refused_with_the_range_and_what_to_do(value: float) -> None:
    for ask in (choose, at_start):
        with pytest.raises(ThresholdError) as caught:
            ask(product(value), model())
        text = str(caught.value)
        assert (
            f"products.cell.threshold {value:g} is not within 1 (the lowest held-out good score) and 3 (1.5 times"
            in text
        )
        assert "add `threshold_for: abababababab`; or remove it: the calibrated threshold is 2" in text
    assert doubt(value, model()), "ordered, it is a problem"


@pytest.mark.parametrize("name", ["ab" * 32, "ab" * 4])
def test_a_threshold_that_names_its_bundle_may_be_anything(name: str) -> None:
    assert at_start(product(1000, name), model()).value == 1000


def test_a_threshold_that_names_another_bundle_gives_way_to_the_calibration_and_ends_a_start() -> None:
    elsewhere = product(1000, "cd" * 4)
    chosen = choose(elsewhere, model())
    assert (chosen.value, chosen.source) == (CALIBRATED, Source.CALIBRATION)
    assert chosen.why == (
        "the threshold 1000 of the settings is for bundle cdcdcdcd, the bundle in force is abababababab: "
        "its calibrated threshold holds"
    )
    with pytest.raises(ThresholdError, match=f"is for bundle cdcdcdcd, but cell is {'ab' * 32}; name this one"):
        at_start(elsewhere, model())


def test_a_camera_that_reads_another_depth_than_training_did_is_refused() -> None:
    twelve = dataclasses.replace(model(), bits=12)
    camera = FolderCamera(product="cell", path=Path("pictures"))
    with pytest.raises(InspectorError, match="camera belt: reads deep pictures with bits: 0, product cell was trained"):
        check_depth("belt", camera, twelve)
    check_depth("belt", camera.model_copy(update={"bits": 12}), twelve)
    check_depth("belt", camera, model())
