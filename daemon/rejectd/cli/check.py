"""`rejectd check`: says of every part of a line whether it works, or what to do."""

from __future__ import annotations

import functools
import math
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from rejectd.cameras import CameraError, Driver, Ended, Remark, driver
from rejectd.cameras.address import is_stream
from rejectd.cameras.driver import NoPictureError
from rejectd.cameras.watched.listing import file_system
from rejectd.cameras.watched.watch import whose_clock
from rejectd.cli import places
from rejectd.contract import regions, settings_file
from rejectd.contract.messages import Exposure, PictureError, Pixels, RejectdError
from rejectd.contract.settings import AnyCamera, FolderCamera, FolderMode, Product, Settings, VideoCamera
from rejectd.control.thresholds import at_start
from rejectd.inspector import BRIGHTNESS, Inspector, Model, check_depth, looks
from rejectd.mqtt import connect, try_rights
from rejectd.storage import database
from rejectd.storage.outbox import OutboxError
from revdist.files import trouble

Size: TypeAlias = tuple[int, int]  # height, width in pixels

_PICTURE_S = 10.0
_STREAM_S = 3.0  # the first picture of a stream may be good where its time stamps make all others stale
_OTHER_SHAPE = math.log(1.05)  # width to height: more than that makes round parts oval for the model
_OTHER_SIZE = math.log(1.25)
_BLACK = 1  # highest value of a black picture
_SATURATED = 0.98  # share of the values at the highest level, as for training
_OTHER_LIGHT = 1.5  # times the brightness of the brightest picture trained with, or of the darkest
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
    yield from _try("evidence", lambda: places.evidence(settings, file))
    yield from _try("metrics", lambda: places.metrics(settings))
    models: dict[str, Model] = {}
    yield from _bundles(settings, models)
    for name, camera in regions.resolved(settings.cameras).items():
        yield from _try(f"camera {name}", functools.partial(_camera, camera, models.get(camera.product)))
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
        told = trouble.explain(error, path)
        hint = f"run as the service's user, or {told.hint}" if told.hint else "run as the service's user"
        raise OutboxError(f"journal: {path} cannot be opened: {told.cause}", hint=hint) from error
    if version > database.VERSION:
        raise OutboxError(f"journal: {path} was written by a newer rejectd", hint="install that version again")
    return str(path)


def _place(journal: Path) -> str:
    """Where a journal will be made."""
    there = next(folder for folder in journal.parents if folder.exists())
    if not there.is_dir():
        raise OutboxError(f"journal: {there} is not a folder", hint="set state_directory to where one can be made")
    return f"{journal} will be created"


def _bundles(settings: Settings, models: dict[str, Model]) -> Iterator[tuple[bool, str]]:
    """Each bundle by itself, so that a bad one does not hide the others. Keeps what was loaded in `models`."""
    for name, product in settings.products.items():
        attempt = functools.partial(_bundle, settings, name, product, models)
        yield from _try(f"product {name}", attempt)
    if len(settings.products) > 1:
        yield from _try("products together", lambda: _together(settings))


def _together(settings: Settings) -> str:
    with closing(Inspector(settings.engine, settings.products)) as inspector:
        return f"one teacher, {len(inspector.models)} students"


def _bundle(settings: Settings, name: str, product: Product, models: dict[str, Model]) -> str:
    with closing(Inspector(settings.engine, {name: product})) as inspector:
        model = inspector.models[name]
    for camera_name, camera in regions.resolved(settings.cameras).items():
        if camera.product == name:
            check_depth(camera_name, camera, model)
    models[name] = model
    threshold = at_start(product, model)
    told = f"threshold {threshold.value:.4g} ({threshold.source})"
    return f"bundle {model.digest[:12]} on {model.engine}, {told}, golden pictures agree"


def _camera(camera: AnyCamera, model: Model | None) -> str:
    if not (isinstance(camera, FolderCamera) and camera.mode is FolderMode.WATCH):
        return _shown(camera, _picture(camera), model)
    device = driver(camera)
    try:
        device.open()
    finally:
        device.close()
    clock = whose_clock(file_system(camera.path))
    shown = camera.model_copy(update={"mode": FolderMode.REPLAY, "rate_hz": None})
    try:
        return f"{camera.path} is watched, {clock}; {_shown(camera, _picture(shown), model)}"
    except NoPictureError:
        return f"{camera.path} is watched, {clock}; with no picture yet to look at"


