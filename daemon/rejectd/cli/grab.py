"""`rejectd grab`: takes pictures of good parts for training, exactly as the service gets them from the camera.

The pictures are those that the service would prepare: read by the same driver, checked, cut to the camera's region.
They are written without loss. What shows nothing is told at once and not kept; what is there already is left out.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rejectd.cameras import CameraError, Driver, driver, pictures
from rejectd.contract.messages import CameraState, Exposure, Frame, Picture, Pixels, RejectdError, iso
from rejectd.contract.settings import AnyCamera
from revdist.files import folders, trouble

_READING_S = 60.0  # longest that a picture may take from its exposure until it is read
_EQUAL_MOST = 1000  # equal pictures in a row that are waited out; a replay that loops shows nothing new for ever


class GrabError(RejectdError):
    """Pictures cannot be taken or written."""


class _Patience(threading.Event):
    """A stop event that is set when no new picture has come for some time."""

    def __init__(self, longest_s: float) -> None:
        super().__init__()
        self._longest_s = longest_s
        self.heard_s = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the wait has been too long."""
        return time.monotonic() - self.heard_s > self._longest_s

    def is_set(self) -> bool:
        """Whether to stop."""
        return super().is_set() or self.over


@dataclass(kw_only=True)
class Grabbed:
    """What came of it."""

    wanted: int
    kept: int = 0
    equal: int = 0  # pictures that were there already
    faults: list[str] = field(default_factory=list)

    def sentence(self, output: Path) -> str:
        """The sum for a person."""
        left_out = f"{self.equal} equal, {len(self.faults)} faulty"
        return f"{self.kept} of {self.wanted} pictures in {output}; left out: {left_out}"


def grab(
    name: str,
    camera: AnyCamera,
    count: int,
    output: Path,
    *,
    examine: Callable[[Pixels], str] = lambda _: "",
    wait_s: float = 60.0,
    say: Callable[[str], None] = lambda text: tqdm.write(text, file=sys.stderr),
    opener: Callable[[AnyCamera], Driver] = driver,
) -> Grabbed:
    """Take `count` pictures of a camera and write them as PNG files into a folder.

    Args:
        name, camera: of the settings.
        count, output: how many, and where to.
        examine: says why a picture shows nothing.
        wait_s: the longest wait for a new picture.
        say: tells a person of faults and of the camera's state.
        opener: makes the driver.

    Raises:
        GrabError: if the folder cannot be written.
    """
    before = _known(output)
    grabbed, stop = Grabbed(wanted=count), _Patience(wait_s)
    taken = pictures(camera, stop, _reporter(name, say), _frame_maker(name, camera), opener=opener, examine=examine)
    equal_in_a_row = 0
    with tqdm(total=count, desc=f"grab {name}", unit="picture", disable=None) as bar:
        for _, picture in taken:
            if picture.fault or picture.pixels is None:
                grabbed.faults.append(picture.fault)
                say(f"{picture.source or 'a picture'}: not kept: {picture.fault}")
                continue
            digest = _digest(picture.pixels)
            if digest in before:
                grabbed.equal, equal_in_a_row = grabbed.equal + 1, equal_in_a_row + 1
                if equal_in_a_row >= _EQUAL_MOST:
                    break
                continue
            equal_in_a_row, stop.heard_s = 0, time.monotonic()
            before.add(digest)
            grabbed.kept += 1
            _write(output / f"{name}-{_stamp(picture)}-{grabbed.kept:05}.png", picture.pixels)
            bar.update()
            if grabbed.kept == count:
                break
    taken.close()
    if stop.over and grabbed.kept < count:
        say(f"camera {name}: nothing new for {wait_s:g} s; is it triggered?")
    return grabbed


def _reporter(name: str, say: Callable[[str], None]) -> Callable[[CameraState, str], None]:
    def report(state: CameraState, reason: str) -> None:
        if state in (CameraState.DOWN, CameraState.DEGRADED):
            say(f"camera {name} is {state}: {reason}")

    return report


def _frame_maker(name: str, camera: AnyCamera) -> Callable[[Exposure], Frame]:
    def enter(exposure: Exposure) -> Frame:
        due_ns = exposure.captured_ns + round(_READING_S * 1e9)
        return Frame(
            event_id="",
            camera=name,
            product=camera.product,
            seq=0,
            captured_ns=exposure.captured_ns,
            captured_unix_ns=exposure.captured_unix_ns,
            deadline_ns=due_ns,
            due_ns=due_ns,
            policy=camera.policy,
            source=exposure.source,
        )

    return enter


def _known(output: Path) -> set[str]:
    """Make the folder, and return the digests of the pictures that it holds already."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        return {digest for path in sorted(output.glob("*.png")) for digest in _digests(path)}
    except trouble.FILE_ERRORS as error:
        told = trouble.explain(error, output)
        raise GrabError(f"{output} cannot be used: {told.cause}", hint=told.hint or "name another --output") from error


def _digests(path: Path) -> Iterator[str]:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is not None:
        yield _digest(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))


def _digest(pixels: Pixels) -> str:
    return hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _stamp(picture: Picture) -> str:
    return iso(picture.captured_unix_ns).replace(":", "").replace("-", "").replace(".", "")


def _write(path: Path, pixels: Pixels) -> None:
    encoded = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    try:
        folders.write_file(path, encoded.tobytes())
    except trouble.FILE_ERRORS as error:
        told = trouble.explain(error, path)
        raise GrabError(f"{path} cannot be written: {told.cause}", hint=told.hint or "free disk space") from error


def chosen(cameras: dict[str, AnyCamera], name: str) -> AnyCamera:
    """The camera of this name. Raises CameraError with the names that there are."""
    if name not in cameras:
        raise CameraError(f"camera {name}: the settings have none of this name", hint=f"they have {', '.join(cameras)}")
    return cameras[name]
