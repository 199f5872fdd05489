"""rejectd.page.live: what is shown where the service answers nothing that helps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from rejectd.page import live
from rejectd.page.line_link import AwayError, LineError
from rejectd.page.site import Site
from rejectd.page.state_word import Word, say


@pytest.mark.parametrize(
    "error", [AwayError("the service does not answer"), LineError("failed: ValueError; see the log")]
)
def test_a_service_that_cannot_say_how_it_is_counts_as_away(error: LineError) -> None:
    def state(*, pictures: bool) -> Any:
        raise error

    site = cast("Site", SimpleNamespace(link=SimpleNamespace(state=state)))
    shown, complaint = live.line_state(site)
    assert shown is None
    assert say(shown, complaint).word is Word.OFFLINE
    assert complaint == str(error)
