"""rejectd.page.state_word: the state of a line in one word, and what to do about a problem."""

from __future__ import annotations

from typing import Any

import pytest
from stand_in_service import camera, status

from rejectd.page.state_word import COLOURS, Word, advice, say
from rejectd.page.texts import all_texts


@pytest.mark.parametrize(
    ("changes", "cameras", "word"),
    [
        ({}, [camera("a", "pass")], Word.RUNNING),
        ({"paused": ["a"]}, [camera("a", None, paused=True)], Word.PAUSED),
        ({"problems": ["camera a is down: no picture"]}, [camera("a", None, state="down")], Word.ATTENTION),
        ({}, [camera("a", None, state="degraded")], Word.ATTENTION),
        ({"judging": False, "problems": ["x"], "paused": ["a"]}, [camera("a", "pass")], Word.BLIND),
    ],
)
def test_the_worst_that_is_true_gives_the_word(
    changes: dict[str, Any], cameras: list[dict[str, Any]], word: Word
) -> None:
    said = say({"status": status(**changes), "cameras": cameras})
    assert said.word == word
    assert list(said.why) == changes.get("problems", [])


def test_a_service_that_does_not_answer_is_offline_and_red() -> None:
    said = say(None, "the service does not answer: no such file")
    assert (said.word, said.colour) == (Word.OFFLINE, "red")
    assert said.why == ["the service does not answer: no such file"]


def test_every_word_and_advice_has_its_text_and_colour() -> None:
    for word in Word:
        assert word in COLOURS
        assert f"word_{word}" in all_texts()
    problems = [
        "camera left is down: x",
        "camera left is paused and its parts pass uninspected",
        "the disk does not answer: journal and evidence wait",
        "product cell: the threshold 2 is more than 1.5 times the calibrated",
        "the broker refuses",
        "camera left, product cell: drift (light): pictures are darker",
        "camera left: 5 of its last 20 parts were not judged, mostly overload; parts come faster",
        "something new",
    ]
    keys = [advice(problem) for problem in problems]
    assert keys == [
        "advice_camera",
        "advice_paused",
        "advice_disk",
        "advice_threshold",
        "advice_broker",
        "advice_drift",
        "advice_judging",
        "advice_log",
    ]
    assert set(keys) <= set(all_texts())
