"""revdist.training.train, revdist.training.checkpoint, revdist.training.feature_cache and revdist.training.progress"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.cli import summary
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines.engine import Engine
from revdist.errors import BundleError, DataError, ImageError, RecipeError, TeacherError, TrainError
from revdist.evaluation import evaluate
from revdist.networks import teacher
from revdist.recipe import Recipe
from revdist.training import feature_cache, holdout, packing, schedule, train
from revdist.training.checkpoint import Sides
from revdist.training.feature_cache import Source
from revdist.training.holdout import GoodPictures


def _files(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


def _job(tiny: Bundle, good: Path, output: Path, **changes: object) -> train.Job:
    recipe = dataclasses.replace(tiny.recipe, **changes)  # type: ignore[arg-type]
    return train.Job(good=good, product="cell", output=output, recipe=recipe)


def test_the_same_seed_gives_the_same_bundle_and_another_seed_another(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    again = train.train(_job(tiny, good_folder, tmp_path / "again"), lite0, device="cpu")
    assert _files(again.path) == _files(tiny.path)
    other = train.train(_job(tiny, good_folder, tmp_path / "other", seed=4, steps=2), lite0, device="cpu")
    assert other.fingerprint == tiny.fingerprint
    assert other.trained_on != tiny.trained_on


class _PressCtrlC:
    """Sends SIGINT to this process while a step runs, as a terminal does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        whole = train._step

        def stepping(*arguments: object) -> float:
            if arguments[4] == step:
                signal.raise_signal(signal.SIGINT)
            return whole(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(train, "_step", stepping)


def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_bundle(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    job = _job(tiny, good_folder, tmp_path / "cell")
    for step in (1, 4):
        with pytest.MonkeyPatch.context() as patch:
            _PressCtrlC(patch, step)
            with pytest.raises(KeyboardInterrupt):
                train.train(job, lite0, device="cpu")
        assert not job.output.exists()
        state = json.loads((tmp_path / "cell.training" / "state.json").read_text())
        assert len(state["losses"]) == step + 1, "the step under way is finished first"
    resumed = train.train(job, lite0, device="cpu")
    assert _files(resumed.path) == _files(tiny.path)
    assert [path.name for path in tmp_path.iterdir()] == ["cell"], "nothing is left of the state"


def test_a_run_with_every_option_goes_on_to_the_same_bundle_too(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    options = {"average_share": 0.5, "copies": 1, "pasted_share": 0.5, "steps": 4}
    whole = train.train(_job(tiny, good_folder, tmp_path / "whole", **options), lite0, device="cpu")
    job = _job(tiny, good_folder, tmp_path / "stopped", **options)
    with pytest.MonkeyPatch.context() as patch:
        _PressCtrlC(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(job, lite0, device="cpu")
    assert _files(train.train(job, lite0, device="cpu").path) == _files(whole.path)


@pytest.mark.parametrize(
    "option",
    [
        {"average_share": 0.5}, {"copies": 1}, {"pasted_share": 0.5}, {"bottleneck": "oce"},
        {"bottleneck": "pretrained"}, {"bottleneck": "coarse"}, {"student": "official"},
    ],
)  # fmt: skip
def test_each_option_changes_the_student_but_not_what_is_held_out(
    option: dict[str, object], tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    made = train.train(_job(tiny, good_folder, tmp_path / "made", **option), lite0, device="cpu")
    assert _files(made.path)["student.safetensors"] != _files(tiny.path)["student.safetensors"]
    assert made.trained_on == tiny.trained_on
    bundle.load(made.path, Engine(lite0, device="cpu"))  # its golden pictures score as they did


@pytest.mark.parametrize("option", [{"scales": (2, 3)}, {"combine": "multiply"}, {"top_share": 0.1}])
def test_each_option_of_the_score_changes_the_scores_but_not_the_student(
    option: dict[str, object], tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    made = train.train(_job(tiny, good_folder, tmp_path / "made", **option), lite0, device="cpu")
    ours, theirs = _files(made.path), _files(tiny.path)
    differing = {name for name, content in ours.items() if content != theirs[name]}
    assert differing == {"bundle.json", "calibration.safetensors"}
    engine = Engine(lite0, device="cpu")
    loaded = bundle.load(made.path, engine)
    scores = [loaded.calibration(engine.identity).scores, tiny.calibration(engine.identity).scores]
    assert not set(scores[0]) & set(scores[1])


def test_a_pretrained_bottleneck_is_the_teacher_s_own_last_stage_to_the_end(
    good_folder: Path, resnet18_file: Path, tmp_path: Path
) -> None:
    recipe = Recipe(
        teacher="resnet18", size=(64, 64), steps=3, batch=4, bottleneck="pretrained", average_share=0.5,
        weight_decay=0.1, pasted_share=0.5,
    )  # fmt: skip
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    encoder = teacher.load("resnet18", resnet18_file)
    made = train.train(job, encoder, device="cpu")
    student = bundle.student(made)
    weights = torch.load(resnet18_file, weights_only=True)
    kept = student.bottleneck.state_dict()
    assert {f"stage.{name}" for name in weights if name.startswith("layer4.")} == set(kept)
    assert all(torch.equal(value, weights[name.removeprefix("stage.")]) for name, value in kept.items())
    untrained = train.make_student(recipe, encoder, torch.device("cpu")).decoder.state_dict()
    learnt = student.decoder.state_dict()
    assert not any(torch.equal(learnt[name], untrained[name]) for name in learnt if name.endswith("weight"))
    engine = Engine(encoder, device="cpu")
    bundle.load(made.path, engine)  # its golden pictures score as they did


def test_a_student_with_a_pretrained_bottleneck_trains_its_decoder_alone(lite0: teacher.Teacher) -> None:
    recipe = Recipe(teacher="efficientnet_lite0", student="slim", bottleneck="pretrained")
    student = train.make_student(recipe, lite0, torch.device("cpu"))
    assert not any(part.training for part in student.bottleneck.modules())
    assert all(part.training for part in student.decoder.modules())
    [group] = train._optimiser(student, recipe).param_groups
    assert [id(each) for each in group["params"]] == [id(each) for each in student.decoder.parameters()]


def test_weights_without_the_last_stage_are_refused_before_anything_is_made(
    good_folder: Path, resnet18_file: Path, tmp_path: Path
) -> None:
    state = torch.load(resnet18_file, weights_only=True)
    cut = {name: value for name, value in state.items() if not name.startswith(("layer4.", "fc."))}
    torch.save(cut, tmp_path / "cut.pth")
    encoder = teacher.load("resnet18", tmp_path / "cut.pth")
    recipe = Recipe(teacher="resnet18", size=(64, 64), steps=1, bottleneck="pretrained")
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    with pytest.raises(
        TeacherError, match=r"cut\.pth: the last stage of resnet18 is not in it whole: missing layer4\."
    ):
        train.train(job, encoder, device="cpu")
    assert not list(tmp_path.glob("cell*"))


def test_the_state_of_another_run_is_refused_with_the_difference(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _PressCtrlC(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            train.train(_job(tiny, good_folder, tmp_path / "cell"), lite0, device="cpu")
    with pytest.raises(TrainError, match=r"another kind: steps was 6, is 7; give the same options .* or delete"):
        train.train(_job(tiny, good_folder, tmp_path / "cell", steps=7), lite0, device="cpu")
    fewer = tmp_path / "fewer"
    shutil.copytree(good_folder, fewer)
    next(fewer.iterdir()).unlink()
    with pytest.raises(TrainError, match=r"not those that the run was stopped with; gone: \S+\.png; put them back"):
        train.train(_job(tiny, fewer, tmp_path / "cell"), lite0, device="cpu")
    (tmp_path / "cell.training" / "state.safetensors").write_bytes(b"half")
    with pytest.raises(TrainError, match=r"cell\.training: the state of the stopped run is damaged: .*delete"):
        train.train(_job(tiny, good_folder, tmp_path / "cell"), lite0, device="cpu")


def test_ctrl_c_on_the_command_ends_with_130_and_a_word_on_how_to_go_on(good_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "revdist", "train", "--good", str(good_folder), "--product", "cell"]
    command += ["--output", str(tmp_path / "cell"), "--teacher", "efficientnet_lite0", "--size", "64"]
    command += ["--steps", "100000", "--batch", "2", "--device", "cpu"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert any("teacher features of 19 pictures at 64x64" in line for line in iter(running.stderr.readline, ""))
    time.sleep(1)  # a person's time to press the keys, nothing is synchronised by it
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert (tmp_path / "cell.training" / "state.safetensors").is_file()


def test_a_loss_that_is_no_number_stops_the_run(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    job = _job(tiny, good_folder, tmp_path / "cell", learning_rate=1e30, gradient_clip=0.0, warmup_share=0.0)
    with pytest.raises(TrainError, match=r"the loss became (nan|inf) at step \d+; use a lower learning rate"):
        train.train(job, lite0, device="cpu")
    assert not (tmp_path / "cell").exists()


def test_features_are_the_same_kept_or_computed_at_each_step(
    engine: Engine, good_cells: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = evaluate.read_prepared(good_cells[:5], (64, 64))
    kept = Source(engine, pictures)
    monkeypatch.setattr(feature_cache, "free_memory_bytes", lambda _device: 0)
    computed = Source(engine, pictures)
    for ours, theirs in zip(kept.features([3, 0]), computed.features([3, 0]), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.is_contiguous(memory_format=torch.channels_last)
        assert not ours.requires_grad


def test_free_memory_is_a_sane_figure() -> None:
    assert 1e7 < feature_cache.free_memory_bytes(torch.device("cpu")) < 1e14


def test_the_student_learns(engine: Engine, lite0: teacher.Teacher, good_cells: list[Path]) -> None:
    recipe = Recipe(teacher="efficientnet_lite0", student="slim", size=(64, 64), steps=12, batch=4, masked_share=0.5)
    pictures: list[Pixels] = evaluate.read_prepared(good_cells[:8], recipe.size)
    features = Source(engine, pictures)
    student = train.make_student(recipe, lite0, engine.device)
    optimiser = train._optimiser(student, recipe)
    losses = [
        train._step(student, optimiser, features.features(schedule.batch_rows(recipe, 8, step)), recipe, step)
        for step in range(recipe.steps)
    ]
    assert losses[-1] < 0.8 * losses[0]


def test_a_new_bundle_is_calibrated_for_the_reference_and_for_what_a_processor_runs(tiny: Bundle) -> None:
    plain, usual = (tiny.calibration(f"{runtime}-cpu-float32") for runtime in ("torch", "openvino"))
    assert set(tiny.calibrations) == {plain.engine, usual.engine}
    assert set(plain.held_out) == set(usual.held_out)
    np.testing.assert_allclose(usual.scores, plain.scores, rtol=1e-4)
    first, *_, last = summary.promises(tiny)
    assert first.startswith(f"openvino-cpu-float32: threshold {usual.threshold:.6g}. ")
    assert last == f"torch-cpu-float32: threshold {plain.threshold:.6g}, of the same pictures"


def test_without_openvino_a_new_bundle_is_calibrated_for_torch_alone(
    lite0: teacher.Teacher, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert packing.engines(lite0, engine) == [engine]


def test_held_out_pictures_are_never_trained_with(tiny: Bundle, good_folder: Path) -> None:
    fitted, held_out = train.split(images.good_pictures(good_folder), tiny.recipe)
    assert (len(fitted), len(held_out)) == (19, 5)
    assert not set(fitted) & set(held_out)
    assert tiny.trained_on == {images.content_hash(path) for path in fitted}


def test_frames_of_a_standing_belt_stay_on_one_side_and_prove_no_more_than_one_of_each_part(
    tiny: Bundle, good_cells: list[Path], lite0: teacher.Teacher, tmp_path: Path
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    for path in good_cells[:12]:
        pixels = images.read(path).astype(float)
        for frame in range(2):
            picture = np.clip(pixels * (1 + 0.02 * frame), 0, 255).round().astype(np.uint8)
            Image.fromarray(picture).save(good / f"{path.stem}-{frame}.png")
    job = _job(tiny, good, tmp_path / "belt", steps=2, holdout=0.5)
    trained = train.train(job, lite0, device="cpu")
    parts = [
        {path.stem.split("-")[0] for path in good.iterdir() if images.content_hash(path) in side}
        for side in (trained.trained_on, trained.calibration("torch-cpu-float32").held_out)
    ]
    assert not parts[0] & parts[1]
    counted = len(trained.calibration("torch-cpu-float32").scores)
    counted += len(trained.calibration("torch-cpu-float32").unconfirmed)
    assert counted + len(trained.trained_on) == 24, "none is dropped"
    (sentence,) = (text for text in trained.held_out_unlike if "distinct" in text)
    assert sentence.startswith("12 held-out pictures are 6 distinct ones, which prove 14.29 % false rejects")


def test_a_bad_part_among_the_held_out_ones_does_not_raise_the_threshold_unseen(
    run: Callable[..., tuple[int, str, str]], tiny: Bundle, good_folder: Path, tmp_path: Path
) -> None:
    good = Path(shutil.copytree(good_folder, tmp_path / "good"))
    recipe = dataclasses.replace(tiny.recipe, holdout=0.5)
    _, held_out = train.split(sorted(good.iterdir()), recipe)
    bad = held_out[0].with_suffix(".bmp")
    held_out[0].unlink()
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    Image.fromarray(pixels).save(bad)
    options = (
        "--product", "cell", "--good", good, "--teacher", "efficientnet_lite0", "--size", "64x96", "--device", "cpu",
        "--holdout", 0.5, "--seed", 3, "--steps", 2, "--batch", 4, "--false-reject-rate", 0.2,
    )  # fmt: skip

    status, out, _ = run("train", *options, "--output", tmp_path / "waiting")
    assert status == 0
    waiting = bundle.read(tmp_path / "waiting").calibration("torch-cpu-float32")
    assert [outlier.file for outlier in waiting.unconfirmed] == [bad.name]
    assert images.content_hash(bad) not in waiting.held_out
    assert len(waiting.scores) == 11
    assert "1 OUTLIER left out of the threshold until a person confirms them (--confirm-outliers)" in out
    assert f"{waiting.threshold:.6g} without, {waiting.with_unconfirmed().threshold:.6g} with" in out

    assert run("train", *options, "--output", tmp_path / "taken", "--confirm-outliers", bad.name)[0] == 0
    taken = bundle.read(tmp_path / "taken").calibration("torch-cpu-float32")
    assert (taken.unconfirmed, len(taken.scores)) == ((), 12)
    assert taken.threshold == waiting.with_unconfirmed().threshold > waiting.threshold
    again = ("calibrate", tmp_path / "waiting", "--good", good, "--false-reject-rate", 0.2, "--confirm-outliers", bad)
    assert run(*again)[0] == 0, "or later, without training again"
    assert bundle.read(tmp_path / "waiting").calibration("torch-cpu-float32").threshold == taken.threshold

    status, _, err = run("train", *options, "--output", tmp_path / "mistyped", "--confirm-outliers", "no.png")
    assert (status, (tmp_path / "mistyped").exists()) == (2, False)
    assert "no.png: cannot be read" in err


def test_too_few_pictures_and_wrong_names_are_refused(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in images.good_pictures(good_folder)[:9]:
        shutil.copy(path, few)
    with pytest.raises(TrainError, match="9 pictures of good parts are too few; 10 or more"):
        train.train(_job(tiny, few, tmp_path / "cell"), lite0, device="cpu")
    job = dataclasses.replace(_job(tiny, good_folder, tmp_path / "cell"), product="a/b")
    with pytest.raises(RecipeError, match="product 'a/b' is no name"):
        train.train(job, lite0, device="cpu")
    with pytest.raises(TrainError, match="asks for teacher resnet18, this is efficientnet_lite0"):
        train.train(_job(tiny, good_folder, tmp_path / "cell", teacher="resnet18"), lite0, device="cpu")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        train.train(_job(tiny, good_folder, few), lite0, device="cpu")


def test_a_broken_picture_stops_the_run_and_is_named(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path
) -> None:
    spoiled = Path(shutil.copytree(good_folder, tmp_path / "spoiled"))
    first = min(spoiled.iterdir())
    first.write_bytes(first.read_bytes()[:5000])
    with pytest.raises(ImageError, match=first.name):
        train.train(_job(tiny, spoiled, tmp_path / "cell"), lite0, device="cpu")
    with pytest.raises(DataError, match="no such folder"):
        train.train(_job(tiny, tmp_path / "gone", tmp_path / "cell"), lite0, device="cpu")
    assert not (tmp_path / "cell").exists()


def test_pictures_that_cannot_be_read_are_all_named_before_the_first_step_held_out_ones_too(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled = Path(shutil.copytree(good_folder, tmp_path / "spoiled"))
    fitted, held_out = train.split(images.good_pictures(spoiled), tiny.recipe)
    steps: list[object] = []
    monkeypatch.setattr(train, "fit", lambda *arguments: steps.append(arguments))
    held_out[0].write_bytes(held_out[0].read_bytes()[:20_000])
    with pytest.raises(ImageError, match=f"{held_out[0].name}: the PNG is cut off"):
        train.train(_job(tiny, spoiled, tmp_path / "cell"), lite0, device="cpu")
    with Image.open(fitted[0]) as picture:
        jpeg = picture.copy()
    jpeg.save(fitted[0], "JPEG")
    fitted[0].write_bytes(fitted[0].read_bytes()[:-3000] + b"\xff\xd9")
    with pytest.raises(ImageError) as error:
        train.train(_job(tiny, spoiled, tmp_path / "cell"), lite0, device="cpu")
    assert error.value.message.startswith("2 pictures cannot be read:")
    assert f"{held_out[0].name}: the PNG is cut off" in error.value.message
    assert f"{fitted[0].name}: the JPEG is damaged" in error.value.message
    assert "--exclude" in error.value.hint
    assert steps == []


def test_many_pictures_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(14)]
    with pytest.raises(ImageError) as error:
        evaluate.read_prepared(paths, (32, 32))
    assert error.value.message.startswith("14 pictures cannot be read:\n")
    assert error.value.message.endswith("\n  and 4 more")
    assert len(error.value.message.splitlines()) == 12


def test_a_resnet_teacher_by_file_trains_too(good_folder: Path, resnet18_file: Path, tmp_path: Path) -> None:
    recipe = Recipe(teacher="resnet18", size=(64, 64), steps=2, batch=2)
    job = train.Job(good=good_folder, product="cell", output=tmp_path / "cell", recipe=recipe)
    encoder = teacher.load("resnet18", resnet18_file)
    made = train.train(job, encoder, device="cpu")
    assert made.teacher.sha256 == encoder.sha256
    engine = Engine(encoder, device="cpu")
    loaded = bundle.load(made.path, engine)
    assert np.isfinite(loaded.calibration(engine.identity).threshold)


def test_a_bundle_keeps_how_its_pictures_look_and_warns_of_others(
    tiny: Bundle, good_folder: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    fitted, _ = train.split(images.good_pictures(good_folder), tiny.recipe)
    kept = tiny.trained_appearance
    assert {"brightness", "contrast", "sharpness", "aspect ratio", "teacher 1", "teacher 16"} <= set(kept)
    assert all(len(values) == len(fitted) for values in kept.values())
    assert len(json.dumps(tiny.statistics["appearance"])) < 10_000
    for kind in ("good", "broken"):
        (tmp_path / "test" / kind).mkdir(parents=True)
    for path in images.good_pictures(good_folder):
        picture = images.read(path)
        Image.fromarray(picture).save(tmp_path / "test" / "broken" / path.name)
        Image.fromarray((picture * 0.3).astype(np.uint8)).save(tmp_path / "test" / "good" / path.name)
    said = "the good test pictures are all darker than every picture trained with (brightness "
    options = ("--data", tmp_path, "--engine", "cpu")
    status, out, _ = run("evaluate", tiny.path, *options, "--json")
    assert status == 0
    assert any(sentence.startswith(said) for sentence in json.loads(out)["unlike"])
    assert said in caplog.text
    assert "the promise does not hold for them: mend light" in caplog.text
    status, _, _ = run("report", tiny.path, *options, "--output", tmp_path / "report.html")
    assert status == 0
    assert said[1:] in (tmp_path / "report.html").read_text()
    caplog.clear()
    work = Path(shutil.copytree(tiny.path, tmp_path / "bundle"))
    run("calibrate", work, "--good", tmp_path / "test" / "good", "--false-reject-rate", 0.2, "--replace-held-out")
    assert f"the unseen pictures in {tmp_path / 'test' / 'good'} are all darker" in caplog.text


def test_held_out_lots_that_look_otherwise_are_told_and_kept_in_the_bundle(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for row, path in enumerate(images.good_pictures(good_folder)):
        lot = tmp_path / "lots" / ("day" if row < 12 else "night")
        lot.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images.read(path) * (1 if row < 12 else 0.2)).astype(np.uint8)).save(lot / path.name)
    job = _job(tiny, tmp_path / "lots", tmp_path / "cell", blocks="folders", steps=1, holdout=0.5)
    made = train.train(job, lite0, device="cpu")
    assert any("the held-out pictures are all " in sentence for sentence in made.held_out_unlike)
    assert made.held_out_unlike[0] in caplog.text
    assert any(line.startswith("WARNING      the held-out") for line in summary.bundle(made))
    assert tiny.held_out_unlike == ()


def test_a_stopped_run_tells_which_picture_differs_and_goes_on_when_asked(
    tiny: Bundle, good_folder: Path, good_cells: list[Path], lite0: teacher.Teacher, tmp_path: Path
) -> None:
    good = Path(shutil.copytree(good_folder, tmp_path / "good"))
    job = _job(tiny, good, tmp_path / "cell")
    fitted, held_out = train.split(images.good_pictures(good), tiny.recipe)
    with pytest.MonkeyPatch.context() as patch:
        _PressCtrlC(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train.train(job, lite0, device="cpu")
    trained_before = images.content_hash(fitted[0])
    shutil.copy(good_cells[60], fitted[0])
    shutil.copy(good_cells[61], held_out[0])
    held_out[1].unlink()
    shutil.copy(good_cells[62], good / "added.png")
    changed = ", ".join(sorted([fitted[0].name, held_out[0].name]))
    said = f"stopped with; changed: {changed}; gone: {held_out[1].name}; new: added.png; put them back, or add --go-on"
    with pytest.raises(TrainError, match=re.escape(said)):
        train.train(job, lite0, device="cpu")
    made = train.train(dataclasses.replace(job, go_on=True), lite0, device="cpu")
    held = {images.content_hash(path) for path in [held_out[0], *held_out[2:]]}
    assert set(made.calibration("torch-cpu-float32").held_out) == held
    now = {images.content_hash(path) for path in [*fitted, good / "added.png"]}
    assert made.trained_on == now | {trained_before}, "the student has seen what was there before"


def test_what_was_trained_with_is_never_held_out_by_going_on(good_folder: Path) -> None:
    paths = images.good_pictures(good_folder)[:4]
    good = GoodPictures(root=good_folder, used=tuple(paths), excluded=(), blocks=())
    hashes = [images.content_hash(path) for path in paths]
    before = Sides(
        trained={"other name.png": hashes[0]}, held_out={paths[0].name: "x", "b.png": hashes[1], paths[3].name: "y"}
    )
    assert holdout.keep_sides(good, before) == ([paths[0], paths[2]], [paths[1], paths[3]])
    with pytest.raises(TrainError, match="none of the pictures that the stopped run held out is left"):
        holdout.keep_sides(good, Sides(trained={"a": hashes[0]}, held_out={"b": "gone"}))


def test_the_time_is_told_before_the_first_step_and_a_budget_is_kept(
    tiny: Bundle, good_folder: Path, lite0: teacher.Teacher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="revdist")
    job = dataclasses.replace(_job(tiny, good_folder, tmp_path / "cell", steps=100_000), budget_s=25.0)
    begun_s = time.monotonic()
    made = train.train(job, lite0, device="cpu")
    assert time.monotonic() - begun_s < 1.2 * 25.0
    assert 10 <= made.recipe.steps < 100_000
    told = [record.getMessage() for record in caplog.records]
    planned = next(row for row, text in enumerate(told) if text.startswith(f"planned: {made.recipe.steps} steps, "))
    assert re.fullmatch(r"this will take about \d+ s here: features \d+ s, \d+ steps .*", told[planned + 1])
    assert "teacher features of" in told[planned + 2]
