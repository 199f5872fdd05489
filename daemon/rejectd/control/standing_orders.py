"""Keeps the standing orders in a file, so that changes by commands outlive a restart. orders.py says what they do.

A file that cannot be used is set aside, whatever is in it, and the line starts as the settings say.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from rejectd.contract.fields import FOLDER, NAME
from rejectd.contract.messages import Policy
from rejectd.contract.settings import Settings
from rejectd.storage.state_folders import within
from revdist.files import trouble

log = logging.getLogger(__name__)

_SCHEMA = 2
_READABLE = (1, _SCHEMA)
_LARGEST_BYTES = 1_000_000
_DISK_S = 2.0  # longer than a healthy disk needs

Value: TypeAlias = str | float | None


@dataclass(frozen=True, slots=True)
class Order:
    """A value that a command set, and the value that the settings had at that time."""

    value: Value
    configured: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdOrder:
    """A threshold that a command set, for one bundle on one engine and for no other."""

    value: float
    configured: float | None  # the threshold of the settings at that time
    bundle: str  # digest
    engine: str

    @property
    def ended(self) -> str:
        """The message that this order no longer holds, for people."""
        return f"the threshold {self.value:g} was ordered for bundle {self.bundle[:12]} on {self.engine}: it has ended"


@dataclass(slots=True)
class Standing:
    """The standing orders."""

    products: dict[str, Order] = field(default_factory=dict)  # by camera
    bundles: dict[str, Order] = field(default_factory=dict)  # by product: a folder beside the configured one
    thresholds: dict[str, ThresholdOrder] = field(default_factory=dict)  # by product
    paused: dict[str, Order] = field(default_factory=dict)  # by camera: the action for its parts; None: its policy

    def told(self, settings: Settings) -> Iterator[str]:
        """Yield each order in words, with the value of the settings that it replaces."""
        for product, threshold in self.thresholds.items():
            configured = "the calibrated one" if threshold.configured is None else f"{threshold.configured:g}"
            yield f"threshold of {product} {threshold.value:g} (settings {configured})"
        for product, order in self.bundles.items():
            yield f"bundle of {product} {order.value} (settings {configured_bundle(settings, product)})"
        for camera, order in self.products.items():
            yield f"product of camera {camera} {order.value} (settings {configured_product(settings, camera)})"
        for camera, order in self.paused.items():
            yield f"pause of camera {camera}, its parts: {order.value or f'{settings.cameras[camera].policy}'}"

    def drop_changed(self, settings: Settings) -> None:
        """End the orders that no longer fit the settings, since the settings are newer."""
        self.products = {
            name: order
            for name, order in self.products.items()
            if configured_product(settings, name) == order.configured and order.value in settings.products
        }
        self.bundles = {
            name: order for name, order in self.bundles.items() if configured_bundle(settings, name) == order.configured
        }
        self.thresholds = {
            name: order
            for name, order in self.thresholds.items()
            if name in settings.products and settings.products[name].threshold == order.configured
        }
        self.paused = {name: order for name, order in self.paused.items() if name in settings.cameras}

    def drop_lost(self, settings: Settings) -> None:
        """End the orders of bundles that are no longer on the disk."""
        for product, order in list(self.bundles.items()):
            path = settings.products[product].bundle.with_name(str(order.value))
            if obstacle := trouble.why_not_file(path / "bundle.json"):
                text = "product %s: the bundle %s that a command put in force is gone: %s"
                log.error(text, product, path, obstacle.cause)
                del self.bundles[product]


def configured_product(settings: Settings, camera: str) -> str | None:
    """The product of a camera in the settings; None if there is no such camera."""
    return settings.cameras[camera].product if camera in settings.cameras else None


def configured_bundle(settings: Settings, product: str) -> str | None:
    """The folder name of a product's bundle in the settings; None if there is no such product."""
    return settings.products[product].bundle.name if product in settings.products else None


