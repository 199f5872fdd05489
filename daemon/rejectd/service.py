"""All threads and their wiring: start, watch over them, drain, stop.

main          signals, systemd's watchdog, supervision
camera:<name> one device
inspect       the model
deadlines     the clock of the ledger
record        journal, outbox, evidence
publish       the broker
metrics       the page for Prometheus
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from prometheus_client import CollectorRegistry, start_http_server

from rejectd import settings_file
from rejectd.batcher import Batcher
from rejectd.declaration import SettingsError
from rejectd.evidence import Evidence
from rejectd.inspector import Inspector, heatmap
from rejectd.ledger import Ledger
from rejectd.messages import Account, RejectdError, encode, line_payload, line_topic, will_payload
from rejectd.metrics import Metrics
from rejectd.mqtt import Message, Publisher
from rejectd.outbox import Outbox
from rejectd.pipeline import Pipeline, Stages
from rejectd.settings import AnyCamera
from rejectd.systemd import log_to_stderr, notify, watchdog_s

log = logging.getLogger(__name__)

_TICK_S = 0.25
_BROKER_S = 2.0  # how long the first pictures wait for the broker at most; without it the line starts all the same


class ServiceError(RejectdError):
    """The service cannot start, or had to give up."""


class Service:
    """One line's service. `run` returns after SIGTERM, SIGINT or, if wished, when every camera has ended."""

    def __init__(self, file: Path, *, until_ended: bool = False) -> None:
        """Read the settings and load the models; nothing runs yet.

        Raises:
            RejectdError: with what to do about it.
        """
        self._file = file
        self._until_ended = until_ended
        self._settings = settings_file.load(file)
        log_to_stderr(self._settings.log_level)
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._died: queue.SimpleQueue[tuple[str, BaseException]] = queue.SimpleQueue()
        self._stop_cameras = threading.Event()
        self._stop_deadlines = threading.Event()
        self._run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._threads: dict[str, threading.Thread] = {}

    def run(self) -> Account:
        """Start everything, serve, drain. Returns the final account.

        Raises:
            RejectdError: if it cannot start, or a thread died.
        """
        with ExitStack() as stack:
            self._catch_signals(stack)
            self._build(stack)
            self._start()
            log.info("ready", extra={"fields": {"line": self._settings.line, "run": self._run_id}})
            notify("READY=1")
            try:
                self._watch()
            finally:
                notify("STOPPING=1")
                self._drain()
        account = self._ledger.snapshot().account
        fields = {
            "captured": account.captured,
            "pass": account.passed,
            "reject": account.rejected,
            "unjudged": account.unjudged,
        }
        log.info("stopped", extra={"fields": fields})
        return account

    def _catch_signals(self, stack: ExitStack) -> None:
        def queue_it(number: int, _frame: FrameType | None) -> None:
            self._signals.put(number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, queue_it))

    def _build(self, stack: ExitStack) -> None:
        settings = self._settings
        state = settings_file.state_directory(settings, self._file)
        margin_ns = settings.mqtt.publish_margin_ms * 1_000_000
        self._ledger = Ledger(self._run_id, margin_ns=margin_ns)
        self._inspector = Inspector(settings.engine, settings.products)
        registry = CollectorRegistry()
        self._metrics = Metrics(
            registry, cameras=settings.cameras, products=settings.products, snapshot=self._ledger.snapshot
        )
        self._show_models()
        outbox = Outbox(
            state / "journal.sqlite",
            keep_ns=int(settings.journal.keep_days * 86_400e9),
            max_bytes=settings.journal.max_mb * 1_000_000,
        )
        stack.callback(outbox.close)
        self._batcher = Batcher(
            settings.cameras,
            max_batch=settings.batch.max_batch,
            max_wait_ns=int(settings.batch.max_wait_ms * 1e6),
            queue_per_camera=settings.batch.queue_per_camera,
            margin_ns=margin_ns,
        )
        for size, elapsed_ns in self._inspector.warm({1, settings.batch.max_batch}).items():
            self._batcher.service_time.learn(size, elapsed_ns)
        self._publisher = Publisher(
            settings.mqtt,
            line=settings.line,
            status=self._status,
            will=Message(
                topic=line_topic(settings.line), payload=encode(will_payload(settings.line, self._run_id)), retain=True
            ),
            outbox=outbox.path,
            acknowledged=lambda event_seq: self._pipeline.acknowledge(event_seq),  # noqa: PLW0108 - not made yet
            metrics=self._metrics,
        )
        stages = Stages(
            ledger=self._ledger,
            batcher=self._batcher,
            inspector=self._inspector,
            publisher=self._publisher,
            outbox=outbox,
            evidence=self._evidence(state),
            metrics=self._metrics,
        )
        self._pipeline = Pipeline(stages, line=settings.line)
        self._serve_metrics(registry, stack)

    def _evidence(self, state: Path) -> Evidence | None:
        evidence = self._settings.evidence
        if not evidence.enabled:
            return None
        directory = evidence.directory or state / "evidence"
        return Evidence(directory, quota_bytes=evidence.quota_mb * 1_000_000, heatmap=heatmap)

    def _serve_metrics(self, registry: CollectorRegistry, stack: ExitStack) -> None:
        where = self._settings.metrics
        try:
            server, thread = start_http_server(where.port, where.host, registry)
        except OSError as error:
            hint = "choose another metrics.port, or stop the program that has it"
            raise ServiceError(f"metrics: {where.host}:{where.port}: {error.strerror}", hint=hint) from error
        thread.name = "metrics"
        stack.callback(server.server_close)
        stack.callback(server.shutdown)

    def _start(self) -> None:
        """Start the threads, the last stage first, so that nothing waits for a stage that is not there."""
        sys.setswitchinterval(0.001)  # a thread that computes gives way to one that must answer
        gc.collect()
        gc.freeze()  # what lives as long as the service need not be searched for garbage while parts pass
        pipeline = self._pipeline
        self._thread("publish", self._publisher.run)
        self._publisher.wait_connected(_BROKER_S)
        self._thread("record", pipeline.record, nice=10)
        self._thread("deadlines", lambda: pipeline.watch_deadlines(self._stop_deadlines))
        self._thread("inspect", pipeline.inspect, nice=5)
        for name, camera in self._settings.cameras.items():
            self._thread(f"camera:{name}", self._capture(name, camera))

    def _capture(self, name: str, camera: AnyCamera) -> Callable[[], None]:
        return lambda: self._pipeline.capture(name, camera, self._stop_cameras)

    def _thread(self, name: str, body: Callable[[], None], *, nice: int = 0) -> None:
        """Start a thread. A nice one leaves the processor to those that answer in time when there is too much to do."""

        def life() -> None:
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + nice)
                body()
            except BaseException as error:
                log.critical("thread %s died", name, exc_info=True)
                self._died.put((name, error))

        self._threads[name] = threading.Thread(target=life, name=name, daemon=True)
        self._threads[name].start()

    def _watch(self) -> None:
        """Wait for a signal, a dead thread or the end of all cameras, and tell systemd of progress."""
        period = watchdog_s()
        next_ping = 0.0
        while True:
            try:
                number = self._signals.get(timeout=_TICK_S)
            except queue.Empty:
                number = 0
            if number == signal.SIGHUP:
                self._reload()
            elif number:
                log.info("stopping", extra={"fields": {"signal": signal.Signals(number).name}})
                return
            if not self._died.empty():
                name, error = self._died.get()
                raise ServiceError(f"thread {name} died: {error}", hint="the log above says where") from error
            if self._until_ended and not self._alive("camera:"):
                log.info("every camera has ended")
                return
            if period and time.monotonic() >= next_ping and self._progressing():
                notify("WATCHDOG=1")
                next_ping = time.monotonic() + period / 3

    def _progressing(self) -> bool:
        """Whether frames get their verdicts: none is overdue, and the device does not hang."""
        now = time.monotonic_ns()
        busy = self._pipeline.busy_since_ns
        if busy is not None and now - busy > self._settings.engine.hang_s * 1e9:
            return False
        return not any(now > frame.deadline_ns for frame in self._ledger.in_flight()[:1])

    def _reload(self) -> None:
        """Take over thresholds and the log level from the file. A file with mistakes changes nothing."""
        notify("RELOADING=1")
        try:
            settings = settings_file.load(self._file)
        except SettingsError as error:
            log.error("settings not reloaded: %s", error)
        else:
            logging.getLogger().setLevel(settings.log_level.upper())
            for product, (before, after) in self._inspector.set_thresholds(settings.products).items():
                log.info("threshold of %s changed", product, extra={"fields": {"before": before, "after": after}})
            self._show_models()
            log.info("settings reloaded: thresholds and log level")
        notify("READY=1")

    def _drain(self) -> None:
        """Stop in the order of a frame's life, in `stop_timeout_s` at most; what is left then ends as `stopping`."""
        end = time.monotonic() + self._settings.stop_timeout_s

        def left(share: float) -> float:
            return max(0.05, (end - time.monotonic()) * share)

        self._stop_cameras.set()
        self._join("camera:", left(0.3))
        self._batcher.close()
        if self._join("inspect", left(0.5)):
            self._ledger.wait_empty(left(0.1))
        self._pipeline.answer_all()
        self._stop_deadlines.set()
        self._ledger.end()
        self._pipeline.wait_recorded(left(0.5))
        self._publisher.stop(left(0.8))
        self._join("publish", left(0.9))
        self._pipeline.end_records()
        if not self._join("record", left(1.0)):
            log.error("the journal was not finished in time")

    def _join(self, prefix: str, timeout_s: float) -> bool:
        """Wait for the threads whose names begin so."""
        until = time.monotonic() + timeout_s
        for name, thread in self._threads.items():
            if name.startswith(prefix):
                thread.join(max(0.0, until - time.monotonic()))
        return not self._alive(prefix)

    def _alive(self, prefix: str) -> bool:
        return any(thread.is_alive() for name, thread in self._threads.items() if name.startswith(prefix))

    def _status(self, state: str) -> Message:
        payload = line_payload(
            self._settings.line,
            run=self._run_id,
            state=state,
            version=version("rejectd"),
            account=self._ledger.snapshot().account,
            unpublished=self._publisher.unpublished,
            now_unix_ns=time.time_ns(),
        )
        return Message(topic=line_topic(self._settings.line), payload=encode(payload), retain=True)

    def _show_models(self) -> None:
        for name, model in self._inspector.models.items():
            self._metrics.bundle.labels(name, model.digest, model.engine, model.teacher).set(1)
            self._metrics.threshold.labels(name).set(model.threshold)
