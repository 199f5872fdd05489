"""revdist.evaluation.progress: a bar on a terminal, nothing in a log or a pipe."""

from __future__ import annotations

import io
import sys

import pytest

from revdist.evaluation import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_many_pictures_of_all_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.bar("inspect", 16) as shown:
        shown.update(8)
        shown.refresh()
    assert "inspect:  50%" in terminal.getvalue()
    assert "8/16" in terminal.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_a_log_and_a_closed_stream_stay_quiet(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.bar("inspect", 16) as shown:
        shown.update(16)
    assert stream is None or not stream.getvalue()


def test_a_command_that_prints_a_line_for_each_picture_needs_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.bar("predict", 2, quiet=True) as shown:
        shown.update()
    assert terminal.getvalue() == ""
