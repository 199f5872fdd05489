"""What to do when a broker refuses a connection or message, by its reason code in MQTT's words, as paho spells them."""

from __future__ import annotations

from rejectd.contract.settings import Mqtt

TAKEN_OVER = "Session taken over"
TOO_LARGE = "Packet too large"

ABOUT_A_MESSAGE = (  # reasons of a lost connection that a message can have caused; empty: the broker gave no reason
    "", TOO_LARGE, "Protocol error", "Malformed packet", "Implementation specific error", "Payload format invalid",
)  # fmt: skip

_ACCESS = "check mqtt.username, mqtt.password_file and the broker's access list"
_REFUSED = {
    "Client identifier not valid": "give another mqtt.client_id",
    "Retain not supported": "the line needs retained messages: allow them at the broker (mosquitto: retain_available)",
    "QoS not supported": "the line needs QoS 1: allow it at the broker (mosquitto: max_qos)",
    "Packet too large": "raise the largest packet that the broker takes (mosquitto: max_packet_size)",
    "Quota exceeded": "the broker allows no more connections or messages of this user: raise its quota",
    "Connection rate exceeded": "the broker wants fewer connections: how many clients does it have?",
    "Server unavailable": "the broker is there, but does not serve: see its log",
    "Server busy": "the broker has too much to do: see its log",
    "Banned": "the broker has banned this client: see its log",
    "Use another server": "set mqtt.host to that other server",
    "Server moved": "set mqtt.host to where it is now",
}
_ENDED = {
    TOO_LARGE: "a message was larger than the broker takes: raise its limit (mosquitto: max_packet_size)",
    "Receive maximum exceeded": "the broker wants fewer messages at a time than it said: see its log",
    "Not authorized": _ACCESS,
    "Keep alive timeout": "the broker heard nothing for too long: is this machine or the network overloaded?",
    "Quota exceeded": "the broker's quota for this client is used up: raise it",
    "Message rate too high": "the broker wants fewer messages: raise its limit",
    "Administrative action": "somebody closed this connection at the broker",
    "Server shutting down": "the line connects again when it is back",
    "Topic name invalid": "the broker does not like a topic: see its log",
}


def hint_for_refusal(reason: str) -> str:
    """What to do when the broker refuses a connection."""
    return _REFUSED.get(reason, _ACCESS)


def hint_for_end(reason: str) -> str:
    """What to do when the broker ends a connection, if anything."""
    return _ENDED.get(reason, "")


def hint_for_message(reason: str) -> str:
    """What to do when the broker refuses a message."""
    return "check its access list" if reason == "Not authorized" else _ENDED.get(reason, "see the broker's log")


def another_client(client_id: str, settings: Mqtt) -> tuple[str, str]:
    """What is wrong when another client takes over our session, and what to do."""
    fault = f"another client uses this identifier, {client_id}"
    where = f"at {settings.host}:{settings.port}"
    return (
        fault,
        f"is a second service of this line connected {where}? Stop it, or give one of them another mqtt.client_id",
    )
