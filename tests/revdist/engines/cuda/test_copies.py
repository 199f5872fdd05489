"""revdist.engines.cuda.copies"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from revdist.data import images
from revdist.engines.cuda import copies
from revdist.engines.engine import Engine
from revdist.networks import teacher
from revdist.scoring import detector


class Gpu:
    """Stands in for one: what it was told, in order, and whether it has computed."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.computed, self.broken = False, False

    def current_stream(self, device: torch.device) -> str:
        return f"stream of {device}"

    @contextlib.contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.told.append(f"into {stream}")
        yield
        self.told.append("back")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    known = Gpu()

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking, "who waits must not spin: the cameras need the processor"

        def record(self, stream: str) -> None:
            known.told.append(f"event on {stream}")

        def query(self) -> bool:
            return known.computed

        def synchronize(self) -> None:
            known.told.append("waited")
            if known.broken:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            known.computed = True

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "copies")
    monkeypatch.setattr(torch.cuda, "stream", known.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", known.current_stream)
    return known


@pytest.fixture
def loaded(lite0: teacher.Teacher) -> Engine:
    torch.manual_seed(1)
    engine = Engine(lite0, device="cpu")
    for product, size in (("bolt", (64, 96)), ("nut", (64, 96)), ("plate", (96, 64))):
        engine.add(product, detector.Student("efficientnet_lite0").eval(), size)
    return engine


def test_a_batch_is_begun_without_waiting_for_it(gpu: Gpu, loaded: Engine, good_cells: list[Path]) -> None:
    """Of three products and two sizes; the scores are those of an engine that waits."""
    products = ["plate", "bolt", "nut", "bolt", "plate"]
    cells = [images.read(path) for path in good_cells[: len(products)]]
    pixels = [images.prepare(cell, loaded.size(product)) for cell, product in zip(cells, products, strict=True)]
    wanted = loaded.inspect(pixels, products)
    loaded._copies = copies.Copies(torch.device("cpu"))
    first = loaded.begin(pixels, products)
    second = loaded.begin(pixels[::-1], products[::-1])
    assert gpu.told == ["event on stream of cpu"] * 2, "the second is begun while the first is computed"
    assert first.wait_for_room is not None
    assert first.wait_for_room(), "there is room, and the first still runs"
    found = first.result()
    assert gpu.told[2:] == ["waited"]
    assert not first.wait_for_room()
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(second.result().scores, wanted.scores[::-1])
    assert first.ended_ns() <= second.ended_ns()
    gpu.told.clear()
    for row in range(len(products)):
        np.testing.assert_array_equal(found.map(row), wanted.map(row))
    assert gpu.told == ["into copies", "back"] * len(products), "a map waits for no batch that was begun since"


def test_an_empty_batch_needs_no_copy(gpu: Gpu, loaded: Engine) -> None:
    loaded._copies = copies.Copies(torch.device("cpu"))
    assert loaded.inspect([], []).scores.shape == (0,)
    assert gpu.told == []


def test_a_gpu_that_fails_later_fails_where_the_result_is_asked_for(gpu: Gpu) -> None:
    begun = copies.Copies(torch.device("cpu")).begin(torch.ones(2))
    gpu.broken = True
    with pytest.raises(RuntimeError, match="illegal memory access"):
        begun.result()


def test_a_processor_has_no_copies() -> None:
    assert copies.copies(torch.device("cpu")) is None
