"""The driver of GenICam cameras, whatever library reaches them: numbers, times and faults of their frames."""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from rejectd.cameras.driver import CameraError, Remark
from rejectd.cameras.genicam import pixel_formats
from rejectd.cameras.genicam.device_clock import DeviceClock
from rejectd.cameras.genicam.features import write_all
from rejectd.cameras.genicam.frame_ids import FrameIds
from rejectd.cameras.genicam.link import Buffer, Link
from rejectd.cameras.standstill import Standstill
from rejectd.cameras.streams.arrivals import Arrivals
from rejectd.contract.messages import Exposure, Pixels, StreamCounts
from rejectd.contract.settings import GenicamCamera

_TOLD_EVERY_S = 1.0  # how often the counts of the stream are passed on

_log = logging.getLogger(__name__)

_Moment: TypeAlias = tuple[int, str]  # captured_ns, why the time is in doubt


class Genicam:
    """One camera. Each frame that it numbered becomes an exposure, also one that did not arrive, or not as a whole.

    The settings are written again each time the camera is opened: it may have lost its power meanwhile.
    """

    def __init__(self, settings: GenicamCamera, link: Link, *, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._settings = settings
        self._link = link
        self._clock_ns = clock_ns
        self._standstill: Standstill | None = None
        self._waiting: deque[Exposure | Remark] = deque()
        self._begin()

    def open(self) -> None:
        """Reach the camera, write the settings and start it. Raises CameraError."""
        self._begin()
        try:
            write_all(self._link.connect(), self._settings, self._link.shown)
            self._link.start()
        except CameraError as error:
            error.__context__ = None
            raise error.with_traceback(None) from None  # or its frames keep the camera open until it is told
        self._ids = FrameIds(self._link.first_number)
        self._standstill = Standstill()
        self._arrivals = Arrivals(self._standstill.began_s)

    def close(self) -> None:
        """Let go of the camera."""
        self._link.close()
        self._waiting.clear()
        standstill, self._standstill = self._standstill, None
        if standstill is not None:
            standstill.end()

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next exposure. None on an idle line. Raises CameraError when the camera is lost."""
        if not self._waiting:
            counts = self._new_counts()
            if counts is not None:
                return counts
            began_ns = self._clock_ns()
            buffer = self._link.fetch(timeout_s)
            if buffer is None:
                return None
            self._take(buffer, (self._clock_ns() - began_ns) / 1e9)
        return self._waiting.popleft() if self._waiting else None

    def _begin(self) -> None:
        self._clock = DeviceClock()
        self._counts = StreamCounts()
        self._counted_ns = self._clock_ns()
        self._captured_before_ns: int | None = None

    def _take(self, buffer: Buffer, waited_s: float) -> None:
        """Make exposures of a picture, and of those before it that never came."""
        captured_ns, doubt = self._captured(buffer, waited_s)
        now_ns, now_unix_ns = time.monotonic_ns(), time.time_ns()
        unix_ns = now_unix_ns - now_ns
        fault = buffer.fault or doubt
        if buffer.number is None and buffer.fault:
            self._ids.nameless()
        if buffer.number is not None:
            step = self._ids.step(buffer.number)
            times_ns = _between(self._captured_before_ns, captured_ns, len(step.missing))
            for number, lost_ns in zip(step.missing, times_ns, strict=True):
                self._waiting.append(_lost(number, lost_ns, lost_ns + unix_ns))
            if step.restarted:
                text = f"{self._link.shown}: frames are numbered anew from {buffer.number}; nobody knows what was lost"
                _log.warning("%s", text)
                self._waiting.append(Remark(text=text, unseen=True))
            if step.repeated:
                fault = fault or f"the camera sent frame {buffer.number} again"
        self._captured_before_ns = captured_ns
        self._waiting.append(
            Exposure(
                captured_ns=captured_ns,
                captured_unix_ns=captured_ns + unix_ns,
                source="" if buffer.number is None else f"frame {buffer.number}",
                fault=fault,
                load=functools.partial(_load, buffer),
                held=not fault,
            )
        )

    def _captured(self, buffer: Buffer, waited_s: float) -> _Moment:
        """When a picture was taken: by the camera's stamp, or else by the wait for it."""
        by_waiting = self._arrivals.age(None, buffer.arrived_ns / 1e9, waited_s)
        if not buffer.stamp_ns:
            return buffer.arrived_ns - round(by_waiting.lag_s * 1e9), by_waiting.doubt
        captured = self._clock.captured(buffer.stamp_ns, buffer.arrived_ns)
        if captured.jumped:
            _log.warning("%s: its clock jumped", self._link.shown)
        return captured.captured_ns, ""

    def _new_counts(self) -> Remark | None:
        """What the stream counted since the last time, once a second."""
        now_ns = self._clock_ns()
        if now_ns - self._counted_ns < _TOLD_EVERY_S * 1e9:
            return None
        self._counted_ns = now_ns
        before, self._counts = self._counts, self._link.counts()
        more = self._counts - before
        return Remark(text=f"{self._link.shown}: {more}", stream=more) if more else None


def _between(before_ns: int | None, after_ns: int, count: int) -> list[int]:
    """The times of frames between two others, evenly spread."""
    if before_ns is None:
        return [after_ns] * count
    return [before_ns + (after_ns - before_ns) * position // (count + 1) for position in range(1, count + 1)]


def _lost(number: int, captured_ns: int, captured_unix_ns: int) -> Exposure:
    """An exposure of which nothing arrived. Its time lies between those of its neighbours."""
    return Exposure(
        captured_ns=captured_ns,
        captured_unix_ns=captured_unix_ns,
        source=f"frame {number}",
        fault=f"frame {number} never arrived: look at the network's load, cable and packet size",
    )


def _load(buffer: Buffer, _timeout_s: float) -> Pixels:
    return pixel_formats.rgb(
        buffer.data, code=buffer.code, width=buffer.width, height=buffer.height, padding=buffer.padding
    )
