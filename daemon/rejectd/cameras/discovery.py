"""Lists the cameras that this machine reaches, each with how to put it into the settings.

Each kind has a lister: a function that looks for its cameras. A kind without one, such as a stream, is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rejectd.cameras.driver import CameraError


@dataclass(frozen=True, slots=True, kw_only=True)
class Reachable:
    """A camera that answers."""

    kind: str  # `type` of a camera in the settings
    name: str  # by which a person asks for it: device, serial number or address
    model: str
    serial: str = ""
    address: str = ""
    size: tuple[int, int] | None = None  # (width, height) of the largest picture
    formats: tuple[str, ...] = ()
    settings: Mapping[str, str | int] = field(default_factory=dict)  # beside `type` and `product`
    details: Callable[[], Iterable[str]] = tuple  # lines about what can be set, with its range; may raise CameraError

    @property
    def shown(self) -> str:
        """How to write it into the settings."""
        return ", ".join(f"{name}: {value}" for name, value in {"type": self.kind, **self.settings}.items())


Lister: TypeAlias = Callable[[], Iterable[Reachable]]  # raises CameraError where the kind cannot be looked for


def _v4l2() -> Iterable[Reachable]:
    from rejectd.cameras.v4l2_listing import discover

    return discover()


def _aravis() -> Iterable[Reachable]:
    from rejectd.cameras.genicam.listing import through_aravis

    return through_aravis()


def _pylon() -> Iterable[Reachable]:
    from rejectd.cameras.genicam.listing import through_pylon

    return through_pylon()


LISTERS: Mapping[str, Lister] = {"v4l2": _v4l2, "aravis": _aravis, "pylon": _pylon}


def discover(listers: Mapping[str, Lister] = LISTERS) -> tuple[list[Reachable], dict[str, str]]:
    """The cameras of all kinds, and for each kind that could not be looked for why not."""
    reachable: list[Reachable] = []
    reasons: dict[str, str] = {}
    for kind, lister in listers.items():
        try:
            reachable += lister()
        except CameraError as error:
            reasons[kind] = str(error)
    return reachable, reasons
