"""Talks to the broker: `Publisher` for the service, `connect` and `listen` for commands. Nothing else knows paho."""

from rejectd.mqtt.link import Incoming, Link, LinkError, Message, RefusedError, connect, listen
from rejectd.mqtt.publisher import Ears, Publisher

__all__ = ["Ears", "Incoming", "Link", "LinkError", "Message", "Publisher", "RefusedError", "connect", "listen"]
