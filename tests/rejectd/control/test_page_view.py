"""rejectd.control.page_view: what the page is told of a line, on real messages; the line runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from rejectd.contract.messages import CameraState, CameraStatus, Decision, Policy, RejectdError, Result, Verdict
from rejectd.contract.settings import FolderCamera, Product, Settings
from rejectd.control.page_view import PageView
from rejectd.pipeline import Ended

MS = 1_000_000


def ended(number: int, *, score: float, size: int = 48) -> Ended:
    """A judged part, with a map if it was rejected."""
    anomaly_map = np.full((8, 8), score, np.float32) if score > 0.5 else None
    result = Result(score=score, threshold=0.5, p_value=0.1, bundle="b", engine="e", anomaly_map=anomaly_map)
    verdict = Verdict(
        event_id=f"run-left-{number}",
        camera="left",
        product="cell",
        seq=number,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=1000 * MS,
        decided_ns=40 * MS,
        decision=Decision.REJECT if score > 0.5 else Decision.PASS,
        policy=Policy.REJECT,
        result=result,
    )
    return Ended(verdict, np.full((size, size * 2, 3), 90, np.uint8))


class Rig:
    """A view of a line that holds still; orders are noted and answered by hand."""

    def __init__(self) -> None:
        folder = FolderCamera(product="cell", path=Path("x"))
        self.settings = Settings(line="l", cameras={"left": folder}, products={"cell": Product(bundle=Path("cell"))})
        up = CameraStatus(camera="left", state=CameraState.UP, since_unix_ns=0)
        self.pipeline = SimpleNamespace(states={"left": up}, ended={}, products={"left": "cell"}, paused={})
        self.orders: list[tuple[Any, ...]] = []
        self.view = PageView(
            self.settings,
            pipeline=self.pipeline,  # type: ignore[arg-type]
            inspector=SimpleNamespace(models={}),  # type: ignore[arg-type]
            commands=SimpleNamespace(order=self._order),  # type: ignore[arg-type]
            status=lambda: b'{"judging": true}',
            heatmap=lambda picture, *_: np.full_like(picture, 200),
        )

    def _order(self, name: str, body: bytes, **how: Any) -> None:
        self.orders.append((name, json.loads(body), how["by"], how["reply"]))

    def ask(self, **request: Any) -> Mapping[str, Any]:
        values: Mapping[str, Any] = json.loads(self.view.answer(request).body)
        return values

    def brightness(self, **request: Any) -> float:
        jpeg = self.view.answer({"ask": "picture", "camera": "left", **request}).body
        return float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).mean())


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_state_tells_each_camera_with_its_last_verdict(rig: Rig) -> None:
    assert rig.ask(ask="state")["cameras"][0]["last"] is None
    rig.pipeline.ended["left"] = ended(1, score=0.7)
    (left,) = rig.ask(ask="state")["cameras"]
    assert (left["camera"], left["state"], left["product"]) == ("left", "up", "cell")
    assert left["last"] | {"picture": 0, "captured_at": 0} == {
        "event_id": "run-left-1",
        "seq": 1,
        "decision": "reject",
        "cause": None,
        "detail": "",
        "product": "cell",
        "captured_at": 0,
        "latency_ms": 40.0,
        "score": 0.7,
        "threshold": 0.5,
        "p_value": 0.1,
        "heat": True,
        "picture": 0,
    }


def test_the_picture_of_a_part_can_be_asked_for_when_the_next_ones_have_passed(rig: Rig) -> None:
    for number in range(1, 4):
        rig.pipeline.ended["left"] = ended(number, score=0.7)
        rig.ask(ask="state", pictures=True)
    rig.pipeline.ended["left"] = ended(9, score=0.1)
    assert rig.brightness(event_id="run-left-1") == pytest.approx(90, abs=2)
    assert rig.brightness(event_id="run-left-1", heat=True) == pytest.approx(200, abs=2)
    with pytest.raises(RejectdError, match="no picture of this part"):
        rig.brightness(event_id="run-left-9")  # which nobody was told of


def test_what_is_kept_for_the_page_is_small_and_few(rig: Rig) -> None:
    for number in range(10):
        rig.pipeline.ended["left"] = ended(number, score=0.7, size=1500)
        rig.ask(ask="state", pictures=True)
        rig.ask(ask="state", pictures=True)
    kept = rig.view._seen["left"]
    assert len(kept) == 3
    assert all(max(one.picture.shape) <= 1024 for one in kept if one.picture is not None)


def test_a_passing_part_has_no_heat_map_and_is_shown_as_it_is(rig: Rig) -> None:
    rig.pipeline.ended["left"] = ended(1, score=0.1)
    rig.ask(ask="state", pictures=True)
    assert rig.brightness(event_id="run-left-1", heat=True) == pytest.approx(90, abs=2)


def test_a_command_is_queued_with_the_name_of_its_person_and_its_answer_waits_to_be_fetched_once(rig: Rig) -> None:
    ticket = rig.ask(ask="command", name="pause", request={"cameras": ["left"]}, by="anna")["ticket"]
    ((name, request, by, reply),) = rig.orders
    assert (name, request, by) == ("pause", {"cameras": ["left"]}, "anna")
    assert rig.ask(ask="answer", ticket=ticket) is None
    reply(b'{"ok": true}')
    assert rig.ask(ask="answer", ticket=ticket) == {"ok": True}
    with pytest.raises(RejectdError, match="not known"):
        rig.ask(ask="answer", ticket=ticket)


@pytest.mark.parametrize(
    "request_",
    [
        {"ask": "command", "name": "pause", "request": {}},
        {"ask": "command", "name": "shutdown", "request": {}, "by": "anna"},
        {"ask": "command", "name": "pause", "request": "x", "by": "anna"},
        {"ask": "product", "product": "x"},
        {"ask": "other"},
        {},
    ],
)
def test_what_makes_no_sense_is_refused(rig: Rig, request_: dict[str, Any]) -> None:
    with pytest.raises(RejectdError):
        rig.view.answer(request_)
    assert rig.orders == []


def test_answers_that_nobody_fetches_are_forgotten(rig: Rig) -> None:
    first = rig.ask(ask="command", name="pause", request={}, by="anna")["ticket"]
    for _ in range(40):
        rig.ask(ask="command", name="pause", request={}, by="anna")
    rig.orders[0][3](b"{}")
    with pytest.raises(RejectdError):
        rig.ask(ask="answer", ticket=first)
