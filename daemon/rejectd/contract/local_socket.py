"""How the operator's page and the service of a line talk: over a local socket in the state directory.

One connection carries one request and its answer. A request is one line of JSON. An answer is one line of JSON with
`ok`, `error` and `bytes`, and as many bytes after it. The socket is reached through its folder, since the address of a
socket has room for some 100 bytes only.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "page.sock"
REQUEST_BYTES = 70_000  # a command with the largest request
ANSWER_BYTES = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer: JSON or a picture, or an error that says what to do."""

    body: bytes = b""
    error: str = ""

    def encoded(self) -> bytes:
        """The answer as it goes over the socket."""
        head = {"ok": not self.error, "error": self.error, "bytes": len(self.body)}
        return json.dumps(head).encode() + b"\n" + self.body

    @classmethod
    def parse(cls, data: bytes) -> Answer:
        """Parse an answer. Raises ValueError if it is not whole."""
        head, _, body = data.partition(b"\n")
        values = json.loads(head)
        if not isinstance(values, dict) or values.get("bytes") != len(body):
            raise ValueError("the answer is not whole")
        return cls(body=body, error="" if values.get("ok") else str(values.get("error") or "no reason was given"))


def of_json(values: Mapping[str, Any]) -> Answer:
    """An answer that carries JSON."""
    return Answer(body=json.dumps(values, separators=(",", ":")).encode())


def request(line: bytes) -> dict[str, Any]:
    """Parse a request. Raises ValueError if it is no JSON object."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - whoever sent it, not our caller, made the mistake
    return values


@contextmanager
def address(path: Path) -> Iterator[str]:
    """An address for a socket in a folder, however long the path of the folder is. Raises OSError without a folder."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def receive(
    connection: socket.socket, most_bytes: int, until: float, clock: Callable[[], float], end: bytes = b""
) -> bytes:
    """Receive until `end` comes, or until the other side closes.

    Raises:
        TimeoutError: if that takes until the instant `until`.
        OSError: if there are more bytes than `most_bytes`, or the connection is lost.
    """
    data = bytearray()
    while not (end and data.endswith(end)):
        connection.settimeout(_left(until, clock))
        part = connection.recv(65_536)
        if not part:
            break
        data += part
        if len(data) > most_bytes:
            raise OSError(f"more than {most_bytes} bytes")
    return bytes(data)


def send(connection: socket.socket, data: bytes, until: float, clock: Callable[[], float]) -> None:
    """Send all bytes. Raises TimeoutError if the other side has not taken them by the instant `until`."""
    left = memoryview(data)
    while left:
        connection.settimeout(_left(until, clock))
        left = left[connection.send(left) :]


def _left(until: float, clock: Callable[[], float]) -> float:
    left = until - clock()
    if left <= 0:
        raise TimeoutError("the other side is too slow")
    return left
