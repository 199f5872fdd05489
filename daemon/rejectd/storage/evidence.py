"""Keeps the picture and the heat map of parts that did not pass, within a disk quota.

There is one folder for each day: `<day>/<event_id>.png` as captured, and `<day>/<event_id>-heat.jpg` for people. The
heat map has the size of a screen only, since painting needs many times the memory of the picture.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np

from rejectd.contract.messages import AnomalyMap, Frame, Picture, Pixels, RejectdError, Result
from rejectd.storage.state_folders import make

_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_OURS = re.compile(r"-[0-9]+(\.png|-heat\.jpg)$")  # half-written files too; files of others are never touched

_SHOWS_SOMETHING = 32  # pixels; a thumbnail whose longest side is shorter shows nothing
SCREEN = 1280  # pixels, the longest side of a heat map

Heatmap = Callable[[Pixels, AnomalyMap, float], Pixels]


class EvidenceError(RejectdError):
    """Evidence cannot be written."""


class Evidence:
    """Writes evidence, and removes the oldest files beyond the quota. Owned by one thread."""

    def __init__(self, directory: Path, *, quota_bytes: int, heatmap: Heatmap) -> None:
        """`heatmap(picture, anomaly_map, threshold)` paints the overlay, uint8 (H, W, 3) RGB. Nothing is opened yet."""
        self._directory = directory
        self._quota_bytes = quota_bytes
        self._heatmap = heatmap
        self._kept: deque[tuple[Path, int]] | None = None  # None: the folder has not been opened
        self._used_bytes = 0

    def open(self) -> None:
        """Make the folder, list the files that are kept there, and check that the folder takes a new file.

        Raises:
            EvidenceError: if the folder cannot be used.
        """
        try:
            make(self._directory)
            with tempfile.TemporaryFile(dir=self._directory) as file:
                file.write(bytes(4096))
            if self._kept is None:
                self._kept = self._files_on_disk()
        except OSError as error:
            hint = "let the service's user write there, free disk space, or set evidence.directory"
            raise EvidenceError(f"{self._directory}: evidence cannot be kept: {error}", hint=hint) from error
        self._used_bytes = sum(size for _, size in self._kept)

    def _files_on_disk(self) -> deque[tuple[Path, int]]:
        """The evidence files in the folder with their sizes in bytes, the oldest first."""
        paths = [path for path in self._directory.glob(_DAY + "/*") if _OURS.search(path.name)]
        files = sorted((path.stat().st_mtime_ns, path, path.stat().st_size) for path in paths)
        return deque((path, size) for _, path, size in files)

    def keep(self, frame: Frame, result: Result | None) -> str:
        """Write the picture and the heat map of a frame. Returns the picture's path below the folder.

        The path is empty if the frame has no picture, or if the picture is larger than the whole quota.

        Raises:
            EvidenceError: if a file cannot be written; no half-written file is left.
        """
        if frame.picture is None:
            return ""
        if self._kept is None:
            self.open()
        day = datetime.fromtimestamp(frame.captured_unix_ns / 1e9, UTC).strftime("%Y-%m-%d")
        try:
            make(self._directory / day)
            self._write(f"{day}/{frame.event_id}.png", frame.picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            if result and result.anomaly_map is not None:
                overlay = self._heatmap(reduced(frame.picture, SCREEN), result.anomaly_map, result.threshold)
                self._write(f"{day}/{frame.event_id}-heat.jpg", overlay, [cv2.IMWRITE_JPEG_QUALITY, 90])
            self._shrink()
        except OSError as error:
            raise EvidenceError(
                f"{self._directory}: evidence cannot be written: {error}", hint="free disk space"
            ) from error
        except (cv2.error, ValueError, MemoryError) as error:
            raise EvidenceError(f"{frame.event_id}: evidence cannot be painted: {error!r}") from error
        name = f"{day}/{frame.event_id}.png"
        return name if (self._directory / name).is_file() else ""  # larger than the whole quota

    def snapshot(self, camera: str, picture: Picture) -> str:
        """Write a camera's picture on request. Returns its path below the folder; empty if it exceeds the quota.

        Raises:
            EvidenceError: if the file cannot be written.
        """
        assert picture.pixels is not None
        if self._kept is None:
            self.open()
        day = datetime.fromtimestamp(picture.captured_unix_ns / 1e9, UTC).strftime("%Y-%m-%d")
        name = f"{day}/{camera}-snapshot-{picture.captured_unix_ns}.png"
        try:
            make(self._directory / day)
            self._write(name, picture.pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            self._shrink()
        except OSError as error:
            raise EvidenceError(
                f"{self._directory}: evidence cannot be written: {error}", hint="free disk space"
            ) from error
        return name if (self._directory / name).is_file() else ""

    def _write(self, name: str, picture: Pixels, options: list[int]) -> None:
        path = self._directory / name
        data = _encoded(path.suffix, picture, options)
        temporary = path.with_name(f".{path.name}")
        try:
            with temporary.open("wb") as file:
                file.write(data.data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        assert self._kept is not None, "opened before"
        self._kept.append((path, len(data)))
        self._used_bytes += len(data)

    def _shrink(self) -> None:
        while self._used_bytes > self._quota_bytes and self._kept:
            path, size = self._kept.popleft()
            path.unlink(missing_ok=True)
            self._used_bytes -= size
            _remove_if_empty(path.parent)


def thumbnail(pixels: Pixels, *, longest: int = 640, most_bytes: int | None = None) -> bytes:
    """A JPEG of a picture, uint8 (H, W, 3) RGB, no side longer than `longest` pixels.

    The picture is made smaller until the JPEG has at most `most_bytes`; empty if even a tiny one is too large.
    """
    while True:
        data = _encoded(".jpg", reduced(pixels, longest), [cv2.IMWRITE_JPEG_QUALITY, 80]).tobytes()
        if most_bytes is None or len(data) <= most_bytes:
            return data
        longest = min(longest, max(pixels.shape[:2])) * 2 // 3
        if longest < _SHOWS_SOMETHING:
            return b""


def reduced(pixels: Pixels, longest: int) -> Pixels:
    """The picture, uint8 (H, W, 3), made smaller if a side is longer than `longest` pixels."""
    scale = min(1.0, longest / max(pixels.shape[:2]))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    if scale == 1:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _encoded(suffix: str, pixels: Pixels, options: list[int]) -> Pixels:
    """The bytes of an image file. Raises EvidenceError if the format cannot hold a picture of this size."""
    try:
        encodable, data = cv2.imencode(suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
        complaint = "" if encodable else f"{suffix} cannot hold it"
    except cv2.error as error:
        complaint = error.err
    if complaint:
        height, width = pixels.shape[:2]
        raise EvidenceError(f"a picture of {width} x {height} pixels cannot be encoded: {complaint}")
    return np.asarray(data, np.uint8)


def regions(
    anomaly_map: AnomalyMap, threshold: float, picture_shape: tuple[int, ...], *, most: int = 16
) -> list[list[int]]:
    """Boxes [x, y, width, height] around the regions above the threshold, in pixels of the picture, the largest first.

    Args:
        anomaly_map: float32 (h, w).
        threshold: the image threshold; the map's maximum is the score, so that a reject has at least one region.
        picture_shape: (H, W, ...) of the picture that the map belongs to.
        most: how many boxes at most.
    """
    mask = (anomaly_map > np.float64(threshold)).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    order = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable")[:most]
    (rows, columns), (picture_rows, picture_columns) = anomaly_map.shape, picture_shape[:2]
    boxes = []
    for x, y, width, height, _ in stats[order].tolist():
        left, top = x * picture_columns // columns, y * picture_rows // rows
        right, bottom = -(-(x + width) * picture_columns // columns), -(-(y + height) * picture_rows // rows)
        boxes.append([left, top, right - left, bottom - top])
    return boxes


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
