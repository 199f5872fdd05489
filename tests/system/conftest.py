"""A line that each test gets for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from line import Line, Operator, Subscriber
from peers import Mosquitto

LONG = (
    "test_chaos.py",
    "test_gateway.py",
    "test_isolation.py",
    "test_overload.py",
    "test_page_load.py",
    "test_storage.py",
)  # minutes each


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to `make test-long`."""
    for item in items:
        if item.path.name in LONG:
            item.add_marker(pytest.mark.long)


@pytest.fixture
def line(tmp_path: Path, bundle: Path, mosquitto: Mosquitto) -> Iterator[Line]:
    """The service of a line without cameras yet, not started."""
    made = Line(tmp_path, bundle, mosquitto.port)
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait(timeout=10)


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A picture that every model rejects."""
    path = tmp_path / "strange.png"
    cv2.imwrite(str(path), np.random.default_rng(1).integers(0, 256, (300, 300), dtype=np.uint8))
    return path


@pytest.fixture
def operator(mosquitto: Mosquitto) -> Iterator[Operator]:
    """Somebody who gives commands."""
    made = Operator(mosquitto.port)
    yield made
    made.close()


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    """An independent subscriber to everything of the line."""
    made = Subscriber(mosquitto.port)
    yield made
    made.close()
