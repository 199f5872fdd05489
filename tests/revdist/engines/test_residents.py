"""revdist.engines.residents"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines.engine import Engine
from revdist.engines.residents import Residents
from revdist.networks import teacher
from revdist.scoring import detector

NAME = "efficientnet_lite0"
PRODUCTS = ("bolt", "nut", "plate")


def _student(seed: int) -> detector.Student:
    torch.manual_seed(seed)
    return detector.Student(NAME).eval()


def _engine(lite0: teacher.Teacher, most: int) -> Engine:
    """On a processor, where nothing ever waits unless it is told to."""
    engine = Engine(lite0, device="cpu")
    engine._target = _Plain(engine._target)
    engine._residents = Residents(engine.device, most)
    for seed, product in enumerate(PRODUCTS):
        engine.add(product, _student(seed), (64, 96))
    return engine


class _Plain:
    """A target whose students are modules with weights, as on a GPU."""

    def __init__(self, real: object) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def student(self, module: torch.nn.Module, *_: object) -> torch.nn.Module:
        return module


def _here(engine: Engine) -> set[str]:
    return {product for product, placed in engine._students.items() if not placed.waits}


@pytest.fixture
def picture(good_cells: list[Path]) -> Pixels:
    return images.prepare(images.read(good_cells[0]), (64, 96))


def test_all_students_stay_unless_a_limit_is_given(lite0: teacher.Teacher) -> None:
    engine = _engine(lite0, 0)
    assert _here(engine) == set(PRODUCTS)
    assert {placed.waiting for placed in engine._students.values()} == {None}


def test_those_used_last_stay(lite0: teacher.Teacher, picture: Pixels) -> None:
    engine = _engine(lite0, 2)
    assert _here(engine) == {"nut", "plate"}, "those that came last"
    engine.inspect([picture], ["nut"])
    engine.inspect([picture], ["bolt"])
    assert _here(engine) == {"nut", "bolt"}
    engine.fetch("plate")
    assert _here(engine) == {"bolt", "plate"}


def test_a_student_that_waited_scores_as_before(lite0: teacher.Teacher, picture: Pixels) -> None:
    wanted = _engine(lite0, 0)
    engine = _engine(lite0, 1)
    for _ in range(2):
        for product in PRODUCTS:
            score = wanted.inspect([picture], [product]).scores
            np.testing.assert_array_equal(engine.inspect([picture], [product]).scores, score)
            assert _here(engine) == {product}


def test_a_batch_of_more_products_than_may_stay_is_judged(lite0: teacher.Teacher, picture: Pixels) -> None:
    engine = _engine(lite0, 1)
    wanted = _engine(lite0, 0).inspect([picture] * 3, PRODUCTS).scores
    np.testing.assert_allclose(engine.inspect([picture] * 3, PRODUCTS).scores, wanted, rtol=1e-6)
    assert _here(engine) == set(PRODUCTS)
    engine.inspect([picture], ["nut"])
    assert _here(engine) == {"nut"}


def test_nothing_is_moved_while_the_same_products_are_made(lite0: teacher.Teacher, picture: Pixels) -> None:
    engine = _engine(lite0, 2)
    engine.inspect([picture] * 2, ["bolt", "nut"])
    table = engine._students
    for product in ("nut", "bolt", "nut"):
        engine.inspect([picture], [product])
    assert engine._students is table


def test_products_come_and_go(lite0: teacher.Teacher, picture: Pixels) -> None:
    engine = _engine(lite0, 2)
    engine.remove("plate")
    engine.rename("nut", "screw")
    engine.inspect([picture] * 2, ["bolt", "screw"])
    assert _here(engine) == {"bolt", "screw"}
    engine.add("plate", _student(5), (64, 96))
    assert len(_here(engine)) == 2
    assert "plate" in _here(engine)
    with pytest.raises(Exception, match="there is no product 'nut'"):
        engine.fetch("nut")
    engine.fetch("bolt")
    assert set(engine._residents._used) <= engine.products, "nothing is kept of what was removed"


def test_students_that_wait_are_not_warmed(lite0: teacher.Teacher) -> None:
    engine = _engine(lite0, 1)
    before = _here(engine)
    engine.warm([1, 2])
    assert _here(engine) == before


def test_a_changeover_while_another_thread_inspects(lite0: teacher.Teacher, picture: Pixels) -> None:
    engine = _engine(lite0, 1)
    wanted = _engine(lite0, 0).inspect([picture], ["bolt"]).scores
    changing = threading.Thread(target=lambda: [engine.fetch(product) for product in ("nut", "plate") * 5])
    changing.start()
    rounds = 0
    while changing.is_alive() or rounds < 3:
        np.testing.assert_array_equal(engine.inspect([picture], ["bolt"]).scores, wanted)
        rounds += 1
    changing.join()


def test_a_processor_has_no_other_memory(lite0: teacher.Teacher) -> None:
    engine = Engine(lite0, device="cpu", students_on_gpu=1)
    for product in PRODUCTS[:2]:
        engine.add(product, _student(1), (64, 96))
    assert _here(engine) == set(PRODUCTS[:2])


@pytest.mark.usefixtures("fake_cuda")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_on_cuda_weights_wait_on_the_host_and_come_in_as_they_were(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # there is no CUDA to pin it for
    known = teacher.Teacher("resnet18", teacher.build("resnet18"), "0" * 64)
    engine = Engine(known, device="cuda", precision=precision, students_on_gpu=1)
    for product in ("bolt", "nut"):
        engine.add(product, detector.Student("resnet18"), (64, 96))

    def devices(product: str) -> set[tuple[str, torch.dtype, bool]]:
        weights = [each for each in engine._students[product].student.parameters() if each.dim() == 4]
        last = torch.channels_last
        return {(each.device.type, each.dtype, each.is_contiguous(memory_format=last)) for each in weights}

    dtype = getattr(torch, precision)
    assert devices("bolt") == {("cpu", dtype, True)}
    assert devices("nut") == {("cuda", dtype, True)}
    engine.maps(torch.empty((2, 64, 96, 3), dtype=torch.uint8, device="cuda"), ["bolt", "bolt"])
    assert devices("bolt") == {("cuda", dtype, True)}
    assert devices("nut") == {("cpu", dtype, True)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: NOT TESTED")
def test_a_gpu_holds_no_more_students_than_it_may(lite0: teacher.Teacher, picture: Pixels) -> None:
    def engine(most: int) -> Engine:
        made = Engine(lite0, device="cuda", students_on_gpu=most)
        for seed, product in enumerate(PRODUCTS):
            made.add(product, _student(seed), (64, 96))
        return made

    begun = torch.cuda.memory_allocated()
    all_here = engine(0)
    whole = torch.cuda.memory_allocated() - begun
    wanted = {product: all_here.inspect([picture], [product]).scores for product in PRODUCTS}
    begun = torch.cuda.memory_allocated()
    few = engine(1)
    assert torch.cuda.memory_allocated() - begun < whole
    few.warm([1, 2])
    for product in PRODUCTS * 2:
        few.fetch(product)
        np.testing.assert_allclose(few.inspect([picture], [product]).scores, wanted[product], rtol=1e-4)
        waiting = few._students[product].waiting
        assert waiting is not None
        assert all(each.is_pinned() for each in waiting.parameters())
