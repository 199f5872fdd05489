"""Asks the service of the line, and shares what it answers between all browsers: one question at a time, few a second.

However many people look, the service is asked for its state and for each picture no more often than that changes.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rejectd.contract import local_socket
from rejectd.contract.local_socket import Answer
from rejectd.contract.messages import RejectdError

_ANSWER_S = 5.0
_FRESH_S = 0.5  # a state that is younger is shown to the next browser too
_PICTURES = 32  # kept for browsers that ask for the same ones
_POLL_S = 0.1
_COMMAND_S = 120.0  # a changeover loads a bundle


class LineError(RejectdError):
    """The service does not answer, or says why it cannot."""


class AwayError(LineError):
    """The service does not answer."""


class LineLink:
    """Asks the service. Safe for any number of threads."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._asking = threading.Lock()
        self._states: dict[bool, tuple[float, dict[str, Any] | LineError]] = {}  # with pictures and without
        self._pictures: OrderedDict[tuple[str, str, bool], bytes] = OrderedDict()

    def state(self, *, pictures: bool = False) -> dict[str, Any]:
        """What the line does, at most half a second old; `pictures` of it may be asked for then.

        Raises:
            LineError: if the service does not answer.
        """
        values = self._fresh(pictures)
        if values is None:
            with self._asking:
                values = self._fresh(pictures) or self._ask_for_state(pictures)
        if isinstance(values, LineError):
            raise values
        return values

    def _fresh(self, pictures: bool) -> dict[str, Any] | LineError | None:
        at, values = self._states.get(pictures, (0.0, None))
        return values if values is not None and self._clock() - at <= _FRESH_S else None

    def _ask_for_state(self, pictures: bool) -> dict[str, Any] | LineError:
        values: dict[str, Any] | LineError
        try:
            values = self._json({"ask": "state", "pictures": pictures})
        except LineError as error:
            values = error
        self._states[pictures] = self._clock(), values
        return values

    def picture(self, camera: str, event_id: str, *, heat: bool) -> bytes:
        """The picture of the last verdict of a camera as JPEG.

        Raises:
            LineError: if there is none, or another part has passed meanwhile.
        """
        key = camera, event_id, heat
        if jpeg := self._pictures.get(key):
            return jpeg
        with self._asking:
            if key not in self._pictures:
                self._pictures[key] = self._ask(
                    {"ask": "picture", "camera": camera, "event_id": event_id, "heat": heat}
                ).body
                while len(self._pictures) > _PICTURES:
                    self._pictures.popitem(last=False)
            return self._pictures[key]

    def product(self, name: str) -> dict[str, Any]:
        """The threshold of a product, and its calibration. Raises LineError."""
        with self._asking:
            return self._json({"ask": "product", "product": name})

    def command(self, name: str, request: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Give a command for a person, and wait for the answer, as `config/mqtt` describes answers.

        Raises:
            LineError: if the service does not take it, or does not answer in time.
        """
        with self._asking:
            ticket = self._json({"ask": "command", "name": name, "request": dict(request), "by": by})["ticket"]
        until = self._clock() + _COMMAND_S
        while self._clock() < until:
            with self._asking:
                answer = self._ask({"ask": "answer", "ticket": ticket}).body
                self._states.clear()  # the command has changed it
            if answer != b"null":
                values: dict[str, Any] = json.loads(answer)
                return values
            time.sleep(_POLL_S)
        raise LineError("the line has not answered the command in time", hint="see the service's log")

    def _json(self, request: Mapping[str, Any]) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._ask(request).body)
        return values

    def _ask(self, request: Mapping[str, Any]) -> Answer:
        until = self._clock() + _ANSWER_S
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_ANSWER_S)
                with local_socket.address(self._path) as address:
                    connection.connect(address)
                local_socket.send(connection, json.dumps(request).encode() + b"\n", until, self._clock)
                data = local_socket.receive(connection, local_socket.ANSWER_BYTES, until, self._clock)
            answer = Answer.parse(data)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or str(error)
            raise AwayError(f"the service does not answer: {cause}", hint="is it running? look at its log") from error
        if answer.error:
            raise LineError(answer.error)
        return answer
