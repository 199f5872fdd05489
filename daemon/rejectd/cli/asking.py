"""Sends a command to a running line and waits for its answer: what `rejectd command` and `rejectd replay` do."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from rejectd.contract.messages import RejectdError
from rejectd.contract.payloads import answer_topic, command_topic, encode
from rejectd.contract.settings import Settings
from rejectd.mqtt import Link, Message, connect, not_allowed, subscribe

_ANSWER_S = 60.0
_SILENCE_S = 5.0  # most commands are answered at once; after this long a person wonders


class NoAnswerError(RejectdError):
    """The line did not answer."""


def ask(
    settings: Settings,
    command: str,
    request: Mapping[str, Any],
    *,
    say: Callable[[str], None],
    timeout_s: float = _ANSWER_S,
) -> dict[str, Any]:
    """The line's answer to a command, as `payloads.answer_payload` makes it. `say` is told what may be wrong meanwhile.

    Raises:
        NoAnswerError: if no answer comes, or the settings say that none will.
        NotAllowedError: if the broker does not let us ask, or hear the answer.
        LinkError: if the broker cannot be reached or is gone.
    """
    if not settings.mqtt.hears_commands:
        raise NoAnswerError(f"line {settings.line} takes no commands", hint=settings.mqtt.no_commands)
    ours = f"{command}-{os.getpid()}-{secrets.token_hex(4)}"
    answer_to = f"{answer_topic(settings.line)}/{ours}"
    topic = command_topic(settings.line, command)
    link = connect(settings.mqtt, client_id=f"rejectd-{ours}")
    try:
        subscribe(link, [answer_to if link.v5 else answer_topic(settings.line)], settings.mqtt)
        body = encode({**request, "request_id": ours})
        mid = link.publish(Message(topic=topic, payload=body, answer_to=answer_to), 0)
        began, reminded = time.monotonic(), False
        while time.monotonic() < began + timeout_s:
            link.wait(0.2)
            _look_at_acknowledgement(link, mid, settings, topic)
            answer = _answer(link, ours)
            if answer:
                return answer
            if not reminded and time.monotonic() > began + _SILENCE_S:
                reminded = True
                say(f"line {settings.line} has not answered yet; {_why(link, settings)}")
    finally:
        link.close()
    raise NoAnswerError(f"line {settings.line} has not answered within {timeout_s:g} s", hint=_why(link, settings))


def _look_at_acknowledgement(link: Link, mid: int, settings: Settings, topic: str) -> None:
    """What the broker says to our request: in MQTT 5 whether we may send it, and whether anybody hears it."""
    done, link.acknowledged = link.acknowledged, []
    for acknowledgement in done:
        if acknowledgement.mid != mid:
            continue
        if acknowledgement.refusal:
            raise not_allowed(settings.mqtt, f"write {topic}", acknowledgement.refusal)
        if acknowledgement.nobody:
            hint = "does its service run, with these settings, and may it read that topic?"
            raise NoAnswerError(f"nobody hears {topic}", hint=hint)


def _answer(link: Link, request_id: str) -> dict[str, Any] | None:
    received, link.received = link.received, []
    for message in received:
        try:
            answer = json.loads(message.payload)
        except ValueError:
            continue  # somebody else's
        if isinstance(answer, dict) and answer.get("request_id") == request_id:
            return answer
    return None


def _why(link: Link, settings: Settings) -> str:
    """What may be wrong where no answer comes."""
    user = f"user {settings.mqtt.username}" if settings.mqtt.username else "a client without user"
    reads = f"the broker's access list may not let {user} read {answer_topic(settings.line)}/#"
    if link.v5:
        return f"its service may be busy, or {reads}"
    writes = f"write {command_topic(settings.line, '+')}"
    return f"does its service run, with these settings? With MQTT 3.1.1 nobody is told: {reads}, or {writes}"
