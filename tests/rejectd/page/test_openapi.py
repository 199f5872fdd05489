"""The page's OpenAPI: every operation, asked with what fits its description and with what does not, keeps its word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_server import PageServer, Person
from stand_in_service import StandInService

CHECKS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SOME = st.one_of(
    TEXT,
    st.sampled_from(
        ["left", "gone", "run-left-1", "2026-11-25T06:00", "true", "-1", "pause", "golden", "threshold", ""]
    ),
    st.integers().map(str),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def description(server: PageServer) -> dict[str, Any]:
    described: dict[str, Any] = Person(server.port).ask("/openapi.json").json()
    return described


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_operation_is_described_for_people(description: dict[str, Any]) -> None:
    described = list(operations(description))
    assert {path for path, _, _ in described} >= {"/healthz", "/readyz", "/api/live", "/api/orders/{name}"}
    for _, _, operation in described:
        assert operation["description"]


@pytest.mark.parametrize("logged_in", [True, False])
def test_whatever_is_sent_each_answer_is_one_that_was_described(
    description: dict[str, Any], service: StandInService, server: PageServer, engineer: Person, logged_in: bool
) -> None:
    person = engineer if logged_in else Person(server.port)
    token = engineer.token()
    described = list(operations(description))

    @CHECKS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        path, method, operation = data.draw(st.sampled_from(described))
        query = {}
        for parameter in operation.get("parameters", []):
            value = data.draw(SOME)
            if parameter["in"] == "path":
                path = path.replace("{" + parameter["name"] + "}", quote(value or "x", safe=""))
            elif data.draw(st.booleans()):
                query[parameter["name"]] = value
        body = json.dumps(data.draw(JSON)).encode() if "requestBody" in operation else None
        headers = {"Content-Type": "application/json", "X-CSRF-Token": token if data.draw(st.booleans()) else "x"}
        answer = person.ask(f"{path}?{urlencode(query)}", method.upper(), body, headers if body else {})
        # 404 also says that a path holds letters which no address has, such as a slash
        assert str(answer.status) in {*operation["responses"], "404"}, (answer.status, answer.text)
        content = operation["responses"].get(str(answer.status), {}).get("content", {})
        if schema := content.get("application/json", {}).get("schema"):
            jsonschema.validate(answer.json(), {**schema, "components": description["components"]})
        if not logged_in and path.startswith("/api/"):
            assert answer.status in (401, 404, 422)

    check()
    assert "Traceback" not in server.log.read_text()
