"""The page as a process, over a stand-in of the line's service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from line import Line
from page_server import PageServer, Person
from stand_in_service import StandInService


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandInService]:
    """A service that answers the page."""
    stand_in = StandInService(tmp_path_factory.mktemp("page") / "state")
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="module")
def server(service: StandInService) -> Iterator[PageServer]:
    """The page's process."""
    directory = service.directory
    line = Line(directory, Path("/nowhere/bundle"), 1883)
    line.settings["cameras"]["left"] = {"type": "folder", "product": "cell", "path": str(directory), "mode": "watch"}
    running = PageServer(line)
    running.start()
    yield running
    running.close()


@pytest.fixture(scope="module")
def engineer(server: PageServer) -> Person:
    """Who has logged in first."""
    return server.person()
