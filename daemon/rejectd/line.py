"""Builds the stages of one line from the settings and connects them. service.py runs the threads."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry

from rejectd.batching.batcher import Batcher
from rejectd.cameras import driver
from rejectd.cameras.shared import Shared
from rejectd.contract import local_socket, regions, settings_file
from rejectd.contract.messages import GOLDEN, CameraState, Policy, Verdict
from rejectd.contract.payloads import LineStatus, actuator_topic, encode, line_payload, line_topic, will_payload
from rejectd.contract.settings import Settings
from rejectd.control.actuator_counts import ActuatorCounts
from rejectd.control.changeover import Changeover
from rejectd.control.commands import Commands, journalled
from rejectd.control.controls import Controls
from rejectd.control.orders import Orders
from rejectd.control.page_socket import PageSocket
from rejectd.control.page_view import PageView
from rejectd.control.self_test import GoldenCheck
from rejectd.control.standing_orders import StandingFile
from rejectd.drift.watcher import DriftWatcher
from rejectd.inspector import Inspector, check_depth, heatmap
from rejectd.judging import Judged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import Callbacks, Incoming, Message, Publisher, certificates
from rejectd.pipeline import Pipeline, Stages
from rejectd.process.clock import clock_synchronised
from rejectd.process.systemd import starting
from rejectd.stations import Stations
from rejectd.storage.evidence import Evidence
from rejectd.storage.in_flight_file import in_flight_file
from rejectd.storage.last_run import last_capture_unix_ns
from rejectd.storage.outbox import Delivery, Outbox, captured_unix_ns
from rejectd.storage.picture_budget import Memory
from rejectd.storage.recorder import Recorder
from rejectd.storage.state_folders import Claim
from rejectd.telemetry import exporter

log = logging.getLogger(__name__)

_VERSION = version("rejectd")  # read from a file
_DISK_S = 5.0  # how long a start waits for the disk of the state directory


class Line:
    """The stages of one line. An exit stack closes everything that they own."""

    def __init__(self, settings: Settings, file: Path, run: str, stack: ExitStack) -> None:
        """Load the models, and read what a killed run left. The record thread opens files for which a disk may be slow.

        Raises:
            RejectdError: with what to do about it.
        """
        self.settings = settings
        self.run = run
        state = settings_file.state_directory(settings, file)
        margin = Margin(settings.mqtt.publish_margin_ms * 1_000_000)
        claim = Claim(state)
        stack.callback(claim.close)
        claim.ensure_within(_DISK_S)
        self.inflight = in_flight_file(state, line=settings.line)
        stack.callback(self.inflight.close)
        outbox = self._outbox(state, claim)
        self.ledger = Ledger(run, margin=margin, book=self.inflight)
        cameras = regions.resolved(settings.cameras)
        numbered = [name for name, camera in cameras.items() if camera.numbered]
        self.stations = Stations(settings.stations, Ledger(run, margin=margin, book=self.inflight), numbered=numbered)
        self.orders = Orders(settings, StandingFile(state / "standing.json"))
        self.inspector = Inspector(settings.engine, self.orders.products())
        stack.callback(self.inspector.close)
        for name, camera in cameras.items():
            check_depth(name, camera, self.inspector.models[camera.product])
        self.orders.judge(self.inspector)
        self.registry = CollectorRegistry()
        self.metrics = self._metrics()
        self.batcher = self._batcher()
        self.publisher = Publisher(
            settings.mqtt,
            line=settings.line,
            status=self.status,
            will=Message(
                topic=line_topic(settings.line), payload=encode(will_payload(settings.line, run)), retain=True
            ),
            outbox=outbox.path,
            callbacks=Callbacks(
                delivered=self._delivered,
                took=margin.learn,
                acknowledged=lambda number: self.recorder.note(number),  # noqa: PLW0108 - not made yet
                received=self._received,
                damaged=lambda: self.recorder.suspect(),  # noqa: PLW0108 - not made yet
            ),
            metrics=self.metrics,
        )
        evidence = self._evidence(state)
        self.memory = Memory(settings.memory_mb * 1_000_000)
        self.recorder = Recorder(
            settings.line,
            outbox=outbox,
            evidence=evidence,
            inflight=self.inflight,
            memory=self.memory,
            metrics=self.metrics,
            more_events=self.publisher.more_events,
            marked=self.publisher.marked,
        )
        self._take_up()
        loaded = self.inspector.loaded
        self.drift = DriftWatcher(settings.drift, state / "drift", loaded=loaded, metrics=self.metrics)
        about = {"line": settings.line, "run": run, "version": _VERSION}
        self.telemetry = exporter(settings.otel, self.registry, self.metrics, **about)
        self.pipeline = self._pipeline(state)
        self.orders.move(self.pipeline)
        self.golden = GoldenCheck(self.ledger, self.pipeline)
        self.commands = Commands(
            Controls(
                settings=settings,
                pipeline=self.pipeline,
                inspector=self.inspector,
                golden=self.golden,
                changeover=Changeover(self.inspector, self.golden, self.ledger, self.orders, settings.batch.max_batch),
                orders=self.orders,
                recorder=self.recorder,
                outbox=outbox,
                evidence=evidence,
                answer=self.publisher.answer,
                largest_packet=self.publisher.largest_packet,
                more_events=self.publisher.more_events,
                models_changed=self.show_models,
            )
        )
        self.page = self._page(state) if settings.page.enabled else None
        if not settings.mqtt.hears_commands:
            log.warning("no commands are taken: %s", settings.mqtt.no_commands)
        self.actuators = ActuatorCounts(self.metrics, self.recorder.note)
        self.show_models()
        self.metrics.started.set(time.time())
        self.metrics.judging.set_function(lambda: self.judging)
        self.metrics.clock.set_function(clock_synchronised)
        certificates.show_files(settings.mqtt, self.metrics)

    @property
    def judging(self) -> bool:
        """Whether parts are judged: the line makes progress, and does not answer `unjudged` most of the time."""
        return self.progressing and self.pipeline.judged.going_on

    @property
    def progressing(self) -> bool:
        """Whether frames get their verdicts: none is overdue, and the device does not hang. Else a restart may help."""
        now = time.monotonic_ns()
        busy = self.pipeline.inspecting.busy_since_ns
        if busy is not None and now - busy > self.settings.engine.hang_s * 1e9:
            return False
        return not any(now > frame.deadline_ns for frame in self.ledger.in_flight()[:1])

    def status(self, state: str) -> Message:
        """The line's retained status."""
        now = time.time_ns()
        parts = self.stations.ledger.snapshot().account if self.settings.stations else None
        unpublished = sum(list(self.publisher.unpublished.values()))  # of stations too: their gateways look at it
        status = LineStatus(
            run=self.run,
            version=_VERSION,
            account=self.ledger.snapshot().account,
            parts=parts,
            unpublished=unpublished,
            judging=self.judging,
            problems=self._problems(),
            products=self.pipeline.products,
            paused=sorted(self.pipeline.paused),
        )
        payload = line_payload(self.settings.line, state, status, now)
        return Message(topic=line_topic(self.settings.line), payload=encode(payload), retain=True)

    def show_models(self) -> None:
        """Put the models in force into the metrics."""
        self.metrics.bundle.clear()
        self.metrics.camera_product.clear()
        for camera, product in self.pipeline.products.items():
            self.metrics.camera_product.labels(camera, product).set(1)
        for name, model in self.inspector.models.items():
            self.metrics.bundle.labels(name, model.digest, model.engine, model.teacher).set(1)
            self.metrics.threshold.labels(name).set(model.threshold)

    def reconfigure(self, settings: Settings) -> dict[str, tuple[float, float]]:
        """Take over thresholds from changed settings. Returns what changed: product to (before, after).

        Raises:
            ThresholdError: if one of them is unlikely to be meant for the bundle in force; nothing has changed then.
        """
        changes = self.orders.reconfigure(settings.products)
        for changed in changes:
            self.recorder.note(journalled(changed, "settings"))
        self.show_models()
        models = self.inspector.models
        return {changed.of: (float(changed.before or 0), models[changed.of].threshold) for changed in changes}

    def _problems(self) -> list[str]:
        states = self.pipeline.states.items()
        problems = [
            f"camera {name} is {status.state}: {status.reason}"
            for name, status in sorted(states)
            if status.state in (CameraState.DOWN, CameraState.DEGRADED)
        ]
        problems += self.pipeline.judged.problems() + self.stations.problems() + self.orders.problems()
        return problems + self.drift.problems() + self.recorder.problems + self.publisher.problems()

    def _delivered(self, verdict: Verdict, now_ns: int) -> None:
        elapsed_ms = round((now_ns - verdict.captured_ns) / 1e6, 3)
        self.recorder.note(Delivery(event_id=verdict.event_id, acknowledged_ms=elapsed_ms))
        if verdict.camera == GOLDEN:
            self.golden.delivered(verdict, now_ns)
        elif verdict.action is Policy.REJECT:
            self.metrics.told.labels(verdict.camera).inc()
            if self.telemetry:
                self.telemetry.put(verdict, now_ns)

    def _received(self, incoming: Incoming) -> None:
        for camera in (*self.settings.cameras, *self.settings.stations):
            if incoming.topic == actuator_topic(self.settings.line, camera):
                self.actuators.take(camera, incoming)
                return
        if "/command/" in incoming.topic and self.settings.mqtt.hears_commands:
            self.commands.hear(incoming)

    def _outbox(self, state: Path, claim: Claim) -> Outbox:
        journal = self.settings.journal
        return Outbox(
            state / "journal.sqlite",
            keep_ns=int(journal.keep_days * 86_400e9),
            max_bytes=journal.max_mb * 1_000_000,
            claim=claim.ensure,
        )

    def _take_up(self) -> None:
        """Hand the verdicts that a killed run left to the recorder; frames that were in flight end as `stopping`."""
        verdicts = self.inflight.left
        self.metrics.recovered.inc(len(verdicts))
        if verdicts:
            log.warning("an earlier run was killed: %d of its frames go into the journal now", len(verdicts))
        self.recorder.take_up(verdicts)

    def _metrics(self) -> Metrics:
        return Metrics(
            self.registry,
            cameras=self.settings.cameras,
            products=self.settings.products,
            snapshot=self.ledger.snapshot,
            stations=self.settings.stations,
            parts=self.stations.ledger.snapshot,
            views=self.stations.views,
        )

    def _batcher(self) -> Batcher:
        batch = self.settings.batch
        batcher = Batcher(
            [*self.settings.cameras, GOLDEN],
            max_batch=batch.max_batch,
            max_wait_ns=int(batch.max_wait_ms * 1e6),
            queue_per_camera=batch.queue_per_camera,
        )
        starting(f"warming the engine up with batches of 1 and {batch.max_batch}")
        for size, elapsed_ns in self.inspector.warm({1, batch.max_batch}).items():
            batcher.service_time.learn(size, elapsed_ns)
        self.metrics.engine_at_start = batcher.service_time.as_now()
        return batcher

    def _evidence(self, state: Path) -> Evidence | None:
        evidence = self.settings.evidence
        if not evidence.enabled:
            return None
        directory = evidence.directory or state / "evidence"
        return Evidence(directory, quota_bytes=evidence.quota_mb * 1_000_000, heatmap=heatmap)

    def _page(self, state: Path) -> PageSocket:
        view = PageView(
            self.settings,
            pipeline=self.pipeline,
            inspector=self.inspector,
            commands=self.commands,
            status=lambda: self.status("online").payload,
            heatmap=heatmap,
        )
        return PageSocket(state / local_socket.NAME, view.answer, user=self.settings.page.user)

    def _pipeline(self, state: Path) -> Pipeline:
        stages = Stages(
            ledger=self.ledger,
            batcher=self.batcher,
            inspector=self.inspector,
            stations=self.stations,
            publisher=self.publisher,
            recorder=self.recorder,
            memory=self.memory,
            metrics=self.metrics,
            drift=self.drift.put,
        )
        products = {name: camera.product for name, camera in self.settings.cameras.items()}
        in_stations = {camera for station in self.settings.stations.values() for camera in station.cameras}
        alone = [camera for camera in self.settings.cameras if camera not in in_stations]
        judged = Judged(self.settings.judging, alone, self.settings.stations)
        inspected = [last_capture_unix_ns(state / "journal.sqlite"), *map(captured_unix_ns, self.inflight.left)]
        since_unix_ns = max((instant for instant in inspected if instant is not None), default=None)
        shared = Shared(self.settings.cameras, partial(driver, since_unix_ns=since_unix_ns))
        return Pipeline(stages, line=self.settings.line, products=products, judged=judged, opener=shared.driver)
