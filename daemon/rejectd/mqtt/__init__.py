"""Talks to the broker: `Publisher` for the service, `connect` and `listen` for commands. No other room imports paho."""

from rejectd.mqtt.exchange import Incoming, LinkError, LostError, Message, RefusedError
from rejectd.mqtt.link import Link, connect
from rejectd.mqtt.listening import NotAllowedError, listen, not_allowed, subscribe
from rejectd.mqtt.outcomes import Callbacks
from rejectd.mqtt.publisher import Publisher
from rejectd.mqtt.rights import RightsError, try_rights

__all__ = [
    "Callbacks",
    "Incoming",
    "Link",
    "LinkError",
    "LostError",
    "Message",
    "NotAllowedError",
    "Publisher",
    "RefusedError",
    "RightsError",
    "connect",
    "listen",
    "not_allowed",
    "subscribe",
    "try_rights",
]
