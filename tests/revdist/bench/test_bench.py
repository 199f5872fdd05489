"""revdist.bench.bench with workload, machine, subject, official_loop, peers, bench_figures and report.speeds"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from revdist.bench import bench, machine, official_loop, peers, subject, workload
from revdist.bench.bench import Plan
from revdist.bench.peers import Contestant, PeerError
from revdist.bench.subject import Subject
from revdist.bundle.bundle import Bundle
from revdist.engines import backend
from revdist.errors import RevdistError
from revdist.networks import teacher
from revdist.report import speeds
from revdist.scoring import detector

Run = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")
CLOSE = 1e-4  # relative
QUICK = ("--picture", 100, "--batches", "1,2", "--seconds", 0)


@pytest.fixture(scope="module")
def small() -> Subject:
    return subject.random("resnet18", (64, 64))


@pytest.fixture(scope="module")
def figures(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What a run of the tiny bundle writes: its JSON, and the drawing."""
    from revdist.cli import command

    folder = tmp_path_factory.mktemp("bench")
    files = ["--json", str(folder / "new" / "speed.json"), "--plot", str(folder / "speed.svg")]
    assert command.main(["bench", str(tiny.path), *map(str, QUICK), "--device", "cpu", *files]) == 0
    return json.loads((folder / "new" / "speed.json").read_text()), folder / "speed.svg"


@pytest.mark.parametrize(
    ("name", "expected"), [("wide_resnet50_2", 60.9), ("resnet18", 8.646), ("resnet34", 17.71), ("resnet50", 28.63)]
)
def test_operations_are_those_of_the_literature(name: str, expected: float) -> None:
    work = workload.of_detector(teacher.build(name), detector.Student(name), (256, 256))
    assert workload.operations(work) / 1e9 == pytest.approx(expected, rel=0.01)


def test_operations_grow_with_the_picture_alone() -> None:
    networks = teacher.build("efficientnet_lite0"), detector.Student("efficientnet_lite0")
    once, six_times = (workload.operations(workload.of_detector(*networks, size)) for size in [(64, 64), (128, 192)])
    assert six_times == 6 * once


def test_the_largest_convolutions_are_different_ones_of_both_kernels() -> None:
    work = workload.of_detector(teacher.build("wide_resnet50_2"), detector.Student("wide_resnet50_2"), (256, 256))
    chosen = machine.largest(work)
    assert [each.kernel for each in chosen] == [(3, 3)] * 3 + [(1, 1)] * 3
    assert len({str(each) for each in chosen}) == 6
    assert str(chosen[3]) == "1x1, 3072 to 1024 channels, 16x16"
    assert chosen[3].operations == 2 * 3072 * 1024 * 256


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_probes_run_in_each_precision(precision: str, small: Subject) -> None:
    if not backend.computes(precision):
        pytest.skip(f"this processor has no {precision}: NOT TESTED")
    work = workload.of_detector(small.teacher.trunk, small.student, small.size)
    where = backend.target("cpu", precision)
    probes = list(machine.probes(where, work, 2))
    assert {probe.kind for probe in probes} == {machine.MATMUL, machine.CONVOLUTION}
    with torch.inference_mode():
        assert all(probe.operations > 0 and probe.call() is not None for probe in probes)


@pytest.mark.parametrize("name", teacher.NAMES)
def test_random_detectors_are_the_same_each_time_and_stay_finite(name: str) -> None:
    one, other = (subject.random(name, (64, 96)) for _ in range(2))
    scores, again = (each.plain.inspect(each.pictures, ["random"] * 3).scores for each in (one, other))
    assert np.isfinite(scores).all()
    assert (scores > 0.01).all()
    np.testing.assert_array_equal(scores, again)


@pytest.mark.parametrize("which", ["random", "tiny"])
def test_the_official_loop_finds_what_the_engine_finds(which: str, small: Subject, tiny: Bundle) -> None:
    measured = small if which == "random" else subject.of_bundle(tiny.path, None)
    loop = official_loop.written_anew(measured.teacher, measured.student, measured.size, CPU)
    found = measured.plain.inspect(measured.pictures, [measured.name] * len(measured.pictures))
    for place, pixels in enumerate(measured.pictures):
        map_, score = loop(pixels)
        assert map_.shape == measured.size
        np.testing.assert_allclose(found.map(place), map_, rtol=CLOSE)
        assert found.scores[place] == pytest.approx(score, rel=CLOSE)


def test_the_official_loop_takes_pictures_of_any_size(small: Subject) -> None:
    loop = official_loop.written_anew(small.teacher, small.student, small.size, CPU)
    map_, score = loop(small.picture(150))
    assert map_.shape == (64, 64)
    assert score == map_.max()


