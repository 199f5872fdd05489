"""A broker of MQTT 5 that holds a client to the Receive Maximum that it names, and takes its time to acknowledge."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK, _PINGREQ, _PINGRESP, _DISCONNECT = (
    0x10, 0x20, 0x30, 0x40, 0x80, 0x90, 0xC0, 0xD0, 0xE0,
)  # fmt: skip
_TOO_MANY = 0x93


class StrictBroker:
    """Serves one client at a time."""

    def __init__(self, *, receive_maximum: int = 20, acknowledges_after_s: float = 0, ends_with: int = 0) -> None:
        """`ends_with`: the reason code with which it ends each connection at the first message."""
        self.connects = 0
        self.most_under_way = 0
        self.topics: list[str] = []  # of what was published, in order
        self._maximum = receive_maximum
        self._delay_s = acknowledges_after_s
        self._ends_with = ends_with
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                _Session(self, connection, self._maximum, self._delay_s, self._ends_with).serve()


class _Session:
    def __init__(
        self, broker: StrictBroker, connection: socket.socket, maximum: int, delay_s: float, ends_with: int
    ) -> None:
        self._ends_with = ends_with
        self._broker = broker
        self._connection = connection
        self._file = connection.makefile("rb")
        self._maximum = maximum
        self._delay_s = delay_s
        self._under_way = 0
        self._due: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()

    def serve(self) -> None:
        acknowledging = threading.Thread(target=self._acknowledge, daemon=True)
        acknowledging.start()
        try:
            while self._packet():
                pass
        except OSError:
            pass
        finally:
            self._due.put(None)
            acknowledging.join(10)
            self._file.close()

    def _packet(self) -> bool:
        first = self._file.read(1)
        if not first:
            return False
        body = self._file.read(self._length())
        kind = first[0] & 0xF0
        if kind == _CONNECT:
            self._broker.connects += 1
            self._send(_CONNACK, b"\0\0" + b"\x03" + b"\x21" + struct.pack("!H", self._maximum))
        elif kind == _PUBLISH:
            return self._publish(body)
        elif kind == _SUBSCRIBE:
            self._send(_SUBACK, body[:2] + b"\0" + b"\1")
        elif kind == _PINGREQ:
            self._send(_PINGRESP, b"")
        return kind != _DISCONNECT

    def _publish(self, body: bytes) -> bool:
        end = 2 + int.from_bytes(body[:2], "big")
        self._under_way += 1
        self._broker.most_under_way = max(self._broker.most_under_way, self._under_way)
        if self._under_way > self._maximum or self._ends_with:
            self._send(_DISCONNECT, bytes([self._ends_with or _TOO_MANY, 0]))
            return False
        self._broker.topics.append(body[2:end].decode())
        self._due.put((time.monotonic() + self._delay_s, body[end : end + 2]))
        return True

    def _acknowledge(self) -> None:
        while item := self._due.get():
            at, identifier = item
            time.sleep(max(0.0, at - time.monotonic()))
            self._under_way -= 1
            try:
                self._send(_PUBACK, identifier)
            except OSError:
                return

    def _send(self, kind: int, body: bytes) -> None:
        self._connection.sendall(bytes([kind, len(body)]) + body)

    def _length(self) -> int:
        length = shift = 0
        while True:
            byte = self._file.read(1)[0]
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                return length
            shift += 7
