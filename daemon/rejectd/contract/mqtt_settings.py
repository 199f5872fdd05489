"""The settings of the broker."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from rejectd.contract.fields import HOST, Group, Text, setting


class Protocol(StrEnum):
    """Version of MQTT; `auto` tries 5 and falls back."""

    AUTO = "auto"
    V5 = "5"
    V311 = "3.1.1"


class Commands(StrEnum):
    """From whom commands are taken."""

    AUTO = "auto"
    ANONYMOUS = "anonymous"
    OFF = "off"

    @classmethod
    def _missing_(cls, value: object) -> Commands | None:
        """This was once a truth value."""
        return {"true": cls.AUTO, "yes": cls.AUTO, "on": cls.AUTO, "false": cls.OFF, "no": cls.OFF}.get(str(value))


class Mqtt(Group):
    """The broker."""

    host: str = setting("Name or address of the broker.", default="127.0.0.1", **HOST)
    port: int = setting("Port of the broker; 8883 is usual with TLS.", default=1883, low=1, high=65535)
    protocol: Protocol = setting("Version of MQTT; `auto` tries 5 and falls back to 3.1.1.", default=Protocol.AUTO)
    client_id: Text | None = setting("Client identifier; `rejectd-<line>` if not given.", default=None)
    username: Text | None = setting("User.", default=None)
    password_file: Path | None = setting("File that holds the password.", default=None)
    operator_username: Text | None = setting(
        "User of `rejectd command`, `replay` and `watch`, who may do at the broker what the service may not.",
        default=None,
    )
    operator_password_file: Path | None = setting(
        "File that holds the password of that user. The service never reads it.", default=None
    )
    tls: bool = setting("Encrypt, and check the broker's certificate.", default=False)
    tls_ca: Path | None = setting("Certificates to trust instead of the system's.", default=None)
    tls_cert: Path | None = setting("Own certificate, for mutual TLS.", default=None)
    tls_key: Path | None = setting("Key of the own certificate.", default=None)
    keepalive_s: int = setting(
        "The broker publishes the last will when it has heard nothing for one and a half times this, and notices: "
        "mosquitto looks every 5 to 6 s.",
        default=5,
        unit="s",
        low=1,
        high=3600,
    )
    heartbeat_s: float = setting("Time between two line status messages.", default=1.0, unit="s", low=0.1, high=3600)
    retry_max_s: float = setting(
        "Longest pause between two attempts to reach the broker; the first is 0.2 s.",
        default=10.0,
        unit="s",
        low=0.2,
        high=3600,
    )
    commands: Commands = setting(
        "Who may change the running line by commands. `auto`: whoever the broker's access list lets, and nobody while "
        "this line itself needs neither user nor certificate there, since the broker would let everybody; `anonymous`: "
        "everybody even so; `off`: nobody, and counts of actuators are not heard either. `true` and `false` are read "
        "as `auto` and `off`.",
        default=Commands.AUTO,
    )
    publish_margin_ms: int = setting(
        "How long before the deadline an unjudged frame is answered, so that the message arrives in time; longer where"
        " the broker was seen to need longer.",
        default=20,
        unit="ms",
        low=1,
        high=60_000,
    )

    @property
    def hears_commands(self) -> bool:
        """Whether commands are taken."""
        identified = self.username is not None or self.tls_cert is not None
        return self.commands is Commands.ANONYMOUS or (self.commands is Commands.AUTO and identified)

    @property
    def no_commands(self) -> str:
        """What to do where no commands are taken."""
        if self.commands is Commands.OFF:
            return "set mqtt.commands: auto"
        return "give it a user or certificate at the broker (mqtt.username, mqtt.tls_cert), or set commands: anonymous"

    @property
    def hears_counts(self) -> bool:
        """Whether counts of actuators are taken. They change nothing."""
        return self.commands is not Commands.OFF