class StandingFile:
    """The file with the standing orders. It is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set_aside = ""  # what became of a file that could not be used, for people

    def load(self) -> Standing:
        """The standing orders; none if there is no file. A file that cannot be used is set aside, and gives none."""
        try:
            content = self._content()
            return Standing() if content is None else _standing(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            log.error("%s: cannot be used, commands given before no longer stand: %r", self._path, error)
            self._set_aside()
            return Standing()

    def _content(self) -> bytes | None:
        try:
            self._path.lstat()
        except FileNotFoundError:
            return None
        if not self._path.is_file():
            raise ValueError("not a file")
        with self._path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        if len(content) > _LARGEST_BYTES:
            raise ValueError(f"more than {_LARGEST_BYTES} bytes")
        return content

    def _set_aside(self) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        self.set_aside = f"{self._path} could not be used: what commands have changed before no longer holds"
        try:
            self._path.rename(aside)
        except OSError as error:
            log.error("%s: cannot be set aside: %s", self._path, error.strerror)
        else:
            self.set_aside += f"; the file is set aside as {aside.name}"

    def save(self, standing: Standing) -> None:
        """Write the standing orders. Raises OSError if the disk does not take them."""
        temporary = self._path.with_name(f".{self._path.name}")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({"schema": _SCHEMA, "standing": asdict(standing)}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


class Keeper:
    """Reads and writes the file, and waits for the disk no longer than `_DISK_S`. For one thread at a time."""

    def __init__(self, file: StandingFile) -> None:
        self._file = file
        self._writing = threading.Lock()
        self._to_write = Standing()
        self.lost = ""  # which orders no longer stand because they could not be read, for people
        self.unsaved = False  # the standing orders are not on the disk, and must be written again

    def load(self) -> Standing:
        """The standing orders; none if they cannot be read in time."""
        loaded: list[Standing] = []
        try:
            within(_DISK_S, lambda: loaded.append(self._file.load()))
        except TimeoutError:
            self.lost = "the disk did not say in time what commands have changed before: it does not hold"
            log.error(self.lost)
            return Standing()
        self.lost = self._file.set_aside
        return loaded[0]

    def keep(self, standing: Standing) -> None:
        """Write the standing orders. If the disk does not take them, set `unsaved`."""
        self._to_write = copy.deepcopy(standing)
        try:
            if self._writing.locked():
                raise TimeoutError
            within(_DISK_S, self._write)
        except OSError as error:
            if not self.unsaved:
                why = error.strerror or "the disk does not answer"
                log.error("a command is in force, but will not outlive a restart: %s", why)
            self.unsaved = True
        else:
            self.unsaved = False

    def _write(self) -> None:
        """Write the latest orders, also if an earlier write has waited for the disk."""
        with self._writing:
            self._file.save(self._to_write)


def _standing(content: bytes) -> Standing:
    """Parse the file. Raises ValueError, KeyError, TypeError, AttributeError or RecursionError if it is not ours."""
    body = json.loads(content, parse_constant=_no_number)
    if body["schema"] not in _READABLE:
        raise ValueError(f"schema {body['schema']!r}")
    groups = body["standing"].items()
    if body["schema"] == 1:
        if body["standing"].get("thresholds"):
            log.error("thresholds that were commanded before do not say for which bundle: they no longer stand")
        groups = [(group, entries) for group, entries in groups if group != "thresholds"]
    return Standing(**{group: _GROUPS[group](entries) for group, entries in groups})


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _orders(value: Callable[[Any], bool], configured: Callable[[Any], bool]) -> Callable[[Any], dict[str, Order]]:
    """Make a function that reads a group of orders, and checks their values with `value` and `configured`."""

    def read(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Order]:
        orders = {name: Order(**entry) for name, entry in entries.items()}
        for name, order in orders.items():
            if not (_is_name(name) and value(order.value) and configured(order.configured)):
                raise ValueError(f"{name[:64]!r}: {str(order)[:200]}")
        return orders

    return read


def _thresholds(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, ThresholdOrder]:
    orders = {name: ThresholdOrder(**entry) for name, entry in entries.items()}
    for name, order in orders.items():
        texts = isinstance(order.bundle, str) and isinstance(order.engine, str)
        numbers = _is_threshold(order.value) and (order.configured is None or _is_threshold(order.configured))
        if not (_is_name(name) and texts and numbers):
            raise ValueError(f"{name[:64]!r}: {str(order)[:200]}")
    return orders


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(NAME["pattern"], value) is not None


def _is_folder(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(FOLDER["pattern"], value) is not None


def _is_threshold(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1000  # type: ignore[operator]


def _is_text_or_nothing(value: object) -> bool:
    return value is None or isinstance(value, str)


_GROUPS: Mapping[str, Callable[[Any], Any]] = {
    "products": _orders(_is_name, _is_text_or_nothing),
    "bundles": _orders(_is_folder, _is_text_or_nothing),
    "thresholds": _thresholds,
    "paused": _orders(lambda value: value is None or value in list(Policy), lambda value: value is None),
}
