"""Stands between an RTSP server and us, and rewrites the RTP time stamps of its pictures (over TCP alone)."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

_RTP = 0  # the interleaved channel of the pictures


class RtpProxy:
    """`restamp(number, seconds)` returns the time stamp of a picture: its number since the start, its own stamp."""

    def __init__(self, port: int, restamp: Callable[[int, float], float], clock_hz: int = 90_000) -> None:
        self._server_port = port
        self._restamp = restamp
        self._clock_hz = clock_hz
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/camera"
        self.connections = 0
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._thread(self._accept)

    def close(self) -> None:
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)
            connected.close()
        for thread in self._threads:
            thread.join(5)

    def _thread(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self.connections += 1
                self._sockets += [client, server]
                self._thread(self._forward, client, server)
                self._thread(self._rewrite, server, client)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def _rewrite(self, source: socket.socket, sink: socket.socket) -> None:
        """Answers of RTSP are lines, none of which begins with `$`; packets of RTP do, with channel and length."""
        number, first, last = -1, 0, -1
        with contextlib.suppress(OSError, EOFError), source.makefile("rb") as stream:
            while begin := stream.read(1):
                if begin != b"$":
                    sink.sendall(begin + stream.readline())
                    continue
                channel, length = struct.unpack(">BH", stream.read(3))
                packet = bytearray(stream.read(length))
                if channel == _RTP:
                    stamp = struct.unpack_from(">I", packet, 4)[0]
                    if number < 0:
                        first = stamp
                    if stamp != last:
                        number, last = number + 1, stamp
                    seconds = self._restamp(number, (stamp - first) % 2**32 / self._clock_hz)
                    struct.pack_into(">I", packet, 4, (first + round(seconds * self._clock_hz)) % 2**32)
                sink.sendall(struct.pack(">cBH", begin, channel, length) + packet)
            sink.shutdown(socket.SHUT_RDWR)
