"""Carries out what the line is asked over MQTT, and answers every request. Who may ask is up to the broker's lists.

Requests come in on `command/<name>` and wait in a short queue; one thread carries them out. The answer goes to the
response topic of the request (MQTT 5), or to `answer` where it names none. What a command changes holds at once, is
kept for the next start, and ends when the settings file is changed.
"""

from __future__ import annotations

import base64
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rejectd.evidence import Evidence, thumbnail
from rejectd.golden import Golden, Outcome, complaint
from rejectd.inspector import Inspector, Model
from rejectd.ledger import Ledger
from rejectd.messages import RejectdError, iso
from rejectd.mqtt import Incoming, Message
from rejectd.outbox import Outbox, Replay
from rejectd.payloads import answer_payload, answer_topic, command_topic, encode
from rejectd.pipeline import Pipeline
from rejectd.recorder import Recorder
from rejectd.requests import (
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
from rejectd.settings import Settings
from rejectd.standing import Order, Standing, StandingFile, configured_bundle, configured_product

log = logging.getLogger(__name__)

_WAITING = 16
_DISK_S = 30.0
_MIXED_S = 5.0  # how long a replaced model is kept at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What commands act on."""

    settings: Settings
    pipeline: Pipeline
    ledger: Ledger
    inspector: Inspector
    golden: Golden
    recorder: Recorder
    outbox: Outbox
    evidence: Evidence | None
    standing: Standing
    standing_file: StandingFile
    answer: Callable[[Message], None]
    more_events: Callable[[], None]
    models_changed: Callable[[], None]


class FailedError(RequestError):
    """A command was carried out, and what came of it is not good."""

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class Commands:
    """`hear` may be called by any thread and never blocks; `run` is one thread's life."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._line = controls.settings.line
        self._waiting: queue.Queue[tuple[str, Incoming] | None] = queue.Queue(maxsize=_WAITING)
        self._stop = threading.Event()
        self._put_away_later: dict[str, float] = {}  # models that a changeover replaced, and when
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
        """Take in a request. It is refused at once if too many wait."""
        name = incoming.topic.removeprefix(command_topic(self._line, ""))
        try:
            self._waiting.put_nowait((name, incoming))
        except queue.Full:
            self._answer(name, incoming, error="too many commands wait; send it again later")

    def stop(self) -> None:
        """Let `run` end soon; requests that wait are answered, but not carried out."""
        self._stop.set()

    def run(self) -> None:
        """The life of the command thread."""
        while True:
            try:
                item = self._waiting.get(timeout=0 if self._stop.is_set() else 0.2)
            except queue.Empty:
                if self._stop.is_set():
                    return
                self._put_away()
                continue
            if item is not None:
                self._serve(*item)

    def _serve(self, name: str, incoming: Incoming) -> None:
        result: Mapping[str, Any] | None = None
        error = ""
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
        log.info("command %s", name, extra={"fields": {"ok": not error, "error": error[:500]}})
        self._answer(name, incoming, result=result, error=error)

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
        """Whether an answer may go there: nobody can have us say something in the place of a verdict."""
        if not topic or any(letter in topic for letter in "+#\0") or topic.startswith("$"):
            return False
        return topic.startswith(f"{answer_topic(self._line)}/") or topic.partition("/")[0] != "rejectd"

    def _answer(
        self, name: str, incoming: Incoming, *, result: Mapping[str, Any] | None = None, error: str = ""
    ) -> None:
        wanted = incoming.answer_to
        topic = wanted if wanted and self._allowed(wanted) else answer_topic(self._line)
        payload = answer_payload(
            self._line,
            name[:64],
            request_id=request_id(incoming.payload),
            result=result,
            error=error,
            now_unix_ns=time.time_ns(),
        )
        self._controls.answer(
            Message(topic=topic, payload=encode(payload), answer=True, correlation=incoming.correlation)
        )

    def _product(self, request: ProductRequest) -> Mapping[str, Any]:
        """Everything that can fail comes before the switch; what was in force stays in force until then."""
        controls = self._controls
        cameras = self._cameras(request.cameras)
        path = self._bundle_path(request)
        loaded_before = {model.key for model in controls.inspector.models.values()}
        model = controls.inspector.load(request.product, path)
        controls.golden.warm(model, controls.settings.batch.max_batch, self._stop)
        outcomes = controls.golden.challenge(model, self._stop)
        if wrong := complaint(outcomes, decisions=False):
            if model.key not in loaded_before:
                self._put_away_later[model.key] = time.monotonic()
            raise RequestError(f"no changeover: {wrong}", hint="the line goes on with what it had")
        before = dict(controls.pipeline.products)
        replaced = controls.inspector.use(model)
        controls.pipeline.products.update(dict.fromkeys(cameras, request.product))
        if replaced and replaced.key != model.key:
            self._put_away_later[replaced.key] = time.monotonic()
        settings, standing = controls.settings, controls.standing
        for camera in cameras:
            standing.products[camera] = Order(request.product, configured_product(settings, camera))
        standing.bundles[request.product] = Order(path.name, configured_bundle(settings, request.product))
        controls.models_changed()
        self._save()
        return {
            "cameras": {camera: {"before": before[camera], "after": request.product} for camera in cameras},
            "bundle": model.digest,
            "golden": [_shown(each) for each in outcomes],
        }

    def _bundle_path(self, request: ProductRequest) -> Path:
        configured = self._controls.settings.products.get(request.product)
        if configured is None:
            known = f"known products: {', '.join(self._controls.settings.products)}"
            raise RequestError(f"there is no product {request.product!r}", hint=known)
        standing = self._controls.standing.bundles.get(request.product)
        name = request.bundle or (str(standing.value) if standing else configured.bundle.name)
        path = configured.bundle.with_name(name)
        if not (path / "bundle.json").is_file():
            raise RequestError(f"{path} is not a bundle", hint="copy it there first")
        return path

    def _threshold(self, request: ThresholdRequest) -> Mapping[str, Any]:
        controls = self._controls
        model = self._model(request.product)
        before, after = controls.inspector.set_threshold(request.product, request.threshold)
        controls.standing.thresholds.pop(request.product, None)
        if request.threshold is not None:
            configured = controls.inspector.configured_threshold(request.product)
            controls.standing.thresholds[request.product] = Order(request.threshold, configured)
        controls.models_changed()
        self._save()
        calibrated = model.calibration.threshold
        return {"product": request.product, "before": before, "after": after, "calibrated": calibrated}

    def _pause(self, request: PauseRequest) -> Mapping[str, Any]:
        controls = self._controls
        for camera in self._cameras(request.cameras):
            controls.pipeline.paused[camera] = request.action
            controls.standing.paused[camera] = Order(request.action, None)
        self._save()
        return {"paused": sorted(controls.pipeline.paused)}

    def _resume(self, request: ResumeRequest) -> Mapping[str, Any]:
        controls = self._controls
        for camera in self._cameras(request.cameras):
            controls.pipeline.paused.pop(camera, None)
            controls.standing.paused.pop(camera, None)
        self._save()
        return {"paused": sorted(controls.pipeline.paused)}

    def _golden(self, request: GoldenRequest) -> Mapping[str, Any]:
        products = [request.product] if request.product else sorted(set(self._controls.pipeline.products.values()))
        outcomes = [
            outcome
            for product in products
            for outcome in self._controls.golden.challenge(self._model(product), self._stop)
        ]
        result = {"pictures": [_shown(each) for each in outcomes]}
        if wrong := complaint(outcomes, decisions=True):
            raise FailedError(wrong, result)
        return result

    def _snapshot(self, request: SnapshotRequest) -> Mapping[str, Any]:
        controls = self._controls
        (camera,) = self._cameras((request.camera,))
        picture = controls.pipeline.latest.get(camera)
        if picture is None or picture.pixels is None:
            fault = picture.fault if picture else "no picture yet"
            raise RequestError(f"camera {camera}: {fault}", hint="try again when a part has passed")
        evidence, pixels = controls.evidence, picture.pixels
        kept = controls.recorder.ask(lambda: evidence.snapshot(camera, picture), _DISK_S) if evidence else None
        height, width = pixels.shape[:2]
        return {
            "camera": camera,
            "captured_at": iso(picture.captured_unix_ns),
            "source": picture.source or None,
            "width": width,
            "height": height,
            "evidence": kept or None,
            "jpeg": base64.b64encode(thumbnail(pixels)).decode(),
        }

    def _replay(self, request: ReplayRequest) -> Mapping[str, Any]:
        controls = self._controls
        given = {
            "from_seq": request.from_seq,
            "to_seq": request.to_seq,
            "since_unix_ns": _unix_ns(request.since),
            "until_unix_ns": _unix_ns(request.until),
        }
        bounds = {name: value for name, value in given.items() if value is not None}
        if not bounds:
            raise RequestError("which events?", hint="give from_seq, to_seq, since or until")
        count, first, last = controls.recorder.ask(lambda: controls.outbox.replay(Replay(**bounds)), _DISK_S)
        controls.more_events()
        return {"events": count, "from_seq": first, "to_seq": last}

    def _cameras(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        known = tuple(self._controls.settings.cameras)
        for name in names or ():
            if name not in known:
                raise RequestError(f"there is no camera {name!r}", hint=f"known cameras: {', '.join(known)}")
        return known if names is None else names

    def _model(self, product: str) -> Model:
        models = self._controls.inspector.models
        if product not in models:
            raise RequestError(f"there is no product {product!r}", hint=f"known products: {', '.join(models)}")
        return models[product]

    def _save(self) -> None:
        try:
            self._controls.standing_file.save(self._controls.standing)
        except OSError as error:
            log.error("a command is in force, but will not outlive a restart: %s", os.strerror(error.errno or 0))

    def _put_away(self) -> None:
        """Forget models that a changeover replaced, once no frame that is under way names them."""
        old = time.monotonic() - _MIXED_S
        for key in [key for key, since in self._put_away_later.items() if since < old]:
            if all(frame.model != key for frame in self._controls.ledger.in_flight()):
                del self._put_away_later[key]
                self._controls.inspector.put_away(key)


def _shown(outcome: Outcome) -> dict[str, Any]:
    return {
        "product": outcome.product,
        "kind": outcome.kind,
        "expected": outcome.expected,
        "score": outcome.score,
        "decision": outcome.decision,
        "latency_ms": outcome.latency_ms,
        "good": outcome.good,
    }


def _unix_ns(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        unix_ns = round(datetime.fromisoformat(text).timestamp() * 1e6) * 1000
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{text!r} is not a time", hint="give one such as 2026-11-25T06:00Z") from error
    return max(0, min(unix_ns, 2**63 - 1))
