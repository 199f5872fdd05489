"""rejectd.stations: the frames that show one part end in one verdict of the part. Real ledgers, an injected clock."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rejectd.decision import decide, unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.messages import Cause, Decision, Exposure, Frame, Policy, Result, Verdict
from rejectd.settings import Station
from rejectd.stations import Stations

MS = 1_000_000
LEFT_AND_RIGHT = {"gate": Station(cameras=("left", "right"), deadline_ms=100, policy=Policy.STOP)}


class Line:
    """Stations between a ledger of frames and one of parts, as the pipeline ties them together."""

    def __init__(self, stations: dict[str, Station], margin_ms: int = 10) -> None:
        self.now = 0
        margin = Margin(margin_ms * MS)
        self.frames = Ledger("run", margin=margin, clock=lambda: self.now)
        self.parts = Ledger("run", margin=margin, clock=lambda: self.now)
        self.stations = Stations(stations, self.parts, clock=lambda: self.now)
        self.exposures: Counter[str] = Counter()
        self.ended: list[Verdict] = []  # of parts, as published

    def expose(self, camera: str, trigger: int | None = None, product: str = "cell") -> Frame:
        """A camera takes a picture."""
        self.exposures[camera] += 1
        pixels = np.zeros((2, 2, 3), np.uint8)
        source = f"{camera}{self.exposures[camera]}.png"
        picture = Exposure(captured_ns=self.now, captured_unix_ns=1, source=source, trigger=trigger)
        joined = self.stations.join(camera, product, picture, self.exposures[camera])
        assert joined
        number, deadline_ns = joined
        return self.frames.open(
            picture,
            camera=camera,
            product=product,
            policy=Policy.REJECT,
            deadline_ns=deadline_ns - self.now,
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

    def wait(self, ms: float) -> list[Verdict]:
        """Time passes; the parts that end by that."""
        before = len(self.ended)
        self.now += int(ms * MS)
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


def test_cameras_that_do_not_number_their_triggers_are_matched_by_their_count(line: Line) -> None:
    lefts = [line.expose("left") for _ in range(3)]
    rights = [line.expose("right") for _ in range(3)]
    assert [frame.trigger for frame in (*lefts, *rights)] == [1, 2, 3, 1, 2, 3]
    for left, right in zip(lefts, rights, strict=True):
        line.judge(right, Decision.PASS)
        assert line.judge(left, Decision.PASS)
    assert [verdict.trigger for verdict in line.ended] == [1, 2, 3]


def test_several_frames_of_each_camera_show_one_part() -> None:
    line = Line({"ring": Station(cameras=("left", "right"), frames=3, deadline_ms=100)})
    lefts = [line.expose("left") for _ in range(6)]
    rights = [line.expose("right") for _ in range(6)]
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
    assert len(line.stations._ended) <= 10_000


class Belt(RuleBasedStateMachine):
    """Any interleaving of exposures, verdicts and time, with cameras that skip parts and numbers that come again."""

    def __init__(self) -> None:
        super().__init__()
        self.line = Line(
            {
                "gate": Station(cameras=("left", "right"), deadline_ms=100),
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