def _picture(camera: AnyCamera) -> Pixels:
    """The first picture of a camera."""
    device = driver(camera)
    try:
        device.open()
        exposure = _look(device, camera)
        if exposure is None or isinstance(exposure, Remark):
            raise CameraError(f"no picture within {_PICTURE_S:g} s", hint="is the camera triggered?")
        if exposure.fault:
            raise CameraError(exposure.fault, hint=_UNJUDGED)
        return exposure.load(_PICTURE_S)
    except PictureError as error:
        raise CameraError(str(error), hint=_UNJUDGED) from error
    except Ended as error:
        hint = "put pictures into the folder, or use mode: watch"
        raise NoPictureError("there is no picture", hint=hint) from error
    finally:
        device.close()


def _shown(camera: AnyCamera, pixels: Pixels, model: Model | None) -> str:
    """What a picture looks like: its size, and its values beside those of the pictures trained with."""
    told = _fitting(camera, pixels.shape, model.picture_size if model else None)
    if camera.region:
        x, y, width, height = camera.region
        pixels = pixels[y : y + height, x : x + width]
    return told + _values(pixels, model)


def _values(pixels: Pixels, model: Model | None) -> str:
    """What is to be said of a picture's values. Raises CameraError if nothing can be seen in the picture."""
    lowest, highest = int(pixels.min()), int(pixels.max())
    useless = ""
    if highest <= _BLACK:
        useless = "black"
    elif float((pixels == 255).mean()) >= _SATURATED:
        useless = "saturated"
    elif lowest == highest:
        useless = "of one colour"
    if useless:
        hint = "check light, exposure and lens, and the depth of its pictures (`bits`)"
        raise CameraError(f"the picture is {useless}: its values are {lowest} to {highest}, of 0 to 255", hint=hint)
    trained = model.looks.get(BRIGHTNESS) if model else None
    if trained is None or not len(trained):
        return ""
    brightness = looks(pixels)[0]
    if trained[0] / _OTHER_LIGHT <= brightness <= trained[-1] * _OTHER_LIGHT:
        return ""
    word = "darker" if brightness < trained[0] else "brighter"
    return (
        f"; much {word} than every picture trained with (mean {brightness:.0f}, trained {trained[0]:.0f} to "
        f"{trained[-1]:.0f}, of 0 to 255): is that the same light, exposure and depth?"
    )


def _fitting(camera: AnyCamera, shape: tuple[int, ...], made_with: Size | None) -> str:
    """What a picture looks like, if its region is in it and it has the shape of those that the bundle was made with."""
    height, width = shape[:2]
    told = f"{width} x {height} pixels"
    if camera.region:
        x, y, width, height = camera.region
        if x + width > shape[1] or y + height > shape[0]:
            hint = "correct `region`; the service would answer unjudged"
            raise CameraError(f"the region {list(camera.region)} exceeds the picture of {told}", hint=hint)
        told += f", of which the region has {width} x {height}"
    if made_with is None:
        return f"{told}; the bundle does not say what pictures it was made with"
    trained_height, trained_width = made_with
    trained = f"{trained_width} x {trained_height}"
    if abs(math.log(width / height * trained_height / trained_width)) > _OTHER_SHAPE:
        hint = "set `region` to that shape, or train the product with pictures of this camera"
        raise CameraError(f"{told}, but the bundle was made with pictures of {trained}", hint=hint)
    if abs(math.log(width / trained_width)) > _OTHER_SIZE:
        return f"{told}; the bundle was made with pictures of {trained}: is that the same camera?"
    return told


def _look(device: Driver, camera: AnyCamera) -> Exposure | Remark | None:
    """The first exposure; of a stream the first that cannot be judged, or the last of some seconds."""
    stream = isinstance(camera, VideoCamera) and is_stream(camera.url)
    until_s = time.monotonic() + (_STREAM_S if stream else 0)
    exposure = device.read(_PICTURE_S)
    while isinstance(exposure, Exposure) and not exposure.fault and time.monotonic() < until_s:
        exposure = device.read(_PICTURE_S)
    return exposure


def _broker(settings: Settings) -> str:
    link = connect(settings.mqtt, client_id=f"rejectd-check-{secrets.token_hex(4)}")
    try:
        rights = try_rights(link, settings.line, settings.mqtt)
    finally:
        link.close()
    version = "5" if link.v5 else "3.1.1"
    limit = f", takes messages of {link.limits.packet_bytes} bytes at most" if link.limits.packet_bytes else ""
    return f"{settings.mqtt.host}:{settings.mqtt.port} speaks MQTT {version}, {rights}{limit}"
