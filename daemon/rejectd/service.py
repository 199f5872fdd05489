"""All threads and their wiring: start, watch over them, drain, stop.

main          signals, systemd's watchdog, supervision
camera:<name> reads and checks the pictures of one camera; its `:device` thread waits for exposures
inspect       batches for the device, which the inspector's own threads (`device`, `lane0`, ...) compute
verdicts      what the device has judged becomes a verdict
deadlines     the clock of the ledger; `parts` that of the stations
commands      what the line is asked over MQTT
record        journal, outbox, evidence
drift         whether parts, process, light or lens have changed
telemetry     metrics and traces for an OpenTelemetry collector, where one is named
events        what the outbox holds for the broker
in-flight     the in-flight file, where it cannot lie in memory
log           stderr, which may be a file on a disk
publish       the broker
metrics       the page for Prometheus
page          the local socket that the operator's page asks
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
from pathlib import Path

from prometheus_client import CollectorRegistry

from rejectd.contract import regions, settings_changes, settings_file
from rejectd.contract.messages import Account, RejectdError
from rejectd.contract.settings import AnyCamera
from rejectd.line import Line
from rejectd.process.metrics_server import MetricsServer
from rejectd.process.signals import Signals
from rejectd.process.systemd import log_to_stderr, notify, raise_file_limit, watchdog_s
from rejectd.storage.in_flight_file import WrittenFile

log = logging.getLogger(__name__)

_TICK_S = 0.25
_DISK_S = 5.0  # how long the first pictures wait for the journal at most
_BROKER_S = 2.0  # how long the first pictures wait for the broker at most; without it the line starts all the same


class ServiceError(RejectdError):
    """The service cannot start, or had to give up."""


class Service:
    """The service of one line. `run` returns after SIGTERM or SIGINT, or, if wanted, when every camera has ended."""

    def __init__(self, file: Path, signals: Signals, *, until_ended: bool = False) -> None:
        """Read the settings and load the models; nothing runs yet.

        Raises:
            RejectdError: with what to do about it.
        """
        self._file = file
        self._until_ended = until_ended
        self._settings = settings_file.load(file)
        log_to_stderr(self._settings.log_level)
        self._signals = signals
        self._died: queue.SimpleQueue[tuple[str, BaseException]] = queue.SimpleQueue()
        self._stop_cameras = threading.Event()
        self._stop_deadlines = threading.Event()
        self._run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self._threads: dict[str, threading.Thread] = {}

    def run(self) -> Account:
        """Start everything, serve, drain. Returns the final account.

        Raises:
            RejectdError: if the service cannot start, or a thread died.
        """
        with ExitStack() as stack:
            raise_file_limit()
            self._build(stack)
            self._signals.ready()
            self._start()
            log.info("ready", extra={"fields": {"line": self._settings.line, "run": self._run_id}})
            notify("READY=1\nSTATUS=Inspecting")
            try:
                self._watch()
            finally:
                notify("STOPPING=1")
                self._drain()
        account = self._line.ledger.snapshot().account
        fields = {
            "captured": account.captured,
            "pass": account.passed,
            "reject": account.rejected,
            "unjudged": account.unjudged,
        }
        log.info("stopped", extra={"fields": fields})
        return account

    def _build(self, stack: ExitStack) -> None:
        self._line = Line(self._settings, self._file, self._run_id, stack)
        self._serve_metrics(self._line.registry, stack)

    def _serve_metrics(self, registry: CollectorRegistry, stack: ExitStack) -> None:
        where = self._settings.metrics
        try:
            self._metrics = MetricsServer(where.host, where.port, registry)
        except OSError as error:
            hint = "choose another metrics.port, or stop the program that has it"
            raise ServiceError(f"metrics: {where.host}:{where.port}: {error.strerror}", hint=hint) from error
        stack.callback(self._metrics.close)

    def _start(self) -> None:
        """Start the threads, the last stage first, so that nothing waits for a stage that is not there."""
        sys.setswitchinterval(0.0005)  # a thread that computes gives way to one that must answer
        gc.collect()
        gc.freeze()  # what lives as long as the service need not be searched for garbage while parts pass
        line = self._line
        if isinstance(line.inflight, WrittenFile):
            self._thread("in-flight", line.inflight.run, nice=10)
        self._thread("record", line.recorder.run, nice=10)
        self._thread("events", line.publisher.read_events, nice=10)
        self._thread("publish", line.publisher.run)
        line.publisher.wait_connected(_BROKER_S)
        self._thread("metrics", self._metrics.run, nice=10)
        if not line.recorder.tried.wait(_DISK_S):
            log.error("the journal is not open yet: the disk has not answered; the line starts without it")
        self._thread("deadlines", lambda: line.pipeline.watch_deadlines(self._stop_deadlines))
        if self._settings.stations:
            self._thread("parts", lambda: line.pipeline.watch_parts(self._stop_deadlines))
        self._thread("verdicts", line.pipeline.decide)
        self._thread("inspect", line.pipeline.inspect)
        self._thread("drift", line.drift.run, nice=10)
        if line.telemetry:
            self._thread("telemetry", line.telemetry.run, nice=10)
        self._thread("commands", line.commands.run, nice=10)
        if line.page:
            self._thread("page", line.page.run, nice=10)
        for name, camera in regions.resolved(self._settings.cameras).items():
            self._thread(f"camera:{name}", self._capture(name, camera))

    def _capture(self, name: str, camera: AnyCamera) -> Callable[[], None]:
        return lambda: self._line.pipeline.capture(name, camera, self._stop_cameras)

    def _thread(self, name: str, body: Callable[[], None], *, nice: int = 0) -> None:
        """Start a thread. Under load, a nice thread leaves the processor to those that must answer in time."""

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
            number = self._signals.get(_TICK_S)
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
            if period and time.monotonic() >= next_ping and self._line.progressing:
                notify("WATCHDOG=1")
                next_ping = time.monotonic() + period / 3

    def _reload(self) -> None:
        """Take over thresholds and the log level from the file. A file with mistakes changes nothing."""
        notify("RELOADING=1")
        try:
            settings = settings_file.load(self._file)
            changed = self._line.reconfigure(settings)
        except RejectdError as error:
            log.error("settings not reloaded: %s", error)
        else:
            logging.getLogger().setLevel(settings.log_level.upper())
            for product, (before, after) in changed.items():
                log.info("threshold of %s changed", product, extra={"fields": {"before": before, "after": after}})
            log.info("settings reloaded: thresholds and log level")
            for key, (old, new) in settings_changes.needing_restart(self._settings, settings).items():
                log.warning("%s changed, which needs a restart", key, extra={"fields": {"before": old, "after": new}})
        notify("READY=1")

    def _drain(self) -> None:
        """Stop the stages in the order of a frame's life, within `stop_timeout_s`. Frames left end as `stopping`."""
        end = time.monotonic() + self._settings.stop_timeout_s

        def left(share: float) -> float:
            return max(0.05, (end - time.monotonic()) * share)

        line = self._line
        self._stop_cameras.set()
        line.commands.stop()
        if line.page:
            line.page.close()
        self._join("camera:", left(0.3))
        line.batcher.close()
        if self._join("inspect", left(0.5)) and self._join("verdicts", left(0.1)):
            line.ledger.wait_empty(left(0.1))
        line.pipeline.answer_all()
        self._stop_deadlines.set()
        line.ledger.end()
        line.stations.ledger.end()
        line.drift.end()
        self._join("commands", left(0.1))
        if not line.recorder.problem:  # else the last attempt comes with its end
            line.recorder.wait(left(0.5))
        line.publisher.stop(left(0.8))
        self._join("publish", left(0.9))
        if line.telemetry:
            line.telemetry.end()
        line.recorder.end()
        if not self._join("record", left(1.0)):
            log.error("the journal was not finished in time")
        if not self._join("drift", left(0.5)):
            log.warning("what drift has learnt was not kept in time")
        self._join("telemetry", left(0.5))

    def _join(self, prefix: str, timeout_s: float) -> bool:
        """Wait for the threads whose names begin with a prefix. Returns whether they have ended."""
        until = time.monotonic() + timeout_s
        for name, thread in self._threads.items():
            if name.startswith(prefix):
                thread.join(max(0.0, until - time.monotonic()))
        return not self._alive(prefix)

    def _alive(self, prefix: str) -> bool:
        return any(thread.is_alive() for name, thread in self._threads.items() if name.startswith(prefix))
