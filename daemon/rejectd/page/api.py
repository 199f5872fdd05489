"""What programs may ask the page, and what its own scripts ask: OpenAPI describes it at /openapi.json."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from rejectd.contract.fields import NAME
from rejectd.page import live as live_page
from rejectd.page import looking_back, orders, shift
from rejectd.page import site as of
from rejectd.page.gallery import Label
from rejectd.page.site import VIEWER, Operator
from rejectd.page.state_word import Word, say

router = APIRouter()
OrderName = Annotated[str, Path(pattern="^[a-z]{1,20}$")]


class Complaint(BaseModel):
    """Why a request was refused."""

    detail: str


REFUSALS: dict[int | str, dict[str, object]] = {
    401: {"model": Complaint, "description": "nobody has logged in"},
    403: {"model": Complaint, "description": "the role may not do this"},
    409: {"model": Complaint, "description": "the line says no"},
    422: {"model": Complaint, "description": "the request is wrong"},
    429: {"model": Complaint, "description": "too many requests"},
    503: {"model": Complaint, "description": "the line's service does not answer"},
}


class Alive(BaseModel):
    """A word for watchers."""

    state: str


class Last(BaseModel):
    """The latest verdict of a camera."""

    event_id: str
    seq: int
    decision: str
    cause: str | None
    detail: str
    product: str
    captured_at: str
    latency_ms: float
    score: float | None
    threshold: float | None
    p_value: float | None
    heat: bool
    picture: bool


class Camera(BaseModel):
    """A camera or station."""

    camera: str
    station: bool
    product: str | None
    paused: bool
    state: str | None
    reason: str
    last: Last | None


class Live(BaseModel):
    """How a line is, and the latest verdict of each camera."""

    word: str
    colour: str
    why: list[str]
    cameras: list[Camera]
    counts: dict[str, int] | None


class Problem(BaseModel):
    """A problem, and what to do about it."""

    problem: str
    advice: str


class CameraHealth(BaseModel):
    """What a camera does."""

    camera: str
    state: str | None
    reason: str


class Health(BaseModel):
    """The health of a line."""

    word: str
    colour: str
    problems: list[Problem]
    cameras: list[CameraHealth]
    engines: list[str]
    clock: Literal["yes", "no", "unknown"]
    version: str | None
    run: str | None
    unpublished: int | None
    waiting_events: int | None
    disk_free_mb: int | None


@router.get("/healthz")
def is_alive() -> Alive:
    """Whether the page's process answers."""
    return Alive(state="ok")


@router.get("/readyz", response_model=Alive, responses={503: {"model": Alive}})
def is_ready(request: Request) -> Response:
    """Whether the line judges its parts; the state in one word, and 503 unless parts are judged."""
    word = say(*live_page.line_state(of.site(request))).word
    return JSONResponse({"state": word}, 503 if word in (Word.OFFLINE, Word.BLIND) else 200)


@router.get("/api/live", response_model=Live, responses=REFUSALS, dependencies=VIEWER)
def live(request: Request) -> object:
    """How the line is, in a word, and the latest verdict of each camera."""
    return live_page.live(of.site(request), of.texts(request))


@router.get("/api/health", response_model=Health, responses=REFUSALS, dependencies=VIEWER)
def health(request: Request) -> object:
    """The problems of the line, and what to do about each."""
    return live_page.health(of.site(request), of.texts(request))


@router.get(
    "/api/cameras/{camera}/picture",
    responses={200: {"content": {"image/jpeg": {}}}, **REFUSALS},
    response_class=Response,
    dependencies=VIEWER,
)
def picture(
    request: Request,
    camera: Annotated[str, Path(pattern=f"^{NAME['pattern']}$")],
    event_id: Annotated[str, Query(max_length=200)],
    heat: bool = False,
) -> Response:
    """The picture of a camera's latest verdict, under its heat map if wanted and there is one."""
    jpeg = of.site(request).link.picture(camera, event_id, heat=heat)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


class ShiftCount(BaseModel):
    """What became of the parts of one camera and product."""

    model_config = {"populate_by_name": True}

    camera: str
    product: str
    captured: int
    passed: int = Field(alias="pass")
    reject: int
    unjudged: dict[str, int]
    good_share: float | None = Field(alias="yield")


class Shift(BaseModel):
    """The account of a time."""

    since: str
    until: str
    counts: list[ShiftCount]


class LabelRequest(BaseModel):
    """What a person says of a verdict; null takes it back."""

    model_config = {"extra": "forbid"}

    kind: Label | None
    remark: str = Field(default="", max_length=500)


class LabelSaid(BaseModel):
    """The label of a part now."""

    event_id: str
    kind: Label | None
    remark: str
    who: str


@router.get("/api/shift", response_model=Shift, responses=REFUSALS, dependencies=VIEWER)
def shift_counts(request: Request, since: looking_back.Given = "", until: looking_back.Given = "") -> object:
    """What became of the parts of a time; the last eight hours if none is given."""
    asked = shift.window(since, until, datetime.now().astimezone())
    return looking_back.shift_figures(of.site(request), asked)


@router.post(
    "/api/gallery/{event_id}/label", response_model=LabelSaid, responses=REFUSALS | {404: {"model": Complaint}}
)
def label(request: Request, session: Operator, event_id: looking_back.EventId, body: LabelRequest) -> object:
    """Label a part, or take the label back. Needs the header X-CSRF-Token of the session."""
    of.check_token(request, session)
    site = of.site(request)
    if looking_back.gallery(site).part(event_id) is None:
        raise HTTPException(404, "the journal has no such part")
    site.store.label(event_id, body.kind, body.remark, session.user)
    site.store.audit(session.user, "label", f"{event_id} {body.kind or 'taken back'}")
    return {"event_id": event_id, "kind": body.kind, "remark": body.remark, "who": session.user}


class Order(BaseModel):
    """A request of a command, as config/mqtt describes it."""

    model_config = {"extra": "allow"}


class OrderAnswer(BaseModel):
    """The line's answer to an order."""

    ok: bool
    error: str | None
    result: dict[str, object] | None


@router.post("/api/orders/{name}", response_model=OrderAnswer, responses=REFUSALS | {404: {"model": Complaint}})
def order(request: Request, session: Operator, name: OrderName, body: Order) -> object:
    """Give an order: pause, resume, snapshot, golden, product or threshold. Needs the header X-CSRF-Token."""
    of.check_token(request, session)
    orders.check_may(request, session, name)
    answer = orders.give(of.site(request), session, name, body.model_dump())
    return {"ok": answer["ok"], "error": answer["error"], "result": answer["result"]}
