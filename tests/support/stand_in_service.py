"""A service that answers the page's questions from what a test gives it, over the real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rejectd.contract.local_socket import Answer, of_json
from rejectd.contract.messages import RejectdError
from rejectd.control.page_socket import PageSocket

NOW = "2026-11-25T06:00:00.000000Z"


def status(**changes: Any) -> dict[str, Any]:
    """The status of a line that is well."""
    counts = {"captured": 7, "pass": 5, "reject": 1, "unjudged": 1, "in_flight": 0}
    well = {"judging": True, "problems": [], "unpublished": 0, "parts": None, "paused": [], "version": "1", "run": "r1"}
    return {**counts, **well, **changes}


def last(decision: str, **changes: Any) -> dict[str, Any]:
    """The last verdict of a camera."""
    judged = decision != "unjudged"
    return {
        "event_id": f"run-{decision}-1",
        "seq": 1,
        "decision": decision,
        "cause": None if judged else "late",
        "detail": "",
        "product": "cell",
        "captured_at": NOW,
        "latency_ms": 41.5,
        "score": (0.9 if decision == "reject" else 0.4) if judged else None,
        "threshold": 0.5 if judged else None,
        "p_value": 0.2 if judged else None,
        "heat": decision == "reject",
        "picture": judged,
        **changes,
    }


def camera(name: str, decision: str | None, **changes: Any) -> dict[str, Any]:
    """What a camera does."""
    return {
        "camera": name,
        "station": False,
        "product": "cell",
        "paused": False,
        "state": "up",
        "reason": "",
        "last": last(decision) if decision else None,
        **changes,
    }


class StandInService:
    """Answers as it is told to; `asked` has every request."""

    def __init__(self, state_directory: Path) -> None:
        state_directory.mkdir(parents=True, exist_ok=True)
        self.directory = state_directory.parent
        self.asked: list[Mapping[str, Any]] = []
        self.state: dict[str, Any] = {
            "status": status(),
            "cameras": [camera("left", "pass"), camera("right", "reject"), camera("top", "unjudged")],
            "products": {
                "cell": {"threshold": 0.5, "calibrated": 0.45, "bundle": "abc", "engine": "torch-cpu-float32"}
            },
        }
        self.product = {
            "product": "cell",
            "threshold": 0.5,
            "calibrated": 0.45,
            "bundle": "abc",
            "engine": "torch-cpu-float32",
            "false_reject_rate": 0.01,
            "attained_rate": 0.01,
            "bound95": 0.03,
            "scores": [0.1, 0.2, 0.3, 0.45],
        }
        self.answer: dict[str, Any] = {"ok": True, "error": None, "result": {"after": 0.6}}
        self._socket = PageSocket(state_directory / "page.sock", self._answer, user="nobody-has-this-name")
        self._thread = threading.Thread(target=self._socket.run, name="page")
        self._thread.start()

    def _answer(self, request: Mapping[str, Any]) -> Answer:
        self.asked.append(request)
        match request["ask"]:
            case "state":
                return of_json(self.state)
            case "picture" if request["camera"] == "gone":
                raise RejectdError("there is no picture of this part now")
            case "picture":
                picture = np.full((48, 64, 3), 200 if request["heat"] else 90, np.uint8)
                return Answer(body=cv2.imencode(".jpg", picture)[1].tobytes())
            case "product":
                return of_json(self.product)
            case "command":
                return of_json({"ticket": "t1"})
            case _:
                return Answer(body=json.dumps(self.answer).encode())

    def close(self) -> None:
        self._socket.close()
        self._thread.join(10)
