"""revdist.engines.cuda.graphs"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines import batch_runner
from revdist.engines.cuda import graphs
from revdist.engines.cuda.graphs import Graphs
from revdist.engines.engine import Engine
from revdist.engines.parts import Parts
from revdist.networks import teacher
from revdist.scoring import detector

NAME = "efficientnet_lite0"


class Recorder:
    """Stands in for a GPU's: what a replay fills is the same memory every time."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def __call__(
        self, function: Callable[[], Sequence[torch.Tensor]]
    ) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        found = [each.clone() for each in function()]
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            for own, each in zip(found, function(), strict=True):
                own.copy_(each)

        return replay, found


class Owner(torch.nn.Module):
    """Doubles."""

    def forward(self, given: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        return (2 * given[0],)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_graph_computes_what_its_function_does_for_shapes_that_it_was_prepared_for(recorder: Recorder) -> None:
    owner, made = Owner(), Graphs(recorder)
    made.prepare(owner, owner, [torch.ones(3)])
    before = recorder.replayed
    assert made(owner, owner, [torch.arange(3.0)])[0].tolist() == [0, 2, 4]
    assert recorder.replayed == before + 1
    assert made(owner, owner, [torch.arange(4.0)])[0].tolist() == [0, 2, 4, 6], "of another shape: the function itself"
    assert made(Owner(), owner, [torch.arange(3.0)])[0].tolist() == [0, 2, 4], "of another owner"
    assert recorder.replayed == before + 1


def test_what_is_kept_outlives_the_next_call(recorder: Recorder) -> None:
    owner, made = Owner(), Graphs(recorder)
    made.prepare(owner, owner, [torch.ones(3)])
    kept, passing = (made(owner, owner, [torch.ones(3)], keep=keep)[0] for keep in (True, False))
    made(owner, owner, [torch.zeros(3)])
    assert kept.tolist() == [2, 2, 2]
    assert passing.tolist() == [0, 0, 0]


def test_it_is_recorded_once(recorder: Recorder) -> None:
    owner, made = Owner(), Graphs(recorder)
    for _ in range(3):
        made.prepare(owner, owner, [torch.ones(3)])
    assert recorder.recorded == 1


def test_graphs_of_equal_shapes_share_what_they_are_given(recorder: Recorder) -> None:
    one, other, made = Owner(), Owner(), Graphs(recorder)
    for owner in (one, other):
        made.prepare(owner, owner, [torch.ones(3)])
    assert [len(each) for each in made._graphs.values()] == [1, 1]
    assert len({id(graph.given[0]) for each in made._graphs.values() for graph in each.values()}) == 1


def test_where_recording_fails_everything_runs_without(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: object) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        raise RuntimeError("operation not permitted when stream is capturing")

    owner, made = Owner(), Graphs(fails)
    with caplog.at_level(logging.WARNING):
        made.prepare(owner, owner, [torch.ones(3)])
        made.prepare(owner, owner, [torch.ones(4)])
    assert [each.message for each in caplog.records] == [
        "the GPU launches each kernel: recording CUDA graphs failed: operation not permitted when stream is capturing"
    ]
    assert not made.recording
    assert made(owner, owner, [torch.ones(3)])[0].tolist() == [2, 2, 2]


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_a_graph_that_computes_something_else_is_never_used(wrong: float, caplog: pytest.LogCaptureFixture) -> None:
    def otherwise(function: Callable[[], Sequence[torch.Tensor]]) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
        return (lambda: None), [each + wrong for each in function()]

    owner, made = Owner(), Graphs(otherwise)
    with caplog.at_level(logging.WARNING):
        made.prepare(owner, owner, [torch.ones(3)])
    assert "a graph computes otherwise than its function, by" in caplog.text
    assert not made.recording
    assert made(owner, owner, [torch.ones(3)])[0].tolist() == [2, 2, 2]


def test_graphs_end_with_their_owner() -> None:
    owner, made = Owner(), Graphs(_without_function)
    made.prepare(owner, owner, [torch.ones(3)])
    assert len(made._graphs) == 1
    del owner
    gc.collect()
    assert len(made._graphs) == 0


def _without_function(
    function: Callable[[], Sequence[torch.Tensor]],
) -> tuple[Callable[[], None], Sequence[torch.Tensor]]:
    return (lambda: None), [each.clone() for each in function()]


def test_a_processor_has_no_graphs() -> None:
    assert graphs.recorder(torch.device("cpu")) is None
    owner, made = Owner(), Graphs(None)
    made.prepare(owner, owner, [torch.ones(3)])
    assert made(owner, owner, [torch.ones(3)])[0].tolist() == [2, 2, 2]
    assert not made.recording


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> Recorder:
    """Engines that run whole batches as graphs, on a processor."""
    monkeypatch.setattr(graphs, "recorder", lambda device: recorder)
    monkeypatch.setattr(batch_runner.Parts, "fit", lambda where: Parts(0))
    return recorder


@pytest.fixture
def pictures(good_cells: list[Path]) -> list[Pixels]:
    return [images.prepare(images.read(path), (64, 96)) for path in good_cells[:10]]


def _student(seed: int) -> detector.Student:
    torch.manual_seed(seed)
    return detector.Student(NAME).eval()


def _engine(lite0: teacher.Teacher) -> Engine:
    engine = Engine(lite0, device="cpu", graphs=True)
    for seed, product in enumerate(("bolt", "nut"), 1):
        engine.add(product, _student(seed), (64, 96))
    return engine


MIXED = ["bolt", "nut", "nut", "bolt", "bolt", "nut", "bolt", "bolt", "bolt", "nut"]


def test_an_engine_with_graphs_scores_as_one_without(
    lite0: teacher.Teacher, as_on_a_gpu: Recorder, pictures: list[Pixels]
) -> None:
    engine = _engine(lite0)
    wanted = engine.inspect(pictures, MIXED)
    maps = [wanted.map(row) for row in range(len(MIXED))]
    assert not as_on_a_gpu.recorded
    engine.warm([1, 5])
    assert as_on_a_gpu.recorded == 5 + 2 * 5, "teacher and two students, each for 1 to 5 pictures"
    for begin, end in ((0, 1), (0, 3), (3, 8), (0, 10)):
        before = as_on_a_gpu.replayed
        found = engine.inspect(pictures[begin:end], MIXED[begin:end])
        engine.inspect(pictures[::-1][:3], MIXED[:3])  # what was found stays as it was
        assert as_on_a_gpu.replayed > before + 3 or end - begin > 8
        np.testing.assert_allclose(found.scores, wanted.scores[begin:end], rtol=1e-5)
        for row in range(end - begin):
            np.testing.assert_allclose(found.map(row), maps[begin + row], rtol=1e-4, atol=1e-6)


def test_maps_of_scales_are_not_taken_from_the_graphs_of_scores(
    lite0: teacher.Teacher, as_on_a_gpu: Recorder, pictures: list[Pixels]
) -> None:
    engine = _engine(lite0)
    engine.warm([2])
    scales = engine.scale_maps(pictures[0], "bolt")
    assert scales.shape == (3, 64, 96)
    np.testing.assert_allclose(scales.sum(0), engine.inspect(pictures[:1], ["bolt"]).map(0), rtol=1e-4, atol=1e-6)


def test_a_product_that_comes_later_has_graphs_at_once(
    lite0: teacher.Teacher, as_on_a_gpu: Recorder, pictures: list[Pixels]
) -> None:
    engine = _engine(lite0)
    engine.warm([1, 3])
    before = as_on_a_gpu.recorded
    engine.add("plate", _student(3), (64, 96))
    assert as_on_a_gpu.recorded == before + 3
    engine.add("large", _student(3), (160, 160), tile=(64, 96))
    assert as_on_a_gpu.recorded == before + 3, "tiles need none"
    alone = Engine(lite0, device="cpu")
    alone.add("plate", _student(3), (64, 96))
    wanted = alone.inspect(pictures[:2], ["plate"] * 2).scores
    np.testing.assert_allclose(engine.inspect(pictures[:2], ["plate"] * 2).scores, wanted, rtol=1e-5)


def test_more_pictures_than_graphs_are_worth_have_none(lite0: teacher.Teacher, as_on_a_gpu: Recorder) -> None:
    engine = Engine(lite0, device="cpu", graphs=True)
    engine.add("bolt", _student(1), (64, 64))
    engine.warm([12])
    assert as_on_a_gpu.recorded == 2 * graphs.MOST


def test_one_thread_runs_while_another_prepares(
    lite0: teacher.Teacher, as_on_a_gpu: Recorder, pictures: list[Pixels]
) -> None:
    engine = _engine(lite0)
    wanted = engine.inspect(pictures[:4], MIXED[:4]).scores
    engine.warm([4])
    adding = threading.Thread(target=lambda: [engine.add(f"new{n}", _student(n), (64, 96)) for n in range(3)])
    adding.start()
    rounds = 0
    while adding.is_alive() or rounds < 3:
        np.testing.assert_allclose(engine.inspect(pictures[:4], MIXED[:4]).scores, wanted, rtol=1e-5)
        rounds += 1
    adding.join()


def test_an_engine_records_none_unless_it_is_told_to(lite0: teacher.Teacher, as_on_a_gpu: Recorder) -> None:
    """No GPU has shown them right yet."""
    engine = Engine(lite0, device="cpu")
    engine.add("bolt", _student(1), (64, 64))
    engine.warm([1, 2])
    assert as_on_a_gpu.recorded == 0
