"""rejectd.metrics: what Prometheus scrapes. metrics.golden holds the whole page; it is an interface."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from peers import need_peer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from rejectd.contract.messages import CameraState, Cause, Decision, Exposure, Policy, Verdict
from rejectd.decision import unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import CERTIFICATES, SERIES, STAGES, Metrics
from rejectd.stations import Fate

GOLDEN = Path(__file__).with_name("metrics.golden")


class Line:
    """The ledger and the metrics of one line, and the page that Prometheus gets."""

    def __init__(self, cameras: tuple[str, ...] = ("left", "right")) -> None:
        self.ledger, self.parts = Ledger("run", margin=Margin(0)), Ledger("run", margin=Margin(0))
        self.registry = CollectorRegistry()
        self.metrics = Metrics(
            self.registry,
            cameras=cameras,
            products=["cell"],
            snapshot=self.ledger.snapshot,
            stations=["gate"],
            parts=self.parts.snapshot,
            views=lambda: {("left", "used"): 3, ("right", "missed"): 1},
        )

    def frame(self, camera: str, decision: Decision | None, cause: Cause | None = None) -> None:
        """One frame; in flight if there is no decision."""
        picture = Exposure(captured_ns=0, captured_unix_ns=0)
        frame = self.ledger.open(
            picture, camera=camera, product="cell", policy=Policy.REJECT, deadline_ns=1, pixels=None
        )
        if decision is Decision.UNJUDGED:
            assert cause
            assert self.ledger.close(unjudged(frame, cause, 0))
        elif decision:
            verdict = Verdict(
                event_id=frame.event_id,
                camera=camera,
                product="cell",
                seq=frame.seq,
                captured_ns=0,
                captured_unix_ns=0,
                deadline_ns=1,
                decided_ns=0,
                decision=decision,
                policy=Policy.REJECT,
            )
            assert self.ledger.close(verdict)

    def page(self) -> str:
        return generate_latest(self.registry).decode()


def normalised(page: str) -> str:
    """Without what differs from run to run: the version, and when a metric was created."""
    page = re.sub(r'(rejectd_build_info\{version=)"[^"]+"', r'\1"VERSION"', page)
    return re.sub(r"^(\w+_created(?:\{.*\})?) .*$", r"\1 TIME", page, flags=re.MULTILINE)


def test_the_whole_page_is_that_of_the_golden_file() -> None:
    line = Line()
    for decision, cause in (
        (Decision.PASS, None),
        (Decision.REJECT, None),
        (Decision.UNJUDGED, Cause.LATE),
        (None, None),
    ):
        line.frame("left", decision, cause)
    line.frame("right", Decision.PASS)
    part = Exposure(captured_ns=0, captured_unix_ns=0)
    line.parts.open(part, camera="gate", product="cell", policy=Policy.STOP, deadline_ns=1)
    metrics = line.metrics
    metrics.latency.labels("left").observe(0.0625)
    metrics.missed.labels("left").inc()
    metrics.unpublished.labels("left").inc()
    metrics.too_late.labels("right").inc(2)
    metrics.engine_at_start = lambda frames: 2_000_000 * frames
    metrics.batch_ended(4, 12_500_000)
    metrics.ratio.labels("cell").observe(1.0)
    metrics.camera_state("left", CameraState.UP)
    metrics.camera_state("right", CameraState.DOWN)
    metrics.rewritten.labels("left").inc(2)
    metrics.not_seen.labels("right").inc(3)
    metrics.broker_connected.set(1)
    metrics.outbox.set(3)
    metrics.sacrificed.labels("evidence").inc()
    metrics.recovered.inc(2)
    metrics.started.set(1.7e9)
    metrics.judging.set(1)
    metrics.clock.set(1)
    metrics.certificate.labels("broker").set(1.8e9)
    metrics.bundle.labels("cell", "abc", "torch-cpu-float32", "efficientnet_lite0").set(1)
    metrics.camera_product.labels("left", "cell").set(1)
    metrics.told.labels("left").inc(2)
    metrics.actuator.labels("left").inc(1)
    metrics.threshold.labels("cell").set(0.5)
    metrics.drift.labels("left", "dirt").set(1)
    metrics.drift_evidence.labels("left", "place").set(1.25)
    metrics.drift_skipped.labels("right").inc(4)
    metrics.telemetry_dropped.inc(5)
    assert normalised(line.page()) == GOLDEN.read_text(), (
        "an interface: change the dashboards and alerts, then this file"
    )


def test_every_series_is_there_from_the_start() -> None:
    page = Line().page()
    for camera in ("left", "right"):
        assert f'rejectd_frames_captured_total{{camera="{camera}"}} 0.0' in page
        assert f'rejectd_frames_in_flight{{camera="{camera}"}} 0.0' in page
        for name in ("deadlines_missed", "verdicts_unpublished", "results_too_late", "camera_faults"):
            assert f'rejectd_{name}_total{{camera="{camera}"}} 0.0' in page
        assert f'rejectd_capture_to_publish_seconds_count{{camera="{camera}"}} 0.0' in page
        for cause in Cause:
            assert f'rejectd_verdicts_total{{camera="{camera}",cause="{cause}",decision="unjudged"}} 0.0' in page
    for stage in STAGES:
        assert f'rejectd_stage_seconds_count{{stage="{stage}"}} 0.0' in page
    assert 'rejectd_score_threshold_ratio_count{product="cell"} 0.0' in page


def test_known_pictures_and_parts_have_their_series_from_the_start_too() -> None:
    page = Line().page()
    assert 'rejectd_frames_captured_total{camera="golden"} 0.0' in page
    assert 'rejectd_parts_seen_total{station="gate"} 0.0' in page
    assert 'rejectd_parts_in_flight{station="gate"} 0.0' in page
    for cause in Cause:
        assert f'rejectd_part_verdicts_total{{cause="{cause}",decision="unjudged",station="gate"}} 0.0' in page
    for owner in ("golden", "gate"):
        for name in ("deadlines_missed", "verdicts_unpublished", "results_too_late"):
            assert f'rejectd_{name}_total{{camera="{owner}"}} 0.0' in page
        assert f'rejectd_camera_up{{camera="{owner}"}}' not in page, "it is no camera"
    for what in ("map", "evidence", "journal"):
        assert f'rejectd_records_sacrificed_total{{what="{what}"}} 0.0' in page
    assert "rejectd_frames_recovered_total 0.0" in page
    for certificate in CERTIFICATES:
        assert f'rejectd_certificate_expiry_timestamp_seconds{{certificate="{certificate}"}} 0.0' in page


def test_frames_and_parts_are_counted_apart() -> None:
    line = Line()
    line.frame("left", Decision.PASS)
    line.frame("right", Decision.REJECT)
    picture = Exposure(captured_ns=0, captured_unix_ns=0)
    part = line.parts.open(picture, camera="gate", product="cell", policy=Policy.STOP, deadline_ns=1)
    line.parts.open(picture, camera="gate", product="cell", policy=Policy.STOP, deadline_ns=1)
    assert line.parts.close(unjudged(part, Cause.MISSING_VIEW, 0))
    page = line.page()
    assert 'rejectd_parts_seen_total{station="gate"} 2.0' in page
    assert 'rejectd_parts_in_flight{station="gate"} 1.0' in page
    assert 'rejectd_part_verdicts_total{cause="missing_view",decision="unjudged",station="gate"} 1.0' in page
    assert sum(sums(page)["captured"].values()) == 2, "an alert that sums up frames must not count parts"


def test_a_line_without_stations_has_no_series_of_parts() -> None:
    registry = CollectorRegistry()
    ledger = Ledger("run", margin=Margin(0))
    Metrics(registry, cameras=["left"], products=["cell"], snapshot=ledger.snapshot)
    assert "rejectd_part" not in generate_latest(registry).decode()


def test_a_latency_leads_to_its_event_in_openmetrics() -> None:
    line = Line()
    event = f"20261125T060000-3fa9c1-{'c' * 64}-1234567890"  # the longest that there is
    line.metrics.latency.labels("left").observe(0.0625, {"event_id": event})
    page = openmetrics.generate_latest(line.registry).decode()
    samples = [sample for family in openmetrics_families(page) for sample in family.samples if sample.exemplar]
    assert [(sample.labels["le"], sample.exemplar.labels, sample.exemplar.value) for sample in samples] == [
        ("0.075", {"event_id": event}, 0.0625)
    ]
    assert event not in line.page(), "the plain text format has no exemplars"


def test_promtool_finds_nothing_wrong_with_the_page() -> None:
    need_peer(shutil.which("promtool"), "prometheus")
    result = subprocess.run(["promtool", "check", "metrics"], input=Line().page(), capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(("cameras", "stations", "products"), [(1, 0, 1), (1, 2, 3), (8, 0, 2), (16, 4, 20)])
def test_the_number_of_series_is_bounded_by_what_the_settings_name(cameras: int, stations: int, products: int) -> None:
    ledger, registry = Ledger("run", margin=Margin(0)), CollectorRegistry()
    metrics = Metrics(
        registry,
        cameras=[f"camera{number}" for number in range(cameras)],
        stations=[f"station{number}" for number in range(stations)],
        products=[f"product{number}" for number in range(products)],
        snapshot=ledger.snapshot,
        parts=ledger.snapshot if stations else None,
        views=lambda: {(f"camera{camera}", fate): 0 for camera in range(cameras) for fate in Fate},
    )
    for camera in range(cameras):
        metrics.camera_product.labels(f"camera{camera}", "product0").set(1)
        metrics.actuator.labels(f"camera{camera}")
    for station in range(stations):
        metrics.actuator.labels(f"station{station}")
    for product in range(products):
        metrics.bundle.labels(f"product{product}", "digest", "engine", "teacher").set(1)
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert len(samples) <= sum(
        times * count for times, count in zip((1, cameras, stations, products), SERIES.values(), strict=True)
    )


def test_names_follow_the_conventions_of_prometheus() -> None:
    families = [
        family for family in text_string_to_metric_families(Line().page()) if not family.name.endswith("_created")
    ]
    assert len(families) > 20
    for family in families:
        assert family.name.startswith("rejectd_")
        assert not re.search(r"_(ms|us|ns|mb|percent)\b", family.name), "base units"
        assert family.documentation.endswith(".")


@pytest.mark.parametrize("state", CameraState)
def test_only_a_camera_that_is_up_counts_as_up(state: CameraState) -> None:
    line = Line()
    line.metrics.camera_state("left", CameraState.UP)
    line.metrics.camera_state("left", state)
    assert f'rejectd_camera_up{{camera="left"}} {float(state is CameraState.UP)}' in line.page()
    fault = state in (CameraState.DOWN, CameraState.DEGRADED)
    assert f'rejectd_camera_faults_total{{camera="left"}} {float(fault)}' in line.page()


def sums(page: str) -> dict[str, dict[str, float]]:
    """By metric and camera, from the text as scraped."""
    found: dict[str, dict[str, float]] = {"captured": {}, "verdicts": {}, "in_flight": {}}
    names = {
        "rejectd_frames_captured_total": "captured",
        "rejectd_verdicts_total": "verdicts",
        "rejectd_frames_in_flight": "in_flight",
    }
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in names:
                counts = found[names[sample.name]]
                camera = sample.labels["camera"]
                counts[camera] = counts.get(camera, 0) + sample.value
    return found


def test_the_account_balances_in_the_text_of_every_scrape_while_frames_pass() -> None:
    line = Line()
    over = threading.Event()

    def work(camera: str) -> None:
        ends = [(Decision.PASS, None), (Decision.REJECT, None), *((Decision.UNJUDGED, cause) for cause in Cause)]
        count = 0
        while not over.is_set():
            line.frame(camera, *ends[count % len(ends)])
            count += 1

    workers = [threading.Thread(target=work, args=(camera,)) for camera in ("left", "right", "left")]
    for worker in workers:
        worker.start()
    pages = [line.page() for _ in range(60)]
    over.set()
    for worker in workers:
        worker.join(10)
    last = 0.0
    for page in pages:
        found = sums(page)
        for camera, captured in found["captured"].items():
            assert captured == found["verdicts"][camera] + found["in_flight"][camera]
        total = sum(found["captured"].values())
        assert total >= last
        last = total
    assert last > 0
