"""rejectd.drift.watcher: its thread, its queue, what it tells, and the files that it keeps."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from rejectd.contract.messages import DriftCause
from rejectd.contract.settings import Drift
from rejectd.drift.part import Part
from rejectd.drift.watcher import DriftWatcher
from rejectd.ledger import Snapshot
from rejectd.metrics import Metrics

RNG = np.random.default_rng(0)
NOTHING = Snapshot(captured={}, verdicts={}, in_flight={})


class Rig:
    """A watcher whose clock passes a second with each part; parts are pictures of noise."""

    def __init__(self, folder: Path, *, enabled: bool = True) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, cameras=["left"], products=["cell"], snapshot=lambda: NOTHING)
        self.now_s = 0.0
        self.models: dict[str, object] = {"cell@1": self._model(), "cell@2": self._model(), "bolt@1": self._model()}
        settings = Drift(enabled=enabled, learning_parts=60)
        self.watcher = DriftWatcher(
            settings,
            folder,
            loaded=self.models.get,  # type: ignore[arg-type]  # of a model it needs only these two
            metrics=self.metrics,
            clock=lambda: self.now_s,
        )
        self.brightness = 120.0

    @staticmethod
    def _model() -> SimpleNamespace:
        return SimpleNamespace(calibration=SimpleNamespace(scores=np.sort(RNG.uniform(0.3, 0.7, 60))), looks={})

    def part(self, **changes: object) -> Part:
        picture = np.clip(self.brightness + RNG.normal(0, 3) + RNG.normal(0, 20, (64, 64, 3)), 0, 255)
        plain = Part(
            camera="left",
            product="cell",
            model="cell@1",
            pixels=picture.astype(np.uint8),
            score=float(RNG.uniform(0.3, 0.7)),
            threshold=1.0,
        )
        return replace(plain, **changes)  # type: ignore[arg-type]

    def pass_by(self, count: int, **changes: object) -> None:
        for _ in range(count):
            self.now_s += 1
            self.watcher.take(self.part(**changes))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"camera": "left", **labels})


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "drift")


def test_a_change_is_told_with_its_cause_and_is_over_when_it_is_mended(rig: Rig) -> None:
    rig.pass_by(200)
    assert rig.watcher.problems() == []
    rig.brightness = 70.0
    rig.pass_by(40)
    (problem,) = rig.watcher.problems()
    assert problem.startswith("camera left, product cell: drift (light): pictures are darker")
    assert "check lamp" in problem
    assert rig.value("rejectd_drift", cause="light") == 1
    assert rig.value("rejectd_drift", cause="focus") == 0
    assert (rig.value("rejectd_drift_evidence_ratio", sign="brightness") or 0) >= 1
    rig.brightness = 120.0
    rig.pass_by(300)
    assert rig.watcher.problems() == []
    assert rig.value("rejectd_drift", cause="light") == 0


def test_a_restart_finds_what_was_learnt_and_still_says_what_has_changed(rig: Rig, tmp_path: Path) -> None:
    rig.pass_by(200)
    rig.brightness = 70.0
    rig.pass_by(40)
    rig.watcher.keep()
    again = Rig(tmp_path / "drift")
    again.brightness = 70.0
    again.pass_by(1)
    assert "darker" in str(again.watcher.problems())


def test_a_restart_after_a_kill_within_the_first_minute_begins_anew(rig: Rig, tmp_path: Path) -> None:
    rig.pass_by(30)
    assert not (tmp_path / "drift").exists()


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x05\x06" + b"\0" * 18])
def test_a_damaged_file_is_told_and_replaced(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "drift" / "left.cell.npz"
    file.parent.mkdir()
    file.write_bytes(content)
    rig = Rig(tmp_path / "drift")
    rig.pass_by(5)
    assert "drift is watched anew" in caplog.text
    rig.watcher.keep()
    assert file.read_bytes()[:4] == b"PK\x03\x04"


def test_another_bundle_begins_anew_and_another_product_is_watched_by_itself(rig: Rig) -> None:
    rig.pass_by(200)
    rig.brightness = 70.0
    rig.pass_by(40)
    rig.pass_by(100, product="bolt", model="bolt@1")
    assert rig.watcher.problems() == [], "another product passes now"
    rig.pass_by(200, model="cell@2")
    assert rig.watcher.problems() == [], "that is how pictures look for this bundle"


def test_parts_of_a_bundle_that_is_put_away_are_left_alone(rig: Rig) -> None:
    rig.pass_by(5, model="cell@9")
    assert rig.watcher.problems() == []


def test_a_full_queue_skips_parts_and_counts_them_and_never_waits(rig: Rig) -> None:
    for _ in range(20):
        rig.watcher.put(rig.part())
    assert rig.value("rejectd_drift_frames_skipped_total") == 4


def test_nothing_is_watched_that_nobody_wants(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "drift", enabled=False)
    for _ in range(20):
        rig.watcher.put(rig.part())
    assert rig.value("rejectd_drift_frames_skipped_total") == 0
    rig.watcher.end()
    rig.watcher.run()
    assert not (tmp_path / "drift").exists()


def test_the_thread_takes_what_waits_and_keeps_its_state_at_the_end(rig: Rig, tmp_path: Path) -> None:
    thread = threading.Thread(target=rig.watcher.run)
    thread.start()
    for _ in range(10):
        rig.watcher.put(rig.part())
    rig.watcher.end()
    thread.join(20)
    assert not thread.is_alive()
    assert (tmp_path / "drift" / "left.cell.npz").exists()


def test_a_disk_that_takes_nothing_is_told(rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "drift").write_text("in the way")
    rig.pass_by(2)
    rig.watcher.keep()
    assert "cannot be kept" in caplog.text


def test_a_cause_is_not_taken_back_for_a_few_parts_that_look_otherwise(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    causes = [(DriftCause.DIRT, "a")] * 5 + [(DriftCause.SHIFT, "b")] * 20 + [(DriftCause.DIRT, "a")]
    causes += [(DriftCause.SHIFT, "b")] * 21
    told = iter(causes)
    monkeypatch.setattr("rejectd.drift.watcher.cause", lambda *_: next(told))
    rig.pass_by(46)
    assert "(dirt)" in str(rig.watcher.problems())
    rig.pass_by(1)
    assert "(shift)" in str(rig.watcher.problems())
