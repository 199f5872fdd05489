"""Logging in and out, one's own password, language and colours."""

from __future__ import annotations

import contextlib
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from rejectd.page import site as of
from rejectd.page.access import AccessError, Session, User, WaitError, check_new
from rejectd.page.site import COOKIE, LANGUAGE_COOKIE, THEME_COOKIE, THEMES, Form, Site
from rejectd.page.texts import LANGUAGES

router = APIRouter(include_in_schema=False)
ONE_TIME_FILE = "one-time-password"
_YEAR_S = 365 * 86_400


def _somebody(request: Request) -> Session:
    session = of.session(request)
    if session is None:
        raise HTTPException(401, "log in first")
    return session


Somebody = Annotated[Session, Depends(_somebody)]


@router.get("/login")
def show_login(request: Request) -> Response:
    """The form to log in."""
    return of.page(request, "login.html", error="", name="", first=_first(of.site(request)))


@router.post("/login")
async def log_in(request: Request, fields: Form) -> Response:
    """Log in by name and password."""
    of.check_origin(request)
    site, text, where = of.site(request), of.texts(request), of.address(request)
    name, password = fields.get("name", "").strip()[:64], fields.get("password", "")

    def refused(error: str, status: int) -> HTMLResponse:
        return of.page(request, "login.html", status, error=error, name=name, first=first)

    first = await run_in_threadpool(_first, site)
    try:
        site.attempts.check(name, where)
    except WaitError as wait:
        response = refused(text("password_wait", seconds=round(wait.seconds)), 429)
        response.headers["Retry-After"] = str(round(wait.seconds) + 1)
        return response
    user = await run_in_threadpool(site.store.log_in, name, password)
    if user is None:
        await run_in_threadpool(site.store.audit, name or "-", "log in", where, ok=False)
        return refused(text("password_wrong"), 401)
    site.attempts.succeeded(name, where)
    await run_in_threadpool(site.store.audit, user.name, "log in", where)
    site.sessions.end(request.cookies.get(COOKIE))
    answer = of.back("/password" if user.one_time else "/")
    _set_cookie(answer, COOKIE, site.sessions.begin(user), site)
    return answer


@router.post("/logout")
async def log_out(request: Request, fields: Form, session: Somebody) -> Response:
    """Log out."""
    of.check_token(request, session, fields)
    of.site(request).sessions.end(request.cookies.get(COOKIE))
    response = of.back("/login")
    response.delete_cookie(COOKIE)
    return response


@router.get("/password", dependencies=[Depends(_somebody)])
def show_password(request: Request) -> Response:
    """The form for one's own password."""
    return of.page(request, "password.html", error="")


@router.post("/password")
async def change_password(request: Request, fields: Form, session: Somebody) -> Response:
    """Choose a password of one's own. All sessions of that person end, and a new one begins."""
    of.check_token(request, session, fields)
    site, text = of.site(request), of.texts(request)
    password = fields.get("password", "")
    if password != fields.get("again"):
        return of.page(request, "password.html", 422, error=text("password_differs"))
    try:
        check_new(password, session.user)
    except AccessError:
        return of.page(request, "password.html", 422, error=text("password_weak"))
    if await run_in_threadpool(site.store.log_in, session.user, password):
        return of.page(request, "password.html", 422, error=text("password_same"))
    user = await run_in_threadpool(_change, site, session, password)
    site.sessions.end_of(session.user)
    response = of.back("/")
    _set_cookie(response, COOKIE, site.sessions.begin(user), site)
    return response


@router.post("/preferences")
async def prefer(request: Request, fields: Form) -> Response:
    """Language and colours of one browser."""
    of.check_origin(request)
    site = of.site(request)
    response = of.back(_own_path(fields.get("path", "/")))
    if fields.get("language") in set(LANGUAGES):
        _set_cookie(response, LANGUAGE_COOKIE, fields["language"], site, _YEAR_S)
    if fields.get("theme") in THEMES:
        _set_cookie(response, THEME_COOKIE, fields["theme"], site, _YEAR_S)
    return response


def _change(site: Site, session: Session, password: str) -> User:
    user = site.store.change_password(session.user, password)
    site.store.audit(session.user, "password")
    with contextlib.suppress(OSError):  # of the first start
        (site.store.directory / ONE_TIME_FILE).unlink()
    return user


def _set_cookie(response: Response, name: str, value: str, site: Site, seconds: int | None = None) -> None:
    response.set_cookie(name, value, max_age=seconds, httponly=True, samesite="strict", secure=site.secure)


def _own_path(path: str) -> str:
    """A path of this page, never the address of another."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() else "/"


def _first(site: Site) -> bool:
    """Whether the one-time password of the first start still waits."""
    users = site.store.users()
    return len(users) == 1 and users[0].one_time
