"""`rejectd check`: says of every part of a line whether it works, or what to do."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from rejectd import database, settings_file
from rejectd.cameras import CameraError, Driver, Ended, Remark, driver
from rejectd.cameras.address import is_stream
from rejectd.inspector import Inspector
from rejectd.messages import Exposure, PictureError, RejectdError
from rejectd.mqtt import connect
from rejectd.outbox import OutboxError
from rejectd.settings import AnyCamera, FolderCamera, FolderMode, Product, Settings, VideoCamera
from rejectd.thresholds import at_start

_PICTURE_S = 10.0
_STREAM_S = 3.0  # the first picture of a stream may be good where its time stamps make all others stale
_UNJUDGED = "this picture cannot be judged; the service would answer unjudged"


def check(file: Path) -> Iterator[tuple[bool, str]]:
    """Try everything that the service will need. Yields (works, what) for each part."""
    try:
        settings = settings_file.load(file)
    except RejectdError as error:
        yield False, f"settings: {error}"
        return
    yield True, f"settings: {file}"
    yield from _try("journal", lambda: _journal(settings, file))
    yield from _bundles(settings)
    for name, camera in settings.cameras.items():
        yield from _try(f"camera {name}", lambda camera=camera: _camera(camera))  # type: ignore[misc]
    yield from _try("broker", lambda: _broker(settings))


def _try(what: str, attempt: Callable[[], str]) -> Iterator[tuple[bool, str]]:
    try:
        yield True, f"{what}: {attempt()}"
    except RejectdError as error:
        text = str(error)
        yield False, text if text.startswith(what) else f"{what}: {text}"


def _journal(settings: Settings, file: Path) -> str:
    """Look at the journal and leave it as it is: only the service makes one, in a folder of its own user."""
    path = settings_file.state_directory(settings, file) / "journal.sqlite"
    try:
        if not path.exists():
            return _place(path)
        with closing(database.open_to_read(path)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        hint = "may you read it? run as the service's user"
        raise OutboxError(f"journal: {path} cannot be opened: {error}", hint=hint) from error
    except sqlite3.Error as error:
        hint = "the service will set it aside and begin a new one"
        raise OutboxError(f"journal: {path} is damaged: {error}", hint=hint) from error
    except OSError as error:
        hint = "run as the service's user"
        raise OutboxError(f"journal: {path} cannot be opened: {error.strerror}", hint=hint) from error
    if version > database.VERSION:
        raise OutboxError(f"journal: {path} was written by a newer rejectd", hint="install that version again")
    return str(path)


def _place(journal: Path) -> str:
    """Where a journal will be made."""
    there = next(folder for folder in journal.parents if folder.exists())
    if not there.is_dir():
        raise OutboxError(f"journal: {there} is not a folder", hint="set state_directory to where one can be made")
    return f"{journal} will be created"


def _bundles(settings: Settings) -> Iterator[tuple[bool, str]]:
    """Each bundle by itself, so that one bad bundle does not hide the others."""
    for name, product in settings.products.items():
        yield from _try(f"product {name}", lambda name=name, product=product: _bundle(settings, name, product))  # type: ignore[misc]
    if len(settings.products) > 1:
        yield from _try("products together", lambda: _together(settings))


def _together(settings: Settings) -> str:
    with closing(Inspector(settings.engine, settings.products)) as inspector:
        return f"one teacher, {len(inspector.models)} students"


def _bundle(settings: Settings, name: str, product: Product) -> str:
    with closing(Inspector(settings.engine, {name: product})) as inspector:
        model = inspector.models[name]
    threshold = at_start(product, model)
    told = f"threshold {threshold.value:.4g} ({threshold.source})"
    return f"bundle {model.digest[:12]} on {model.engine}, {told}, golden pictures agree"


def _camera(camera: AnyCamera) -> str:
    device = driver(camera)
    try:
        device.open()
        if isinstance(camera, FolderCamera) and camera.mode is FolderMode.WATCH:
            return f"{camera.path} is watched"
        exposure = _look(device, camera)
        if exposure is None or isinstance(exposure, Remark):
            raise CameraError(f"no picture within {_PICTURE_S:g} s", hint="is the camera triggered?")
        pixels = None if exposure.fault else exposure.load(_PICTURE_S)
    except PictureError as error:
        raise CameraError(str(error), hint=_UNJUDGED) from error
    except Ended as error:
        raise CameraError("there is no picture", hint="put pictures into the folder, or use mode: watch") from error
    finally:
        device.close()
    if pixels is None:
        raise CameraError(exposure.fault, hint=_UNJUDGED)
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels"


def _look(device: Driver, camera: AnyCamera) -> Exposure | Remark | None:
    """The first exposure; of a stream the first that cannot be judged, or the last of some seconds."""
    stream = isinstance(camera, VideoCamera) and is_stream(camera.url)
    until_s = time.monotonic() + (_STREAM_S if stream else 0)
    exposure = device.read(_PICTURE_S)
    while isinstance(exposure, Exposure) and not exposure.fault and time.monotonic() < until_s:
        exposure = device.read(_PICTURE_S)
    return exposure


def _broker(settings: Settings) -> str:
    link = connect(settings.mqtt, client_id=f"rejectd-check-{threading.get_native_id()}")
    version = "5" if link.v5 else "3.1.1"
    link.close()
    return f"{settings.mqtt.host}:{settings.mqtt.port} speaks MQTT {version}"
