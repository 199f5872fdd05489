"""Puts the web application together: headers, limits, errors, and which file answers which addresses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rejectd.contract.messages import RejectdError
from rejectd.page import api, entry, live, looking_back, orders
from rejectd.page.line_link import AwayError, LineError
from rejectd.page.site import BODY_BYTES, OwnPasswordError, Site, address, page, session, texts

log = logging.getLogger(__name__)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_PUBLIC = ("/healthz", "/readyz", "/static/")  # what costs no more than its answer, and watchers ask for often


def make_app(site: Site) -> FastAPI:
    """The web application of a line's page."""
    app = FastAPI(
        title="rejectd",
        version=version("rejectd"),
        description="The operator's page of one line. Log in at /login; a session's cookie opens the rest.",
        docs_url=None,  # both would load scripts from the Internet
        redoc_url=None,
    )
    app.state.site = site
    for router in (entry.router, live.router, looking_back.router, orders.router, api.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")
    app.add_middleware(_Bounded)
    app.middleware("http")(_guard)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(RejectdError, _trouble)
    return app


class _Bounded:
    """Refuses a body that is too large while it comes: one in chunks does not say its length beforehand."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        left = BODY_BYTES

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, "too large")
            return message

        await self._app(scope, bounded, send)


async def _guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse who sends too much, and give each answer the headers that keep browsers safe."""
    site: Site = request.app.state.site
    length = request.headers.get("content-length", "0")
    response: Response
    logged_in = session(request)
    sender = logged_in.token if logged_in else address(request)  # behind a proxy all have one address
    if not request.url.path.startswith(_PUBLIC) and not site.rates.allow(sender):
        response = JSONResponse({"detail": "too many requests"}, 429, headers={"Retry-After": "1"})
    elif not length.isdigit() or int(length) > BODY_BYTES:
        response = JSONResponse({"detail": "too large"}, 413)
    else:
        response = await go_on(request)
    response.headers.update(HEADERS)
    if site.secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if not request.url.path.startswith("/static/"):
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _of_a_program(request: Request) -> bool:
    return request.url.path.startswith(("/api/", "/healthz", "/readyz"))


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    if _of_a_program(request):
        return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)
    if error.status_code == 401:
        return RedirectResponse("/login", 303)
    if isinstance(error, OwnPasswordError):
        return RedirectResponse("/password", 303)
    text = texts(request)("not_here") if error.status_code == 404 else str(error.detail)
    return page(request, "trouble.html", error.status_code, text=text)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
    if _of_a_program(request):
        return JSONResponse({"detail": wrong}, 422)
    return page(request, "trouble.html", 422, text=wrong)


async def _trouble(request: Request, error: Exception) -> Response:
    """The line does not answer, or says no."""
    status = 503 if isinstance(error, AwayError) else 409 if isinstance(error, LineError) else 422
    if _of_a_program(request):
        return JSONResponse({"detail": str(error)}, status)
    return page(request, "trouble.html", status, text=str(error))
