"""revdist.evaluation.sensitivity and revdist.data.painted_defects"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images, painted_defects
from revdist.data.painted_defects import Kind
from revdist.engines.engine import Engine
from revdist.errors import RevdistError
from revdist.evaluation import evaluate, sensitivity
from revdist.evaluation.sensitivity import Grid, Probe, Sensitivity
from revdist.thresholds import conformal
from revdist.thresholds.conformal import Calibration

GRID = Grid(sizes_px=(4.0, 16.0, 30.0, 50.0), contrasts=(0.2, 1.0), pictures=4)


@pytest.fixture(scope="module")
def cells(good_cells: list[Path]) -> list[images.Pixels]:
    return evaluate.read_prepared(good_cells[60:66], (64, 96))


@pytest.fixture
def loaded(tiny: Bundle, engine: Engine) -> Iterator[Bundle]:
    yield bundle.load(tiny.path, engine)
    engine.remove("cell")


@pytest.mark.parametrize("kind", painted_defects.KINDS)
def test_a_defect_is_as_large_and_as_strong_as_asked_and_the_seed_decides_where(
    kind: Kind, good_cells: list[Path]
) -> None:
    cell = images.read(good_cells[3])

    def changed(size: float, contrast: float, seed: int = 1) -> np.ndarray:
        painted = painted_defects.paint(
            kind, cell, size_px=size, contrast=contrast, generator=np.random.default_rng(seed)
        )
        assert (painted.shape, painted.dtype) == (cell.shape, np.uint8)
        return abs(painted.astype(int) - cell.astype(int)).max(2)

    for size in (6, 24, 60):
        rows, columns = np.nonzero(changed(size, 1.0))
        assert np.hypot(np.ptp(rows), np.ptp(columns)) <= size * np.sqrt(2) + 2
    assert (changed(6, 1.0) > 0).sum() < (changed(24, 1.0) > 0).sum() < (changed(60, 1.0) > 0).sum()
    assert changed(24, 0.1).sum() < changed(24, 0.5).sum() < changed(24, 1.0).sum()
    assert np.array_equal(changed(24, 0.5), changed(24, 0.5))
    assert not np.array_equal(changed(24, 0.5), changed(24, 0.5, seed=2))


@pytest.mark.parametrize(("grey", "ink"), [(200, 100), (40, 147)])
def test_contrast_is_the_opacity_of_black_ink_on_light_parts_and_of_white_ink_on_dark_ones(grey: int, ink: int) -> None:
    plain = np.full((64, 64, 3), grey, np.uint8)
    painted = painted_defects.paint("spot", plain, size_px=10, contrast=0.5, generator=np.random.default_rng(0))
    assert (
        abs(int(painted[abs(painted.astype(int) - grey).max(2) > 0].min() if grey > ink else painted.max()) - ink) <= 1
    )
    area = (abs(painted.astype(int) - grey)[..., 0] / abs(grey - ink)).sum()
    assert area == pytest.approx(np.pi * 5**2, rel=0.03)


def test_larger_and_stronger_defects_are_detected_more_often(
    loaded: Bundle, engine: Engine, cells: list[images.Pixels]
) -> None:
    found = sensitivity.measure(engine, "cell", _between(engine, cells), cells, seed=0, grid=GRID)
    assert {probe.size_px for probe in found.probes} == {4, 16, 30}, "50 is more than half of 64"
    assert len(found.probes) == 4 * 3 * 2
    assert all(probe.pictures == 4 for probe in found.probes)
    by_cell = {(probe.kind, probe.size_px, probe.contrast): probe.detected for probe in found.probes}
    assert by_cell["spot", 30, 1.0] == 4
    assert by_cell["spot", 30, 1.0] > by_cell["spot", 4, 0.2]
    assert found.smallest("spot", 1.0) in (4, 16, 30)
    again = sensitivity.measure(engine, "cell", _between(engine, cells), cells, seed=0, grid=GRID)
    assert again == found


def _between(engine: Engine, cells: list[images.Pixels]) -> Calibration:
    """A threshold just over every clean picture."""
    scores = engine.inspect(cells, ["cell"] * len(cells)).scores
    return conformal.calibrate(scores, 0.01, engine=engine.identity, fingerprint="f")


def test_every_detection_can_be_counted_by_hand(loaded: Bundle, engine: Engine, cells: list[images.Pixels]) -> None:
    calibration = _between(engine, cells[:3])
    grid = Grid(kinds=("spot",), sizes_px=(20.0,), contrasts=(0.6,), pictures=10)
    (probe,) = sensitivity.measure(engine, "cell", calibration, cells, seed=7, grid=grid).probes
    painted = [
        painted_defects.paint("spot", cell, size_px=20, contrast=0.6, generator=np.random.default_rng((7, 1, row)))
        for row, cell in enumerate(cells)
    ]
    scores = [float(engine.inspect([each], ["cell"]).scores[0]) for each in painted]
    assert probe.pictures == len(cells)
    assert probe.detected == sum(score > calibration.threshold for score in scores)


def test_pictures_that_are_rejected_unpainted_are_told(
    loaded: Bundle, engine: Engine, cells: list[images.Pixels]
) -> None:
    low = conformal.calibrate([1e-6], 0.5, engine=engine.identity, fingerprint="f")
    grid = Grid(kinds=("blur",), sizes_px=(4.0,), contrasts=(0.5,), pictures=3)
    found = sensitivity.measure(engine, "cell", low, cells, seed=0, grid=grid)
    assert found.clean_rejected == found.pictures == 3
    assert found.probes[0].rate == 1


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (9, 10, 0.5958, 0.9821), (10, 10, 0.7225, 1.0)]
)
def test_the_interval_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    probe = Probe(kind="spot", size_px=4, contrast=1, pictures=total, detected=hits)
    assert probe.interval == pytest.approx((low, high), abs=1e-4)


def _made(*detected: int) -> Sensitivity:
    probes = [
        Probe(kind="spot", size_px=2.0**row, contrast=0.5, pictures=10, detected=hits)
        for row, hits in enumerate(detected)
    ]
    return Sensitivity(probes=tuple(probes), threshold=1, pictures=10, clean_rejected=0, size=(64, 96), seed=0)


@pytest.mark.parametrize(
    ("detected", "smallest"),
    [((0, 5, 9, 10), 4), ((0, 9, 8, 10), 8), ((0, 1, 2, 3), None), ((10, 10, 10, 10), 1), ((0, 10, 8, 10), 2)],
)
def test_the_smallest_size_is_read_from_a_curve_that_never_falls(
    detected: tuple[int, ...], smallest: float | None
) -> None:
    assert _made(*detected).smallest("spot", 0.5) == smallest


def test_the_json_says_that_the_defects_are_synthetic() -> None:
    made = _made(0, 5, 9, 10)
    written = json.loads(json.dumps(made.to_json()))
    assert written["synthetic"] is True
    assert written["smallest_detected"] == [{"kind": "spot", "contrast": 0.5, "share": 0.9, "size_px": 4.0}]
    assert written["probes"][1] == {
        **dataclasses.asdict(made.probes[1]), "rate": 0.5, "interval": pytest.approx([0.2366, 0.7634], abs=1e-4)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pictures", 0),
        ("sizes_px", ()),
        ("sizes_px", (0.5,)),
        ("contrasts", (0.0,)),
        ("contrasts", (1.5,)),
        ("kinds", ("hole",)),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(RevdistError, match=name):
        Grid(**{name: value})  # type: ignore[arg-type]


def test_without_pictures_or_sizes_that_fit_nothing_is_measured(
    loaded: Bundle, engine: Engine, cells: list[images.Pixels]
) -> None:
    calibration = loaded.calibration(engine.identity)
    with pytest.raises(RevdistError, match="no pictures of good parts"):
        sensitivity.measure(engine, "cell", calibration, [], seed=0)
    with pytest.raises(RevdistError, match="no size up to 32 pixels"):
        sensitivity.measure(engine, "cell", calibration, cells, seed=0, grid=Grid(sizes_px=(33.0,)))
