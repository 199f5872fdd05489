"""Opens a video file or stream with FFmpeg (PyAV) and decodes it, whole pictures only."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import av
import av.error
import av.logging
import numpy as np
from av.container import InputContainer

from rejectd.cameras.address import is_stream, shown, with_login
from rejectd.cameras.driver import CameraError
from rejectd.contract.messages import Pixels
from rejectd.contract.settings import VideoCamera
from rejectd.passwords import PasswordError, read_password

# FFmpeg conceals damage and reports it in its log alone, so the log is on. It must not reach ours: it shows passwords.
av.logging.set_level(av.logging.INFO)
av.logging.set_skip_repeated(False)
logging.getLogger("libav").addHandler(logging.NullHandler())
logging.getLogger("libav").propagate = False

_VideoPacket: TypeAlias = "av.Packet[av.VideoStream]"  # generic for mypy alone

_LOST = "RTP: missed"  # rtpdec.c
_CONCEALED = "concealing"  # error_resilience.c
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS, avformat.h
_DEFAULT_INTERVAL_S = 0.04


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture from the decoder, or the reason why a packet gave none."""

    pixels: Pixels | None
    stamp_s: float | None  # PTS
    waited_s: float  # how long the process waited for the packet
    fault: str  # why the picture cannot be judged; empty if it can


class Decoder:
    """One open container. Any error of the link ends the decoder; the next attempt opens a new one."""

    def __init__(self, settings: VideoCamera) -> None:
        self._settings = settings
        self.name = shown(settings.url)
        password = password_of(settings)
        began = time.monotonic()
        try:
            with av.logging.Capture(local=True):  # FFmpeg's messages may hold the address with its password
                self._container = _container(settings, password)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._error("cannot be opened", error, began, settings.open_timeout_s) from None
        if not self._container.streams.video:
            self.close()
            raise CameraError(f"{self.name}: there is no video in it", hint="correct `url`")
        self._video = self._container.streams.video[0]
        self._video.thread_count = 1  # more threads hold pictures back, or lose their messages about damage
        rate = self._video.average_rate
        self.interval_s = float(1 / rate) if rate else _DEFAULT_INTERVAL_S
        # for sources without time stamps (MJPEG over HTTP, bare H.264), FFmpeg counts the pictures and makes some up
        self.is_multipart = self._container.format.name == "mpjpeg"
        self.has_clock = not self._container.format.flags & _NO_TIMESTAMPS
        # a JPEG is always a whole picture, even if its time stamp is that of the one before
        self._may_be_in_parts = is_stream(settings.url) and self._video.codec_context.name != "mjpeg"
        self._damage = "not yet complete: it needs an earlier key picture"  # why what is decoded now is not whole

    def close(self) -> None:
        """Close the container."""
        self._container.close()

    def decoded(self) -> Iterator[Decoded]:
        """Yield pictures from the first key picture to the end. Raises CameraError when the link is lost.

        Damage lasts until the next key picture, since each picture before that builds on the one before it.
        """
        packets = self._container.demux(self._video)
        started, last_pts = False, None
        while (arrival := self._packet(packets)) is not None:
            packet, waited_s, lost = arrival
            if packet.pts is not None and packet.pts == last_pts and self._may_be_in_parts:
                raise CameraError(
                    f"{self.name}: it sends parts of one picture as pictures of their own",
                    hint="set the camera to another encoding, such as one slice a picture; does its clock stand?",
                )
            last_pts = packet.pts
            if packet.is_keyframe:
                started, self._damage = True, ""
            self._damage = lost or self._damage
            if started:
                yield from self._decode(packet, waited_s)

    def _packet(self, packets: Iterator[_VideoPacket]) -> tuple[_VideoPacket, float, str] | None:
        """The next packet, how many seconds the process waited for it, and FFmpeg's report of loss; None at the end."""
        began, timeout_s = time.monotonic(), self._settings.read_timeout_s
        try:
            with av.logging.Capture(local=True) as messages:
                packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return None
        except (av.error.FFmpegError, OSError) as error:
            raise self._error("the link is lost", error, began, timeout_s) from None
        waited_s = time.monotonic() - began
        if waited_s >= timeout_s and is_stream(self._settings.url):
            # FFmpeg hands out the beginning of a picture before it says that the wait was in vain, then waits again
            raise self._error("the link is lost", TimeoutError(), began, timeout_s)
        lost = next((text.strip() for _, _, text in messages if text.startswith(_LOST)), "")
        return packet, waited_s, f"damaged: {lost}" if lost else ""

    def _decode(self, packet: _VideoPacket, waited_s: float) -> Iterator[Decoded]:
        stamp_s = float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else None
        frames: list[av.VideoFrame] = []
        try:
            with av.logging.Capture(local=True) as messages:
                frames = [frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)]
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            self._damage = f"damaged: cannot be decoded: {error.strerror}"
            yield Decoded(None, stamp_s, waited_s, self._damage)
        for level, _, text in messages:
            if level <= av.logging.ERROR or text.startswith(_CONCEALED):
                self._damage = f"damaged: {text.strip()}"
        for frame in frames:
            fault = self._damage or (
                "damaged: parts of it are missing" if frame.is_corrupt or packet.is_corrupt else ""
            )
            pixels = None if fault else np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            yield Decoded(pixels, frame.time, waited_s, fault)

    def _error(self, what: str, error: Exception, began: float, timeout_s: float) -> CameraError:
        """Make an error without FFmpeg's own text, which holds the address with its password.

        FFmpeg reports an expired wait in many ways, such as invalid data; so the clock decides what was a timeout.
        """
        late = is_stream(self._settings.url) and time.monotonic() - began >= timeout_s
        if late or isinstance(error, (av.error.ExitError, TimeoutError)):
            return CameraError(f"{self.name}: {what}: no answer within {timeout_s:g} s", hint="is the camera running?")
        cause = getattr(error, "strerror", None) or type(error).__name__
        hint = "is the camera running, and is `url` right?"
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            hint = "correct `username` and `password_file`"
        elif not is_stream(self._settings.url):
            hint = "correct `url`, or copy the file again"
        return CameraError(f"{self.name}: {what}: {cause}", hint=hint)


def _container(settings: VideoCamera, password: str | None) -> InputContainer:
    if not is_stream(settings.url):
        return av.open(settings.url)
    # not `fflags=nobuffer`: that throws away the first key picture, and nothing can be decoded until the next one.
    # Pictures that queue during the start are old; `Freshness.settle` notices that.
    options = {"flags": "low_delay", "fpsprobesize": "0"}
    if settings.url.lower().startswith(("rtsp://", "rtsps://")):
        # video alone: packets of a sound track would keep a link alive after its pictures have stopped
        options |= {"rtsp_transport": str(settings.transport), "allowed_media_types": "video"}
    address = with_login(settings.url, settings.username, password)
    return av.open(address, options=options, timeout=(settings.open_timeout_s, settings.read_timeout_s))


def password_of(settings: VideoCamera) -> str | None:
    """The password of a camera, if it has one. Raises CameraError."""
    if settings.password_file is None:
        return None
    try:
        return read_password(settings.password_file)
    except PasswordError as error:
        raise CameraError(error.args[0], hint=error.hint) from None
