"""revdist.bundle.bundle"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from revdist.bundle import bundle, bundle_files
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.engines.engine import Engine
from revdist.errors import BundleError, CalibrationError, RevdistError
from revdist.networks import teacher
from revdist.thresholds import conformal
from revdist.training import packing


def _change_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((path / bundle_files.MANIFEST).read_text())
    change(manifest)
    (path / bundle_files.MANIFEST).write_text(json.dumps(manifest))


def test_a_bundle_explains_itself(tiny: Bundle, lite0: teacher.Teacher, good_folder: Path) -> None:
    assert tiny.product == "cell"
    assert tiny.size == (64, 96)
    assert tiny.picture_size == images.read(images.good_pictures(good_folder)[0]).shape[:2], "before they were prepared"
    assert (tiny.teacher.name, tiny.teacher.sha256) == (lite0.name, lite0.sha256)
    assert tiny.fingerprint == images.fingerprint(images.good_pictures(good_folder))
    assert tiny.digest == hashlib.sha256((tiny.path / "bundle.json").read_bytes()).hexdigest()
    assert tiny.versions["torch"] == torch.__version__.split("+")[0]
    assert [vector.kind for vector in tiny.golden] == ["good"] * 4 + ["scratch"] * 2
    assert tiny.recipe.steps == 6
    names = {str(path.relative_to(tiny.path)) for path in tiny.path.rglob("*") if path.is_file()}
    golden = {f"golden/{kind}-{row}.png" for kind, count in (("good", 4), ("scratch", 2)) for row in range(count)}
    assert names == {"bundle.json", "student.safetensors", "calibration.safetensors"} | golden


def test_known_good_pictures_are_not_those_with_the_highest_scores(tiny: Bundle) -> None:
    """Else a threshold that is calibrated for more false rejects would reject them."""
    good = sorted(vector.score for vector in tiny.golden if vector.kind == "good")
    np.testing.assert_allclose(good, tiny.calibration("torch-cpu-float32").scores[:4], rtol=1e-4)


def test_a_loaded_bundle_scores_and_is_calibrated(tiny: Bundle, engine: Engine) -> None:
    loaded = bundle.load(tiny.path, engine)
    try:
        assert engine.products == {"cell"}
        calibration = loaded.calibration(engine.identity)
        assert len(calibration.scores) == 5
        assert calibration.threshold == calibration.scores[-1]
    finally:
        engine.remove("cell")


def test_a_bundle_can_serve_under_another_name(tiny: Bundle, engine: Engine) -> None:
    bundle.load(tiny.path, engine, product="left")
    assert engine.products == {"left"}
    engine.remove("left")


def test_another_engine_has_no_calibration_and_the_command_is_named(tiny: Bundle) -> None:
    with pytest.raises(CalibrationError) as caught:
        tiny.calibration("torch-cuda-float32")
    assert (
        f"revdist calibrate {tiny.path} --good DIR --false-reject-rate 0.2 --engine torch-cuda-float32"
        in caught.value.hint
    )


def test_the_wrong_teacher_is_refused(tiny: Bundle, resnet18_file: Path) -> None:
    engine = Engine(teacher.load("resnet18", resnet18_file), device="cpu")
    with pytest.raises(BundleError, match="trained with teacher efficientnet_lite0 579344248a93, but the engine has"):
        bundle.load(tiny.path, engine)
    assert not engine.products


@pytest.mark.parametrize("name", ["student.safetensors", "calibration.safetensors", "golden/good-0.png"])
@pytest.mark.parametrize("spoil", ["truncated", "one bit", "missing"])
def test_a_file_that_differs_is_named(tiny_copy: Path, name: str, spoil: str) -> None:
    path = tiny_copy / name
    content = path.read_bytes()
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-100] if spoil == "truncated" else bytes([content[0] ^ 1]) + content[1:])
    expected = "No such file" if spoil == "missing" else "differs from the manifest"
    with pytest.raises(BundleError, match=f"{name}: .*{expected}.*copy or train the bundle again"):
        bundle.read(tiny_copy)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json: cannot be read: No such file"):
        bundle.read(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        bundle.read(tmp_path)
    (tmp_path / "bundle.json").write_text("[]")
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        bundle.read(tmp_path)


@pytest.mark.parametrize(
    "key", ["product", "size", "recipe", "teacher", "files", "golden", "calibrations", "quality", "versions", "schema"]
)
@pytest.mark.parametrize("value", [None, 7, "missing"])
def test_a_manifest_with_a_wrong_or_missing_part_is_refused(tiny_copy: Path, key: str, value: object) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest[key] = value
        if value == "missing":
            del manifest[key]

    _change_manifest(tiny_copy, change)
    with pytest.raises(BundleError, match=str(tiny_copy)):
        bundle.read(tiny_copy)


def test_a_newer_schema_and_another_preprocessing_are_refused(tiny_copy: Path) -> None:
    _change_manifest(tiny_copy, lambda manifest: manifest.update(preprocessing="cubic"))
    with pytest.raises(BundleError, match="made for preprocessing 'cubic'"):
        bundle.read(tiny_copy)
    _change_manifest(tiny_copy, lambda manifest: manifest.update(schema=99))
    with pytest.raises(BundleError, match="schema 99, this revdist reads 2 to 7; use a matching revdist"):
        bundle.read(tiny_copy)


def _to_schema_2(manifest: dict[str, Any], fusion: object) -> None:
    manifest["schema"] = 2
    for name in ("student", "bottleneck", "scales", "combine", "tile", "bits", "fit"):
        del manifest["recipe"][name]
    manifest["recipe"]["fusion"] = fusion


def test_an_older_bundle_does_not_say_what_pictures_it_was_made_with(tiny_copy: Path) -> None:
    _change_manifest(tiny_copy, lambda manifest: manifest.pop("picture_size"))
    assert bundle.read(tiny_copy).picture_size is None


def test_a_bundle_of_schema_2_scores_as_it_did(tiny: Bundle, tiny_copy: Path, engine: Engine) -> None:
    _change_manifest(tiny_copy, lambda manifest: _to_schema_2(manifest, fusion=True))
    try:
        assert bundle.load(tiny_copy, engine).recipe == tiny.recipe
    finally:
        engine.remove("cell")
    calibration = tiny.calibration(engine.identity)
    assert packing.recalibrate(bundle.read(tiny_copy), calibration, {}).recipe == tiny.recipe, (
        "and stays one of schema 2"
    )
    _change_manifest(tiny_copy, lambda manifest: manifest["recipe"].update(fusion=False))
    assert bundle.read(tiny_copy).recipe == dataclasses.replace(tiny.recipe, bottleneck="oce")


def test_a_bundle_of_schema_3_has_the_student_that_its_teacher_had(tiny: Bundle, tiny_copy: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 3
        for name in ("student", "tile", "bits", "fit"):
            del manifest["recipe"][name]

    _change_manifest(tiny_copy, change)
    assert bundle.read(tiny_copy).recipe == tiny.recipe
    assert tiny.recipe.student == "slim"


def test_a_bundle_of_schema_4_has_no_tiles(tiny: Bundle, tiny_copy: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 4
        for name in ("tile", "bits", "fit"):
            del manifest["recipe"][name]

    _change_manifest(tiny_copy, change)
    assert bundle.read(tiny_copy).recipe == tiny.recipe
    assert tiny.recipe.tile is None


def test_a_bundle_of_schema_5_counts_all_bits_and_stretches_pictures(tiny: Bundle, tiny_copy: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["schema"] = 5
        del manifest["recipe"]["bits"], manifest["recipe"]["fit"], manifest["statistics"]

    _change_manifest(tiny_copy, change)
    older = bundle.read(tiny_copy)
    assert older.recipe == tiny.recipe
    assert (older.recipe.bits, older.recipe.fit, dict(older.statistics)) == (0, "stretch", {})


@pytest.mark.parametrize("schema", [2, 3])
def test_a_recipe_of_another_schema_than_the_manifest_says_is_refused(tiny_copy: Path, schema: int) -> None:
    if schema == 3:
        _change_manifest(tiny_copy, lambda manifest: _to_schema_2(manifest, fusion=True))
    _change_manifest(tiny_copy, lambda manifest: manifest.update(schema=schema))
    with pytest.raises(BundleError, match=r"not a bundle's manifest: .*fusion"):
        bundle.read(tiny_copy)


@pytest.mark.parametrize("fusion", [None, "yes", []])
def test_fusion_that_is_neither_true_nor_false_is_refused(tiny_copy: Path, fusion: object) -> None:
    _change_manifest(tiny_copy, lambda manifest: _to_schema_2(manifest, fusion))
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        bundle.read(tiny_copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "golden/../../outside", ""])
def test_file_names_cannot_lead_out_of_the_bundle(tiny_copy: Path, name: str) -> None:
    (tiny_copy.parent / "outside").write_text("secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    _change_manifest(tiny_copy, lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        bundle.read(tiny_copy)


def test_links_cannot_lead_out_of_the_bundle(tiny_copy: Path) -> None:
    outside = tiny_copy.parent / "outside"
    (tiny_copy / "student.safetensors").rename(outside)
    (tiny_copy / "student.safetensors").symlink_to(outside)
    with pytest.raises(BundleError, match="a link that leads out of the bundle"):
        bundle.read(tiny_copy)


def test_a_threshold_that_does_not_follow_from_its_scores_is_refused(tiny_copy: Path) -> None:
    _change_manifest(tiny_copy, lambda manifest: manifest["calibrations"]["torch-cpu-float32"].update(threshold=9.0))
    with pytest.raises(BundleError, match="threshold of torch-cpu-float32 does not follow"):
        bundle.read(tiny_copy)


def _other_student(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Replace the weights and make the checksums right again: what only the golden pictures or the names can find."""
    weights = safetensors.torch.load_file(path / "student.safetensors")
    change(weights)
    content = safetensors.torch.save(weights)
    (path / "student.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    _change_manifest(path, lambda manifest: manifest["files"].update({"student.safetensors": digest}))


def test_weights_that_score_otherwise_fail_at_the_golden_pictures_and_the_old_ones_stay(
    tiny: Bundle, tiny_copy: Path, engine: Engine, good_cells: list[Path]
) -> None:
    picture = images.prepare(images.read(good_cells[30]), tiny.size)
    bundle.load(tiny.path, engine)
    before = engine.inspect([picture], ["cell"]).scores[0]
    _other_student(tiny_copy, lambda weights: weights["decoder.head1.weight"].mul_(-1))
    with pytest.raises(BundleError, match=r"golden/good-0\.png: scores .* on torch-cpu-float32, expected"):
        bundle.load(tiny_copy, engine)
    assert engine.products == {"cell"}
    assert engine.inspect([picture], ["cell"]).scores[0] == before
    engine.remove("cell")


@pytest.mark.parametrize("kinds", [(), ("good",), ("scratch",)])
def test_a_bundle_without_known_good_and_known_bad_pictures_is_refused_for_nothing_proves_it(
    tiny_copy: Path, kinds: tuple[str, ...]
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["golden"] = [entry for entry in manifest["golden"] if entry["kind"] in kinds]

    _change_manifest(tiny_copy, change)
    with pytest.raises(BundleError, match=r"golden pictures lack .*: nothing proves the rest"):
        bundle.read(tiny_copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["golden"][0].update(kind="fine"),
        lambda manifest: manifest["golden"][0].update(score=0.0),
        lambda manifest: manifest["golden"][0].update(score=-1.0),
        lambda manifest: manifest["golden"][0].update(score="1"),
        lambda manifest: manifest["golden"][0].update(file="golden/none.png"),
        lambda manifest: manifest["golden"][0].update(file=["golden/good-0.png"]),
        lambda manifest: manifest.update(golden_scores=[]),
        lambda manifest: manifest.update(golden_scores={"torch-cpu-float32": 5}),
        lambda manifest: manifest.update(golden_scores={"torch-cpu-float32": {"golden/good-0.png": "high"}}),
        lambda manifest: manifest.update(golden_scores={"torch-cpu-float32": {"golden/good-0.png": None}}),
        lambda manifest: manifest.update(golden_scores={"torch-cpu-float32": {"golden/good-0.png": float("inf")}}),
    ],
)
def test_golden_pictures_that_cannot_prove_anything_are_refused(
    tiny_copy: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    _change_manifest(tiny_copy, change)
    with pytest.raises(BundleError, match=str(tiny_copy)):
        bundle.read(tiny_copy)


def test_what_was_checked_is_what_is_used_whatever_becomes_of_the_folder(
    tiny_copy: Path, engine: Engine, good_cells: list[Path]
) -> None:
    read = bundle.read(tiny_copy, weights=False)
    known = bundle.golden_pictures(read)
    for vector in read.golden:
        (tiny_copy / vector.file).write_bytes(good_cells[0].read_bytes())
    _change_manifest(tiny_copy, lambda manifest: manifest.update(product="bolt"))
    for (vector, pixels), (other, others) in zip(known, bundle.golden_pictures(read), strict=True):
        assert vector == other
        np.testing.assert_array_equal(pixels, others)
    bundle.install(read, engine)
    engine.remove("cell")
    _other_student(tiny_copy, lambda weights: weights["decoder.head1.weight"].mul_(-1))  # with the right checksum
    with pytest.raises(BundleError, match=r"student\.safetensors: differs from the manifest"):
        bundle.install(read, engine)
    with pytest.raises(BundleError, match=r"student\.safetensors: differs from the manifest"):
        bundle.check_weights(read)


def test_two_calibrations_at_once_do_not_lose_one(tiny_copy: Path) -> None:
    read = bundle.read(tiny_copy)
    first, second = (
        conformal.calibrate(np.arange(1, 9) / 9, 0.1, engine=engine, fingerprint="f")
        for engine in ("torch-cuda-float32", "torch-cuda-float16")
    )
    changed = packing.recalibrate(read, first, {})
    with pytest.raises(BundleError, match="was changed meanwhile, and is as it was left; calibrate it again"):
        packing.recalibrate(read, second, {})
    assert bundle.read(tiny_copy).digest == changed.digest


def test_a_bundle_that_is_there_is_not_overwritten_unasked(tiny_copy: Path) -> None:
    with pytest.raises(BundleError, match="there is a bundle already; choose another --output, or replace it with"):
        bundle_files.check_place(tiny_copy, replace=False)
    bundle_files.check_place(tiny_copy, replace=True)


def test_weights_that_do_not_fit_are_refused(tiny_copy: Path, engine: Engine) -> None:
    _other_student(tiny_copy, lambda weights: weights.update(extra=torch.zeros(1)))
    with pytest.raises(BundleError, match=r"student\.safetensors: does not fit: .*extra"):
        bundle.load(tiny_copy, engine)
    assert not engine.products


def test_weights_that_are_not_numbers_are_refused(tiny_copy: Path, engine: Engine) -> None:
    _other_student(tiny_copy, lambda weights: weights["decoder.head1.weight"].fill_(float("nan")))
    with pytest.raises(BundleError, match=r"student\.safetensors: weights that are not finite: decoder\.head1\.weight"):
        bundle.load(tiny_copy, engine)
    assert not engine.products


def test_weights_that_overflow_fail_at_the_golden_pictures(tiny_copy: Path, engine: Engine) -> None:
    _other_student(tiny_copy, lambda weights: weights["decoder.head1.weight"].fill_(1e38))
    with pytest.raises(BundleError, match="scores nan"):
        bundle.load(tiny_copy, engine)
    assert not engine.products


def test_a_new_calibration_leaves_every_other_file_as_it_was(tiny_copy: Path) -> None:
    before = {path: path.read_bytes() for path in tiny_copy.rglob("*") if path.is_file()}
    read = bundle.read(tiny_copy)
    made = conformal.calibrate(np.arange(9) / 9, 0.1, engine="torch-cuda-float32", fingerprint="f")
    changed = packing.recalibrate(read, made, {"golden/good-0.png": 0.5})
    assert set(changed.calibrations) == {"torch-cpu-float32", "openvino-cpu-float32", "torch-cuda-float32"}
    assert changed.calibration("torch-cuda-float32").threshold == 8 / 9
    good, *others = changed.golden
    assert changed.expected(good, "torch-cuda-float32") == 0.5
    assert changed.expected(good, "torch-cpu-float32") == good.score
    assert changed.expected(others[0], "torch-cuda-float32") == others[0].score
    assert changed.digest != read.digest
    differing = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert differing == {"bundle.json", "calibration.safetensors"}


def test_a_folder_that_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").write_text("precious")
    with pytest.raises(BundleError, match="exists and is no bundle; choose another --output"):
        bundle_files.check_place(tmp_path / "photos", replace=True)
    with pytest.raises(BundleError, match=r"nothing can be written there: .*holiday\.png is a file"):
        bundle_files.check_place(tmp_path / "photos" / "holiday.png" / "bundle", replace=True)
    bundle_files.check_place(tmp_path / "new" / "deeper", replace=False)


FULL_DISK = """
import dataclasses, sys
from pathlib import Path
import numpy as np
from revdist.bundle import bundle
from revdist.thresholds import conformal
from revdist.training import packing
from revdist.errors import BundleError
path = Path(sys.argv[1])
made = conformal.calibrate(np.arange(int(sys.argv[2])), 0.5, engine="torch-cuda-float32", fingerprint="f")
try:
    packing.recalibrate(bundle.read(path), made, {})
except BundleError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_bundle_and_no_debris(tiny: Bundle, tmp_path: Path) -> None:
    size = sum(path.stat().st_size for path in tiny.path.rglob("*") if path.is_file())
    place = tmp_path / "disk"
    place.mkdir()
    script = (
        f"mount -t tmpfs -o size={int(size * 1.5)} tmpfs {place} && cp -r {tiny.path} {place}/b && "
        f"{sys.executable} -c '{FULL_DISK}' {place}/b 1000 && ls -A {place} && sha256sum {place}/b/bundle.json"
    )
    # a mount namespace of its own, so that a real file system runs full
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=120)
    if ran.returncode and "FULL" not in ran.stdout and ("unshare" in ran.stderr or "mount" in ran.stderr):
        pytest.skip(f"cannot mount here: NOT TESTED: {ran.stderr.strip()}")
    message, listed, digest = ran.stdout.splitlines()
    assert f"cannot be written: No space left on device: {place} is full; an older bundle there is as it was" in message
    assert f"make room there: `df -h {place}" in message
    assert listed == "b"
    assert digest.startswith(tiny.digest)


def test_errors_show_message_and_hint() -> None:
    assert str(RevdistError("it broke", hint="mend it")) == "it broke; mend it"
    assert str(RevdistError("it broke")) == "it broke"


@pytest.mark.parametrize(
    "statistics",
    [
        {"appearance": 5}, {"appearance": {"brightness": []}}, {"appearance": {"brightness": ["a"]}},
        {"appearance": {"brightness": [1.0] * 1000}}, {"held_out_unlike": "dark"}, {"held_out_unlike": [1]},
    ],
)  # fmt: skip
def test_statistics_of_another_kind_are_refused(tiny_copy: Path, statistics: dict[str, Any]) -> None:
    _change_manifest(tiny_copy, lambda manifest: manifest.update(statistics=statistics))
    with pytest.raises(BundleError, match="not a bundle's manifest: statistics"):
        bundle.read(tiny_copy)


def _change_score_file(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = safetensors.numpy.load_file(path / "score.safetensors")
    change(tensors)
    content = safetensors.numpy.save(tensors)
    (path / "score.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    _change_manifest(path, lambda manifest: manifest["files"].update({"score.safetensors": sha256}))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop("gains.1"), "missing or unknown: gains.1"),
        (lambda tensors: tensors.update({"gains.4": tensors["gains.1"]}), "missing or unknown: gains.4"),
        (lambda tensors: tensors.update({"gains.1": tensors["gains.2"]}), "gains.1 is not 16 x 24 finite values"),
        (lambda tensors: tensors.update({"gains.1": -tensors["gains.1"]}), "gains.1 is not positive everywhere"),
        (lambda tensors: tensors["centres.3"].fill(np.nan), "centres.3 is not 672 finite values"),
        (lambda tensors: tensors["offsets.3"].fill(np.inf), "offsets.3 is not 4 x 6 finite values"),
        (lambda tensors: tensors.update({"centres.2": tensors["centres.2"].astype(np.float64)}), "in float32"),
        (lambda tensors: tensors["whitening.2"].fill(1), "whitening.2 is not lower triangular"),
    ],
)
def test_a_score_file_that_does_not_fit_is_refused(
    combined: Bundle, tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    path = Path(shutil.copytree(combined.path, tmp_path / "bundle"))
    _change_score_file(path, change)
    with pytest.raises(BundleError, match=f"score.safetensors: .*{told}"):
        bundle.read(path)


def test_the_manifest_the_recipe_and_the_files_agree_on_the_score(
    combined: Bundle, tiny_copy: Path, tmp_path: Path
) -> None:
    score = {"kind": "combined", "pictures": 19}
    _change_manifest(tiny_copy, lambda manifest: manifest.update(score=score))
    with pytest.raises(BundleError, match="score is combined, the recipe's is cosine"):
        bundle.read(tiny_copy)
    path = Path(shutil.copytree(combined.path, tmp_path / "combined"))
    _change_manifest(path, lambda manifest: manifest.update(score=None))
    with pytest.raises(BundleError, match="score is cosine, the recipe's is combined"):
        bundle.read(path)
    _change_manifest(path, lambda manifest: manifest.update(score=score | {"kind": "of a later revdist"}))
    with pytest.raises(BundleError, match=r"score\.kind cannot be 'of a later revdist'"):
        bundle.read(path)
    _change_manifest(path, lambda manifest: manifest.update(score=score))
    _change_manifest(path, lambda manifest: manifest["files"].pop("score.safetensors"))
    with pytest.raises(BundleError, match=r"files\.score\.safetensors is missing"):
        bundle.read(path)


def test_a_bundle_of_before_there_were_two_scores_keeps_its_map(tiny: Bundle, tiny_copy: Path, engine: Engine) -> None:
    _change_manifest(tiny_copy, lambda manifest: manifest["recipe"].pop("score"))
    _change_manifest(tiny_copy, lambda manifest: manifest.pop("score"))
    old = bundle.load(tiny_copy, engine, product="old")  # its golden pictures score as they did
    assert (old.recipe.score, old.combination) == ("cosine", None)
    assert old.recipe == tiny.recipe
    engine.remove("old")
