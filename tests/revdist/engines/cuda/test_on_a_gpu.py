"""What only a GPU can show. `make gpu` runs this on a bare machine: all that it needs it makes itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from revdist.engines.engine import Engine
from revdist.networks.teacher import Teacher, build
from revdist.scoring import detector

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: NOT TESTED"),
]
SIZES = {"bolt": (64, 96), "nut": (64, 96), "plate": (96, 64)}
MIXED = ["bolt", "plate", "nut", "bolt", "nut", "plate", "bolt", "bolt", "bolt", "nut"]
Pixels = npt.NDArray[np.uint8]


def _student(name: str, seed: int) -> detector.Student:
    torch.manual_seed(seed)
    return detector.Student(name).eval()


def _engine(
    device: str, *, name: str = "efficientnet_lite0", precision: str = "float32", graphs: bool = False
) -> Engine:
    torch.manual_seed(0)
    engine = Engine(Teacher(name, build(name), "0" * 64), device=device, precision=precision, graphs=graphs)
    for seed, (product, size) in enumerate(SIZES.items(), 1):
        engine.add(product, _student(name, seed), size)
    return engine


def _pictures(products: list[str]) -> list[Pixels]:
    noise = np.random.default_rng(3)
    return [noise.integers(0, 256, (*SIZES[product], 3), dtype=np.uint8) for product in products]


@pytest.fixture(autouse=True)
def until_all_is_computed() -> Iterator[None]:
    yield
    torch.cuda.synchronize()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "wide_resnet50_2"])
@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-4), ("bfloat16", 2e-2), ("float16", 1e-2)])
def test_scores_and_maps_are_those_of_the_processor(name: str, precision: str, close: float) -> None:
    pictures = _pictures(MIXED)
    wanted = _engine("cpu", name=name).inspect(pictures, MIXED)
    found = _engine("cuda", name=name, precision=precision).inspect(pictures, MIXED)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=close)
    for row in range(len(MIXED)):
        np.testing.assert_allclose(found.map(row), wanted.map(row), rtol=0, atol=close * float(wanted.scores[row]))


def test_a_picture_scores_alike_alone_and_in_a_batch() -> None:
    engine, pictures = _engine("cuda"), _pictures(MIXED)
    together = engine.inspect(pictures, MIXED).scores
    alone = [engine.inspect([one], [product]).scores[0] for one, product in zip(pictures, MIXED, strict=True)]
    np.testing.assert_allclose(alone, together, rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_graphs_score_as_kernels_one_by_one(precision: str) -> None:
    engine, pictures = _engine("cuda", precision=precision, graphs=True), _pictures(MIXED)
    wanted = engine.inspect(pictures, MIXED).scores
    engine.warm([1, 8])
    assert engine._passes._graphs.recording, "nothing failed"
    for count in range(1, len(pictures) + 1):
        found = engine.inspect(pictures[:count], MIXED[:count])
        kept = found.map(0)
        engine.inspect(pictures[::-1][:count], MIXED[::-1][:count])
        np.testing.assert_allclose(found.scores, wanted[:count], rtol=1e-4 if precision == "float32" else 1e-2)
        np.testing.assert_array_equal(found.map(0), kept)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # a prototype, as torch says
@pytest.mark.parametrize("graphs", [False, True])
def test_nothing_waits_for_a_gpu_before_the_result_is_asked_for(graphs: bool) -> None:
    engine = _engine("cuda", graphs=graphs)
    engine.warm([1, 4])
    pictures = _pictures(MIXED[:4])
    engine.inspect(pictures, MIXED[:4])
    torch.cuda.set_sync_debug_mode("error")
    try:
        begun = engine.begin(pictures, MIXED[:4])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    np.testing.assert_allclose(begun.result().scores, engine.inspect(pictures, MIXED[:4]).scores, rtol=1e-5)


def test_a_batch_is_begun_while_the_one_before_is_computed() -> None:
    """Behind a GPU that has a second to compute: whoever waited would take as long."""
    engine, pictures = _engine("cuda"), _pictures(MIXED)
    wanted = engine.inspect(pictures, MIXED)
    maps = [wanted.map(row) for row in range(len(MIXED))]
    one, other = engine.begin(pictures, MIXED), engine.begin(pictures, MIXED)
    one.result().map(0)  # once: to allocate pinned memory for two batches waits for the GPU
    other.result()
    began = time.perf_counter()
    torch.cuda._sleep(2_000_000_000)
    first = engine.begin(pictures, MIXED)
    second = engine.begin(pictures[::-1], MIXED[::-1])
    begun_s = time.perf_counter() - began
    assert first.wait_for_room is not None
    assert first.wait_for_room(), "it still runs"
    found = first.result()
    assert begun_s < 0.8 * (time.perf_counter() - began)
    for row, expected in enumerate(maps):
        np.testing.assert_allclose(found.map(row), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    np.testing.assert_allclose(second.result().scores, wanted.scores[::-1], rtol=1e-5)


@pytest.mark.parametrize("graphs", [False, True])
def test_a_product_is_added_while_another_thread_inspects(graphs: bool) -> None:
    engine, pictures = _engine("cuda", graphs=graphs), _pictures(MIXED[:4])
    engine.warm([1, 4])
    wanted = engine.inspect(pictures, MIXED[:4]).scores
    name = "efficientnet_lite0"
    adding = threading.Thread(
        target=lambda: [engine.add(f"new{n}", _student(name, n), SIZES["bolt"]) for n in range(3)]
    )
    adding.start()
    rounds = 0
    while adding.is_alive() or rounds < 3:
        np.testing.assert_allclose(engine.inspect(pictures, MIXED[:4]).scores, wanted, rtol=1e-4)
        rounds += 1
    adding.join()
    assert engine.inspect(pictures[:1], ["new2"]).scores[0] > 0
