"""A camera without a clock: JPEG pictures over HTTP, each painted with the time at which it was taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240


def paint(number: int) -> bytes:
    """What rtsp_server.py paints: 32 bits of monotonic milliseconds, red and blue, a moving block."""
    taken_ms = (time.monotonic_ns() // 1_000_000) & 0xFFFFFFFF
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)  # BGR
    for cell in range(32):
        pixels[:40, 10 * cell : 10 * cell + 10] = 255 * (taken_ms >> (31 - cell) & 1)
    pixels[40:200, : WIDTH // 2] = (0, 0, 255)
    pixels[40:200, WIDTH // 2 :] = (255, 0, 0)
    left = 8 * number % (WIDTH - 40)
    pixels[200:, left : left + 40] = 255
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])


class MjpegServer:
    """`pause_s(number)` is how long it waits before it takes a picture."""

    def __init__(self, pause_s: Callable[[int], float] = lambda _: 0.05, *, lengths: bool = True) -> None:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
                self.end_headers()
                number = 0
                while not server.ending.wait(pause_s(number)):
                    picture = paint(number)
                    length = f"Content-Length: {len(picture)}\r\n" if lengths else ""
                    head = f"--part\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode()
                    try:
                        self.wfile.write(head + picture + b"\r\n")
                    except OSError:
                        return
                    number += 1

            def log_message(self, *_: object) -> None:
                pass

        self.requests = 0
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/video.mjpg"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
