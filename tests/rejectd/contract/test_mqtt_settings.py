"""rejectd.contract.mqtt_settings: who may give commands, and as whom a person talks to the broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from settings_texts import group, load

from rejectd.contract import settings_file
from rejectd.contract.declaration import SettingsError
from rejectd.contract.messages import RejectdError


@pytest.mark.parametrize(
    ("text", "commands", "counts"),
    [
        ("{}", False, True),
        ("{username: line1}", True, True),
        ("{tls: true, tls_cert: line.yaml, tls_key: line.yaml}", True, True),
        ("{tls: true, tls_ca: line.yaml}", False, True),
        ("{commands: auto}", False, True),
        ("{commands: true}", False, True),
        ("{commands: true, username: line1}", True, True),
        ("{commands: anonymous}", True, True),
        ("{commands: Anonymous, username: line1}", True, True),
        ("{commands: off}", False, False),
        ("{commands: false, username: line1}", False, False),
    ],
)
def test_nobody_gives_commands_through_a_broker_that_lets_everybody_unless_the_settings_say_so(
    directory: Path, text: str, commands: bool, counts: bool
) -> None:
    mqtt = load(directory, group(f"mqtt: {text}")).mqtt
    assert (mqtt.hears_commands, mqtt.hears_counts) == (commands, counts)


def test_somebody_who_talks_to_a_running_line_need_not_read_what_the_service_must(directory: Path) -> None:
    (directory / "line.yaml").write_text(
        group("mqtt: {username: u, password_file: /run/absent, operator_username: anna, operator_password_file: mine}")
    )
    with pytest.raises(SettingsError, match=r"mqtt\.password_file"):
        settings_file.load(directory / "line.yaml")
    mqtt = settings_file.load_for_operator(directory / "line.yaml").mqtt
    assert (mqtt.username, mqtt.password_file) == ("anna", directory / "mine")
    mqtt = settings_file.load_for_operator(directory / "line.yaml", "bert").mqtt
    assert (mqtt.username, mqtt.password_file) == ("bert", None), "not with the password of another"
    mqtt = settings_file.load_for_operator(directory / "line.yaml", "bert", Path("his")).mqtt
    assert (mqtt.username, mqtt.password_file) == ("bert", Path("his"))
    mqtt = settings_file.load_for_operator(directory / "line.yaml", None, Path("new")).mqtt
    assert (mqtt.username, mqtt.password_file) == ("anna", Path("new"))
    tls = "tls: true, tls_cert: /run/absent.crt, tls_key: /run/absent.key"
    (directory / "line.yaml").write_text(group(f"mqtt: {{operator_username: anna, {tls}}}"))
    mqtt = settings_file.load_for_operator(directory / "line.yaml").mqtt
    assert (mqtt.tls, mqtt.tls_cert, mqtt.tls_key) == (True, None, None), "a key that only the service may read"
    (directory / "line.yaml").write_text(group("mqtt: {username: u, port: x}"))
    with pytest.raises(SettingsError, match=r"mqtt\.port"):
        settings_file.load_for_operator(directory / "line.yaml")


def test_without_a_user_for_operators_the_service_s_own_is_used(directory: Path) -> None:
    (directory / "line.yaml").write_text(group("mqtt: {username: u}"))
    assert settings_file.load_for_operator(directory / "line.yaml").mqtt.username == "u"
    with pytest.raises(RejectdError, match="--password-file needs a user"):
        settings_file.load_for_operator(directory / "line.yaml", None, Path("new"))
