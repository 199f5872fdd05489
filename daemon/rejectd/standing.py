"""What commands have changed. An order outlives a restart, and ends when the settings change what it replaced."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rejectd.settings import Settings

log = logging.getLogger(__name__)

_SCHEMA = 1

Value: TypeAlias = str | float | None


@dataclass(frozen=True, slots=True)
class Order:
    """One thing that a command set, and what the settings said of it then."""

    value: Value
    configured: Value


@dataclass(slots=True)
class Standing:
    """Orders that stand."""

    products: dict[str, Order] = field(default_factory=dict)  # of each camera
    bundles: dict[str, Order] = field(default_factory=dict)  # of each product: a folder beside the configured one
    thresholds: dict[str, Order] = field(default_factory=dict)  # of each product
    paused: dict[str, Order] = field(default_factory=dict)  # of each camera: the action for its parts, or its policy's

    def drop_changed(self, settings: Settings) -> None:
        """End the orders that no longer fit the settings: these are newer."""
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


def configured_product(settings: Settings, camera: str) -> str | None:
    """What passes a camera, as the settings say."""
    return settings.cameras[camera].product if camera in settings.cameras else None


def configured_bundle(settings: Settings, product: str) -> str | None:
    """The name of a product's bundle, as the settings say."""
    return settings.products[product].bundle.name if product in settings.products else None


class StandingFile:
    """Where they are kept. Written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Standing:
        """What stands; nothing if there is no file, or it cannot be used."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if found["schema"] != _SCHEMA:
                raise ValueError(f"schema {found['schema']}")  # noqa: TRY301 - told apart from nothing else
            return Standing(**{group: _orders(entries) for group, entries in found["standing"].items()})
        except FileNotFoundError:
            return Standing()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.error("%s: cannot be used, commands given before no longer stand: %r", self._path, error)
            return Standing()

    def save(self, standing: Standing) -> None:
        """Keep it. Raises OSError where the disk does not take it."""
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


def _orders(entries: dict[str, Any]) -> dict[str, Order]:
    return {name: Order(**entry) for name, entry in entries.items()}
