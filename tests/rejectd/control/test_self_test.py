"""rejectd.control.self_test: known pictures through the whole path. A real bundle and engine; only the broker is
missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.batching.batcher import Batcher
from rejectd.contract.messages import GOLDEN, Decision, Policy, Verdict
from rejectd.contract.settings import Device, Engine, Judging, Product
from rejectd.control.self_test import GoldenCheck, Outcome, complaint
from rejectd.inspector import Inspector, Model
from rejectd.judging import Judged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.pipeline import Pipeline, Stages
from rejectd.stations import Stations
from rejectd.storage.outbox import Outbox
from rejectd.storage.picture_budget import Memory
from rejectd.storage.recorder import Recorder
from revdist.thresholds import conformal

MARGIN_NS = 20_000_000


class Sent:
    """Stands where the publisher stands, before a broker that acknowledges at once, or never."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.golden: GoldenCheck | None = None
        self.acknowledges = True

    def verdict(self, verdict: Verdict, _body: bytes) -> None:
        self.verdicts.append(verdict)
        if self.acknowledges and self.golden:
            self.golden.delivered(verdict, time.monotonic_ns())


class Rig:
    """A line without cameras."""

    def __init__(self, directory: Path, inspector: Inspector) -> None:
        self.sent = Sent()
        self.ledger = Ledger("run", margin=Margin(MARGIN_NS))
        self.batcher = Batcher([GOLDEN], max_batch=4, max_wait_ns=0, queue_per_camera=8)
        metrics = Metrics(CollectorRegistry(), cameras=[], products=["cell"], snapshot=self.ledger.snapshot)
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        self.recorder = Recorder(
            "l",
            outbox=self.outbox,
            evidence=None,
            inflight=None,
            memory=Memory(10**9),
            metrics=metrics,
            more_events=lambda: None,
            marked=lambda _numbers: None,
        )
        stages = Stages(
            ledger=self.ledger,
            batcher=self.batcher,
            inspector=inspector,
            stations=Stations({}, Ledger("run", margin=Margin(MARGIN_NS))),
            publisher=self.sent,  # type: ignore[arg-type]
            recorder=self.recorder,
            memory=Memory(10**9),
            metrics=metrics,
            drift=lambda _part: None,
        )
        self.pipeline = Pipeline(stages, line="l", products={}, judged=Judged(Judging(), []))
        self.golden = self.sent.golden = GoldenCheck(self.ledger, self.pipeline)
        self.stop = threading.Event()
        self._threads = [
            threading.Thread(target=body) for body in (self.pipeline.inspect, self.pipeline.decide, self.recorder.run)
        ]
        for thread in self._threads:
            thread.start()

    def nothing_left(self) -> bool:
        return not (self.pipeline.watchers or self.golden._delivered or self.ledger.in_flight())

    def end(self) -> None:
        self.batcher.close()
        self.recorder.end()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.outbox.close()


@pytest.fixture(scope="module")
def inspector(bundle: Path) -> Inspector:
    return Inspector(Engine(device=Device.CPU, threads=1), {"cell": Product(bundle=bundle)})


@pytest.fixture
def model(inspector: Inspector) -> Iterator[Model]:
    """The model in force, which tells the scratch from the good picture."""
    scores = {picture.kind: picture.expected for picture in inspector.models["cell"].golden}
    assert scores["good"] < scores["scratch"]
    key, calibrated = inspector.models["cell"].key, inspector.models["cell"].calibration.threshold
    inspector.set_threshold(key, (scores["good"] + scores["scratch"]) / 2)
    yield inspector.models["cell"]
    inspector.set_threshold(key, calibrated)


@pytest.fixture
def rig(tmp_path: Path, inspector: Inspector) -> Iterator[Rig]:
    made = Rig(tmp_path, inspector)
    yield made
    made.end()


def test_known_pictures_pass_through_the_whole_path_and_get_the_right_verdicts(rig: Rig, model: Model) -> None:
    outcomes = rig.golden.challenge(model, rig.stop)
    assert [outcome.kind for outcome in outcomes] == [picture.kind for picture in model.golden]
    for outcome, picture in zip(outcomes, model.golden, strict=True):
        assert outcome.score == pytest.approx(picture.expected, rel=2e-3)
        assert outcome.decision is (Decision.PASS if picture.kind == "good" else Decision.REJECT)
        assert outcome.latency_ms is not None
        assert 0 < outcome.latency_ms < 10_000
        assert outcome.good
    assert complaint(outcomes, decisions=True) == ""
    assert [verdict.camera for verdict in rig.sent.verdicts] == [GOLDEN] * len(model.golden)
    assert {verdict.policy for verdict in rig.sent.verdicts} == {Policy.PASS}
    account = rig.ledger.snapshot().account
    assert (account.captured, account.balanced) == (len(model.golden), True)
    assert rig.recorder.wait(10)
    assert rig.outbox.waiting() == 0, "a known picture is no defect"
    assert rig.nothing_left()


def test_a_line_that_lets_a_known_defect_pass_is_found_out(rig: Rig, inspector: Inspector, model: Model) -> None:
    inspector.set_threshold(model.key, 1000)
    outcomes = rig.golden.challenge(inspector.models["cell"], rig.stop)
    assert "the scratch picture of cell ended as pass with score" in complaint(outcomes, decisions=True)
    assert complaint(outcomes, decisions=False) == "", "the scores are right all the same"
    inspector.set_threshold(model.key, 1e-9)
    outcomes = rig.golden.challenge(inspector.models["cell"], rig.stop)
    assert "the good picture of cell ended as reject with score" in complaint(outcomes, decisions=True)


