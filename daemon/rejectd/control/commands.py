"""Carries out the commands that the line gets, and answers each. The broker's access list says who may send over MQTT;
the operator's page knows its people by their passwords.

Commands arrive on `command/<name>` and wait in a short queue; one thread carries them out. The answer goes to the
response topic of the request (MQTT 5), or to `answer` if the request names none. A change holds at once, and as a
standing order (orders.py). Each change is in the log and in the journal, with the sender's `request_id` and topic.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rejectd.contract.messages import RejectdError
from rejectd.contract.payloads import answer_payload, answer_topic, command_topic, encode
from rejectd.contract.requests import (
    AnyRequest,
    GoldenRequest,
    PauseRequest,
    ProductRequest,
    ReplayRequest,
    RequestError,
    ResumeRequest,
    SnapshotRequest,
    ThresholdRequest,
    parse,
    request_id,
)
from rejectd.control.controls import Controls
from rejectd.control.orders import Changed
from rejectd.control.self_test import Outcome, complaint
from rejectd.control.showing import replay, snapshot
from rejectd.inspector import Model
from rejectd.mqtt import Incoming, Message
from rejectd.storage.outbox import Change
from revdist.files import trouble

log = logging.getLogger(__name__)

_WAITING = 16
_SAVE_AGAIN_S = 10.0  # between two attempts to write orders that the disk has not taken


class FailedError(RequestError):
    """A command was carried out, and its result is not good."""

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that waits: over MQTT, or from a person at the page, who has a name."""

    name: str
    incoming: Incoming
    by: str = ""
    reply: Callable[[bytes], None] | None = None  # None: the answer goes over MQTT

    def requester(self) -> dict[str, str | None]:
        """Who asks, as far as that is known."""
        over_mqtt = {"request_id": request_id(self.incoming.payload), "answer_to": self.incoming.answer_to}
        return over_mqtt | {"by": self.by} if self.by else over_mqtt


