"""rejectd.judging: a line that judges nothing does not say that it judges."""

from __future__ import annotations

import logging

import pytest

from rejectd.contract.messages import Cause, Frame, Policy, Result
from rejectd.contract.settings import Judging
from rejectd.decision import decide, unjudged
from rejectd.judging import Judged

GOOD = Result(score=0.5, threshold=1.0, p_value=0.1, bundle="b", engine="e")


def frame(camera: str = "left") -> Frame:
    return Frame(
        event_id="e",
        camera=camera,
        product="cell",
        seq=1,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=1,
        policy=Policy.REJECT,
        source="s",
    )


def judged(*cameras: str, parts: int = 20, share: float = 0.1) -> Judged:
    return Judged(Judging(parts=parts, unjudged_share=share), cameras or ("left",))


def end(line: Judged, *causes: Cause | None, camera: str = "left") -> None:
    for cause in causes:
        shown = frame(camera)
        line.ended(decide(shown, GOOD, 1) if cause is None else unjudged(shown, cause, 1))


def test_a_line_that_judges_its_parts_says_so() -> None:
    line = judged()
    assert line.going_on
    end(line, *[None] * 50)
    assert line.going_on
    assert line.problems() == []


def test_parts_that_all_end_late_are_a_problem_with_cause_and_help_and_end_judging() -> None:
    line = judged()
    end(line, *[Cause.LATE] * 123, None, None)
    (problem,) = line.problems()
    assert problem.startswith("camera left: 18 of its last 20 parts were not judged, mostly late; ")
    assert "engine.threads: 1" in problem
    assert "deadline_ms" in problem
    assert not line.going_on


@pytest.mark.parametrize("cause", [Cause.LATE, Cause.OVERLOAD, Cause.ENGINE_FAULT, Cause.CAMERA_FAULT])
def test_every_cause_counts(cause: Cause) -> None:
    line = judged()
    end(line, *[cause] * 3)
    assert not line.going_on
    assert str(cause) in line.problems()[0]


def test_two_unjudged_parts_say_nothing_yet() -> None:
    line = judged()
    end(line, Cause.LATE, Cause.LATE)
    assert line.going_on
    assert line.problems() == []


def test_a_tenth_is_a_problem_but_the_line_judges() -> None:
    line = judged()
    end(line, *[Cause.LATE] * 3, *[None] * 17)
    assert len(line.problems()) == 1
    assert line.going_on


def test_it_ends_with_three_judged_parts_in_a_row_though_the_problem_is_told_a_while_longer() -> None:
    line = judged()
    end(line, *[Cause.LATE] * 20, None, None)
    assert not line.going_on
    end(line, None)
    assert line.going_on
    assert line.problems() != []
    end(line, *[None] * 15)
    assert line.problems() == []


@pytest.mark.parametrize("cause", [Cause.PAUSED, Cause.STOPPING])
def test_what_somebody_wanted_is_no_problem(cause: Cause) -> None:
    line = judged()
    end(line, *[cause] * 20)
    assert line.going_on
    assert line.problems() == []


def test_one_faulty_camera_of_two_is_its_own_problem_but_an_engine_that_is_late_is_the_lines() -> None:
    faulty = judged("left", "right")
    end(faulty, *[Cause.CAMERA_FAULT] * 20)
    end(faulty, *[None] * 21, camera="right")
    assert faulty.going_on
    assert faulty.problems()[0].startswith("camera left: ")
    late = judged("left", "right")
    end(late, *[Cause.LATE] * 20)
    end(late, *[None] * 20, camera="right")
    assert not late.going_on


def test_the_log_has_the_problem_once_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    line = judged()
    with caplog.at_level(logging.INFO):
        end(line, *[Cause.LATE] * 20)
        line.problems()
        line.problems()
        end(line, *[None] * 20)
        line.problems()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[1] == "camera left: its parts are judged again"


def test_known_pictures_do_not_count() -> None:
    line = judged()
    end(line, *[Cause.LATE] * 20, camera="golden")
    assert line.going_on


def test_a_station_answers_for_its_cameras() -> None:
    line = Judged(Judging(), [], ["gate"])
    end(line, *[None] * 20, camera="left")  # the other camera of the station is down
    end(line, *[Cause.MISSING_VIEW] * 20, camera="gate")
    assert not line.going_on
    assert line.problems()[0].startswith("station gate: 20 of its last 20 parts were not judged, mostly missing_view")
