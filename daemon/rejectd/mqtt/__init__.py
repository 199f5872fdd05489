"""Talks to the broker: `Publisher` for the service, `connect` and `listen` for commands. Nothing else knows paho."""

from rejectd.mqtt.link import Link, LinkError, Message, RefusedError, connect, listen
from rejectd.mqtt.publisher import Publisher

__all__ = ["Link", "LinkError", "Message", "Publisher", "RefusedError", "connect", "listen"]
