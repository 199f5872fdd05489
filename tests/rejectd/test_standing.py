"""rejectd.standing: what commands have changed outlives a restart, and ends when the settings change it."""

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

from rejectd.messages import Policy
from rejectd.settings import FolderCamera, Product, Settings
from rejectd.standing import Order, Standing, StandingFile, configured_bundle, configured_product

SETTINGS = Settings(
    line="l",
    cameras={name: FolderCamera(product="cell", path=Path("/pictures")) for name in ("left", "right")},
    products={
        "cell": Product(bundle=Path("/bundles/cell")),
        "wafer": Product(bundle=Path("/bundles/wafer"), threshold=0.5),
    },
)


def all_orders() -> Standing:
    """One of each kind, given while SETTINGS were in force."""
    return Standing(
        products={"left": Order("wafer", "cell")},
        bundles={"cell": Order("cell-2", "cell")},
        thresholds={"cell": Order(0.7, None), "wafer": Order(0.8, 0.5)},
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
    standing.drop_changed(replace(SETTINGS, log_level="debug", cameras=dict(reversed(SETTINGS.cameras.items()))))
    assert standing == all_orders(), "what they did not replace does not matter"


def cell(**changed: Any) -> Settings:
    return replace(SETTINGS, products=SETTINGS.products | {"cell": replace(SETTINGS.products["cell"], **changed)})


def left(**changed: Any) -> Settings:
    return replace(SETTINGS, cameras=SETTINGS.cameras | {"left": replace(SETTINGS.cameras["left"], **changed)})


WITHOUT_WAFER = replace(SETTINGS, products={"cell": SETTINGS.products["cell"]})
WITHOUT_CELL = replace(SETTINGS, products={"wafer": SETTINGS.products["wafer"]})
WITHOUT_LEFT = replace(SETTINGS, cameras={"right": SETTINGS.cameras["right"]})


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
        b'{"schema": 2, "standing": {}}',
        b'{"schema": 1}',
        b'{"schema": 1, "standing": []}',
        b'{"schema": 1, "standing": {"colours": {}}}',
        b'{"schema": 1, "standing": {"paused": 5}}',
        b'{"schema": 1, "standing": {"paused": {"left": 5}}}',
        b'{"schema": 1, "standing": {"paused": {"left": {"value": null}}}}',
        b'{"schema": 1, "standing": {"paused": {"left": {"value": null, "configured": null, "by": "me"}}}}',
        b"\xff" * 100,
    ],
)
def test_a_damaged_file_is_told_and_the_line_starts_as_the_settings_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "standing.json"
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert StandingFile(path).load() == Standing()
    assert f"{path}: cannot be used, commands given before no longer stand" in caplog.text
    path.write_text(json.dumps(GOOD))
    assert StandingFile(path).load() == Standing(paused={"left": Order(None, None)}), "the check is not too strict"


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "standing.json").mkdir()
    with caplog.at_level(logging.ERROR):
        assert StandingFile(tmp_path / "standing.json").load() == Standing()
    assert "cannot be used" in caplog.text


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