class Commands:
    """Carries out commands in one thread, `run`. Any thread may call `hear`, which never blocks."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._line = controls.settings.line
        self._waiting: queue.Queue[_Asked | None] = queue.Queue(maxsize=_WAITING)
        self._stop = threading.Event()
        self._changed: list[Changed] = []  # changes made by the command under way
        self._save_again_at = 0.0
        self._do: dict[type[AnyRequest], Callable[[Any], Mapping[str, Any]]] = {
            ProductRequest: self._product,
            ThresholdRequest: self._threshold,
            PauseRequest: self._pause,
            ResumeRequest: self._resume,
            GoldenRequest: self._golden,
            SnapshotRequest: self._snapshot,
            ReplayRequest: self._replay,
        }

    def hear(self, incoming: Incoming) -> None:
        """Queue a request. If too many requests wait, refuse it at once."""
        self._queue(_Asked(incoming.topic.removeprefix(command_topic(self._line, "")), incoming))

    def order(self, name: str, body: bytes, *, by: str, reply: Callable[[bytes], None]) -> None:
        """Queue a request of a person whom the page has authorised; `reply(answer)` is called with the answer."""
        topic = command_topic(self._line, name)
        incoming = Incoming(topic=topic, payload=body, retained=False, answer_to=None, correlation=None)
        self._queue(_Asked(name, incoming, by, reply))

    def _queue(self, asked: _Asked) -> None:
        try:
            self._waiting.put_nowait(asked)
        except queue.Full:
            self._answer(asked, error="too many commands wait; send it again later")

    def stop(self) -> None:
        """Let `run` end soon; requests that wait are answered, but not carried out."""
        self._stop.set()

    def run(self) -> None:
        """Run the command thread until `stop`."""
        while True:
            try:
                item = self._waiting.get(timeout=0 if self._stop.is_set() else 0.2)
            except queue.Empty:
                if self._stop.is_set():
                    return
                self._tidy()
                continue
            if item is not None:
                self._serve(item)

    def _serve(self, asked: _Asked) -> None:
        name, incoming = asked.name, asked.incoming
        result: Mapping[str, Any] | None = None
        error = ""
        self._changed = []
        try:
            self._check(incoming)
            request = parse(name, incoming.payload)
            result = self._do[type(request)](request)
        except FailedError as failed:
            error, result = str(failed), failed.result
        except RejectdError as refused:
            error = str(refused)
        except Exception as mistake:  # the line goes on whatever a command does
            log.critical("command %s failed", name, exc_info=True)
            error = f"failed: {mistake!r}; see the service's log"
        requester = asked.requester()
        log.info("command %s", name, extra={"fields": {"ok": not error, "error": error[:500], **requester}})
        self._keep(asked)
        self._answer(asked, result=result, error=error)

    def _keep(self, asked: _Asked) -> None:
        """Log and journal the changes that the command made, with the sender's `request_id` and response topic."""
        name, requester = asked.name, asked.requester()
        by = f"{name} by {asked.by}" if asked.by else name
        for changed in self._changed:
            level = logging.WARNING if changed.why else logging.INFO
            text = f"{changed.what} of {changed.of} changed by command {name}"
            fields = {"before": changed.before, "after": changed.after, "why": changed.why, **requester}
            log.log(level, "%s", text, extra={"fields": fields})
            identity = {key: value for key, value in requester.items() if key != "by"}
            self._controls.recorder.note(journalled(changed, by, **identity))

    def _check(self, incoming: Incoming) -> None:
        if self._stop.is_set():
            raise RequestError("the service stops", hint="send it again later")
        if incoming.retained:
            hint = "publish it without `retain`, and clear the retained message"
            raise RequestError("a retained command is not carried out, it would come again at every start", hint=hint)
        if incoming.answer_to and not self._allowed(incoming.answer_to):
            hint = f"use a topic below {answer_topic(self._line)}/, or outside of rejectd/"
            raise RequestError("the response topic is not allowed", hint=hint)

    def _allowed(self, topic: str) -> bool:
        """Whether an answer may go to this topic: it must not look like a verdict or status of ours."""
        if not topic or any(letter in topic for letter in "+#\0") or topic.startswith("$"):
            return False
        return topic.startswith(f"{answer_topic(self._line)}/") or topic.partition("/")[0] != "rejectd"

    def _answer(self, asked: _Asked, *, result: Mapping[str, Any] | None = None, error: str = "") -> None:
        name, incoming = asked.name, asked.incoming
        response_topic = incoming.answer_to
        topic = response_topic if response_topic and self._allowed(response_topic) else answer_topic(self._line)
        payload = answer_payload(
            self._line,
            name[:64],
            request_id=request_id(incoming.payload),
            result=result,
            error=error,
            now_unix_ns=time.time_ns(),
        )
        if asked.reply is not None:
            asked.reply(encode(payload))
            return
        self._controls.answer(
            Message(topic=topic, payload=encode(payload), answer=True, correlation=incoming.correlation)
        )

    def _product(self, request: ProductRequest) -> Mapping[str, Any]:
        controls = self._controls
        path = self._bundle_path(request)
        cameras = self._cameras_of(request)
        changeover = controls.changeover.carry_out(request.product, path, cameras, self._stop)
        self._changed += changeover.switched.changed(changeover.model)
        controls.models_changed()
        before = changeover.switched.products
        return {
            "cameras": {camera: {"before": before[camera], "after": request.product} for camera in cameras},
            "bundle": changeover.model.digest,
            "threshold": {
                "before": changeover.switched.before.threshold,
                "after": changeover.threshold.value,
                "calibrated": changeover.model.calibration.threshold,
                "source": changeover.threshold.source,
                "why": changeover.switched.why or None,
            },
            "golden": [_shown(outcome) for outcome in changeover.outcomes],
        }

    def _cameras_of(self, request: ProductRequest) -> tuple[str, ...]:
        """The cameras to change over: those of the request, else those that the product passes already."""
        if request.cameras is not None:
            return self._cameras(request.cameras)
        products = self._controls.pipeline.products
        passed = tuple(name for name in self._controls.settings.cameras if products[name] == request.product)
        if not passed:
            camera_names = ", ".join(self._controls.settings.cameras)
            hint = f"name those that it passes from now on, such as cameras=[{camera_names}]"
            raise RequestError(f"product {request.product} passes no camera now", hint=hint)
        return passed

    def _bundle_path(self, request: ProductRequest) -> Path:
        configured = self._controls.settings.products.get(request.product)
        if configured is None:
            hint = f"known products: {', '.join(self._controls.settings.products)}"
            raise RequestError(f"there is no product {request.product!r}", hint=hint)
        name = request.bundle or self._controls.orders.bundle_name(request.product)
        path = configured.bundle.with_name(name)
        obstacle = trouble.why_not_file(path / "bundle.json")
        if obstacle and obstacle.hint:
            raise RequestError(f"{path} cannot be read: {obstacle.cause}", hint=obstacle.hint)
        if obstacle:
            raise RequestError(f"{path} is not a bundle", hint="copy it there first")
        return path

    def _threshold(self, request: ThresholdRequest) -> Mapping[str, Any]:
        controls = self._controls
        model = self._model(request.product)
        changed = controls.orders.set_threshold(request.product, request.threshold)
        self._changed.append(changed)
        controls.models_changed()
        return {
            "product": request.product,
            "before": changed.before,
            "after": changed.after,
            "calibrated": model.calibration.threshold,
            "doubt": changed.why or None,
        }

    def _pause(self, request: PauseRequest) -> Mapping[str, Any]:
        self._changed += self._controls.orders.pause(self._cameras(request.cameras), request.action)
        return {"paused": sorted(self._controls.pipeline.paused)}

    def _resume(self, request: ResumeRequest) -> Mapping[str, Any]:
        self._changed += self._controls.orders.resume(self._cameras(request.cameras))
        return {"paused": sorted(self._controls.pipeline.paused)}

    def _golden(self, request: GoldenRequest) -> Mapping[str, Any]:
        products = [request.product] if request.product else sorted(set(self._controls.pipeline.products.values()))
        outcomes = [
            outcome
            for product in products
            for outcome in self._controls.golden.challenge(self._model(product), self._stop)
        ]
        result = {"pictures": [_shown(outcome) for outcome in outcomes]}
        if failure := complaint(outcomes, decisions=True):
            raise FailedError(failure, result)
        return result

    def _snapshot(self, request: SnapshotRequest) -> Mapping[str, Any]:
        (camera,) = self._cameras((request.camera,))
        return snapshot(self._controls, camera)

    def _replay(self, request: ReplayRequest) -> Mapping[str, Any]:
        return replay(self._controls, request)

    def _cameras(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        all_cameras = tuple(self._controls.settings.cameras)
        for name in names or ():
            if name not in all_cameras:
                raise RequestError(f"there is no camera {name!r}", hint=f"known cameras: {', '.join(all_cameras)}")
        return all_cameras if names is None else names

    def _model(self, product: str) -> Model:
        models = self._controls.inspector.models
        if product not in models:
            raise RequestError(f"there is no product {product!r}", hint=f"known products: {', '.join(models)}")
        return models[product]

    def _tidy(self) -> None:
        self._controls.changeover.unload()
        if time.monotonic() >= self._save_again_at:
            self._controls.orders.save_again()
            self._save_again_at = time.monotonic() + _SAVE_AGAIN_S


def journalled(changed: Changed, by: str, *, request_id: str | None = None, answer_to: str | None = None) -> Change:
    """A change as the journal keeps it. `by`: the command, or `settings`."""
    return Change(
        at_unix_ns=time.time_ns(),
        what=changed.what,
        of=changed.of,
        before=None if changed.before is None else str(changed.before),
        after=None if changed.after is None else str(changed.after),
        why=changed.why or None,
        by=by,
        request_id=request_id,
        answer_to=answer_to,
    )


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "product": outcome.product,
        "kind": outcome.kind,
        "expected": outcome.expected,
        "score": outcome.score,
        "decision": outcome.decision,
        "latency_ms": outcome.latency_ms,
        "right": outcome.right,
        "good": outcome.good,
    }
