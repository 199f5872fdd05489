"""The pages that look back: the shift and the gallery."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import Response

from rejectd.contract.messages import Cause
from rejectd.page import shift
from rejectd.page import site as of
from rejectd.page.gallery import EVENT_ID, ON_A_PAGE, EvidenceGoneError, Filter, Gallery, Label, Part
from rejectd.page.journal import Journal
from rejectd.page.shift import TimeError, Window
from rejectd.page.site import VIEWER, Site

router = APIRouter(include_in_schema=False)
_DAY_S = 86_400
Given = Annotated[str, Query(max_length=64)]
EventId = Annotated[str, Path(pattern=EVENT_ID)]


def gallery(site: Site) -> Gallery:
    """The gallery of a site."""
    return Gallery(Journal(site.journal), site.evidence, site.store)


@router.get("/shift", dependencies=VIEWER)
def show_shift(request: Request, since: Given = "", until: Given = "") -> Response:
    """What became of the parts of a shift, beside those of the shift before."""
    site, error = of.site(request), ""
    now = datetime.now().astimezone()
    try:
        asked = shift.window(since, until, now)
    except TimeError:
        asked, error = shift.window("", "", now), of.texts(request)("bad_time")
    journal = Journal(site.journal)
    counts = shift.counts(journal, site.settings, asked)
    return of.page(
        request,
        "shift.html",
        422 if error else 200,
        error=error,
        asked=asked,
        now=now,
        total=shift.total(counts),
        before=shift.total(shift.counts(journal, site.settings, asked.before)),
        counts=counts,
        causes=[str(cause) for cause in Cause],
        charts=[(count, list(shift.bars(count, asked)), shift.line(count)) for count in counts],
        query=urlencode({"since": asked.since.isoformat(), "until": asked.until.isoformat()}),
    )


@router.get("/shift.csv", dependencies=VIEWER)
def export_shift(request: Request, since: Given = "", until: Given = "") -> Response:
    """The same as a table for spreadsheets."""
    site = of.site(request)
    asked = shift.window(since, until, datetime.now().astimezone())
    counts = shift.counts(Journal(site.journal), site.settings, asked)
    name = f"{site.settings.line}-{asked.since:%Y%m%dT%H%M}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(shift.as_csv(asked, counts), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/gallery", dependencies=VIEWER)
def show_gallery(
    request: Request,
    since: Given = "",
    until: Given = "",
    camera: Given = "",
    product: Given = "",
    decision: Given = "",
    label: Given = "",
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    before_id: Annotated[str, Query(pattern=EVENT_ID)] = "-",
) -> Response:
    """Rejected and unjudged parts with their pictures, and whatever else a person filters for."""
    site, error = of.site(request), ""
    now = datetime.now().astimezone()
    try:
        window = shift.window(since, until, now) if since or until else _last_days(now)
    except TimeError:
        window, error = _last_days(now), of.texts(request)("bad_time")
    wanted = Filter(window=window, camera=camera, product=product, decision=decision, label=label)
    parts = gallery(site).parts(wanted, None if before is None else (before, before_id))
    given = {"since": since, "until": until, "camera": camera, "product": product, "decision": decision, "label": label}
    more = None
    if len(parts) == ON_A_PAGE:
        more = {**given, "before": parts[-1].captured_unix_ns, "before_id": parts[-1].event_id}
    return of.page(
        request,
        "gallery.html",
        422 if error else 200,
        error=error,
        parts=parts,
        wanted=wanted,
        given=given,
        older=urlencode(more) if more else "",
        cameras=[*site.settings.cameras, *site.settings.stations],
        products=list(site.settings.products),
        labels=[str(kind) for kind in Label],
    )


@router.get("/gallery/{event_id}", dependencies=VIEWER)
def show_part(request: Request, event_id: EventId) -> Response:
    """One part: its picture, its heat map, and what people say of it."""
    shown, part = _part(request, event_id)
    earlier, later = shown.neighbours(part)
    text = of.texts(request)
    return of.page(
        request,
        "part.html",
        part=part,
        earlier=earlier,
        later=later,
        regions=shown.regions(event_id),
        labels=[str(kind) for kind in Label],
        texts=text.some("saved", "undone", "labelled_by", "label_right", "label_false", "label_escape", "label_none"),
    )


@router.get("/evidence/{event_id}/{kind}", dependencies=VIEWER)
def show_evidence(
    request: Request, event_id: EventId, kind: Annotated[str, Path(pattern="^(picture|heat|small)$")]
) -> Response:
    """A picture of a part."""
    shown, part = _part(request, event_id)
    try:
        data = shown.file(part, kind)
    except EvidenceGoneError as error:
        raise HTTPException(404, of.texts(request)("picture_gone")) from error
    media_type = "image/png" if kind == "picture" else "image/jpeg"
    return Response(data, media_type=media_type, headers={"Cache-Control": f"private, max-age={_DAY_S}, immutable"})


def _part(request: Request, event_id: str) -> tuple[Gallery, Part]:
    shown = gallery(of.site(request))
    part = shown.part(event_id)
    if part is None:
        raise HTTPException(404, of.texts(request)("not_here"))
    return shown, part


def _last_days(now: datetime) -> Window:
    return shift.window(datetime.fromtimestamp(now.timestamp() - 14 * _DAY_S).isoformat(), now.isoformat(), now)


def shift_figures(site: Site, asked: Window) -> dict[str, Any]:
    """The counts of a shift for programs."""
    counts = shift.counts(Journal(site.journal), site.settings, asked)
    return {
        "since": asked.since.isoformat(timespec="seconds"),
        "until": asked.until.isoformat(timespec="seconds"),
        "counts": [
            {
                "camera": count.camera,
                "product": count.product,
                "captured": count.captured,
                "pass": count.passed,
                "reject": count.rejected,
                "unjudged": dict(count.causes),
                "yield": count.good_share,
            }
            for count in counts
        ],
    }
