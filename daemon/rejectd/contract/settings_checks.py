"""Checks settings that depend on each other, or on files. Each mistake is noted at its line, with what to do."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from rejectd.contract.declaration import SettingsReader
from rejectd.contract.settings import (
    Camera,
    FolderCamera,
    FolderMode,
    GenicamCamera,
    Mqtt,
    Page,
    Product,
    RegionCamera,
    Rewrite,
    Station,
    VideoCamera,
)
from revdist.files import trouble

RESERVED = ("actuator", "answer", "check", "command", "golden", "status")  # parts of topics that no camera may be named


def check(reader: SettingsReader) -> None:
    """Check settings that depend on each other, as far as both could be read."""
    mqtt = reader.groups.get("mqtt") if "mqtt" in reader.lines else Mqtt()
    _check_cameras(reader, mqtt)
    _check_stations(reader, mqtt)
    for key, product in reader.groups.items():
        if isinstance(product, Product):
            _check_product(product, key, reader)
    engine = reader.groups.get("engine")
    if engine and engine.teacher_weights:
        _check_file("engine.teacher_weights", engine.teacher_weights, reader)
    if mqtt:
        _check_mqtt(mqtt, reader)
    if page := reader.groups.get("page"):
        _check_page(page, reader)
    evidence = reader.groups.get("evidence")
    if evidence and not evidence.enabled:
        for name in ("directory", "quota_mb"):
            if f"evidence.{name}" in reader.lines:
                hint = "remove it, or set evidence.enabled: true"
                reader.mistake(f"evidence.{name}", "has no effect while evidence is off", hint)


def _check_cameras(reader: SettingsReader, mqtt: Mqtt | None) -> None:
    products = _names(reader, "products")
    for key, camera in reader.groups.items():
        if not isinstance(camera, Camera):
            continue
        if products and camera.product not in products:
            hint = f"known products: {', '.join(products)}"
            reader.mistake(f"{key}.product", f"{camera.product!r} is not a product", hint)
        if mqtt and camera.deadline_ms <= mqtt.publish_margin_ms:
            hint = f"give more than mqtt.publish_margin_ms ({mqtt.publish_margin_ms})"
            reader.mistake(f"{key}.deadline_ms", f"{camera.deadline_ms} leaves no time to inspect", hint)
        if camera.region and 0 in camera.region[2:]:
            reader.mistake(f"{key}.region", "has no area", "give [x, y, width, height] with width and height over 0")
        if isinstance(camera, RegionCamera):
            _check_region(camera, key, reader)
        if isinstance(camera, FolderCamera):
            _check_folder(camera, key, reader)
            deadline_ms = _deadline_ms(camera, key.partition(".")[2], reader)
            if mqtt and camera.settle_ms and deadline_ms <= camera.settle_ms + mqtt.publish_margin_ms:
                hint = f"with mqtt.publish_margin_ms it must be less than the deadline of {deadline_ms} ms"
                reader.mistake(f"{key}.settle_ms", f"{camera.settle_ms} leaves no time to inspect", hint)
        if isinstance(camera, VideoCamera):
            _check_video(camera, key, reader)
        if isinstance(camera, GenicamCamera):
            _check_genicam(camera, key, reader)


def _check_region(camera: RegionCamera, key: str, reader: SettingsReader) -> None:
    source = reader.groups.get(f"cameras.{camera.of}")
    if camera.of not in (cameras := _names(reader, "cameras")):
        reader.mistake(f"{key}.of", f"{camera.of!r} is not a camera", f"known cameras: {', '.join(cameras)}")
    elif isinstance(source, RegionCamera):
        reader.mistake(f"{key}.of", f"{camera.of!r} is itself a region", f"give the camera of both: {source.of}")
    elif camera.trigger_offset and isinstance(source, Camera) and not source.numbered:
        problem = f"has no effect: the pictures of {camera.of!r} bring no numbers"
        reader.mistake(f"{key}.trigger_offset", problem, "remove it")


def _deadline_ms(camera: Camera, name: str, reader: SettingsReader) -> int:
    """The deadline of a camera's frames in ms: that of its station, else the camera's own."""
    stations = (group for group in reader.groups.values() if isinstance(group, Station) and name in group.cameras)
    return next((station.deadline_ms for station in stations), camera.deadline_ms)


def _check_stations(reader: SettingsReader, mqtt: Mqtt | None) -> None:
    cameras = _names(reader, "cameras")
    station_of: dict[str, str] = {}
    for name in [*cameras, *(stations := _names(reader, "stations"))]:
        if name in RESERVED:
            where = "stations" if name in stations else "cameras"
            reader.mistake(f"{where}.{name}", "is a reserved name", f"choose another than {', '.join(RESERVED)}")
    for key, station in reader.groups.items():
        if not isinstance(station, Station):
            continue
        if key.partition(".")[2] in cameras:
            reader.mistake(key, "has the name of a camera", "give the station a name of its own")
        _check_pairing(station, key, reader)
        for camera in station.cameras:
            if camera not in cameras:
                known_cameras = f"known cameras: {', '.join(cameras)}"
                reader.mistake(f"{key}.cameras", f"{camera!r} is not a camera", known_cameras)
            elif camera in station_of:
                hint = "a camera sees the parts of one station"
                reader.mistake(f"{key}.cameras", f"{camera!r} belongs to {station_of[camera]} already", hint)
            station_of.setdefault(camera, key)
            if f"cameras.{camera}.deadline_ms" in reader.lines:
                hint = f"remove it; {key}.deadline_ms counts"
                reader.mistake(f"cameras.{camera}.deadline_ms", "has no effect in a station", hint)
        if mqtt and station.deadline_ms <= mqtt.publish_margin_ms:
            hint = f"give more than mqtt.publish_margin_ms ({mqtt.publish_margin_ms})"
            reader.mistake(f"{key}.deadline_ms", f"{station.deadline_ms} leaves no time to inspect", hint)


def _check_pairing(station: Station, key: str, reader: SettingsReader) -> None:
    """Check that the views of a part can be told from those of its neighbours, even if a camera misses some."""
    several = len(station.cameras) > 1
    by_time = False
    for name in station.cameras:
        camera = reader.groups.get(f"cameras.{name}")
        if isinstance(camera, RegionCamera):
            camera = reader.groups.get(f"cameras.{camera.of}")
        if not isinstance(camera, Camera) or camera.numbered or not (several or station.frames > 1):
            continue
        if camera.timed:
            by_time = True
        elif several:
            problem = f"{name!r} replays a recording: counted pictures do not tell which part they show"
            folder = isinstance(camera, FolderCamera)
            hint = f"give cameras.{name} `trigger: name`" if folder else "use a folder of pictures with `trigger: name`"
            reader.mistake(f"{key}.cameras", problem, hint)
    if station.tolerance_ms is not None and not several and station.frames == 1:
        reader.mistake(f"{key}.tolerance_ms", "has no effect: each picture is a part", "remove it")
    elif by_time and station.tolerance_ms is None:
        hint = "add it and `pitch_ms`, or let each picture bring its number (`trigger: name` of a folder)"
        reader.mistake(f"{key}.tolerance_ms", "is missing: pictures of one part are told by their time", hint)
    if station.tolerance_ms is None:
        if station.pitch_ms is not None:
            reader.mistake(f"{key}.pitch_ms", "has no effect without tolerance_ms", "add `tolerance_ms:`, or remove it")
    elif station.pitch_ms is None:
        reader.mistake(f"{key}.pitch_ms", "is missing: tolerance_ms is checked by it", "add `pitch_ms:`")
    elif station.tolerance_ms > station.pitch_ms / 2:
        hint = f"give at most half of pitch_ms ({station.pitch_ms / 2:g}), or number the pictures"
        reader.mistake(f"{key}.tolerance_ms", f"{station.tolerance_ms:g} would mix the views of two parts", hint)


def _names(reader: SettingsReader, group: str) -> list[str]:
    return [key.partition(".")[2] for key in reader.lines if key.startswith(f"{group}.") and key.count(".") == 1]


def _check_product(product: Product, key: str, reader: SettingsReader) -> None:
    obstacle = trouble.why_not_file(product.bundle / "bundle.json")
    if obstacle and obstacle.hint:
        reader.mistake(f"{key}.bundle", f"{product.bundle} cannot be read: {obstacle.cause}", obstacle.hint)
    elif obstacle:
        hint = f"make one: revdist train --good DIR --product {key.partition('.')[2]} --output {product.bundle}"
        reader.mistake(f"{key}.bundle", f"{product.bundle} is not a bundle", hint)
    if product.threshold_for and product.threshold is None:
        reader.mistake(f"{key}.threshold_for", "has no effect without a threshold", "add `threshold:`, or remove it")
    if product.threshold == 0:
        reader.mistake(f"{key}.threshold", "0 rejects every part", "give more than 0, or remove it")


def _check_folder(camera: FolderCamera, key: str, reader: SettingsReader) -> None:
    if camera.mode is FolderMode.WATCH:
        for name in ("rate_hz", "loop"):
            if getattr(camera, name):
                reader.mistake(f"{key}.{name}", "has no effect with mode watch", "remove it, or use mode: replay")
        return
    for name, default in (("subfolders", False), ("settle_ms", 0), ("rewrite", Rewrite.SAME_PART)):
        if getattr(camera, name) != default:
            reader.mistake(f"{key}.{name}", "has no effect on a replay", "remove it, or use mode: watch")


def _check_video(camera: VideoCamera, key: str, reader: SettingsReader) -> None:
    stream = "://" in camera.url and not camera.url.startswith("file://")
    if stream:
        _check_address(camera.url, key, reader)
    if stream and camera.loop:
        reader.mistake(f"{key}.loop", "has no effect on a stream", "remove it")
    for name in () if stream else ("transport", "timestamps", "username"):
        if f"{key}.{name}" in reader.lines:
            reader.mistake(f"{key}.{name}", "has no effect on a file", "remove it")
    if stream and f"{key}.transport" in reader.lines and not camera.url.lower().startswith(("rtsp://", "rtsps://")):
        reader.mistake(f"{key}.transport", "has an effect on rtsp:// and rtsps:// alone", "remove it")
    _check_password(camera.username, camera.password_file, key, reader)


def _check_genicam(camera: GenicamCamera, key: str, reader: SettingsReader) -> None:
    if camera.sensor_region and 0 in camera.sensor_region[2:]:
        hint = "give [x, y, width, height] with width and height over 0"
        reader.mistake(f"{key}.sensor_region", "has no area", hint)
    for name in ("trigger_activation", "trigger_delay_us"):
        if getattr(camera, name) is not None and camera.trigger_source is None:
            reader.mistake(f"{key}.{name}", "has no effect without a trigger", "add `trigger_source:`, or remove it")


def _check_address(url: str, key: str, reader: SettingsReader) -> None:
    hint = "use `username` and `password_file`, so that the password stays out of logs"
    try:
        address = urlsplit(url)
        fault = "" if address.hostname and address.port != 0 else "has no host"
    except ValueError:
        fault = "has a port that is no number"
    if "@" in address.netloc or (fault and "@" in url):
        reader.mistake(f"{key}.url", "holds a user or password", hint)
    elif fault:
        reader.mistake(f"{key}.url", fault, "give it as rtsp://HOST:PORT/PATH")


def _check_mqtt(mqtt: Mqtt, reader: SettingsReader) -> None:
    _check_password(mqtt.username, mqtt.password_file, "mqtt", reader)
    if mqtt.operator_password_file and not mqtt.operator_username:
        hint = "add `operator_username:`"
        reader.mistake("mqtt.operator_password_file", "has no effect without a user", hint)
    for name in ("tls_ca", "tls_cert", "tls_key"):
        path = getattr(mqtt, name)
        if path and not mqtt.tls:
            reader.mistake(f"mqtt.{name}", "has no effect without TLS", "add `tls: true`")
        elif path:
            _check_file(f"mqtt.{name}", path, reader)
    if bool(mqtt.tls_cert) != bool(mqtt.tls_key):
        present, lacking = ("tls_cert", "tls_key") if mqtt.tls_cert else ("tls_key", "tls_cert")
        reader.mistake(f"mqtt.{present}", f"needs {lacking}", f"give both, or neither; add `{lacking}:`")


def _check_page(page: Page, reader: SettingsReader) -> None:
    if not page.enabled:
        for name in (key.partition(".")[2] for key in list(reader.lines) if key.startswith("page.")):
            if name != "enabled":
                hint = "remove it, or set page.enabled: true"
                reader.mistake(f"page.{name}", "has no effect while the page is off", hint)
    for name in ("tls_cert", "tls_key"):
        path = getattr(page, name)
        if path and not _is_of_another(path):
            _check_file(f"page.{name}", path, reader)
    if bool(page.tls_cert) != bool(page.tls_key):
        present, lacking = ("tls_cert", "tls_key") if page.tls_cert else ("tls_key", "tls_cert")
        reader.mistake(f"page.{present}", f"needs {lacking}", f"give both, or neither; add `{lacking}:`")
    if not page.tls_cert and not _is_this_machine(page.host):
        hint = "add `tls_cert:` and `tls_key:`, or keep 127.0.0.1 behind a proxy that encrypts"
        reader.mistake("page.host", f"{page.host} would carry passwords over the network as they are", hint)


def _is_of_another(path: Path) -> bool:
    """Whether only another user may read a file: the page's own, whose process says so if it may not either."""
    try:
        path.open("rb").close()
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _is_this_machine(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_password(username: str | None, password_file: Path | None, key: str, reader: SettingsReader) -> None:
    if password_file and not username:
        reader.mistake(f"{key}.password_file", "has no effect without a user", "add `username:`")
    if password_file:
        _check_file(f"{key}.password_file", password_file, reader)


def _check_file(key: str, path: Path, reader: SettingsReader) -> None:
    obstacle = trouble.why_not_file(path)
    if obstacle and obstacle.hint:
        reader.mistake(key, f"{path} cannot be read: {obstacle.cause}", obstacle.hint)
    elif obstacle:
        reader.mistake(key, f"{path} is not a file", "give the path of a file, relative to this settings file")
