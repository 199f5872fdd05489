"""Folder cameras: a replay at a given rate, or a watched folder (watch.py)."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
import time
from collections import deque
from pathlib import Path

from rejectd.cameras.driver import CameraError, Driver, Ended, NoPictureError, Remark, exposure_of
from rejectd.cameras.reading import READING_S, Reader
from rejectd.cameras.watched.watch import Watch
from rejectd.contract.messages import Exposure, PictureError, Pixels
from rejectd.contract.settings import FolderCamera, FolderMode, Numbering
from revdist.data.pictures import is_picture
from revdist.files import trouble

DEFAULT_RATE_HZ = 10.0
_CATCH_UP_S = 1.0  # a replay that is later than this goes on from now instead of hurrying after its schedule


def folder(settings: FolderCamera, *, since_unix_ns: int | None = None) -> Driver:
    """The driver for the folder's mode."""
    driver = Watch(settings, since_unix_ns=since_unix_ns) if settings.mode is FolderMode.WATCH else Replay(settings)
    return NumberedByName(driver) if settings.trigger is Numbering.NAME else driver


def natural(name: str) -> list[tuple[int, int | str]]:
    """Sorts part2.png before part10.png."""
    pieces = re.split(r"(\d+)", name.lower())
    return [(0, int(piece)) if piece.isdecimal() else (1, piece) for piece in pieces if piece]


class NumberedByName:
    """Takes the trigger number of each picture from the last number in its file's name, as in `left_000123.png`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.open, self.close = driver.open, driver.close

    def read(self, timeout_s: float) -> Exposure | Remark | None:
        """The next exposure with its number. A name without a number is a fault: nobody knows which part it shows."""
        exposure = self._driver.read(timeout_s)
        if exposure is None or isinstance(exposure, Remark):
            return exposure
        numbers = re.findall(r"[0-9]+", Path(exposure.source).stem)
        if not numbers or int(numbers[-1][:20]) >= 2**63:
            fault = exposure.fault or f"{exposure.source}: the name holds no trigger number"
            return dataclasses.replace(exposure, fault=fault)
        return dataclasses.replace(exposure, trigger=int(numbers[-1]))


class Replay:
    """Shows the pictures of a folder in natural order of their names, at a fixed rate, once or in a loop.

    The schedule is absolute: a late picture does not move the later ones, unless the delay exceeds a second. Each file
    is read and decoded before it is due, so that the exposure is the instant at which its picture is handed over.
    """

    def __init__(self, settings: FolderCamera) -> None:
        self._path = settings.path
        self._reader = Reader(settings)
        self._loop = settings.loop
        self._period_ns = round(1e9 / (settings.rate_hz or DEFAULT_RATE_HZ))
        self._names: deque[str] = deque()
        self._next: tuple[str, Pixels | None, str] | None = None
        self._due_ns = 0
        self._wait = threading.Event().wait

    def open(self) -> None:
        """Start from the first picture. Raises CameraError if there is none."""
        self._names = self._listing()
        self._next = None
        self._due_ns = 0

    def close(self) -> None:
        """End the replay; the remaining pictures are dropped."""
        self._names.clear()
        self._next = None

    def read(self, timeout_s: float) -> Exposure | None:
        """The next picture when it is due. Raises Ended after the last one, CameraError if the folder is gone."""
        until_ns = time.monotonic_ns() + round(timeout_s * 1e9)
        if self._next is None:
            self._next = self._load()
        now_ns = time.monotonic_ns()
        if now_ns - self._due_ns > _CATCH_UP_S * 1e9:
            self._due_ns = now_ns  # the first picture, or we fell far behind
        if self._due_ns > until_ns:
            self._wait(max(0, until_ns - now_ns) / 1e9)
            return None
        self._wait(max(0, self._due_ns - now_ns) / 1e9)
        self._due_ns += self._period_ns
        (name, pixels, fault), self._next = self._next, None
        return exposure_of(pixels, fault, captured_ns=time.monotonic_ns(), captured_unix_ns=time.time_ns(), source=name)

    def _load(self) -> tuple[str, Pixels | None, str]:
        if not self._names:
            if not self._loop:
                raise Ended(f"{self._path}: every picture has been shown")
            self._names = self._listing()
        name = self._names.popleft()
        try:
            return name, self._reader.load(self._path / name, READING_S), ""
        except PictureError as error:
            if wrong := trouble.why_not_folder(self._path):
                missing = not os.path.lexists(self._path)
                cause = "the folder is gone" if missing else f"the folder cannot be listed: {wrong.cause}"
                hint = wrong.hint or "put it back; the replay starts again"
                raise CameraError(f"{self._path}: {cause}", hint=hint) from None
            return name, None, str(error)

    def _listing(self) -> deque[str]:
        try:
            names = [entry.name for entry in self._path.iterdir() if is_picture(entry.name)]
        except OSError as error:
            told = trouble.explain(error, self._path, "listed")
            hint = told.hint or "create it, or correct `path`"
            raise CameraError(f"{self._path}: the folder cannot be listed: {told.cause}", hint=hint) from None
        if not names:
            raise NoPictureError(
                f"{self._path}: there is no picture to replay", hint="PNG, JPEG, BMP, TIFF and WebP files are shown"
            )
        return deque(sorted(names, key=lambda name: (natural(name), name)))
