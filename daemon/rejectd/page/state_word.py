"""Says in one word and colour how a line is, and what to do about each of its problems. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Word(StrEnum):
    """How a line is. The colour goes with the word: green, amber or red."""

    RUNNING = "running"
    PAUSED = "paused"
    ATTENTION = "attention"
    BLIND = "not_judging"
    OFFLINE = "offline"


COLOURS: Mapping[Word, str] = {
    Word.RUNNING: "green",
    Word.PAUSED: "amber",
    Word.ATTENTION: "amber",
    Word.BLIND: "red",
    Word.OFFLINE: "red",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The state of a line for people."""

    word: Word
    why: Sequence[str]  # the problems in the words of the service

    @property
    def colour(self) -> str:
        """The colour that goes with the word."""
        return COLOURS[self.word]


def say(state: Mapping[str, Any] | None, complaint: str = "") -> Said:
    """The state of a line in a word; `state` is None where the service does not answer, which `complaint` explains."""
    if state is None:
        return Said(word=Word.OFFLINE, why=[complaint])
    status = state["status"]
    problems = list(status["problems"])
    if not status["judging"]:
        return Said(word=Word.BLIND, why=problems)
    down = [camera for camera in state["cameras"] if camera["state"] in ("down", "degraded")]
    if problems or down:
        return Said(word=Word.ATTENTION, why=problems)
    if status["paused"]:
        return Said(word=Word.PAUSED, why=[])
    return Said(word=Word.RUNNING, why=[])


# What a problem begins or goes on with, and the key of the text that says what to do. The first that fits counts.
_ADVICE: Sequence[tuple[str, str]] = (
    ("the service does not answer", "advice_service"),
    ("is paused", "advice_paused"),
    (": drift (", "advice_drift"),
    ("were not judged", "advice_judging"),
    ("broker", "advice_broker"),
    ("camera ", "advice_camera"),
    ("station ", "advice_camera"),
    ("product ", "advice_threshold"),
    ("the disk", "advice_disk"),
    ("journal", "advice_disk"),
    ("evidence", "advice_disk"),
    ("MQTT", "advice_broker"),
    ("certificate", "advice_broker"),
    ("restart", "advice_disk"),
)


def advice(problem: str) -> str:
    """The key of the text that says what to do about a problem."""
    return next((key for words, key in _ADVICE if words in problem), "advice_log")
