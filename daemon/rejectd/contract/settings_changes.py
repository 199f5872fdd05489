"""Compares two settings files of a line, to tell after a reload which changes need a restart."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from rejectd.contract.fields import Group
from rejectd.contract.settings import Settings

RELOADED = ("log_level", "products.*.threshold", "products.*.threshold_for")  # taken over without a restart
_ABSENT = object()


def needing_restart(before: Settings, after: Settings) -> dict[str, tuple[str, str]]:
    """Settings that changed and that a reload does not take over, by key: (before, after), without secrets."""
    old, new = dict(_flat(before)), dict(_flat(after))
    return {
        key: (_shown(old.get(key, _ABSENT)), _shown(new.get(key, _ABSENT)))
        for key in dict.fromkeys((*old, *new))
        if old.get(key, _ABSENT) != new.get(key, _ABSENT)
        and not (key in old and key in new and any(fnmatch.fnmatchcase(key, pattern) for pattern in RELOADED))
    }


def _flat(group: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its key, such as cameras.left.deadline_ms."""
    if isinstance(group, Mapping):
        parts: Iterable[tuple[Any, Any]] = group.items()
    elif isinstance(group, Group):
        parts = group
    else:
        yield key, group
        return
    for name, value in parts:
        yield from _flat(value, f"{key}.{name}" if key else str(name))


def _shown(value: object) -> str:
    """A value for the log. User, password and query of an address are left out, since they may be secrets."""
    if value is _ABSENT:
        return "absent"
    if isinstance(value, str) and "://" in value:
        address = urlsplit(value)
        host = address.netloc.rpartition("@")[2]
        return f"{address.scheme}://{host}{address.path}" + ("?..." if address.query or address.fragment else "")
    return str(value)
