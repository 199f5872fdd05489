"""The pages that change something: products, the log of changes, and users."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from rejectd.contract.fields import NAME
from rejectd.contract.messages import RejectdError
from rejectd.page import site as of
from rejectd.page.access import AccessError, Role, Session, new_password
from rejectd.page.line_link import LineError
from rejectd.page.live import line_state
from rejectd.page.looking_back import gallery
from rejectd.page.site import ENGINEER, OPERATOR, Engineer, Form, Operator, Site

router = APIRouter(include_in_schema=False)

# Which commands the page gives, and who may give them. Replays are for the programs that need them.
MAY: Mapping[str, Role] = {
    "pause": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "snapshot": Role.OPERATOR,
    "golden": Role.OPERATOR,
    "product": Role.OPERATOR,
    "threshold": Role.ENGINEER,
}
_HEADLINES = {
    "pause": "pause",
    "resume": "resume",
    "snapshot": "snapshot",
    "golden": "golden",
    "product": "changeover",
    "threshold": "set_threshold",
}


@router.get("/products", dependencies=OPERATOR)
def show_products(request: Request) -> Response:
    """The products with their thresholds, and what an operator may do with them."""
    site = of.site(request)
    state, complaint = line_state(site)
    products = [_product(site, name) for name in (state["products"] if state else {})]
    cameras = [one for one in (state["cameras"] if state else []) if not one["station"]]
    return of.page(request, "products.html", complaint=complaint, products=products, cameras=cameras)


@router.post("/products/order")
async def order(request: Request, fields: Form, session: Operator) -> Response:
    """Ask for confirmation of an order, and carry it out once it is confirmed."""
    of.check_token(request, session, fields)
    name = fields.get("order", "")
    check_may(request, session, name)
    wanted = _request(name, fields)
    if fields.get("confirmed") != "yes":
        given = {key: value for key, value in fields.items() if key != "token"}
        return of.page(request, "confirm.html", order=_HEADLINES[name], wanted=wanted, fields=given)
    answer = await run_in_threadpool(give, of.site(request), session, name, wanted)
    shown = json.dumps(answer["result"], indent=1) if answer["result"] and "jpeg" not in answer["result"] else ""
    kept = (answer["result"] or {}).get("evidence")
    status = 200 if answer["ok"] else 409
    return of.page(request, "ordered.html", status, order=_HEADLINES[name], answer=answer, shown=shown, kept=kept)


@router.get("/audit", dependencies=OPERATOR)
def show_audit(request: Request) -> Response:
    """What people did, the latest first."""
    return of.page(request, "audit.html", rows=of.site(request).store.audited())


@router.get("/users", dependencies=ENGINEER)
def show_users(request: Request) -> Response:
    """Who may log in."""
    return _users(request)


@router.post("/users")
async def change_user(request: Request, fields: Form, session: Engineer) -> Response:
    """Add or reset a user, who gets a one-time password, or remove one."""
    of.check_token(request, session, fields)
    site, name = of.site(request), fields.get("name", "").strip()
    if not re.fullmatch(NAME["pattern"], name):
        return _users(request, error=NAME["pattern_help"])
    try:
        password = await run_in_threadpool(_change_user, site, session, name, fields)
    except AccessError as error:
        return await run_in_threadpool(_users, request, error=str(error))
    if name == session.user:
        return of.back("/login")
    return await run_in_threadpool(_users, request, name=name, password=password)


def check_may(request: Request, session: Session, name: str) -> None:
    """Raises HTTPException if there is no such order, or the role may not give it."""
    if name not in MAY:
        raise HTTPException(404, of.texts(request)("not_here"))
    if session.role < MAY[name]:
        raise HTTPException(403, of.texts(request)("may_not"))


def give(site: Site, session: Session, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Give an order to the line for a person, and note it. Returns the line's answer.

    Raises:
        LineError: if the line does not take or answer it, which is noted too.
    """
    detail = f"{name} {json.dumps(request, sort_keys=True)}"
    try:
        answer = site.link.command(name, request, by=f"{session.user} at the page")
    except LineError as error:
        site.store.audit(session.user, "order", f"{detail}: {error}", ok=False)
        raise
    text = detail if answer["ok"] else f"{detail}: {answer['error']}"
    site.store.audit(session.user, "order", text, ok=bool(answer["ok"]))
    return answer


def _request(name: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The request of an order from the fields of its form."""
    request: dict[str, Any] = {}
    for key in ("product", "camera", "bundle"):
        if fields.get(key):
            request[key] = fields[key]
    cameras = [key.partition(".")[2] for key, value in fields.items() if key.startswith("cameras.") and value]
    if cameras:
        request["cameras"] = cameras
    if name == "threshold":
        text = fields.get("threshold", "").strip()
        try:
            request["threshold"] = float(text) if text else None
        except ValueError as error:
            raise RejectdError(f"{text[:40]!r} is no number", hint="such as 0.45") from error
    return request


def _product(site: Site, name: str) -> dict[str, Any]:
    """A product with its calibration, and the scores of its last parts."""
    product = site.link.product(name)
    return {**product, "last": gallery(site).last_scores(name), "high": 2 * product["calibrated"]}


def _change_user(site: Site, session: Session, name: str, fields: Mapping[str, str]) -> str:
    """Add, reset or remove a user, who must log in again. Returns the one-time password, empty for who was removed.

    Raises:
        AccessError: if that must not be.
    """
    password = ""
    if fields.get("remove"):
        site.store.remove_user(name)
    elif name == session.user:
        if [user.name for user in site.store.users() if user.role is Role.ENGINEER] == [name]:
            raise AccessError("the last engineer stays one", hint="add another one first")
        raise AccessError("this is you", hint="change your password at /password; another engineer may do the rest")
    else:
        role, password = Role.named(fields.get("role", "")), new_password()
        site.store.add_user(name, role, password)
    site.sessions.end_of(name)
    site.store.audit(session.user, "remove user" if fields.get("remove") else "add user", name)
    return password


def _users(request: Request, *, error: str = "", name: str = "", password: str = "") -> Response:
    users = of.site(request).store.users()
    status = 422 if error else 200
    return of.page(
        request, "users.html", status, users=users, error=error, name=name, password=password, roles=list(Role)
    )
