"""Everything that Prometheus scrapes. Names and labels are an interface; a golden file in the tests holds them.

Frames are read from the ledger in one go, so that at every scrape
`sum(rejectd_frames_captured_total) = sum(rejectd_verdicts_total) + sum(rejectd_frames_in_flight)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rejectd.contract.messages import GOLDEN, STREAM_EVENTS, CameraState, Cause, Decision, DriftCause, StreamCounts

if TYPE_CHECKING:
    from collections.abc import Mapping

_LATENCY = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
_STAGE = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_RATIO = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

STAGES = ("prepare", "wait", "inspect", "publish")
CERTIFICATES = ("broker", "client", "authority")
PICTURE_FAULTS = ("black", "saturated", "wrong size", "low contrast", "defocused", "frozen")  # how texts begin
DRIFT_SIGNS = ("score", "brightness", "contrast", "sharpness", "place", "rejects")
SERIES = {"the service": 145, "a camera": 89, "a station": 42, "a product": 24}  # at most; parts never add any


class _Counts(Protocol):
    """The counts of a ledger at one instant."""

    @property
    def captured(self) -> Mapping[str, int]: ...
    @property
    def verdicts(self) -> Mapping[tuple[str, Decision, Cause | None], int]: ...
    @property
    def in_flight(self) -> Mapping[str, int]: ...


class Metrics:
    """The metrics of one service, with a child for each label value from the start."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        cameras: Iterable[str],
        products: Iterable[str],
        snapshot: Callable[[], _Counts],
        stations: Iterable[str] = (),
        parts: Callable[[], _Counts] | None = None,
        views: Callable[[], Mapping[tuple[str, str], int]] = dict,
    ) -> None:
        """`snapshot` counts the frames of cameras, `parts` the parts of stations, `views` what their views came to."""
        cameras, products, stations = tuple(cameras), tuple(products), tuple(stations)
        registry.register(_Ledger(FRAMES, (*cameras, GOLDEN), snapshot))
        if parts:
            registry.register(_Ledger(PARTS, stations, parts))
            registry.register(_Views(views))
        self.stage = Histogram(
            "rejectd_stage_seconds",
            "Time that a frame or batch spends in a stage.",
            ["stage"],
            buckets=_STAGE,
            registry=registry,
        )
        self.latency = Histogram(
            "rejectd_capture_to_publish_seconds",
            "Time from the exposure to the broker's acknowledgement of the verdict.",
            ["camera"],
            buckets=_LATENCY,
            registry=registry,
        )
        self.missed = Counter(
            "rejectd_deadlines_missed",
            "Verdicts that the broker did not have by the frame's deadline.",
            ["camera"],
            registry=registry,
        )
        self.unpublished = Counter(
            "rejectd_verdicts_unpublished",
            "Verdicts never sent: expired while the broker was away, or refused by it.",
            ["camera"],
            registry=registry,
        )
        self.too_large = Counter(
            "rejectd_messages_too_large",
            "Messages larger than the broker takes: shortened, or given up.",
            ["what"],
            registry=registry,
        )
        self.too_late = Counter(
            "rejectd_results_too_late",
            "Results that came after the frame had been answered.",
            ["camera"],
            registry=registry,
        )
        self.batch = Histogram("rejectd_batch_frames", "Frames in a batch.", buckets=_SIZES, registry=registry)
        self.ratio = Histogram(
            "rejectd_score_threshold_ratio",
            "Score of a judged frame as a multiple of the threshold.",
            ["product"],
            buckets=_RATIO,
            registry=registry,
        )
        self.camera_up = Gauge(
            "rejectd_camera_up",
            "1 while the camera delivers pictures or waits for parts.",
            ["camera"],
            registry=registry,
        )
        self.camera_faults = Counter(
            "rejectd_camera_faults", "Times that a camera went down or froze.", ["camera"], registry=registry
        )
        self.unhealthy = Counter(
            "rejectd_pictures_unhealthy",
            "Pictures that show nothing that could be judged; their parts are unjudged (camera_fault).",
            ["camera", "fault"],
            registry=registry,
        )
        self.rewritten = Counter(
            "rejectd_files_rewritten",
            "Files of a watched folder that were written again after their part was shown; they are not judged.",
            ["camera"],
            registry=registry,
        )
        self.not_seen = Counter(
            "rejectd_files_before_start",
            "Pictures that came into a watched folder before the service was up; they are not judged.",
            ["camera"],
            registry=registry,
        )
        self.stream = Counter(
            "rejectd_camera_stream_events",
            "What the stream of a GigE Vision or USB3 Vision camera counted: packets that were sent again or never "
            "came, pictures without a buffer or that came in part. Other cameras stay at 0.",
            ["camera", "event"],
            registry=registry,
        )
        self.broker_connected = Gauge("rejectd_broker_connected", "1 while the broker is connected.", registry=registry)
        self.outbox = Gauge(
            "rejectd_outbox_events", "Defect events that the broker has not acknowledged.", registry=registry
        )
        self.journal_available = Gauge(
            "rejectd_journal_available",
            "1 while the journal can be written; 0 while it cannot be opened, is full, or the disk does not answer.",
            registry=registry,
        )
        self.sacrificed = Counter(
            "rejectd_records_sacrificed",
            "Maps, evidence or journal entries given up under overload or on a full disk.",
            ["what"],
            registry=registry,
        )
        self.bundle = Gauge(
            "rejectd_bundle_info",
            "The bundle in use for a product; always 1.",
            ["product", "digest", "engine", "teacher"],
            registry=registry,
        )
        self.camera_product = Gauge(
            "rejectd_camera_product_info",
            "The product that passes a camera; always 1.",
            ["camera", "product"],
            registry=registry,
        )
        self.threshold = Gauge(
            "rejectd_threshold", "Score above which a part is rejected.", ["product"], registry=registry
        )
        Info("rejectd_build", "Version of the service.", registry=registry).info({"version": version("rejectd")})
        self.recovered = Counter(
            "rejectd_frames_recovered",
            "Frames of an earlier run that was killed, put into the journal at the start.",
            registry=registry,
        )
        self.told = Counter(
            "rejectd_reject_orders",
            "Verdicts that the broker has and that tell the line to reject the part.",
            ["camera"],
            registry=registry,
        )
        self.actuator = Counter(
            "rejectd_actuator_rejects",
            "Parts that the PLC counted as rejected since its first count in this run; there is none without a count.",
            ["camera"],
            registry=registry,
        )
        self.started = Gauge("rejectd_start_time_seconds", "When this run began, in Unix time.", registry=registry)
        self.judging = Gauge(
            "rejectd_judging", "1 while parts are judged: none is overdue, no device hangs.", registry=registry
        )
        self.clock = Gauge(
            "rejectd_clock_synchronised",
            "1 while the system's clock follows a time server, 0 while not, NaN where the service may not ask.",
            registry=registry,
        )
        self.certificate = Gauge(
            "rejectd_certificate_expiry_timestamp_seconds",
            "When a certificate of the TLS connection to the broker ends; 0: there is none, or it was not seen yet.",
            ["certificate"],
            registry=registry,
        )
        self.expected = Counter(
            "rejectd_engine_expected_seconds",
            "Time that the batches so far would have taken if the engine were as fast as when it was warmed up.",
            registry=registry,
        )
        self.drift = Gauge(
            "rejectd_drift",
            "1 while a camera's parts or pictures differ from the calibration for this cause.",
            ["camera", "cause"],
            registry=registry,
        )
        self.drift_evidence = Gauge(
            "rejectd_drift_evidence_ratio",
            "How near a sign of drift is to an alarm (1): logarithm of its evidence by that of its limit.",
            ["camera", "sign"],
            registry=registry,
        )
        self.drift_skipped = Counter(
            "rejectd_drift_frames_skipped",
            "Judged frames that drift did not look at, since too many waited.",
            ["camera"],
            registry=registry,
        )
        self.telemetry_dropped = Counter(
            "rejectd_telemetry_rejects_dropped",
            "Rejects whose trace was not sent, since the OpenTelemetry collector is away, slow, or refuses them.",
            registry=registry,
        )
        self.engine_at_start: Callable[[int], int] = lambda _size: 0  # ns that a batch of a size took then
        for camera, fault in itertools.product(cameras, PICTURE_FAULTS):
            self.unhealthy.labels(camera, fault.replace(" ", "_"))
        self._create_children(cameras, (GOLDEN, *stations), products)

    def camera_state(self, camera: str, state: CameraState) -> None:
        """Note a camera's new state."""
        self.camera_up.labels(camera).set(1 if state is CameraState.UP else 0)
        if state in (CameraState.DOWN, CameraState.DEGRADED):
            self.camera_faults.labels(camera).inc()

    def stream_counted(self, camera: str, counts: StreamCounts) -> None:
        """Note what the stream of a camera counted."""
        for event in STREAM_EVENTS:
            self.stream.labels(camera, event).inc(getattr(counts, event))

    def picture_fault(self, camera: str, fault: str) -> None:
        """Note why a picture cannot be judged, if it shows nothing that could be; other faults are no news of it."""
        kind = fault.partition(":")[0]
        if kind in PICTURE_FAULTS:
            self.unhealthy.labels(camera, kind.replace(" ", "_")).inc()

    def batch_ended(self, frames: int, elapsed_ns: int) -> None:
        """Note a batch that the engine has inspected."""
        self.batch.observe(frames)
        self.stage.labels("inspect").observe(elapsed_ns / 1e9)
        self.expected.inc(self.engine_at_start(frames) / 1e9)

    def _create_children(self, cameras: tuple[str, ...], others: tuple[str, ...], products: tuple[str, ...]) -> None:
        for stage in STAGES:
            self.stage.labels(stage)
        for camera in cameras:
            self._create_children_of(camera)
        for owner in (*cameras, *others):
            if owner != GOLDEN:
                self.told.labels(owner)
            for of_verdicts in (self.latency, self.missed, self.unpublished, self.too_late):
                of_verdicts.labels(owner)
        for product in products:
            self.ratio.labels(product)
            self.threshold.labels(product)
        for label in ("shortened", "given_up"):
            self.too_large.labels(label)
        for label in ("map", "evidence", "journal"):
            self.sacrificed.labels(label)
        for certificate in CERTIFICATES:
            self.certificate.labels(certificate)

    def _create_children_of(self, camera: str) -> None:
        self.camera_up.labels(camera)
        self.camera_faults.labels(camera)
        self.rewritten.labels(camera)
        self.not_seen.labels(camera)
        self.drift_skipped.labels(camera)
        for drift_cause in DriftCause:
            self.drift.labels(camera, drift_cause)
        for sign in DRIFT_SIGNS:
            self.drift_evidence.labels(camera, sign)
        for event in STREAM_EVENTS:
            self.stream.labels(camera, event)


