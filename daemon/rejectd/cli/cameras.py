"""`rejectd cameras`: lists what cameras this machine reaches, and shows what can be set on one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from rejectd.cameras.discovery import Reachable, discover
from rejectd.cameras.driver import CameraError

_NONE = "no camera answers; streams and folders are not looked for: write their address or path into the settings"


def lines(name: str, *, search: Callable[[], tuple[list[Reachable], dict[str, str]]] = discover) -> Iterator[str]:
    """The list; or the details of the camera of this name. Raises CameraError if there is none of that name."""
    reachable, reasons = search()
    if name:
        yield from _details(_named(reachable, name))
        return
    for camera in reachable:
        yield from _described(camera)
    if not reachable:
        yield _NONE
    for kind, reason in reasons.items():
        yield f"type {kind} was not looked for: {reason}"


def to_json(name: str, *, search: Callable[[], tuple[list[Reachable], dict[str, str]]] = discover) -> str:
    """The same for programs. Raises CameraError as `lines` does."""
    reachable, reasons = search()
    cameras = [_named(reachable, name)] if name else reachable
    rows = []
    for camera in cameras:
        settings = {"type": camera.kind, **camera.settings}
        row: dict[str, object] = {
            "kind": camera.kind,
            "name": camera.name,
            "model": camera.model,
            "serial": camera.serial or None,
        }
        row |= {"address": camera.address or None, "size": camera.size, "formats": camera.formats}
        row["settings"] = settings
        rows.append(row | ({"details": list(camera.details())} if name else {}))
    return json.dumps({"cameras": rows, "not_searched": reasons}, indent=1)


def _named(reachable: list[Reachable], name: str) -> Reachable:
    matching = [camera for camera in reachable if name in (camera.name, camera.serial, camera.address)]
    if not matching:
        listed = ", ".join(camera.name for camera in reachable) or "none"
        raise CameraError(f"camera {name} does not answer", hint=f"those that do: {listed}")
    return matching[0]


def _described(camera: Reachable) -> Iterator[str]:
    size = f", {camera.size[0]} x {camera.size[1]} pixels" if camera.size else ""
    formats = f", {' '.join(camera.formats)}" if camera.formats else ""
    address = f", at {camera.address}" if camera.address else ""
    yield f"{camera.name}: {camera.model or 'unknown model'}{address}{size}{formats}"
    yield f"  camera: {{{camera.shown}, product: PRODUCT}}"


def _details(camera: Reachable) -> Iterator[str]:
    yield from _described(camera)
    for detail in camera.details():
        yield f"  {detail}"
