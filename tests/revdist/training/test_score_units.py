"""revdist.training.score_units: what a combined score is made of, and that it changes nothing that was promised."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.data.inspection_mask import InspectionMask
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.errors import RecipeError
from revdist.evaluation import evaluate
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.scoring import detector
from revdist.scoring.combination import Combination
from revdist.thresholds import conformal
from revdist.training import recalibrate, score_units, train


@pytest.fixture(scope="module")
def loaded(combined: Bundle, lite0: teacher.Teacher) -> Engine:
    engine = Engine(lite0, device="cpu")
    bundle.install(combined, engine, product="combined")
    return engine


def _sides(found: Bundle, folder: Path) -> tuple[list[images.Pixels], list[images.Pixels]]:
    """The prepared pictures that a student was trained with, and the others."""
    paths = sorted(folder.iterdir())
    seen = [images.content_hash(path) in found.trained_on for path in paths]
    prepared = evaluate.read_prepared(paths, found.size)
    return [p for p, own in zip(prepared, seen, strict=True) if own], [
        p for p, own in zip(prepared, seen, strict=True) if not own
    ]


def test_the_median_picture_that_was_trained_with_scores_1_and_no_map_is_below_0(
    combined: Bundle, loaded: Engine, good_folder: Path
) -> None:
    trained, held_out = _sides(combined, good_folder)
    inspection = loaded.inspect(trained, ["combined"] * len(trained))
    assert torch.from_numpy(inspection.scores).median() == pytest.approx(1, rel=1e-4)
    lowest = [inspection.map(row).min() for row in range(len(trained))]
    assert min(lowest) == pytest.approx(0, abs=1e-4)
    assert json.loads(combined.manifest)["score"] == {"kind": "combined", "pictures": len(trained)}
    assert len(combined.calibration(loaded.identity).scores) == len(held_out), "another part sets the threshold"


def test_the_map_is_the_sum_of_three_in_units_of_good_places(
    combined: Bundle, loaded: Engine, tiny: Bundle, good_folder: Path, broken_cells: list[Path]
) -> None:
    """The definition, computed plainly: maps at full size, standardised one by one, then added."""
    trained, _ = _sides(combined, good_folder)
    tested = evaluate.read_prepared(broken_cells[:3], combined.size)
    maps = _plain_maps(loaded, bundle.student(combined), trained, [*trained, *tested])
    good = [part[: len(trained)] for part in maps]
    summed = sum((part - own.mean()) / own.std() for part, own in zip(maps, good, strict=True))
    summed -= summed[: len(trained)].min()
    summed /= np.sort(summed[: len(trained)].max((1, 2)))[(len(trained) - 1) // 2]
    inspection = loaded.inspect(tested, ["combined"] * len(tested))
    for row in range(len(tested)):
        np.testing.assert_allclose(inspection.map(row), summed[len(trained) + row].clip(0), rtol=2e-3, atol=2e-3)
        assert inspection.map(row).max() == inspection.scores[row]


def _plain_maps(
    engine: Engine, student: torch.nn.Module, good: list[images.Pixels], pictures: list[images.Pixels]
) -> list[np.ndarray]:
    """The maps A, B and C (n, h, w) of pictures, of which the good ones come first."""
    with torch.no_grad():
        taught = engine.features(pictures)
        rebuilt = student(taught)
    count, size = len(good), pictures[0].shape[:2]
    distances = [values.double().numpy() for values in detector.distances(taught, rebuilt)]
    standardised, whitened = [], [np.zeros_like(distances[0])]
    share = count / (count + 10)
    for values in distances:
        own = values[:count]
        mean = share * ndimage.gaussian_filter(own.mean(0), 1, mode="nearest") + (1 - share) * own.mean()
        variance = share * ndimage.gaussian_filter(own.var(0), 1, mode="nearest") + (1 - share) * own.var()
        standardised.append((values - mean) / np.sqrt(variance))
    for pair in list(zip(taught, rebuilt, strict=True))[1:]:
        u, v = (features.permute(0, 2, 3, 1).double().numpy() for features in pair)
        apart = u / np.linalg.norm(u, axis=3, keepdims=True) - v / np.linalg.norm(v, axis=3, keepdims=True)
        own = apart[:count].reshape(-1, apart.shape[3])
        covariance = np.cov(own.T, bias=True)
        diagonal = np.diag(covariance)
        mixed = 0.95 * covariance + np.diag(0.05 * diagonal + 0.005 * diagonal.mean())
        away = apart - own.mean(0)
        whitened.append(np.einsum("nhwc,cd,nhwd->nhw", away, np.linalg.inv(mixed), away) / len(diagonal))
    spread = detector.Spread((size[0], size[1]), torch.device("cpu"))
    return [
        spread([torch.from_numpy(values).float() for values in three]).double().numpy()
        for three in (distances, standardised, whitened)
    ]


def _groups(found: Combination) -> list[dict[int, torch.Tensor]]:
    return [dict(group) for group in (found.gains, found.offsets, found.whitening, found.centres)]


@pytest.mark.parametrize("changes", [{"scales": (1,)}, {"scales": (2, 3)}, {"top_share": 0.02}, {"tile": (64, 64)}])
def test_scales_shares_and_tiles_go_with_it(
    changes: dict[str, object], combined: Bundle, lite0: teacher.Teacher, good_folder: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(combined.recipe, steps=2, **changes)  # type: ignore[arg-type]
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    made = train.train(job, lite0, device="cpu")
    engine = Engine(lite0, device="cpu")
    bundle.install(made, engine)
    trained, _ = _sides(made, good_folder)
    scores = engine.inspect(trained, ["cell"] * len(trained)).scores
    assert torch.from_numpy(scores).median() == pytest.approx(1, rel=1e-3)


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
@pytest.mark.parametrize("runtime", backend.RUNTIMES)
def test_a_bundle_is_calibrated_for_int8_and_proven_there(
    runtime: str, combined: Bundle, lite0: teacher.Teacher, good_cells: list[Path], tmp_path: Path
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed: NOT TESTED")
    folder = tmp_path / "more"
    folder.mkdir()
    for path in good_cells[30:54]:
        shutil.copy(path, folder)
    path = Path(shutil.copytree(combined.path, tmp_path / "combined"))
    plain, fast = Engine(lite0, device="cpu"), Engine(lite0, device="cpu", precision="int8", runtime=runtime)
    done = recalibrate.recalibrate(
        path, recalibrate.RecalibrationRequest(good=folder, false_reject_rate=0.1), fast, plain
    )
    assert np.median(done.deviations) < 0.1
    again = bundle.load(path, Engine(lite0, device="cpu", precision="int8", runtime=runtime))
    assert again.combination is not None
    assert 0.5 < again.calibration(fast.identity).threshold / combined.calibration(plain.identity).threshold < 2


def test_pictures_that_are_all_alike_give_finite_numbers(lite0: teacher.Teacher, combined: Bundle) -> None:
    engine = Engine(lite0, device="cpu")
    grey = [np.full((64, 96, 3), 128, np.uint8)] * 4
    found = score_units.measure(engine, bundle.student(combined), grey, combined.recipe)
    assert all(torch.isfinite(tensor).all() for group in _groups(found) for tensor in group.values())


def test_of_many_pictures_some_are_measured_evenly() -> None:
    assert list(score_units.chosen(range(500))) == list(range(500))
    assert list(score_units.chosen(range(1200))) == list(range(0, 1200, 3))


def test_maps_that_are_multiplied_have_no_combined_score() -> None:
    with pytest.raises(RecipeError, match="score is 'combined', must be cosine where maps are multiplied"):
        Recipe(score="combined", combine="multiply")


def test_the_promised_rate_holds_where_the_statistics_come_from_other_pictures_than_the_threshold() -> None:
    """Many lines in small: each measures place statistics on its own 40 pictures, then a threshold on 39 others.

    Were the threshold set with the pictures that the statistics come from, twice as many would be rejected.
    """
    rng = np.random.default_rng(0)
    apart, same = [], []
    for _ in range(400):
        shown, held_out, later = (rng.gamma(2, size=(count, 30)) for count in (40, 39, 200))

        def scores(pictures: np.ndarray, own: np.ndarray = shown) -> np.ndarray:
            inverse = np.linalg.inv(np.cov(own.T) * 0.95 + 0.05 * np.eye(30))
            away = pictures - own.mean(0)
            return np.einsum("ni,ij,nj->n", away, inverse, away)

        for pictures, rates in ((held_out, apart), (shown[:39], same)):
            threshold = conformal.calibrate(scores(pictures), 0.05, engine="e", fingerprint="f").threshold
            rates.append((scores(later) > threshold).mean())
    error = 3 * np.std(apart) / len(apart) ** 0.5
    assert np.mean(apart) <= 0.05 + error
    assert np.mean(same) > 0.1


def test_what_a_mask_leaves_out_weighs_nothing(
    combined: Bundle, loaded: Engine, lite0: teacher.Teacher, good_folder: Path, broken_cells: list[Path]
) -> None:
    trained, _ = _sides(combined, good_folder)
    other = evaluate.read_prepared(broken_cells[: len(trained)], combined.size)
    masked = np.zeros(combined.size, bool)
    masked[:, 64:] = True
    mask = InspectionMask(masked, (10, 20, 30))
    mixed: list[images.Pixels] = [
        np.where(masked[..., None], theirs, own) for own, theirs in zip(trained, other, strict=True)
    ]
    student = bundle.student(combined)
    one, same = (score_units.measure(loaded, student, shown, combined.recipe, mask) for shown in (trained, mixed))
    for own, others in zip(_groups(one), _groups(same), strict=True):
        assert all(torch.equal(own[scale], others[scale]) for scale in own)
    engine = Engine(lite0, device="cpu")
    engine.add("cell", student, combined.size, detector.Scoring(combination=one), mask=mask)
    scores = engine.inspect(mixed, ["cell"] * len(mixed)).scores
    assert torch.from_numpy(scores).median() == pytest.approx(1, rel=1e-4)
