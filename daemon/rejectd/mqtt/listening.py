"""Subscribes to a line's messages for the commands of `rejectd`, and reports at once if the broker refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rejectd.contract.settings import Mqtt
from rejectd.mqtt.exchange import LinkError
from rejectd.mqtt.link import Link, connect

_SUBSCRIBED_S = 5.0


class NotAllowedError(LinkError):
    """The broker does not allow our user to do this."""


def not_allowed(settings: Mqtt, what: str, refusal: str) -> NotAllowedError:
    """An error that says who is not allowed to do what."""
    who = f"user {settings.username}" if settings.username else "a client without user"
    where = f"broker {settings.host}:{settings.port}"
    hint = (
        "give a user whom its access list allows that, with --username and --password-file or with "
        "mqtt.operator_username and mqtt.operator_password_file"
    )
    return NotAllowedError(f"{where} does not let {who} {what}: {refusal}", hint=hint)


def subscribe(link: Link, topics: Iterable[str], settings: Mqtt) -> None:
    """Subscribe to topics, and wait until the broker has acknowledged all of them.

    Raises:
        NotAllowedError: if the broker refuses.
        LinkError: if the broker does not answer, or is gone.
    """
    waiting = {link.subscribe(topic): topic for topic in topics}
    until = time.monotonic() + _SUBSCRIBED_S
    while waiting:
        if time.monotonic() > until:
            raise LinkError(f"broker {settings.host}:{settings.port}: does not answer a subscription")
        link.wait(0.1)
        answers, link.subscribed = link.subscribed, []
        for answer in answers:
            topic = waiting.pop(answer.mid, "")
            if answer.refusal:
                raise not_allowed(settings, f"read {topic}", answer.refusal)


def listen(
    settings: Mqtt,
    topics: list[str],
    on_message: Callable[[str, bytes], None],
    *,
    client_id: str,
    until: Callable[[], bool],
) -> None:
    """Receive messages until `until()` is true.

    Raises:
        NotAllowedError: if the broker refuses a subscription.
        LinkError: if the broker cannot be reached or is gone.
    """
    link = connect(settings, client_id=client_id)
    try:
        subscribe(link, topics, settings)
        while not until():
            received, link.received = link.received, []
            for message in received:
                on_message(message.topic, message.payload)
            link.wait(0.2)
    finally:
        link.close()
