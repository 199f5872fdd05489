"""The live page and the page of the line's health."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rejectd.page import site as of
from rejectd.page.journal import Journal
from rejectd.page.line_link import LineError
from rejectd.page.site import VIEWER, Site
from rejectd.page.state_word import Said, advice, say
from rejectd.page.texts import Texts
from rejectd.process.clock import clock_synchronised

router = APIRouter(include_in_schema=False)
_SCRIPT_TEXTS = (
    *("pass", "reject", "unjudged", "none_yet", "no_picture", "connection_lost", "camera_paused"),
    *(f"camera_{state}" for state in ("up", "starting", "down", "degraded", "ended")),
    *(f"word_{word}" for word in ("running", "paused", "attention", "not_judging", "offline")),
    *(f"cause_{cause}" for cause in ("late", "overload", "camera_fault", "engine_fault", "missing_view")),
    *("cause_paused", "cause_stopping", "of_threshold"),
)


@router.get("/", dependencies=VIEWER)
def show_live(request: Request) -> Response:
    """Each camera with its latest part, and how the line is."""
    text = of.texts(request)
    return of.page(request, "live.html", live=live(of.site(request), text), texts=text.some(*_SCRIPT_TEXTS))


@router.get("/health", dependencies=VIEWER)
def show_health(request: Request) -> Response:
    """The problems of the line, and what to do about each."""
    return of.page(request, "health.html", health=health(of.site(request), of.texts(request)))


def line_state(site: Site, *, pictures: bool = False) -> tuple[Mapping[str, Any] | None, str]:
    """The state of the line, or None and why there is none."""
    try:
        return site.link.state(pictures=pictures), ""
    except LineError as error:
        return None, str(error)


def live(site: Site, text: Texts) -> dict[str, Any]:
    """What the live page shows."""
    state, complaint = line_state(site, pictures=True)
    said = say(state, complaint)
    return {
        "word": said.word,
        "colour": said.colour,
        "why": _why(said, text),
        "cameras": list(state["cameras"]) if state else [],
        "counts": _counts(state["status"]) if state else None,
    }


def health(site: Site, text: Texts) -> dict[str, Any]:
    """What the health page shows."""
    state, complaint = line_state(site)
    said = say(state, complaint)
    journal = Journal(site.journal)
    status = state["status"] if state else None
    folder = site.journal.parent
    return {
        "word": said.word,
        "colour": said.colour,
        "problems": [{"problem": problem, "advice": text(advice(problem))} for problem in said.why],
        "cameras": [
            {"camera": one["camera"], "state": "paused" if one["paused"] else one["state"], "reason": one["reason"]}
            for one in (state["cameras"] if state else [])
        ],
        "engines": sorted({one["engine"] for one in state["products"].values()}) if state else [],
        "clock": {1.0: "yes", 0.0: "no"}.get(clock_synchronised(), "unknown"),
        "version": status["version"] if status else None,
        "run": status["run"] if status else None,
        "unpublished": status["unpublished"] if status else None,
        "waiting_events": journal.waiting_events(),
        "disk_free_mb": shutil.disk_usage(folder).free // 1_000_000 if folder.is_dir() else None,
    }


def _why(said: Said, text: Texts) -> list[str]:
    return [*([] if said.word == "attention" else [text(f"why_{said.word}")]), *said.why]


def _counts(status: Mapping[str, Any]) -> dict[str, int]:
    source = status["parts"] or status
    return {name: source[name] for name in ("captured", "pass", "reject", "unjudged", "in_flight")}
