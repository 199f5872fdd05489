"""rejectd.stations: the frames that show one part end in one verdict of the part. Real ledgers, an injected clock."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rejectd.contract.messages import (
    CameraState,
    CameraStatus,
    Cause,
    Decision,
    Exposure,
    Frame,
    Policy,
    Result,
    Verdict,
)
from rejectd.contract.settings import Station
from rejectd.decision import decide, unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.stations import _WORST_FIRST, Stations

MS = 1_000_000
LEFT_AND_RIGHT = {"gate": Station(cameras=("left", "right"), deadline_ms=100, policy=Policy.STOP)}
BY_TIME = {"gate": Station(cameras=("left", "right"), deadline_ms=400, tolerance_ms=20, pitch_ms=120)}


class Line:
    """Stations between a ledger of frames and one of parts, as the pipeline ties them together."""

    def __init__(self, stations: dict[str, Station], margin_ms: int = 10, numbered: tuple[str, ...] = ()) -> None:
        self.now = 0
        margin = Margin(margin_ms * MS)
        self.frames = Ledger("run", margin=margin, clock=lambda: self.now)
        self.parts = Ledger("run", margin=margin, clock=lambda: self.now)
        self.stations = Stations(stations, self.parts, numbered=numbered, clock=lambda: self.now)
        self.exposures: Counter[str] = Counter()
        self.ended: list[Verdict] = []  # of parts, as published

    def expose(
        self, camera: str, trigger: int | None = None, product: str = "cell", *, exposed_ms: float | None = None
    ) -> Frame:
        """A camera shows a picture, taken now if not said otherwise."""
        self.exposures[camera] += 1
        exposed_ns = self.now if exposed_ms is None else round(exposed_ms * MS)
        pixels = np.zeros((2, 2, 3), np.uint8)
        source = f"{camera}{self.exposures[camera]}.png"
        picture = Exposure(captured_ns=exposed_ns, captured_unix_ns=1, source=source, trigger=trigger)
        joined = self.stations.join(camera, product, picture, self.exposures[camera])
        assert joined
        number, deadline_ns = joined
        return self.frames.open(
            picture,
            camera=camera,
            product=product,
            policy=Policy.REJECT,
            deadline_ns=deadline_ns - exposed_ns,
            pixels=pixels,
            trigger=number,
        )

    def judge(self, frame: Frame, decision: Decision, *, ratio: float | None = None) -> Verdict | None:
        """The model judges a frame; the verdict of its part, if that is certain now."""
        if decision is Decision.UNJUDGED:
            return self.finish(unjudged(frame, Cause.ENGINE_FAULT, self.now, detail="the device failed"))
        score = ratio or (2.0 if decision is Decision.REJECT else 0.5)
        result = Result(
            score=score, threshold=1.0, p_value=0.1, bundle="b", engine="e", anomaly_map=np.ones((1, 1), "f4")
        )
        return self.finish(decide(frame, result, self.now))

    def finish(self, verdict: Verdict) -> Verdict | None:
        if not self.frames.close(verdict):
            return None
        decided = self.stations.take(verdict)
        return self._end_part(decided[1]) if decided else None

    def _end_part(self, verdict: Verdict) -> Verdict | None:
        if not self.parts.close(verdict):
            return None
        self.ended.append(verdict)
        return verdict

    def show(self, camera: str, exposed_ms: float, decision: Decision = Decision.PASS) -> Frame:
        """A picture of that time comes now, and is judged at once."""
        frame = self.expose(camera, exposed_ms=exposed_ms)
        self.judge(frame, decision)
        return frame

    def wait_until(self, ms: float) -> list[Verdict]:
        """Time passes; the parts that end by that."""
        return self.wait(ms - self.now / MS)

    def wait(self, ms: float) -> list[Verdict]:
        """Time passes; the parts that end by that."""
        before = len(self.ended)
        self.now += round(ms * MS)
        for part in self.parts.wait_due(0):
            overdue = self.stations.overdue(part)
            if overdue:
                self._end_part(overdue)
        for frame in self.frames.wait_due(0):
            self.finish(unjudged(frame, Cause.LATE, self.now))
        return self.ended[before:]


@pytest.fixture
def line() -> Line:
    return Line(LEFT_AND_RIGHT)


def test_a_part_passes_when_all_its_views_have_passed(line: Line) -> None:
    left, right = line.expose("left", 7), line.expose("right", 7)
    assert line.judge(left, Decision.PASS) is None
    line.now = 30 * MS
    verdict = line.judge(right, Decision.PASS)
    assert verdict
    assert (verdict.decision, verdict.action, verdict.cause) == (Decision.PASS, Policy.PASS, None)
    assert (verdict.camera, verdict.trigger, verdict.seq, verdict.event_id) == ("gate", 7, 1, "run-gate-1")
    assert verdict.views == (left.event_id, right.event_id), "in the order of arrival"
    assert (verdict.captured_ns, verdict.decided_ns, verdict.deadline_ns) == (0, 30 * MS, 100 * MS)
    assert (verdict.product, verdict.policy, verdict.source) == ("cell", Policy.STOP, "left1.png")
    assert line.parts.snapshot().account.balanced


def test_one_reject_rejects_the_part_at_once_and_what_comes_later_changes_nothing(line: Line) -> None:
    left, right = line.expose("left", 7), line.expose("right", 7)
    verdict = line.judge(left, Decision.REJECT)
    assert verdict
    assert (verdict.decision, verdict.action, verdict.views) == (Decision.REJECT, Policy.REJECT, (left.event_id,))
    assert line.judge(right, Decision.PASS) is None
    line.wait(1000)
    assert len(line.ended) == 1


def test_a_reject_counts_more_than_a_view_that_could_not_be_judged(line: Line) -> None:
    left, right = line.expose("left", 7), line.expose("right", 7)
    assert line.judge(left, Decision.UNJUDGED) is None, "the other view may still reject it"
    verdict = line.judge(right, Decision.REJECT)
    assert verdict
    assert (verdict.decision, verdict.cause, verdict.detail) == (Decision.REJECT, None, "")


def test_a_part_with_a_view_that_could_not_be_judged_is_unjudged_and_says_which(line: Line) -> None:
    left, right = line.expose("left", 7), line.expose("right", 7)
    assert line.judge(right, Decision.PASS) is None
    verdict = line.judge(left, Decision.UNJUDGED)
    assert verdict
    assert (verdict.decision, verdict.cause, verdict.action) == (Decision.UNJUDGED, Cause.ENGINE_FAULT, Policy.STOP)
    assert verdict.detail == "left: the device failed"
    assert verdict.result is None


def test_a_view_that_is_missing_leaves_the_part_unjudged_when_it_is_due(line: Line) -> None:
    left = line.expose("left", 7)
    line.judge(left, Decision.PASS)
    assert line.wait(90 - 1e-6) == []
    (verdict,) = line.wait(1e-6)
    assert (verdict.decision, verdict.cause, verdict.action) == (Decision.UNJUDGED, Cause.MISSING_VIEW, Policy.STOP)
    assert (verdict.detail, verdict.views) == ("missing: right", (left.event_id,))
    assert line.wait(1000) == []


def test_a_part_whose_views_are_all_there_but_not_judged_in_time_is_late(line: Line) -> None:
    left = line.expose("left", 7)
    line.expose("right", 7)
    line.judge(left, Decision.PASS)
    (verdict,) = line.wait(90)
    assert (verdict.decision, verdict.cause) == (Decision.UNJUDGED, Cause.LATE)


def test_the_first_view_sets_one_deadline_for_the_part_and_all_its_frames(line: Line) -> None:
    left = line.expose("left", 7)
    line.now = 60 * MS
    right = line.expose("right", 7)
    assert left.deadline_ns == right.deadline_ns == 100 * MS
    (part,) = line.parts.in_flight()
    assert (part.deadline_ns, part.captured_ns, part.pixels, part.picture) == (100 * MS, 0, None, None)


def test_a_camera_outside_of_all_stations_belongs_to_no_part(line: Line) -> None:
    picture = Exposure(captured_ns=0, captured_unix_ns=0)
    assert line.stations.join("top", "cell", picture, 1) is None
    assert "gate" in line.stations
    assert "left" not in line.stations
    stranger = replace(unjudged(line.expose("left", 1), Cause.LATE, 0), camera="top")
    assert line.stations.take(stranger) is None


def test_views_without_numbers_are_matched_by_the_time_of_their_exposure() -> None:
    line = Line(BY_TIME)
    lefts = [line.expose("left", exposed_ms=at) for at in (0, 120, 240)]
    rights = [line.expose("right", exposed_ms=at) for at in (20, 115, 250)]
    assert [frame.trigger for frame in (*lefts, *rights)] == [1, 2, 3, 1, 2, 3]
    for left, right in zip(lefts, rights, strict=True):
        line.judge(right, Decision.PASS)
        assert line.judge(left, Decision.PASS)
    assert [verdict.trigger for verdict in line.ended] == [1, 2, 3]


@pytest.mark.parametrize("deadline_ms", [4000, 600])  # longer and shorter than the time between two parts
def test_a_missed_exposure_costs_its_own_part_and_no_other(deadline_ms: int) -> None:
    """Parts each 1.2 s; the left camera misses part 3, and part 6 has a defect that the left one sees."""
    line = Line({"gate": Station(cameras=("left", "right"), deadline_ms=deadline_ms, tolerance_ms=100, pitch_ms=1200)})
    for part in range(1, 31):
        line.wait_until(part * 1200)
        if part != 3:
            line.show("left", part * 1200, Decision.REJECT if part == 6 else Decision.PASS)
        line.wait(30)
        line.show("right", part * 1200 + 30)
        if part in (3, 7):
            line.wait(deadline_ms)
            assert line.stations.problems() == [f"station gate: camera left missed 1 of the last {part} parts"]
    line.wait(5000)
    verdicts = {verdict.trigger: verdict for verdict in line.ended}
    assert len(line.ended) == len(verdicts) == 30
    assert (verdicts[3].cause, verdicts[3].detail) == (Cause.MISSING_VIEW, "missing: left")
    assert verdicts[6].decision is Decision.REJECT
    assert {verdicts[part].decision for part in verdicts.keys() - {3, 6}} == {Decision.PASS}
    assert line.stations.problems() == [], "all is well since 20 parts"
    views = line.stations.views()
    assert views["left", "missed"] == 1
    assert views["right", "missed"] == 0
    assert views["right", "decided"] == 1, "of part 6, which the left one had rejected"


def test_a_view_that_comes_when_its_part_has_ended_is_named_and_opens_none() -> None:
    line = Line(BY_TIME)
    for part in range(3):
        line.wait_until(part * 120)
        line.show("left", part * 120)
    line.wait_until(450)  # the first part is over
    late = line.show("right", 5, Decision.REJECT)
    assert late.trigger == 1
    for part in (1, 2):
        line.show("right", part * 120 + 5)
    line.wait(1000)
    assert [(verdict.trigger, verdict.decision, verdict.cause) for verdict in line.ended] == [
        (1, Decision.UNJUDGED, Cause.MISSING_VIEW),
        (2, Decision.PASS, None),
        (3, Decision.PASS, None),
    ]
    assert line.parts.snapshot().account.captured == 3
    assert line.stations.problems() == [
        "station gate: camera right showed 1 of the last 3 parts after their time; raise deadline_ms, or look for what "
        "delays its pictures"
    ]
    assert line.stations.views()["right", "late"] == line.stations.views()["right", "missed"] == 1


def test_a_camera_that_delivers_one_part_later_than_the_other_shows_its_own_parts() -> None:
    line = Line(BY_TIME)
    for part in range(12):
        line.wait_until(part * 120)
        line.show("left", part * 120)
        if part:
            line.show("right", (part - 1) * 120 + 10, Decision.REJECT if part == 6 else Decision.PASS)
    assert [(verdict.trigger, verdict.decision) for verdict in line.ended] == [
        (part, Decision.REJECT if part == 6 else Decision.PASS) for part in range(1, 12)
    ]


def test_a_part_that_one_camera_alone_saw_and_brings_late_is_a_part_of_its_own() -> None:
    line = Line(BY_TIME)
    for at in (0, 240):
        line.show("left", at)
        line.show("right", at)
    line.now = 300 * MS
    line.show("right", 121)
    line.wait(1000)
    assert [verdict.captured_ns // MS for verdict in line.ended] == [0, 240, 121]
    assert (line.ended[2].cause, line.ended[2].detail) == (Cause.MISSING_VIEW, "missing: left")
    account = line.parts.snapshot().account
    assert (account.captured, account.passed) == (3, 2)


def test_the_time_of_a_part_counts_from_its_first_exposure_whichever_is_noticed_first() -> None:
    line = Line({"gate": Station(cameras=("left", "right"), deadline_ms=100, tolerance_ms=60, pitch_ms=120)})
    line.now = 60 * MS
    right = line.expose("right", exposed_ms=50)
    line.now = 70 * MS
    left = line.expose("left", exposed_ms=5)
    assert (right.deadline_ns, left.deadline_ns) == (150 * MS, 105 * MS)
    assert [part.deadline_ns for part in line.parts.in_flight()] == [105 * MS]
    line.judge(right, Decision.PASS)
    (verdict,) = line.wait_until(95)
    assert (verdict.captured_ns, verdict.deadline_ns, verdict.cause) == (5 * MS, 105 * MS, Cause.LATE)
    assert verdict.views == (right.event_id,)
    assert line.wait(1000) == []
    assert line.stations._parts == {}


def test_a_view_that_was_noticed_before_the_first_exposure_counts_for_its_part_too() -> None:
    line = Line(BY_TIME)
    right, left = line.expose("right", exposed_ms=12), line.expose("left", exposed_ms=2)
    line.judge(left, Decision.PASS)
    verdict = line.judge(right, Decision.PASS)
    assert verdict
    assert (verdict.captured_ns, verdict.views) == (2 * MS, (left.event_id, right.event_id))


def test_a_camera_that_is_down_for_a_while_is_back_with_its_next_part() -> None:
    line = Line(BY_TIME)
    for part in range(40):
        line.wait_until(part * 120)
        line.show("left", part * 120)
        if not 5 <= part < 15:
            line.show("right", part * 120 + 3)
    line.wait(1000)
    missing = [verdict.trigger for verdict in line.ended if verdict.cause is Cause.MISSING_VIEW]
    assert missing == list(range(6, 16))
    assert line.parts.snapshot().account.passed == 30


def test_two_exposures_of_a_camera_within_the_tolerance_show_one_part_and_are_named() -> None:
    line = Line(BY_TIME)
    line.show("left", 0)
    line.show("left", 4)  # a trigger that bounces
    line.show("right", 2)
    line.wait(1000)
    (verdict,) = line.ended
    assert (verdict.decision, len(verdict.views)) == (Decision.PASS, 3)
    assert line.stations.problems() == [
        "station gate: camera left showed 1 of the last 1 parts too often; it is triggered too often, its times are "
        "coarse, or parts come closer than pitch_ms"
    ]


def test_exposures_further_apart_than_the_station_says_never_mix_and_are_named() -> None:
    line = Line(BY_TIME)
    for part in range(4):
        line.wait_until(part * 120)
        line.show("left", part * 120)
        line.show("right", part * 120 + 21)
    line.wait(1000)
    assert {verdict.cause for verdict in line.ended} == {Cause.MISSING_VIEW}
    assert line.stations.problems()[-1] == (
        "station gate: 7 of the last 8 parts were exposed within pitch_ms of another; parts come closer, or the views "
        "of one part lie further apart than tolerance_ms"
    )


def test_at_half_the_pitch_a_view_between_two_parts_belongs_to_neither() -> None:
    line = Line({"gate": Station(cameras=("left", "right"), deadline_ms=400, tolerance_ms=60, pitch_ms=120)})
    line.show("left", 0)
    assert line.show("right", 60).trigger == 2
    line.show("left", 1000)
    assert line.show("right", 1059).trigger == 3


def test_a_number_names_a_part_and_cameras_without_numbers_join_it_by_time() -> None:
    line = Line(BY_TIME)
    assert line.expose("left", 41, exposed_ms=0).trigger == 41
    assert line.expose("right", exposed_ms=10).trigger == 41
    assert line.expose("right", exposed_ms=125).trigger == 42, "the next"
    assert line.expose("left", 42, exposed_ms=120).trigger == 42
    assert line.expose("right", exposed_ms=245).trigger == 43
    left = line.expose("left", 44, exposed_ms=240)
    assert left.trigger == 43, "the time ties them, though one exposure was seen by nobody"
    line.wait(1000)
    assert {(verdict.cause, verdict.detail) for verdict in line.ended} == {(Cause.LATE, "")}


def test_two_numbers_are_two_parts_however_near_their_exposures() -> None:
    line = Line(BY_TIME)
    assert line.expose("left", 7, exposed_ms=0).trigger == 7
    assert line.expose("right", 8, exposed_ms=1).trigger == 8


def test_a_picture_that_should_have_a_number_and_has_none_counts_for_no_other_part() -> None:
    line = Line(LEFT_AND_RIGHT, numbered=("left", "right"))
    line.judge(line.expose("left", 1), Decision.PASS)
    assert line.expose("right").trigger == line.expose("left").trigger == 0
    verdict = line.judge(line.expose("right", 1), Decision.PASS)
    assert verdict
    assert (verdict.trigger, verdict.decision) == (1, Decision.PASS)
    line.wait(1000)
    assert sorted(verdict.detail for verdict in line.ended) == ["", "missing: left", "missing: right"]


@pytest.mark.parametrize("missed_ms", [300, 30_000, 600_000])
def test_a_numbered_view_that_comes_long_after_its_part_opens_none(missed_ms: int) -> None:
    line = Line(LEFT_AND_RIGHT)
    for number in range(5, 9):
        line.judge(line.expose("left", number), Decision.PASS)
        if number != 6:
            line.judge(line.expose("right", number), Decision.PASS)
        line.wait(50)
    line.wait(missed_ms)
    assert line.judge(line.expose("right", 6), Decision.REJECT) is None
    assert line.parts.snapshot().account.captured == 4
    assert line.stations.views()["right", "late"] == 1
    left, right = line.expose("left", 9), line.expose("right", 9)
    line.judge(left, Decision.PASS)
    assert line.judge(right, Decision.PASS)


def test_numbers_that_begin_again_with_each_tray_are_new_parts_whatever_was_missed_in_the_tray_before() -> None:
    line = Line(LEFT_AND_RIGHT)
    for tray in range(5):
        line.wait_until(tray * 100_000)
        for number in range(1, 11):
            line.wait(200)
            if (tray, number) not in ((0, 1), (1, 4), (2, 10)):
                line.judge(line.expose("right", number), Decision.PASS)
            line.judge(line.expose("left", number), Decision.PASS)
    line.wait(1000)
    missing = [(verdict.captured_ns // (100_000 * MS), verdict.trigger) for verdict in line.ended if verdict.cause]
    assert missing == [(0, 1), (1, 4), (2, 10)]
    assert len(line.ended) == 50


def test_a_part_that_is_shown_again_with_its_number_gets_a_verdict_again() -> None:
    line = Line(LEFT_AND_RIGHT)
    for number in (5, 6, 7, 5):  # the operator puts part 5 on the belt again
        line.wait(300)
        line.judge(line.expose("left", number), Decision.PASS)
        line.judge(line.expose("right", number), Decision.PASS)
    assert [verdict.trigger for verdict in line.ended] == [5, 6, 7, 5]


def test_a_station_sees_what_its_worst_camera_sees() -> None:
    line, published = Line(LEFT_AND_RIGHT), list[tuple[str, str, str]]()
    assert set(_WORST_FIRST) == set(CameraState)
    for camera, state, reason in (
        ("left", CameraState.STARTING, ""),
        ("right", CameraState.STARTING, ""),
        ("left", CameraState.UP, ""),
        ("right", CameraState.UP, ""),
        ("left", CameraState.DEGRADED, "frozen"),
        ("right", CameraState.DOWN, "no route"),
        ("left", CameraState.UP, ""),
        ("right", CameraState.UP, ""),
        ("top", CameraState.DOWN, "of no station"),
    ):
        line.stations.report(
            CameraStatus(camera=camera, state=state, reason=reason, since_unix_ns=1),
            lambda status: published.append((status.camera, status.state, status.reason)),
        )
    assert published == [
        ("gate", "starting", ""),
        ("gate", "up", ""),
        ("gate", "degraded", "camera left: frozen"),
        ("gate", "down", "camera right: no route"),
        ("gate", "up", ""),
    ]


def test_three_cameras_are_of_one_part_only_if_all_their_exposures_lie_within_the_tolerance() -> None:
    cameras = ("left", "middle", "right")
    line = Line({"gate": Station(cameras=cameras, deadline_ms=400, tolerance_ms=20, pitch_ms=120)})
    assert [line.show(camera, at).trigger for camera, at in (("middle", 15), ("left", 0), ("right", 21))] == [1, 1, 2]


def test_several_frames_of_each_camera_show_one_part() -> None:
    line = Line({"ring": Station(cameras=("left", "right"), frames=3, deadline_ms=100, tolerance_ms=30, pitch_ms=60)})
    lefts = [line.expose("left", exposed_ms=at) for at in (0, 10, 20, 60, 70, 80)]
    rights = [line.expose("right", exposed_ms=at) for at in (5, 15, 25, 65, 75, 85)]
    assert [frame.trigger for frame in lefts] == [frame.trigger for frame in rights] == [1, 1, 1, 2, 2, 2]
    first_part = [*lefts[:3], *rights[:3]]
    for frame in first_part[:-1]:
        assert line.judge(frame, Decision.PASS) is None
    verdict = line.judge(first_part[-1], Decision.PASS)
    assert verdict
    assert (verdict.decision, verdict.trigger) == (Decision.PASS, 1)
    assert verdict.views == tuple(frame.event_id for frame in first_part)
    rejected = line.judge(rights[4], Decision.REJECT)
    assert rejected
    assert (rejected.decision, rejected.trigger) == (Decision.REJECT, 2)


def test_a_part_of_which_one_camera_has_shown_too_few_frames_names_that_camera() -> None:
    line = Line({"ring": Station(cameras=("left", "right"), frames=2, deadline_ms=100)})
    for camera in ("left", "left", "right"):
        line.judge(line.expose(camera, 5), Decision.PASS)
    (verdict,) = line.wait(90)
    assert (verdict.cause, verdict.detail) == (Cause.MISSING_VIEW, "missing: right")


def test_one_camera_alone_may_show_a_part_in_several_frames() -> None:
    line = Line({"turn": Station(cameras=("top",), frames=2, deadline_ms=100)})
    assert line.judge(line.expose("top"), Decision.PASS) is None
    verdict = line.judge(line.expose("top"), Decision.PASS)
    assert verdict
    assert verdict.decision is Decision.PASS


def test_stations_with_the_same_numbers_do_not_mix() -> None:
    line = Line({"a": Station(cameras=("a1", "a2"), deadline_ms=100), "b": Station(cameras=("b1",), deadline_ms=100)})
    a1 = line.expose("a1", 7)
    verdict = line.judge(line.expose("b1", 7), Decision.PASS)
    assert verdict
    assert verdict.camera == "b"
    assert line.judge(a1, Decision.PASS) is None
    assert [part.camera for part in line.parts.in_flight()] == ["a"]


def test_the_verdict_of_a_part_shows_the_view_that_is_nearest_to_a_defect() -> None:
    for order in itertools.permutations((0, 1, 2)):
        line = Line({"ring": Station(cameras=("top",), frames=3, deadline_ms=100)})
        frames = [line.expose("top") for _ in range(3)]
        for index in order:
            line.judge(frames[index], Decision.PASS, ratio=(0.3, 0.9, 0.6)[index])
        (verdict,) = line.ended
        assert verdict.result
        assert verdict.result.score == 0.9
        assert verdict.result.anomaly_map is None, "the map belongs to its frame"


@pytest.mark.parametrize("end", [Decision.REJECT, None])
def test_a_frame_that_comes_too_late_for_its_part_opens_none_and_has_its_own_time(
    line: Line, end: Decision | None
) -> None:
    left = line.expose("left", 7)
    if end:
        line.judge(left, end)
    else:
        line.wait(95)
    assert len(line.ended) == 1
    line.now = 99 * MS
    late = line.expose("right", 7)
    assert (late.trigger, late.deadline_ns) == (7, 199 * MS)
    assert line.judge(late, Decision.REJECT) is None, "its part is gone; the frame has a verdict of its own"
    assert line.parts.snapshot().account.captured == 1


def test_numbers_that_come_again_later_are_new_parts(line: Line) -> None:
    for turn in range(3):
        line.now = turn * 250 * MS
        left, right = line.expose("left", 1), line.expose("right", 1)
        line.judge(left, Decision.PASS)
        verdict = line.judge(right, Decision.PASS)
        assert verdict
        assert (verdict.trigger, verdict.seq, verdict.views) == (1, turn + 1, (left.event_id, right.event_id))


def test_a_frame_that_came_too_late_for_its_part_says_nothing_of_a_later_part_with_its_number(line: Line) -> None:
    line.expose("left", 7)
    line.wait(95)
    line.now = 199 * MS
    late = line.expose("right", 7)
    line.now = 200 * MS
    left = line.expose("left", 7)
    assert line.parts.snapshot().account.captured == 2
    assert line.judge(late, Decision.REJECT) is None
    line.judge(left, Decision.PASS)
    verdict = line.judge(line.expose("right", 7), Decision.PASS)
    assert verdict
    assert (verdict.decision, len(verdict.views)) == (Decision.PASS, 2)


def test_a_part_whose_reject_is_known_never_ends_as_unjudged_because_its_time_is_over(line: Line) -> None:
    left = line.expose("left", 7)
    line.expose("right", 7)
    line.now = 90 * MS
    (part,) = line.parts.wait_due(0)  # the thread of the deadlines has it in its hands
    rejected = decide(left, Result(score=2, threshold=1, p_value=0.1, bundle="b", engine="e"), line.now)
    decided = line.stations.take(rejected)  # the inspect thread is faster by a hair, but has not closed it yet
    assert decided
    overdue = line.stations.overdue(part)
    assert overdue is None or overdue.decision is Decision.REJECT


def test_an_endless_belt_leaves_nothing_behind() -> None:
    line = Line(LEFT_AND_RIGHT)
    for number in range(12_000):
        line.now = number * 10 * MS
        line.judge(line.expose("left", number), Decision.PASS)
        line.judge(line.expose("right", number), Decision.PASS)
    assert len(line.ended) == 12_000
    assert line.stations._parts == {}
    pairing = line.stations._pairings["gate"]
    assert len(pairing._traces) <= 5001
    assert len(pairing._by_number) <= 5001


def test_a_view_of_a_part_that_is_forgotten_opens_none() -> None:
    line = Line(BY_TIME)
    for part in range(5100):
        line.wait_until(part * 120)
        line.show("left", part * 120)
        line.show("right", part * 120 + 1)
    assert len(line.stations._pairings["gate"]._traces) <= 5001
    assert line.show("right", 120).trigger == 0
    assert line.parts.snapshot().account.captured == 5100
    assert line.stations.views()["right", "late"] == 1


class Belt(RuleBasedStateMachine):
    """Any interleaving of exposures, verdicts and time, with cameras that skip parts and numbers that come again."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(
            {
                "gate": Station(cameras=("left", "right"), deadline_ms=100, tolerance_ms=5, pitch_ms=20),
                "ring": Station(cameras=("top",), frames=2, deadline_ms=60),
            }
        )
        self.open: list[Frame] = []
        self.captured_ns: dict[str, int] = {}  # of frames
        self.verdicts: dict[str, Decision] = {}

    @rule(camera=st.sampled_from(["left", "right", "top"]), trigger=st.integers(1, 4), numbered=st.booleans())
    def expose(self, camera: str, trigger: int, numbered: bool) -> None:
        frame = self.line.expose(camera, trigger if numbered else None)
        self.captured_ns[frame.event_id] = frame.captured_ns
        self.open.append(frame)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), decision=st.sampled_from(Decision))
    def judge(self, data: st.DataObject, decision: Decision) -> None:
        frame = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        in_flight = frame.event_id in {each.event_id for each in self.line.frames.in_flight()}
        self.line.judge(frame, decision)
        if in_flight:
            self.verdicts[frame.event_id] = decision

    @rule(ms=st.integers(1, 130))
    def wait(self, ms: int) -> None:
        self.line.wait(ms)

    @invariant()
    def every_part_ends_once_and_as_its_views_say(self) -> None:
        line = self.line
        snapshot = line.parts.snapshot()
        assert snapshot.account.balanced
        ended = Counter(verdict.event_id for verdict in line.ended)
        in_flight = {part.event_id for part in line.parts.in_flight()}
        assert set(ended.values()) <= {1}
        assert not ended.keys() & in_flight
        assert snapshot.account.captured == len(ended) + len(in_flight)
        assert all(part.due_ns > line.now for part in line.parts.in_flight()), "none is forgotten when it is due"
        for verdict in line.ended:
            views = [self.verdicts.get(view, Decision.UNJUDGED) for view in verdict.views]
            assert (verdict.decision is Decision.REJECT) == (Decision.REJECT in views)
            assert all(self.captured_ns[view] >= verdict.captured_ns for view in verdict.views), "not of an older part"
            if verdict.decision is Decision.PASS:
                assert set(views) == {Decision.PASS}
                assert len(views) >= 2
        shown = Counter(view for verdict in line.ended for view in verdict.views)
        assert set(shown.values()) <= {1}, "no frame counts for two parts"

    def teardown(self) -> None:
        self.line.wait(1000)
        account = self.line.parts.snapshot().account
        assert (account.in_flight, account.captured) == (0, len(self.line.ended))
        assert self.line.stations._parts == {}


