"""A publisher by itself: with its thread, an outbox, and a recorder's part of marking what was acknowledged."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from line import LINE
from prometheus_client import CollectorRegistry

from rejectd.contract.messages import Cause, Frame, Policy, Verdict
from rejectd.contract.payloads import defect_payload, defect_topic, encode, line_topic, verdict_payload, will_payload
from rejectd.contract.settings import Commands, Mqtt
from rejectd.decision import unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import Callbacks, Incoming, Message, Publisher
from rejectd.storage.outbox import Entries, NewEvent, Outbox

MS = 1_000_000


USUAL: dict[str, Any] = {"heartbeat_s": 0.2, "retry_max_s": 0.3, "keepalive_s": 1, "commands": Commands.ANONYMOUS}


class Rig:
    """A publisher with its thread, an outbox, and the recorder's part of marking what was acknowledged."""

    def __init__(self, directory: Path, port: int, **settings: Any) -> None:
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        self.metrics = Metrics(
            CollectorRegistry(), cameras=["a", "b"], products=[], snapshot=Ledger("run", margin=Margin(0)).snapshot
        )
        self.acknowledged: list[int] = []
        self.delivered: list[str] = []
        self.took_ns: list[int] = []
        self.heard: list[Incoming] = []
        self._seq = 0
        self._disk = threading.Lock()
        will = Message(topic=line_topic(LINE), payload=encode(will_payload(LINE, "run")), retain=True)
        self.status = will
        self.publisher = Publisher(
            Mqtt(port=port, **{**USUAL, **settings}),
            line=LINE,
            status=lambda _state: self.status,
            will=will,
            outbox=self.outbox.path,
            callbacks=Callbacks(
                delivered=lambda verdict, _now: self.delivered.append(verdict.event_id),
                took=self.took_ns.append,
                acknowledged=self._mark,
                received=self.heard.append,
            ),
            metrics=self.metrics,
        )
        self._threads = [threading.Thread(target=run) for run in (self.publisher.run, self.publisher.read_events)]

    def start(self) -> Rig:
        for thread in self._threads:
            thread.start()
        return self

    def end(self, timeout_s: float = 5.0) -> float:
        """Stop it; returns how long that took."""
        began = time.monotonic()
        self.publisher.stop(timeout_s)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        took_s = time.monotonic() - began
        self.outbox.close()
        return took_s

    @property
    def running(self) -> bool:
        return self._threads[0].is_alive()

    def _mark(self, number: int) -> None:
        self.acknowledged.append(number)
        with self._disk:
            self.outbox.write(Entries(acknowledged=[number]))
        self.publisher.marked([number])

    def frame(self, camera: str, lifetime_ms: int) -> Frame:
        self._seq += 1
        now = time.monotonic_ns()
        return Frame(
            event_id=f"run-{camera}-{self._seq}",
            camera=camera,
            product="cell",
            seq=self._seq,
            captured_ns=now,
            captured_unix_ns=time.time_ns(),
            deadline_ns=now + lifetime_ms * MS,
            policy=Policy.STOP,
            source="",
            pixels=None,
            picture=None,
        )

    def verdict(self, camera: str = "a", *, lifetime_ms: int = 10_000, detail: str = "") -> Verdict:
        """Hand a verdict over."""
        frame = self.frame(camera, lifetime_ms)
        verdict = dataclasses.replace(unjudged(frame, Cause.LATE, time.monotonic_ns()), detail=detail)
        self.publisher.verdict(verdict, encode(verdict_payload(LINE, verdict)))
        return verdict

    def defect(self, camera: str = "a", *, detail: str = "", more: Mapping[str, Any] = MappingProxyType({})) -> str:
        """Put a defect event into the outbox; returns its identity."""
        body = verdict_payload(LINE, unjudged(self.frame(camera, 1000), Cause.LATE, time.monotonic_ns()))
        body["detail"] = detail or body["detail"]
        event = NewEvent(
            event_id=body["event_id"],
            topic=defect_topic(LINE, camera),
            payload={**defect_payload(body, evidence="", regions=[]), **more},
        )
        with self._disk:
            self.outbox.write(Entries(events=[event]))
        self.publisher.more_events()
        return event.event_id

    def unpublished(self) -> int:
        return sum(self.publisher.unpublished.values())


@contextlib.contextmanager
def rigs(directory: Path) -> Iterator[Callable[..., Rig]]:
    """Makes publishers that do not run yet, each in a folder of its own; ends them."""
    made: list[Rig] = []

    def one(port: int, **settings: Any) -> Rig:
        place = directory / f"rig{len(made)}"
        place.mkdir()
        made.append(Rig(place, port, **settings))
        return made[-1]

    yield one
    for rig in made:
        if rig.running:
            rig.end(0.0)