def test_the_official_loop_runs_the_stage_that_nobody_reads(small: Subject) -> None:
    plain = official_loop._Plain(small.teacher, small.student, CPU)
    seen: list[torch.Size] = []
    (stage,) = plain._unread
    stage.register_forward_hook(lambda _module, _given, found: seen.append(found.shape))
    plain(torch.zeros(1, 3, 64, 64))
    assert seen == [torch.Size((1, 512, 2, 2))]
    assert not any(getattr(part, "inplace", False) for part in small.teacher.modules())  # the copy alone was changed


def test_what_is_no_checkout_is_refused_and_no_module_is_lost(small: Subject, tmp_path: Path) -> None:
    import test as before

    with pytest.raises(RevdistError, match=r"cannot be imported: .*name a clone of github.com/hq-deng/RD4AD"):
        official_loop.of_checkout(tmp_path, small.teacher, small.student, small.size, CPU)
    assert sys.modules["test"] is before
    assert str(tmp_path) not in sys.path
    with pytest.raises(RevdistError, match="square pictures alone"):
        official_loop.of_checkout(tmp_path, small.teacher, small.student, (64, 96), CPU)


def test_a_run_tells_everything_as_json(figures: tuple[dict[str, Any], Path], tiny: Bundle) -> None:
    found, _ = figures
    assert set(found) == {
        *("subject", "teacher", "size", "gigaoperations", "picture", "batches", "seconds", "machine", "rates", "rows"),
        *("reference", "ratios", "differences", "missing"),
    }
    assert (found["subject"], found["size"], found["missing"]) == ("cell", [64, 96], [])
    engines = [each.identity for each in backend.available("cpu")]
    assert [(row["name"], row["batch"]) for row in found["rows"]] == [
        (name, batch) for batch in (1, 2) for name in (*engines, "rd4ad")
    ]
    told = found["machine"]
    assert {"processor", "cores", "threads", "load_before", "load_after", "elsewhere", "torch_config"} <= set(told)
    assert {"rejectd", "torch", "numpy"} <= set(told["versions"])
    assert told["elsewhere"] is None or 0 <= told["elsewhere"] <= 1
    for row in found["rows"]:
        assert row["rounds"] == 1
        assert row["images_per_second"] == pytest.approx(1e3 * row["pictures"] / row["p50_ms"])
        assert (row["network_ms"] is None) == (row["name"] == "rd4ad")
        for name in ("of_matmul", "of_convolution"):
            assert row[name] is None or row[name] > 0
    differences = {each["name"]: each for each in found["differences"]}
    assert set(differences) == set(engines)
    assert max(differences["torch-cpu-float32"][name] for name in ("map", "score")) < CLOSE
    assert all(each["map"] < 0.5 and each["pictures"] == 6 for each in differences.values())


def test_ratios_and_shares_follow_from_the_times(figures: tuple[dict[str, Any], Path]) -> None:
    found, _ = figures
    assert found["reference"] == "rd4ad"
    times = {(row["name"], row["batch"]): row["p50_ms"] / row["pictures"] for row in found["rows"]}
    peers_best = float(np.median([call for row in found["rows"] if row["name"] == "rd4ad" for call in row["calls_ms"]]))
    for each in found["ratios"][:-1]:
        own = {batch: times[each["name"], batch] for batch in (1, 2)}
        assert each["batch_1"] == pytest.approx(times["rd4ad", 1] / own[1])
        assert each["best_batch"] == min(own, key=own.__getitem__)
        assert each["best"] == pytest.approx(peers_best / min(own.values()))
    assert found["ratios"][-1] == {"name": "rd4ad", "batch_1": 1.0, "best": 1.0, "best_batch": 1}
    rates = {(each["precision"], each["kind"]): each["operations_per_second"] for each in found["rates"]}
    for row in found["rows"]:
        precision = row["name"].rpartition("-")[2]
        if row["network_ms"] is not None and (precision, "convolution") in rates:
            least = 1e12 * found["gigaoperations"] * row["pictures"] / rates[precision, "convolution"]
            assert row["of_convolution"] == pytest.approx(least / row["network_ms"])


def test_the_drawing_is_a_file_of_its_own(figures: tuple[dict[str, Any], Path]) -> None:
    found, path = figures
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    bars = [each for each in root.iter() if each.get("class") in ("ours", "peer")]
    assert len(bars) == len({row["name"] for row in found["rows"]})
    assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "")


def test_a_drawing_of_nothing_and_of_odd_names_is_one() -> None:
    ElementTree.fromstring(speeds.drawing([], "<nothing>"))
    row = speeds.Speed(name="<b>", best_ms=1.0, first_ms=2.0, note="&", ours=True)
    assert "&lt;b&gt;" in speeds.drawing([row], "one")


