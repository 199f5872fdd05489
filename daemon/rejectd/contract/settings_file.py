"""Reads the settings file of one line, and has it checked, so that every mistake is reported before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

from rejectd.contract import settings_checks
from rejectd.contract.declaration import Mistake, SettingsError, SettingsReader
from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import Settings
from revdist.files import encodings, trouble

_INSTALLED = Path("/etc/rejectd")  # where the unit has its settings files
_INSTALLED_STATE = Path("/var/lib/rejectd")
_OF_THE_SERVICE = ("password_file", "tls_ca", "tls_cert", "tls_key", "bundle", "teacher_weights")  # files it must read


def load(file: Path) -> Settings:
    """Read and check a settings file.

    Raises:
        SettingsError: with every mistake, its line and a hint.
    """
    settings, mistakes = _load(file)
    if mistakes or settings is None:
        raise SettingsError(file, mistakes)
    return settings


def load_for_operator(file: Path, username: str | None = None, password_file: Path | None = None) -> Settings:
    """The settings for a person who talks to a running line, with the operators' user in the place of the service's.

    Files that only the service must read are not checked, since other users may not be allowed to read them.

    Args:
        file: the settings file.
        username: instead of `mqtt.operator_username`.
        password_file: instead of `mqtt.operator_password_file`.

    Raises:
        SettingsError: with every mistake, its line and a hint.
    """
    settings, mistakes = _load(file)
    mistakes = [mistake for mistake in mistakes if mistake.key.rpartition(".")[2] not in _OF_THE_SERVICE]
    if mistakes or settings is None:
        raise SettingsError(file, mistakes)
    mqtt = settings.mqtt
    user = username or mqtt.operator_username
    if user is None:
        if password_file:
            raise RejectdError("--password-file needs a user", hint="give --username too, or mqtt.operator_username")
        return settings
    secret = password_file or (None if username else mqtt.operator_password_file)
    mqtt = mqtt.model_copy(update={"username": user, "password_file": secret})
    if mqtt.tls_key and trouble.why_not_file(mqtt.tls_key):  # the service's key, which others rightly cannot read
        mqtt = mqtt.model_copy(update={"tls_cert": None, "tls_key": None})
    return settings.model_copy(update={"mqtt": mqtt})


def load_for_page(file: Path) -> Settings:
    """The settings for the page's process, whose user may read fewer files than the service's.

    Raises:
        SettingsError: with every mistake, its line and a hint.
    """
    settings, mistakes = _load(file)
    mistakes = [
        mistake
        for mistake in mistakes
        if mistake.key.startswith("page.") or mistake.key.rpartition(".")[2] not in _OF_THE_SERVICE
    ]
    if mistakes or settings is None:
        raise SettingsError(file, mistakes)
    return settings


def load_for_cameras(file: Path) -> Settings:
    """The settings for who takes pictures alone: before there is a bundle, and without a broker.

    Raises:
        SettingsError: with every mistake about cameras, its line and a hint.
    """
    settings, mistakes = _load(file)
    mistakes = [mistake for mistake in mistakes if settings is None or mistake.key.startswith("cameras.")]
    if mistakes or settings is None:
        raise SettingsError(file, mistakes)
    return settings


def _load(file: Path) -> tuple[Settings | None, list[Mistake]]:
    """The settings as far as they could be read, and every mistake."""
    reader = SettingsReader(file)
    try:
        text = _text(file)
    except trouble.FILE_ERRORS as error:
        explanation = trouble.explain(error, file)
        hint = explanation.hint or "give the path of a settings file, such as config/line.yaml"
        reader.mistake("file", f"cannot be read: {explanation.cause}", hint)
        raise SettingsError(file, reader.mistakes) from error
    node = reader.root(text)
    settings: Settings | None = reader.group(Settings, node) if node is not None else None
    settings_checks.check(reader)
    return settings, reader.mistakes


def _text(file: Path) -> str:
    """The text of a settings file, which may be a pipe such as /dev/stdin. Raises OSError or ValueError."""
    with file.open("rb") as opened:
        content = opened.read(trouble.TEXT_BYTES + 1)
    if len(content) > trouble.TEXT_BYTES:
        raise ValueError(f"it has more than {trouble.TEXT_BYTES} bytes")
    return encodings.text(content)


def state_directory(settings: Settings, file: Path) -> Path:
    """Where the service of this settings file keeps its state."""
    if settings.state_directory:
        return settings.state_directory
    systemd_directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if systemd_directory:
        return Path(systemd_directory)
    return state_directory_of_service(settings, file)


def page_directory(settings: Settings, file: Path) -> Path:
    """Where the page of this settings file keeps its users and labels."""
    if settings.page.state_directory:
        return settings.page.state_directory
    systemd_directory = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if systemd_directory:
        return Path(systemd_directory)
    return Path(os.path.abspath(file)).parent / "page-state"  # noqa: PTH100 - as in `state_directory_of_service`


def state_directory_of_service(settings: Settings, file: Path) -> Path:
    """Where the service of this settings file keeps its state, seen from another process."""
    if settings.state_directory:
        return settings.state_directory
    absolute = Path(os.path.abspath(file))  # noqa: PTH100 - `resolve` would leave /etc for where a link leads
    if absolute.parent == _INSTALLED and absolute.suffix == ".yaml":
        return (
            _INSTALLED_STATE / absolute.stem
        )  # as systemd/rejectd@.service has it: a person finds the service's state
    return absolute.parent / "state"
