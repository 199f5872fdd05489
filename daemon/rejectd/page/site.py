"""What the requests of the page share: the line, the page's own file, who is logged in, and how answers are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from rejectd.contract.settings import Settings
from rejectd.page.access import Attempts, Rates, Role, Session, Sessions
from rejectd.page.line_link import LineLink
from rejectd.page.store import Store
from rejectd.page.texts import LANGUAGES, Texts, wanted

COOKIE, LANGUAGE_COOKIE, THEME_COOKIE = "rejectd_session", "rejectd_language", "rejectd_theme"
THEMES = ("auto", "light", "dark")
BODY_BYTES = 65_536
_REQUESTS_HZ, _REQUESTS_AT_ONCE = 60.0, 240.0  # of one session, or one address without

PAGES = (
    ("live", "/", Role.VIEWER),
    ("shift", "/shift", Role.VIEWER),
    ("gallery", "/gallery", Role.VIEWER),
    ("products", "/products", Role.OPERATOR),
    ("health", "/health", Role.VIEWER),
    ("audit", "/audit", Role.OPERATOR),
    ("users", "/users", Role.ENGINEER),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What all requests share."""

    settings: Settings
    journal: Path
    evidence: Path | None
    link: LineLink
    store: Store
    sessions: Sessions
    attempts: Attempts
    rates: Rates
    templates: Environment

    @property
    def secure(self) -> bool:
        """Whether the page speaks HTTPS."""
        return self.settings.page.tls_cert is not None


def make_site(settings: Settings, state: Path, store: Store, clock: Callable[[], float] = time.monotonic) -> Site:
    """Put together what requests share; `state` is the state directory of the line's service."""
    from rejectd.contract import local_socket

    evidence = settings.evidence
    return Site(
        settings=settings,
        journal=state / "journal.sqlite",
        evidence=(evidence.directory or state / "evidence") if evidence.enabled else None,
        link=LineLink(state / local_socket.NAME, clock=clock),
        store=store,
        sessions=Sessions(settings.page.session_hours * 3600, clock),
        attempts=Attempts(clock),
        rates=Rates(_REQUESTS_HZ, _REQUESTS_AT_ONCE, clock),
        templates=_environment(),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("rejectd.page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["percent"] = percent
    environment.filters["moment"] = moment
    return environment


def figure(value: float | None, digits: int = 4) -> str:
    """A number for people; a dash if there is none."""
    return "\u2013" if value is None else f"{value:.{digits}g}"


def percent(share: float | None) -> str:
    """A share in percent; a dash if there is none."""
    return "\u2013" if share is None else f"{100 * share:.2f} %"


def moment(unix_ns: int) -> str:
    """A time for people, as this machine's clock shows it."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def site(request: Request) -> Site:
    """The site of a request."""
    shared: Site = request.app.state.site
    return shared


def address(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "local"


def session(request: Request) -> Session | None:
    """Who is logged in; None if nobody is."""
    return site(request).sessions.find(request.cookies.get(COOKIE))


def texts(request: Request) -> Texts:
    """The texts in the language of a request."""
    cookie, asked = request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", "")
    return Texts(wanted(cookie, asked, site(request).settings.page.language))


def need(role: Role) -> Callable[[Request], Session]:
    """A dependency: somebody with this role, or a greater one, has logged in."""

    def check(request: Request) -> Session:
        logged_in = session(request)
        if logged_in is None:
            raise HTTPException(401, "log in first")
        if logged_in.must_change:
            raise OwnPasswordError(403, "choose a password of your own first")
        if logged_in.role < role:
            raise HTTPException(403, texts(request)("may_not"))
        return logged_in

    return check


class OwnPasswordError(HTTPException):
    """Whoever has a password for once must choose another one before anything else."""


VIEWER = [Depends(need(Role.VIEWER))]  # where nobody's name matters
OPERATOR = [Depends(need(Role.OPERATOR))]
ENGINEER = [Depends(need(Role.ENGINEER))]
Operator = Annotated[Session, Depends(need(Role.OPERATOR))]
Engineer = Annotated[Session, Depends(need(Role.ENGINEER))]


async def form(request: Request) -> dict[str, str]:
    """The fields of a form, each once. Raises HTTPException for anything else."""
    try:
        fields = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise HTTPException(400, "not a form") from error
    return {name: values[-1] for name, values in fields.items()}


Form = Annotated[dict[str, str], Depends(form)]


def check_origin(request: Request) -> None:
    """Raises HTTPException if a request that changes something was made by the page of somebody else."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "made by another page")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "made by another page")


def check_token(request: Request, session: Session, fields: dict[str, str] | None = None) -> None:
    """Raises HTTPException if a request that changes something does not show the session's token."""
    check_origin(request)
    token = (fields or {}).get("token") or request.headers.get("x-csrf-token", "")
    if token != session.token:
        raise HTTPException(403, texts(request)("stale_form"))


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page."""
    shared, logged_in, text = site(request), session(request), texts(request)
    theme = request.cookies.get(THEME_COOKIE)
    shown = [] if logged_in is None or logged_in.must_change else [p for p in PAGES if logged_in.role >= p[2]]
    body = shared.templates.get_template(template).render(
        t=text,
        line=shared.settings.line,
        session=logged_in,
        pages=shown,
        path=request.url.path,
        languages=[(code, Texts(code)("language")) for code in LANGUAGES],
        theme=theme if theme in THEMES else "auto",
        themes=THEMES,
        **values,
    )
    return HTMLResponse(body, status)


def back(path: str) -> Response:
    """Send a browser to another page after a form."""
    return RedirectResponse(path, 303)
