"""Sends a command to a running line and waits for its answer: what `rejectd command` and `rejectd replay` do."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any

from rejectd.messages import RejectdError
from rejectd.mqtt import Message, connect
from rejectd.payloads import answer_topic, command_topic, encode
from rejectd.settings import Settings

_ANSWER_S = 60.0


class NoAnswerError(RejectdError):
    """The line did not answer."""


def ask(
    settings: Settings, command: str, request: Mapping[str, Any], *, timeout_s: float = _ANSWER_S
) -> dict[str, Any]:
    """The line's answer to a command, as `payloads.answer_payload` makes it.

    Raises:
        NoAnswerError: if no answer comes, or the settings say that none will.
        LinkError: if the broker cannot be reached or is gone.
    """
    if not settings.mqtt.hears_commands:
        raise NoAnswerError(f"line {settings.line} takes no commands", hint=settings.mqtt.no_commands)
    ours = f"{command}-{os.getpid()}-{secrets.token_hex(4)}"
    topic = f"{answer_topic(settings.line)}/{ours}"
    link = connect(settings.mqtt, client_id=f"rejectd-{ours}")
    try:
        link.subscribe(topic if link.v5 else answer_topic(settings.line))
        body = encode({**request, "request_id": ours})
        link.publish(Message(topic=command_topic(settings.line, command), payload=body, answer_to=topic), 0)
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            link.wait(0.2)
            received, link.received = link.received, []
            for message in received:
                answer: dict[str, Any] = json.loads(message.payload)
                if answer.get("request_id") == ours:
                    return answer
    finally:
        link.close()
    hint = "does its service run with these settings, and does the broker let both sides through?"
    raise NoAnswerError(f"line {settings.line} has not answered within {timeout_s:g} s", hint=hint)
