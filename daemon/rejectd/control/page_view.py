"""What the operator's page may ask a line over the local socket: its state, its pictures, its products, and commands.

Commands take the way of those over MQTT: the same queue, the same checks, the same log and journal. The page says who
gives them; it has asked for that person's password.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from rejectd.contract.local_socket import Answer, of_json
from rejectd.contract.messages import RejectdError, Verdict, iso
from rejectd.contract.requests import REQUESTS, RequestError
from rejectd.contract.settings import Settings
from rejectd.control.commands import Commands
from rejectd.inspector import Inspector
from rejectd.pipeline import Ended, Pipeline
from rejectd.storage.evidence import Heatmap, reduced, thumbnail

_ANSWERS = 32  # to commands, that wait for the page to take them
_LONGEST = 1024  # pixels, the longest side of a live picture
_TOLD = 3  # pictures of each camera that the page may still ask for
_SENDER = 100  # letters


class PageView:
    """Answers the requests of the page. Owned by the thread of its socket; answers to commands come from another."""

    def __init__(
        self,
        settings: Settings,
        *,
        pipeline: Pipeline,
        inspector: Inspector,
        commands: Commands,
        status: Callable[[], bytes],
        heatmap: Heatmap,
    ) -> None:
        """`status()` is the body of the line's status; `heatmap` paints an anomaly map over a picture."""
        self._settings = settings
        self._pipeline = pipeline
        self._inspector = inspector
        self._commands = commands
        self._status = status
        self._heatmap = heatmap
        self._answers: OrderedDict[str, bytes | None] = OrderedDict()  # None: the command is not done yet
        self._lock = threading.Lock()
        self._seen: dict[str, deque[Ended]] = {}  # by camera: what the page was told last, with small pictures
        self._asks: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "state": self._state,
            "picture": self._picture,
            "product": self._product,
            "command": self._command,
            "answer": self._answer,
        }

    def answer(self, request: Mapping[str, Any]) -> Answer:
        """Answer a request.

        Raises:
            RejectdError: if it cannot be answered, with what to do.
        """
        ask = self._asks.get(str(request.get("ask")))
        if ask is None:
            raise RequestError("this request is unknown", hint="the page and the service must be of one version")
        return ask(request)

    def _state(self, request: Mapping[str, Any]) -> Answer:
        """The state of the line; with `pictures`, those of the verdicts in it may be asked for afterwards."""
        names = [*self._settings.cameras, *self._settings.stations]
        return of_json(
            {
                "status": json.loads(self._status()),
                "cameras": [self._camera(name, pictures=bool(request.get("pictures"))) for name in names],
                "products": {
                    name: {
                        "threshold": model.threshold,
                        "calibrated": model.calibration.threshold,
                        "bundle": model.digest,
                        "engine": model.engine,
                    }
                    for name, model in self._inspector.models.items()
                },
            }
        )

    def _camera(self, name: str, *, pictures: bool) -> dict[str, Any]:
        """What a camera or station does, and its last verdict."""
        pipeline = self._pipeline
        state, ended = pipeline.states.get(name), pipeline.ended.get(name)
        if ended and pictures:
            self._remember(name, ended)
        return {
            "camera": name,
            "station": name in self._settings.stations,
            "product": pipeline.products.get(name),
            "paused": name in pipeline.paused,
            "state": state.state if state else None,
            "reason": state.reason if state else "",
            "last": None if ended is None else {**_verdict(ended.verdict), "picture": ended.picture is not None},
        }

    def _remember(self, name: str, ended: Ended) -> None:
        """Keep a small picture of what the page is told: with fast cameras another part has passed when it asks."""
        seen = self._seen.setdefault(name, deque(maxlen=_TOLD))
        if ended.picture is not None and (not seen or seen[-1].verdict is not ended.verdict):
            seen.append(Ended(ended.verdict, reduced(ended.picture, _LONGEST)))

    def _picture(self, request: Mapping[str, Any]) -> Answer:
        """The picture of a verdict that the page was told as JPEG; with `heat`, under the heat map if there is one."""
        seen = self._seen.get(str(request.get("camera")), ())
        ended = next((one for one in seen if one.verdict.event_id == request.get("event_id")), None)
        if ended is None or ended.picture is None:
            raise RequestError("there is no picture of this part now", hint="ask for that of the latest part")
        picture, result = ended.picture, ended.verdict.result
        if request.get("heat") and result is not None and result.anomaly_map is not None:
            picture = self._heatmap(picture, result.anomaly_map, result.threshold)
        return Answer(body=thumbnail(picture, longest=_LONGEST))

    def _product(self, request: Mapping[str, Any]) -> Answer:
        """The threshold of a product and what its calibration promises."""
        model = self._inspector.models.get(str(request.get("product")))
        if model is None:
            raise RequestError("there is no such product", hint=f"known products: {', '.join(self._inspector.models)}")
        calibration = model.calibration
        return of_json(
            {
                "product": model.product,
                "threshold": model.threshold,
                "calibrated": calibration.threshold,
                "bundle": model.digest,
                "engine": model.engine,
                "false_reject_rate": calibration.false_reject_rate,
                "attained_rate": calibration.attained_rate,
                "bound95": calibration.bound95,
                "scores": [float(score) for score in calibration.scores],
            }
        )

    def _command(self, request: Mapping[str, Any]) -> Answer:
        """Queue a command. The page asks for the answer later, by the ticket that it gets."""
        name, body, sender = request.get("name"), request.get("request"), str(request.get("by") or "")[:_SENDER]
        if name not in REQUESTS or not isinstance(body, dict) or not sender:
            raise RequestError("a command needs its name, its request and who gives it")
        ticket = secrets.token_hex(8)
        with self._lock:
            self._answers[ticket] = None
            while len(self._answers) > _ANSWERS:
                self._answers.popitem(last=False)
        self._commands.order(name, json.dumps(body).encode(), by=sender, reply=lambda text: self._keep(ticket, text))
        return of_json({"ticket": ticket})

    def _keep(self, ticket: str, answer: bytes) -> None:
        with self._lock:
            if ticket in self._answers:
                self._answers[ticket] = answer

    def _answer(self, request: Mapping[str, Any]) -> Answer:
        ticket = str(request.get("ticket"))
        with self._lock:
            if ticket not in self._answers:
                raise RejectdError("the answer to this command is not known", hint="see the service's log")
            answer = self._answers[ticket]
            if answer is not None:
                del self._answers[ticket]
        return Answer(body=answer if answer is not None else b"null")


def _verdict(verdict: Verdict) -> dict[str, Any]:
    result = verdict.result
    return {
        "event_id": verdict.event_id,
        "seq": verdict.seq,
        "decision": verdict.decision,
        "cause": verdict.cause,
        "detail": verdict.detail,
        "product": verdict.product,
        "captured_at": iso(verdict.captured_unix_ns),
        "latency_ms": round((verdict.decided_ns - verdict.captured_ns) / 1e6, 3),
        "score": result.score if result else None,
        "threshold": result.threshold if result else None,
        "p_value": result.p_value if result else None,
        "heat": bool(result and result.anomaly_map is not None),
    }
