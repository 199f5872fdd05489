"""Drivers for video files and for live streams (RTSP, HTTP)."""

from __future__ import annotations

import logging
import threading
import time

from rejectd.cameras.address import is_stream, shown
from rejectd.cameras.driver import CameraError, Driver, Ended, exposure_of
from rejectd.cameras.standstill import Standstill
from rejectd.cameras.streams.arrivals import Arrivals
from rejectd.cameras.streams.container import Decoded, Decoder
from rejectd.cameras.streams.freshness import Age, Freshness
from rejectd.cameras.streams.multipart import demand_lengths
from rejectd.contract.messages import Exposure
from rejectd.contract.settings import TimeStamps, VideoCamera

BEHIND_S = 3.0  # a stream without a fresh picture for so long is opened anew
_FEW = 3  # fewer pictures do not tell whether a stream is fresh
_CATCH_UP_S = 1.0  # a file that is later than this shows its next picture now

_log = logging.getLogger(__name__)


def video(settings: VideoCamera) -> Driver:
    """The driver for a stream or a file."""
    return Stream(settings) if is_stream(settings.url) else File(settings)


class Stream:
    """A live stream. Its pictures are fresh, or marked as stale.

    Opening lasts until pictures arrive as they are taken; pictures that queued before are not shown, since the camera
    was not up. From then on the age of each picture is known from its time stamp (freshness.py), or bounded by how long
    the process waited for it where the stamps are no clock (arrivals.py). The capture time is the arrival minus the
    age. An age above 0.5 s makes a picture faulty ("stale"), so that it is counted and never judged as new. If no fresh
    picture comes for 3 s, the connection is dropped together with everything that is queued in it.
    """

    def __init__(self, settings: VideoCamera) -> None:
        self._settings = settings
        self._source: Decoder | None = None
        self._standstill: Standstill | None = None
        self._clock: Freshness | Arrivals = Freshness()
        self._doubtful_since_s: float | None = None
        self._doubtful = 0  # pictures since then
        self._lengths_told = False

    def open(self) -> None:
        """Connect, and read until pictures come as they are taken. Raises CameraError."""
        self._source = Decoder(self._settings)
        if self._source.is_multipart and self._settings.timestamps is TimeStamps.STREAM and not self._lengths_told:
            self._lengths_told = demand_lengths(self._settings)
        self._decoded = self._source.decoded()
        self._clock = self._new_clock(self._source)
        self._doubtful_since_s = None
        self._told_of_jump = False
        self._settle(self._source)

    def close(self) -> None:
        """Drop the connection and all that is queued in it."""
        source, self._source = self._source, None
        if source is not None:
            source.close()
        standstill, self._standstill = self._standstill, None
        if standstill is not None:
            standstill.end()

    def read(self, timeout_s: float) -> Exposure | None:  # noqa: ARG002 - FFmpeg waits for `read_timeout_s`
        """The next picture; a stale one is faulty. Raises CameraError when the link is lost or stays behind."""
        assert self._source is not None
        decoded = self._next(self._source)
        arrived_ns, arrived_unix_ns = time.monotonic_ns(), time.time_ns()
        age = self._clock.age(decoded.stamp_s, arrived_ns / 1e9, decoded.waited_s)
        self._tell_of_jump(self._source)
        self._give_up_in_time(self._source, age, arrived_ns / 1e9)
        lag_ns = round(age.lag_s * 1e9)
        return exposure_of(
            decoded.pixels,
            age.doubt or decoded.fault,
            captured_ns=arrived_ns - lag_ns,
            captured_unix_ns=arrived_unix_ns - lag_ns,
            source="" if decoded.stamp_s is None else f"{decoded.stamp_s:.3f} s",
        )

    def _new_clock(self, source: Decoder) -> Freshness | Arrivals:
        if source.has_clock and self._settings.timestamps is TimeStamps.STREAM:
            return Freshness()
        if not source.has_clock:
            _log.info("%s: it has no clock; pictures count as taken when they come", source.name)
        self._standstill = Standstill()
        return Arrivals(self._standstill.began_s)

    def _settle(self, source: Decoder) -> None:
        connected_s, pictures = time.monotonic(), 0
        while not self._clock.settled:
            decoded = self._next(source)
            arrived_s, pictures = time.monotonic(), pictures + 1
            settled = self._clock.settle(decoded.stamp_s, arrived_s, decoded.waited_s)
            if settled or arrived_s - connected_s < self._settings.open_timeout_s:
                continue
            if pictures < _FEW:
                problem = (
                    f"{source.name}: {pictures} pictures in {arrived_s - connected_s:.1f} s do not tell if they are new"
                )
                raise CameraError(
                    problem, hint=f"raise `open_timeout_s` to more than {_FEW} times the time between two"
                )
            raise self._trouble(source)

    def _tell_of_jump(self, source: Decoder) -> None:
        """Log a jump of the time stamps once for each connection: a camera that jumps often would fill the log."""
        if self._clock.jump_s and not self._told_of_jump:
            self._told_of_jump = True
            _log.warning("%s: a time stamp jumped by %+.1f s", source.name, self._clock.jump_s)

    def _give_up_in_time(self, source: Decoder, age: Age, arrived_s: float) -> None:
        """Raises CameraError when pictures have been doubtful for so long that a new connection is better."""
        if not age.doubt:
            self._doubtful_since_s, self._doubtful = None, 0
        elif self._doubtful_since_s is None:
            self._doubtful_since_s = arrived_s
        else:
            self._doubtful += 1
            if arrived_s - self._doubtful_since_s > BEHIND_S and self._doubtful > _FEW:
                raise self._trouble(source)
        if self._clock.no_clock:
            raise self._trouble(source)

    def _trouble(self, source: Decoder) -> CameraError:
        trouble, hint = self._clock.trouble()
        return CameraError(f"{source.name}: {trouble}", hint=hint)

    def _next(self, source: Decoder) -> Decoded:
        decoded = next(self._decoded, None)
        if decoded is None:
            raise CameraError(f"{source.name}: the camera ended the stream", hint="is it switched off or restarting?")
        return decoded