TestBelt = Belt.TestCase
TestBelt.settings = hypothesis_settings(max_examples=80, stateful_step_count=30, deadline=None)


class Seen(NamedTuple):
    """One exposure as a camera brings it."""

    comes_ms: int
    camera: str
    part: int
    exposed_ms: int
    decision: Decision


TOLERANCE_MS, PITCH_MS, DEADLINE_MS = 20, 41, 100


@st.composite
def belts(draw: st.DrawFn, frames: int, *, twice: bool) -> tuple[set[int], list[Seen]]:
    """Parts at any time from the pitch on, of which cameras miss some, bring others late or twice, in any order."""
    gaps = draw(st.lists(st.integers(PITCH_MS, 4 * PITCH_MS), min_size=1, max_size=12))
    views: list[Seen] = []
    for part, at_ms in enumerate(itertools.accumulate(gaps)):
        for camera in ("left", "middle", "right"):
            for _ in range(draw(st.sampled_from([0, *[frames] * 6, frames + twice]))):
                exposed_ms = at_ms + draw(st.integers(0, TOLERANCE_MS))
                delay_ms = draw(st.sampled_from([0, 0, 0, 1, 30, 79, 300, 5000]))
                decision = draw(st.sampled_from([Decision.PASS] * 4 + [Decision.REJECT]))
                views.append(Seen(exposed_ms + delay_ms, camera, part, exposed_ms, decision))
    return {view.part for view in views}, sorted(views)