def test_where_the_calibration_itself_decides_otherwise_that_is_right_and_an_ordered_threshold_is_not(
    rig: Rig, inspector: Inspector, model: Model
) -> None:
    good, scratch = (
        [picture.expected for picture in model.golden if picture.kind == kind] for kind in ("good", "scratch")
    )
    for threshold, kind in ((min(good) / 2, "good"), (max(scratch) * 2, "scratch")):
        calibration = conformal.calibrate([threshold], 0.5, engine=model.engine, fingerprint="f")
        inspector.set_threshold(model.key, threshold)
        strict = rig.golden.challenge(inspector.models["cell"], rig.stop)
        assert f"the {kind} picture of cell ended as" in complaint(strict, decisions=True), "it was ordered"
        lenient = rig.golden.challenge(replace(inspector.models["cell"], calibration=calibration), rig.stop)
        assert complaint(lenient, decisions=True) == "", "it is calibrated so"
        assert {outcome.kind for outcome in lenient if len(outcome.right) == 2} == {kind}


def test_a_good_picture_whose_score_is_the_threshold_may_fall_on_either_side(rig: Rig, model: Model) -> None:
    score = model.golden[0].expected
    calibration = conformal.calibrate([score], 0.5, engine=model.engine, fingerprint="f")
    outcomes = rig.golden.challenge(replace(model, calibration=calibration), rig.stop)
    assert set(outcomes[0].right) == {Decision.PASS, Decision.REJECT}


def test_a_score_that_is_not_the_one_of_the_bundle_is_found_out(rig: Rig, model: Model) -> None:
    liar = replace(model, golden=[replace(picture, expected=picture.expected * 1.5) for picture in model.golden])
    outcomes = rig.golden.challenge(liar, rig.stop)
    assert not any(outcome.agrees or outcome.good for outcome in outcomes)
    for decisions in (True, False):
        text = complaint(outcomes, decisions=decisions)
        assert "computes otherwise than the one that trained" in text
        assert "instead of" in text


def test_a_device_that_answers_nothing_is_found_out(rig: Rig, model: Model) -> None:
    rig.batcher.close()
    outcomes = rig.golden.challenge(model, rig.stop)
    assert [(outcome.score, outcome.decision, outcome.good) for outcome in outcomes] == [
        (None, Decision.UNJUDGED, False) for _ in model.golden
    ]
    assert "was not judged" in complaint(outcomes, decisions=False)
    assert rig.nothing_left()


def test_a_broker_that_never_acknowledges_is_seen_and_the_end_of_the_service_ends_the_wait(
    rig: Rig, model: Model
) -> None:
    rig.sent.acknowledges = False
    found: list[list[Outcome]] = []
    asker = threading.Thread(target=lambda: found.append(rig.golden.challenge(model, rig.stop)))
    asker.start()
    wait_for(lambda: rig.sent.verdicts, "the first picture is judged")
    rig.stop.set()
    asker.join(5)
    assert not asker.is_alive()
    assert {outcome.latency_ms for outcome in found[0]} == {None}
    assert rig.golden._delivered == rig.pipeline.watchers == {}


def test_a_model_is_warmed_with_a_whole_batch_at_once_and_nothing_is_left_behind(rig: Rig, model: Model) -> None:
    rig.golden.warm(model, 5, rig.stop)
    kinds = [verdict.source for verdict in rig.sent.verdicts]
    assert len(kinds) == 5
    assert set(kinds) == {picture.kind for picture in model.golden}
    assert rig.nothing_left()


def test_more_pictures_than_the_queue_holds_are_answered_all_the_same(rig: Rig, model: Model) -> None:
    rig.golden.warm(model, 40, rig.stop)
    assert len(rig.sent.verdicts) == 40
    assert rig.nothing_left()


def test_a_bundle_without_known_pictures_is_not_warmed_and_has_no_outcomes(rig: Rig, model: Model) -> None:
    bare = replace(model, golden=[])
    rig.golden.warm(bare, 5, rig.stop)
    assert rig.golden.challenge(bare, rig.stop) == []
    assert complaint([], decisions=True) == ""
    assert rig.sent.verdicts == []


def test_the_acknowledgement_of_a_strangers_verdict_is_nobodys(rig: Rig, model: Model) -> None:
    rig.golden.challenge(model, rig.stop)
    rig.golden.delivered(rig.sent.verdicts[0], 1)  # again, as at-least-once may have it


@pytest.mark.parametrize(
    ("kind", "decision", "agrees", "good"),
    [
        ("good", Decision.PASS, True, True),
        ("good", Decision.REJECT, True, False),
        ("good", Decision.UNJUDGED, True, False),
        ("good", Decision.PASS, False, False),
        ("scratch", Decision.REJECT, True, True),
        ("scratch", Decision.PASS, True, False),
        ("scratch", Decision.REJECT, False, False),
    ],
)
def test_an_outcome_is_good_if_score_and_decision_are_right(
    kind: str, decision: Decision, agrees: bool, good: bool
) -> None:
    outcome = Outcome(
        product="cell", kind=kind, expected=1.0, score=1.0, decision=decision, latency_ms=1.0, agrees=agrees
    )
    assert outcome.good == good
    assert (complaint([outcome], decisions=True) == "") == good