def test_random_weights_and_one_engine_print_a_table(run: Run) -> None:
    status, out, err = run("bench", "--random", "resnet18", "--size", 64, *QUICK, "--engine", "cpu")
    assert (status, err) == (0, "")
    for part in (
        "random: resnet18, 64x64 pixels, 0.5 GFLOP a picture", "of conv", "best float32 matmul", "goal 85%",
        "times as fast as rd4ad", "torch-cpu-float32 and the paper's loop differ by",
    ):  # fmt: skip
        assert part in out
    assert (
        sum(line.startswith("torch-cpu-float32 ") for line in out.splitlines()) == 4
    )  # two rows, a ratio, differences
    status, out, _ = run("bench", "--random", "resnet18", "--size", 64, *QUICK, "--engine", "cpu", "--against", "")
    assert status == 0
    assert "times as fast" not in out


def test_a_peer_that_is_not_installed_is_told_and_the_others_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)  # as where it is not installed
    arguments = ("--random", "resnet18", "--size", 64, *QUICK, "--engine", "cpu", "--against", "anomalib,rd4ad")
    status, out, err = run("bench", *arguments)
    assert status == 2
    assert err == "revdist: anomalib takes no part: anomalib not installed; pip install 'anomalib[openvino]'\n"
    assert "times as fast as rd4ad" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--random", "resnet18", "--engine", "cpu-int4"), "precision 'int4' is not supported"),
        (("--random", "resnet18", "--engine", "cpu-int8-fast"), "there is no engine 'cpu-int8-fast'"),
        (("--random", "resnet18", "--against", "patchcore"), "there is no peer 'patchcore'"),
        (("--random", "resnet18", "--against", "openvino=/somewhere"), "there is no peer 'openvino=/somewhere'"),
        (("--random", "resnet18", "--batches", "0"), "batches is (0,), must be numbers from 1"),
        (("--random", "resnet18", "--picture", "0"), "picture is 0, must be 1"),
        (("--random", "resnet18", "--seconds", "nan"), "seconds is nan, must be 0 or more"),
        (("--random", "resnet18", "--plot", "speed.png"), "speed.png: a plot is written as SVG alone"),
        (("--random", "resnet18", "--json", "/"), "/: no file can be written there"),
        (("--random", "resnet18", "bundle"), "name a bundle, or a teacher with --random, and not both"),
        ((), "name a bundle, or a teacher with --random, and not both"),
        (("bundle", "--size", "64"), "a bundle has its own size"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_work(arguments: tuple[str, ...], message: str, run: Run) -> None:
    status, out, err = run("bench", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_a_peer_that_fails_on_the_way_is_dropped_and_told() -> None:
    turns = itertools.count()

    def failing(_count: int) -> float:
        if next(turns) == 3:
            raise PeerError("it takes no part: it broke")
        return 0.5

    contestants = [Contestant(name="steady", call=lambda _count: 0.25), Contestant(name="peer", call=failing, most=1)]
    rounds = bench._Rounds(contestants, [])
    for batch in (1, 2, 4):
        rounds.run(batch, 0)
    assert [(row.name, row.batch, row.pictures) for row in rounds.rows] == [
        ("steady", 1, 1), ("peer", 1, 1), ("steady", 2, 2), ("steady", 4, 4),
    ]  # fmt: skip
    assert [str(each) for each in rounds.lost] == ["it takes no part: it broke"]


def test_a_process_that_does_not_come_up_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"openvino-float32 takes no part: FileNotFoundError.*setup.json"):
        peers.PeerProcess("openvino-float32", tmp_path)


def test_openvino_scores_as_the_engine_and_its_end_is_told(small: Subject) -> None:
    picture = small.picture(100)
    with ExitStack() as stack:
        folder = peers._furnish(peers.Wanted(name=peers.OPENVINO), small, picture, torch.device("cpu"), stack)
        process = stack.enter_context(peers.PeerProcess("openvino-float32", folder))
        assert process.call(2) > 0
        prepared = bench.images.prepare(picture, small.size)
        expected = small.plain.inspect([prepared], ["random"]).scores[0]
        assert process.score == pytest.approx(float(expected), rel=CLOSE)
        os.kill(process.number, signal.SIGKILL)
        with pytest.raises(PeerError, match="openvino-float32 takes no part: "):
            process.call(1)


def test_plans_without_engines_take_every_precision_of_the_machine() -> None:
    assert Plan(device="cpu").targets()[0].identity == "torch-cpu-float32"
    twice = Plan(engines=("cpu", "torch-cpu-float32"))
    assert {each.identity for each in twice.targets()} == {"torch-cpu-float32"}