class File:
    """A video file, shown at its own rate, once or in a loop. A picture is decoded before it is due."""

    def __init__(self, settings: VideoCamera) -> None:
        self._settings = settings
        self._source: Decoder | None = None
        self._next: Decoded | None = None
        self._start_s = 0.0  # when the picture with time stamp 0 is due; 0: not yet known
        self._stamp_s = 0.0
        self._wait = threading.Event().wait

    def open(self) -> None:
        """Start from the first picture. Raises CameraError."""
        self._source = Decoder(self._settings)
        self._decoded = self._source.decoded()
        self._next = None
        self._start_s = 0.0

    def close(self) -> None:
        """Close the file."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def read(self, timeout_s: float) -> Exposure | None:
        """The next picture when it is due. Raises Ended after the last one."""
        until_s = time.monotonic() + timeout_s
        if self._next is None:
            self._next = self._load()
        now_s = time.monotonic()
        if now_s - self._start_s - self._stamp_s > _CATCH_UP_S:
            self._start_s = now_s - self._stamp_s  # the first picture, or we fell far behind
        due_s = self._start_s + self._stamp_s
        self._wait(max(0.0, min(due_s, until_s) - now_s))
        if due_s > until_s:
            return None
        decoded, self._next = self._next, None
        return exposure_of(
            decoded.pixels,
            decoded.fault,
            captured_ns=time.monotonic_ns(),
            captured_unix_ns=time.time_ns(),
            source=f"{shown(self._settings.url)} {self._stamp_s:.3f} s",
        )

    def _load(self) -> Decoded:
        assert self._source is not None
        decoded = next(self._decoded, None)
        if decoded is None:
            if not self._settings.loop:
                raise Ended(f"{self._source.name}: every picture has been shown")
            self._rewind(self._source)
            decoded = next(self._decoded, None)
            if decoded is None:
                raise CameraError(f"{self._source.name}: there is no picture in it", hint="copy the file again")
        follows_s = self._stamp_s + self._source.interval_s
        self._stamp_s = follows_s if decoded.stamp_s is None else decoded.stamp_s
        return decoded

    def _rewind(self, source: Decoder) -> None:
        """Open the file anew, without a seek, so that the decoder starts clean. The first picture follows the last."""
        self._start_s += self._stamp_s + source.interval_s
        source.close()
        self._source = Decoder(self._settings)
        self._decoded = self._source.decoded()
