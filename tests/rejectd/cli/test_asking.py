"""rejectd.cli.asking and rejectd.cli.watch before brokers that do not let them: said at once, and in words."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from access import guarded, no_subscriptions
from line import LINE, ROOT
from peers import Mosquitto

from rejectd.cli import watch
from rejectd.cli.asking import NoAnswerError, ask
from rejectd.contract.settings import Commands, FolderCamera, Mqtt, Product, Protocol, Settings
from rejectd.mqtt import NotAllowedError


def settings(broker: Mosquitto, user: str | None = None, **mqtt: object) -> Settings:
    """Of the line of the tests, before this broker."""
    login = {"username": user, "password_file": broker.directory.parent / f"{user}.password"} if user else {}
    return Settings(
        line=LINE,
        cameras={"a": FolderCamera(product="cell", path=Path("pictures"))},
        products={"cell": Product(bundle=Path("bundle"))},
        mqtt=Mqtt(port=broker.port, commands=Commands.ANONYMOUS, **login, **mqtt),  # type: ignore[arg-type]
    )


def test_a_user_who_may_not_give_commands_is_told_so_at_once(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    broker = guarded(mosquitto_with, tmp_path)
    said: list[str] = []
    began = time.monotonic()
    with pytest.raises(NotAllowedError) as refused:
        ask(settings(broker, "rejectd"), "pause", {}, say=said.append)
    assert time.monotonic() - began < 3
    assert f"does not let user rejectd write {ROOT}/command/pause: Not authorized" in str(refused.value)
    assert "--username and --password-file" in str(refused.value)
    assert said == []


def test_a_command_that_nobody_hears_is_no_use_waiting_for(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    broker = guarded(mosquitto_with, tmp_path)
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="nobody hears rejectd/v1/t1/command/pause; does its service run"):
        ask(settings(broker, "operator"), "pause", {}, say=lambda _text: None)
    assert time.monotonic() - began < 3


def test_a_subscription_that_is_refused_is_an_error_at_once(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    for protocol in (Protocol.V5, Protocol.V311):
        (directory := tmp_path / protocol.name).mkdir()
        broker = mosquitto_with(no_subscriptions(directory, "answer/#", "status"))
        began = time.monotonic()
        with pytest.raises(NotAllowedError, match=r"does not let a client without user read rejectd/v1/t1/answer"):
            ask(settings(broker, protocol=protocol), "pause", {}, say=lambda _text: None)
        with pytest.raises(NotAllowedError, match="does not let a client without user read rejectd/v1/t1/status"):
            watch.watch(settings(broker, protocol=protocol), out=io.StringIO(), until=lambda: False)
        assert time.monotonic() - began < 5


def test_an_old_mqtt_tells_nobody_so_it_is_said_after_a_while_what_may_be_wrong(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    broker = guarded(mosquitto_with, tmp_path)
    said: list[str] = []
    with pytest.raises(NoAnswerError):
        ask(settings(broker, "rejectd", protocol=Protocol.V311), "pause", {}, say=said.append, timeout_s=6)
    assert len(said) == 1
    assert "With MQTT 3.1.1 nobody is told" in said[0]
    assert f"user rejectd read {ROOT}/answer/#, or write {ROOT}/command/+" in said[0]


def test_watching_what_one_may_not_read_says_so_after_a_while(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    """mosquitto accepts the subscription and sends nothing."""
    broker = guarded(mosquitto_with, tmp_path)
    out = io.StringIO()
    until = time.monotonic() + 10
    watch.watch(
        settings(broker, "rejectd"),
        out=out,
        until=lambda: bool(out.getvalue()) or time.monotonic() > until,
        silence_s=1,
    )
    assert "nothing heard of line t1 for 1 s: does its service run, and does the broker's access list" in out.getvalue()
    assert "let user rejectd read rejectd/v1/t1/#?" in out.getvalue()
