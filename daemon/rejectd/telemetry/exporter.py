"""Runs the telemetry thread: sends metrics and traces of rejects to a collector. Nothing else waits for it.

Rejects wait in a short queue, from which the oldest go first and are counted. While the collector is away nothing is
kept but that queue, and attempts come at growing intervals.
"""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Protocol

from prometheus_client import CollectorRegistry, Metric

from rejectd.contract.messages import Verdict
from rejectd.contract.settings import Otel as OtelSettings
from rejectd.metrics import Metrics
from rejectd.telemetry.rejects import Reject, reject_of

log = logging.getLogger(__name__)

_WAITING = 256  # rejects
_AT_ONCE = 64  # rejects in a request
_TRACES_S = 1.0  # between two requests with traces
_TIMEOUT_S = 5.0
_RETRY_S = 1.0  # the first pause; each next is twice as long
_RETRY_MOST_S = 60.0
_WRONG = (urllib.error.URLError, http.client.HTTPException, OSError, ValueError)


class Encoding(Protocol):
    """What encoding.py does, which needs the extra `otel`."""

    def metrics_request(
        self, families: Iterable[Metric], resource: Mapping[str, str], started_unix_ns: int, now_unix_ns: int
    ) -> bytes: ...
    def traces_request(self, rejects: Sequence[Reject], resource: Mapping[str, str]) -> bytes: ...


class _Outcome(Enum):
    SENT = "sent"
    REFUSED = "refused for good: the same would be refused again"
    AWAY = "away"


class Exporter:
    """Sends what the service measures. `put` is for any thread, `run` is the life of one."""

    def __init__(
        self,
        settings: OtelSettings,
        registry: CollectorRegistry,
        metrics: Metrics,
        *,
        resource: Mapping[str, str],
        encoding: Encoding,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settings` with an endpoint; `resource` says who sends, `encoding` is encoding.py."""
        self._endpoint = (settings.endpoint or "").rstrip("/")
        self._interval_s = settings.interval_s
        self._registry = registry
        self._metrics = metrics
        self._resource = resource
        self._encoding = encoding
        self._clock = clock
        self._started_unix_ns = time.time_ns()
        self._rejects: deque[Reject] = deque()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._pause_s = 0.0  # after a failure
        self._refused: set[str] = set()  # what the collector does not take, such as traces
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    def put(self, verdict: Verdict, acknowledged_ns: int) -> None:
        """Take a reject that the broker has. Never waits for the collector."""
        reject = reject_of(verdict, acknowledged_ns)
        if reject is None:
            return
        with self._lock:
            self._rejects.append(reject)
            lost = len(self._rejects) - _WAITING
            if lost > 0:
                self._rejects.popleft()
        if lost > 0:
            self._metrics.telemetry_dropped.inc()

    def end(self) -> None:
        """Let `run` send once more what waits, and return."""
        self._ending.set()

    def run(self) -> None:
        """Send until `end`."""
        next_metrics_s = self._clock()
        while not self._ending.wait(max(_TRACES_S, self._pause_s)):
            if not self._send_traces():
                continue
            if self._clock() >= next_metrics_s:
                self._send_metrics()
                next_metrics_s = self._clock() + self._interval_s
        if self._send_traces():
            self._send_metrics()

    def _send_traces(self) -> bool:
        """Send the rejects that wait; True if none is left to be sent."""
        while True:
            with self._lock:
                rejects = [self._rejects.popleft() for _ in range(min(_AT_ONCE, len(self._rejects)))]
            if not rejects:
                return True
            outcome = self._post("traces", self._encoding.traces_request(rejects, self._resource))
            if outcome is _Outcome.AWAY:
                self._put_back(rejects)
                return False
            if outcome is _Outcome.REFUSED:
                self._metrics.telemetry_dropped.inc(len(rejects))

    def _put_back(self, rejects: list[Reject]) -> None:
        with self._lock:
            room = _WAITING - len(self._rejects)
            kept = rejects[len(rejects) - room :] if room < len(rejects) else rejects
            self._rejects.extendleft(reversed(kept))
        self._metrics.telemetry_dropped.inc(len(rejects) - len(kept))

    def _send_metrics(self) -> None:
        """Send the metrics as they are now; those of a failed attempt are not kept, since the next say more."""
        families = self._registry.collect()
        body = self._encoding.metrics_request(families, self._resource, self._started_unix_ns, time.time_ns())
        self._post("metrics", body)

    def _post(self, what: str, body: bytes) -> _Outcome:
        """Send a request."""
        url = f"{self._endpoint}/v1/{what}"
        try:
            request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})  # noqa: S310
            self._direct.open(request, timeout=_TIMEOUT_S).close()  # nobody waits for the rest of an answer
        except urllib.error.HTTPError as error:
            error.close()
            if 400 <= error.code < 500 and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                if what not in self._refused:
                    log.warning("%s: telemetry is refused: answered %d", url, error.code)
                self._refused.add(what)
                return _Outcome.REFUSED
            self._failed(url, f"answered {error.code}")
            return _Outcome.AWAY
        except _WRONG as error:
            self._failed(url, str(error))
            return _Outcome.AWAY
        if self._pause_s:
            log.info("%s: telemetry is taken again", self._endpoint)
        self._pause_s = 0.0
        self._refused.discard(what)
        return _Outcome.SENT

    def _failed(self, url: str, why: str) -> None:
        if not self._pause_s:
            log.warning("%s: telemetry is not taken: %s; trying again at growing intervals", url, why)
        self._pause_s = min(2 * self._pause_s, _RETRY_MOST_S) if self._pause_s else _RETRY_S


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A collector that sends its clients elsewhere is an error: what a plant measures goes where the settings say."""

    def redirect_request(self, *_args: object, **_options: object) -> None:
        return None