class Names(NamedTuple):
    """The names and meanings of a ledger's three metric families."""

    opened: tuple[str, str]  # name, meaning
    verdicts: tuple[str, str]
    in_flight: tuple[str, str]
    label: str


FRAMES = Names(
    ("rejectd_frames_captured", "Frames captured."),
    ("rejectd_verdicts", "Frames by their one end."),
    ("rejectd_frames_in_flight", "Frames without a verdict yet."),
    "camera",
)
PARTS = Names(
    ("rejectd_parts_seen", "Parts that a station has seen a frame of."),
    ("rejectd_part_verdicts", "Parts by their one end."),
    ("rejectd_parts_in_flight", "Parts without a verdict yet."),
    "station",
)

VIEWS = "rejectd_part_views"


class _Ledger(Collector):
    """Collects the counts of a ledger, all read at one instant."""

    def __init__(self, names: Names, owners: tuple[str, ...], snapshot: Callable[[], _Counts]) -> None:
        self._names = names
        self._owners = owners
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All three families from one snapshot."""
        counts = self._snapshot()
        label = self._names.label
        opened = CounterMetricFamily(*self._names.opened, labels=[label])
        verdicts = CounterMetricFamily(*self._names.verdicts, labels=[label, "decision", "cause"])
        in_flight = GaugeMetricFamily(*self._names.in_flight, labels=[label])
        for owner in self._owners:
            opened.add_metric([owner], counts.captured.get(owner, 0))
            in_flight.add_metric([owner], counts.in_flight.get(owner, 0))
            for decision, cause in _ENDS:
                verdicts.add_metric([owner, decision, cause or ""], counts.verdicts.get((owner, decision, cause), 0))
        yield opened
        yield verdicts
        yield in_flight


class _Views(Collector):
    """Collects the number of views by camera and fate."""

    def __init__(self, views: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        self._views = views

    def collect(self) -> Iterator[Metric]:
        """One family."""
        family = CounterMetricFamily(
            VIEWS,
            "Views of parts: used, decided (came after a reject of the part), late (after its time), surplus (more than"
            " `frames`), missed (not there by its deadline).",
            labels=["camera", "fate"],
        )
        for labels, count in self._views().items():
            family.add_metric(labels, count)
        yield family


_ENDS: tuple[tuple[Decision, Cause | None], ...] = (
    (Decision.PASS, None),
    (Decision.REJECT, None),
    *((Decision.UNJUDGED, cause) for cause in Cause),
)