@pytest.mark.parametrize("numbered", [(), ("left", "middle", "right"), ("middle",)])
@given(data=st.data(), frames=st.sampled_from([1, 1, 2]), judged_after_ms=st.sampled_from([0, 7, 60]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_no_part_holds_a_view_of_another_and_each_exposure_is_one_part(
    numbered: tuple[str, ...], data: st.DataObject, frames: int, judged_after_ms: int
) -> None:
    parts, views = data.draw(belts(frames, twice=not numbered))  # a number that comes twice is a part shown again
    cameras = ("left", "middle", "right")
    station = Station(
        cameras=cameras, frames=frames, deadline_ms=DEADLINE_MS, tolerance_ms=TOLERANCE_MS, pitch_ms=PITCH_MS
    )
    line = Line({"gate": station}, numbered=numbered)
    part_of: dict[str, int] = {}  # what each frame shows in truth
    in_time: dict[int, list[Seen]] = {part: [] for part in parts}  # views that were judged before their part was due
    waiting: list[tuple[int, Frame, Seen]] = []

    def judge_until(now_ms: float) -> None:
        while waiting and waiting[0][0] <= now_ms:
            at_ms, frame, view = waiting.pop(0)
            line.wait_until(at_ms)
            if frame.event_id in {open_frame.event_id for open_frame in line.frames.in_flight()}:
                if frame.trigger in {part.trigger for part in line.parts.in_flight()}:
                    in_time[view.part].append(view)
                line.judge(frame, view.decision)

    for view in views:
        judge_until(view.comes_ms)
        line.wait_until(max(view.comes_ms, line.now / MS))
        number = 100 + view.part if view.camera in numbered else None
        frame = line.expose(view.camera, number, exposed_ms=view.exposed_ms)
        part_of[frame.event_id] = view.part
        waiting.append((view.comes_ms + judged_after_ms, frame, view))
    judge_until(10**9)
    line.wait(1000)
    assert line.parts.snapshot().account.captured == len(parts), "each exposure is one part, whatever came late"
    assert line.parts.snapshot().account.in_flight == 0
    assert len(line.ended) == len(parts), "each part has one verdict"
    if len(numbered) != 1:
        assert len({verdict.trigger for verdict in line.ended}) == len(parts)
    exposed = {part: [view.exposed_ms for view in views if view.part == part] for part in parts}
    for verdict in line.ended:
        (part,) = [part for part in parts if verdict.captured_ns // MS in exposed[part]]
        assert {part_of[view] for view in verdict.views} <= {part}
        assert verdict.captured_ns // MS >= min(exposed[part])
        assert verdict.deadline_ns - verdict.captured_ns == DEADLINE_MS * MS
        judged = Counter(view.camera for view in in_time[part])
        if Decision.REJECT in {view.decision for view in in_time[part]}:
            assert verdict.decision is Decision.REJECT, "a defect costs its own part"
        elif all(judged[camera] >= frames for camera in cameras):
            assert verdict.decision is Decision.PASS, "what others miss costs it nothing"
        else:
            assert verdict.decision is Decision.UNJUDGED


def test_numbers_that_begin_again_soon_after_a_part_had_its_time_are_new_parts(line: Line) -> None:
    decisions = []
    for right in (Decision.PASS, Decision.REJECT):
        line.judge(line.expose("left", 3), Decision.PASS)
        line.judge(line.expose("right", 3), right)
        decisions = [(verdict.trigger, verdict.decision) for verdict in line.ended]
        line.wait(101)  # a millisecond more than the part's time, in which the counter is set back
    assert decisions == [(3, Decision.PASS), (3, Decision.REJECT)]


SLOW = {"gate": Station(cameras=("left", "right"), deadline_ms=4000)}
SLOW_AND_TIMED = {"gate": Station(cameras=("left", "right"), deadline_ms=4000, tolerance_ms=50, pitch_ms=1200)}


@pytest.mark.parametrize("stations", [SLOW, SLOW_AND_TIMED])
@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("numbers", [(1, 1), (1, 2, 1, 2), (1, 2, 3, 2, 3), (5000, 5001, 1, 2), (7, 8, 7, 8, 7)])
def test_a_counter_set_back_within_the_time_of_a_part_names_new_parts(
    stations: dict[str, Station], first: str, numbers: tuple[int, ...]
) -> None:
    line = Line(stations)
    second = "right" if first == "left" else "left"
    for part, number in enumerate(numbers):
        line.wait_until(part * 1200)
        line.judge(line.expose(first, number), Decision.PASS)
        line.wait(10)
        line.judge(line.expose(second, number), Decision.REJECT if part == len(numbers) - 1 else Decision.PASS)
    decisions = [(verdict.trigger, verdict.decision, len(verdict.views)) for verdict in line.ended]
    expected = [(number, Decision.PASS, 2) for number in numbers]
    assert decisions == [*expected[:-1], (numbers[-1], Decision.REJECT, 2)]
    assert line.stations.views()["left", "surplus"] == line.stations.views()["right", "surplus"] == 0


@pytest.mark.parametrize("stations", [SLOW, SLOW_AND_TIMED])
@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("missed", [1, 2])
def test_a_part_with_a_missed_view_gets_none_of_the_part_that_bears_its_number_after_a_counter_was_set_back(
    stations: dict[str, Station], first: str, missed: int
) -> None:
    line = Line(stations)
    second = "right" if first == "left" else "left"
    for part, number in enumerate((1, 2, 1, 2)):
        line.wait_until(part * 1200)
        for camera in (first, second):
            if (camera, part + 1) != ("left", missed):
                line.judge(line.expose(camera, number), Decision.PASS)
            line.wait(10)
    line.wait(5000)
    ended = sorted((verdict.captured_ns // (1200 * MS), verdict.decision) for verdict in line.ended)
    expected = [(part, Decision.UNJUDGED if part + 1 == missed else Decision.PASS) for part in range(4)]
    assert ended == expected


def test_a_picture_that_is_late_within_the_time_of_its_part_shows_that_part_also_at_the_begin_of_a_count() -> None:
    line = Line(SLOW_AND_TIMED)
    line.judge(line.expose("left", 1), Decision.PASS)
    line.wait_until(1200)
    line.judge(line.expose("left", 2), Decision.PASS)
    line.judge(line.expose("right", 2), Decision.PASS)
    late = line.judge(line.expose("right", 1, exposed_ms=10), Decision.PASS)
    assert late
    assert (late.trigger, late.decision) == (1, Decision.PASS)
    assert line.parts.snapshot().account.captured == 2
