"""rejectd.control.standing_orders: what commands have changed outlives a restart, and ends when the settings change
it."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rejectd.contract.messages import Policy
from rejectd.contract.settings import FolderCamera, Product, Settings
from rejectd.control.standing_orders import (
    Order,
    Standing,
    StandingFile,
    ThresholdOrder,
    configured_bundle,
    configured_product,
)

SETTINGS = Settings(
    line="l",
    cameras={name: FolderCamera(product="cell", path=Path("/pictures")) for name in ("left", "right")},
    products={
        "cell": Product(bundle=Path("/bundles/cell")),
        "wafer": Product(bundle=Path("/bundles/wafer"), threshold=0.5),
    },
)


def threshold(value: float, configured: float | None) -> ThresholdOrder:
    return ThresholdOrder(value=value, configured=configured, bundle="a" * 64, engine="torch-cpu-float32")


def all_orders() -> Standing:
    """One of each kind, given while SETTINGS were in force."""
    return Standing(
        products={"left": Order("wafer", "cell")},
        bundles={"cell": Order("cell-2", "cell")},
        thresholds={"cell": threshold(0.7, None), "wafer": threshold(0.8, 0.5)},
        paused={"left": Order(Policy.PASS, None), "right": Order(None, None)},
    )


def test_orders_outlive_a_restart(tmp_path: Path) -> None:
    file = StandingFile(tmp_path / "standing.json")
    assert file.load() == Standing(), "nothing stands at the first start"
    file.save(all_orders())
    assert StandingFile(tmp_path / "standing.json").load() == all_orders()
    file.save(Standing())
    assert file.load() == Standing()


def test_orders_stand_while_the_settings_say_what_they_said(tmp_path: Path) -> None:
    standing = all_orders()
    standing.drop_changed(SETTINGS)
    assert standing == all_orders()
    standing.drop_changed(
        SETTINGS.model_copy(update={"log_level": "debug", "cameras": dict(reversed(SETTINGS.cameras.items()))})
    )
    assert standing == all_orders(), "what they did not replace does not matter"


def cell(**changed: Any) -> Settings:
    return SETTINGS.model_copy(
        update={"products": SETTINGS.products | {"cell": SETTINGS.products["cell"].model_copy(update=changed)}}
    )


def left(**changed: Any) -> Settings:
    return SETTINGS.model_copy(
        update={"cameras": SETTINGS.cameras | {"left": SETTINGS.cameras["left"].model_copy(update=changed)}}
    )


WITHOUT_WAFER = SETTINGS.model_copy(update={"products": {"cell": SETTINGS.products["cell"]}})
WITHOUT_CELL = SETTINGS.model_copy(update={"products": {"wafer": SETTINGS.products["wafer"]}})
WITHOUT_LEFT = SETTINGS.model_copy(update={"cameras": {"right": SETTINGS.cameras["right"]}})


@pytest.mark.parametrize(
    ("settings", "ended"),
    [
        (left(product="wafer"), {"products": {"left"}}),
        (left(deadline_ms=5), {}),
        (cell(bundle=Path("/bundles/cell-3")), {"bundles": {"cell"}}),
        (cell(bundle=Path("/elsewhere/cell")), {}),
        (cell(threshold=0.7), {"thresholds": {"cell"}}),
        (WITHOUT_WAFER, {"products": {"left"}, "thresholds": {"wafer"}}),
        (WITHOUT_CELL, {"bundles": {"cell"}, "thresholds": {"cell"}}),
        (WITHOUT_LEFT, {"products": {"left"}, "paused": {"left"}}),
    ],
)
def test_an_order_ends_when_the_settings_change_what_it_replaced_and_no_other_does(
    settings: Settings, ended: dict[str, set[str]]
) -> None:
    standing, before = all_orders(), all_orders()
    standing.drop_changed(settings)
    for group in ("products", "bundles", "thresholds", "paused"):
        kept, given = getattr(standing, group), getattr(before, group)
        assert set(given) - set(kept) == ended.get(group, set()), group
        assert all(kept[name] == given[name] for name in kept)


def test_what_the_settings_say_is_known_of_what_there_is() -> None:
    assert (configured_product(SETTINGS, "left"), configured_product(SETTINGS, "top")) == ("cell", None)
    assert (configured_bundle(SETTINGS, "wafer"), configured_bundle(SETTINGS, "hat")) == ("wafer", None)


def group(name: str, of: str, **entry: object) -> bytes:
    """A file with one order of one group, right or wrong."""
    return json.dumps({"schema": 2, "standing": {name: {of: entry}}}).encode()


GOOD = {"schema": 1, "standing": {"paused": {"left": {"value": None, "configured": None}}}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        json.dumps(GOOD).encode()[:-5],
        b"null",
        b"[]",
        b"{}",
        b'{"schema": 3, "standing": {}}',
        b'{"schema": 1}',
        b'{"schema": 1, "standing": []}',
        b'{"schema": 1, "standing": {"colours": {}}}',
        b'{"schema": 1, "standing": {"paused": 5}}',
        b'{"schema": 1, "standing": {"paused": {"left": 5}}}',
        b'{"schema": 1, "standing": {"paused": {"left": {"value": null}}}}',
        b'{"schema": 1, "standing": {"paused": {"left": {"value": null, "configured": null, "by": "me"}}}}',
        b"\xff" * 100,
        b"[" * 100_000,
        b" " * 1_000_001,
        group("products", "left", value=["wafer"], configured="cell"),
        group("products", "left", value={}, configured="cell"),
        group("products", "left", value=7, configured="cell"),
        group("products", "left", value="wafer", configured=["cell"]),
        group("bundles", "cell", value="../../etc", configured="cell"),
        group("bundles", "cell", value="", configured="cell"),
        group("bundles", "cell", value="x" * 300, configured="cell"),
        group("bundles", "cell", value="a\0b", configured="cell"),
        group("bundles", "cell", value=None, configured="cell"),
        group("thresholds", "cell", value="high", configured=None, bundle="a", engine="e"),
        group("thresholds", "cell", value=float("nan"), configured=None, bundle="a", engine="e"),
        group("thresholds", "cell", value=float("inf"), configured=None, bundle="a", engine="e"),
        group("thresholds", "cell", value=True, configured=None, bundle="a", engine="e"),
        group("thresholds", "cell", value=10**400, configured=None, bundle="a", engine="e"),
        group("thresholds", "cell", value=0.5, configured=None, bundle=5, engine="e"),
        group("thresholds", "cell", value=0.5, configured=None),
        group("paused", "left", value="eject", configured=None),
        group("paused", "left", value=[], configured=None),
        group("paused", "x" * 100, value=None, configured=None),
    ],
)
def test_a_damaged_file_is_told_and_the_line_starts_as_the_settings_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "standing.json"
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        file = StandingFile(path)
        assert file.load() == Standing()
    assert f"{path}: cannot be used, commands given before no longer stand" in caplog.text
    assert file.set_aside.endswith("the file is set aside as standing.json.damaged")
    assert [found.name for found in tmp_path.iterdir()] == ["standing.json.damaged"]
    assert (tmp_path / "standing.json.damaged").read_bytes() == content
    path.write_text(json.dumps(GOOD))
    assert StandingFile(path).load() == Standing(paused={"left": Order(None, None)}), "the check is not too strict"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere"])
def test_what_is_no_file_is_told_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    path = tmp_path / "standing.json"
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link to nowhere": lambda: path.symlink_to("gone")}
    make[kind]()
    with caplog.at_level(logging.ERROR):
        assert StandingFile(path).load() == Standing()
    assert "cannot be used" in caplog.text
    StandingFile(path).save(all_orders())
    assert StandingFile(path).load() == all_orders(), "there is room for the next orders"


def test_thresholds_of_a_file_that_does_not_say_for_which_bundle_stand_no_longer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    groups = {"paused": GOOD["standing"]["paused"], "thresholds": {"cell": {"value": 0.9, "configured": None}}}  # type: ignore[index]
    (tmp_path / "standing.json").write_text(json.dumps({"schema": 1, "standing": groups}))
    assert StandingFile(tmp_path / "standing.json").load() == Standing(paused={"left": Order(None, None)})
    assert "do not say for which bundle: they no longer stand" in caplog.text


def test_a_disk_that_takes_nothing_leaves_what_stood_before(tmp_path: Path) -> None:
    file = StandingFile(tmp_path / "standing.json")
    file.save(all_orders())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # what a full disk is to a program that writes
    try:
        with pytest.raises(OSError, match="File too large"):
            file.save(replace(all_orders(), paused={f"camera{number}": Order(None, None) for number in range(50)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["standing.json"], "nothing half written is left"
    assert file.load() == all_orders()


def test_a_service_that_is_killed_while_it_writes_leaves_the_older_or_the_newer_orders(tmp_path: Path) -> None:
    path = tmp_path / "standing.json"
    chance = random.Random(5)
    for _ in range(25):
        ours, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for size in itertools.count(1):
                    StandingFile(path).save(Standing(paused={f"c{n}": Order(None, None) for n in range(size % 300)}))
                    os.write(told, b".")
            finally:
                os._exit(1)
        os.close(told)
        with open(ours, "rb") as pipe:  # noqa: PTH123 - a pipe
            said = pipe.read(1)
            time.sleep(chance.uniform(0, 0.008))  # the instant of a kill is nobody's choice
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            said += pipe.read()
        assert len(StandingFile(path).load().paused) in (len(said) % 300, (len(said) + 1) % 300)
