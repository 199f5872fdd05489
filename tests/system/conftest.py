"""A line that each test gets for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from line import Line, Subscriber
from peers import Mosquitto


@pytest.fixture
def line(tmp_path: Path, bundle: Path, mosquitto: Mosquitto) -> Iterator[Line]:
    """The service of a line without cameras yet, not started."""
    made = Line(tmp_path, bundle, mosquitto.port)
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait(timeout=10)


@pytest.fixture
def subscriber(mosquitto: Mosquitto) -> Iterator[Subscriber]:
    """An independent subscriber to everything of the line."""
    made = Subscriber(mosquitto.port)
    yield made
    made.close()
