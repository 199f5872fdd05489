"""Checks that the broker lets the service publish and subscribe, with messages that nobody can mistake for real ones.

These messages name a camera `check`, a name that no camera may have, and a decision `check`. They have a schema of
their own and are not retained. The topic of the line's own status is not tried, since every message there counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from rejectd.contract.payloads import TOPIC_ROOT, actuator_topic, answer_topic, command_topic, encode
from rejectd.contract.settings import Mqtt
from rejectd.mqtt.exchange import LinkError, Message
from rejectd.mqtt.link import Link
from rejectd.mqtt.listening import subscribe

_CHECK = "check"
_ANSWER_S = 5.0


class RightsError(LinkError):
    """The service's user may not do at the broker what it has to."""


def try_rights(link: Link, line: str, settings: Mqtt) -> str:
    """Publish and subscribe as the service will. Returns what the broker allows, in words.

    Raises:
        RightsError: with every topic that the broker refuses.
        LinkError: if the broker does not answer, or is gone.
    """
    topics_to_hear = [command_topic(line, "+")] if settings.hears_commands else []
    topics_to_hear += [actuator_topic(line, "+")] if settings.hears_counts else []
    subscribe(link, topics_to_hear, settings)
    refused = _refusals(link, line, settings)
    if refused:
        who = f"user {settings.username}" if settings.username else "a client without user"
        topics = ", ".join(f"{topic} ({why})" for topic, why in refused.items())
        rules = "; ".join(f"topic write {topic}" for topic in refused)
        raise RightsError(f"the broker does not let {who} publish on {topics}", hint=f"its access list needs: {rules}")
    if not link.v5:
        return "does not say what may be published"
    return "lets the service publish" + (" and hear" if topics_to_hear else "")


def _refusals(link: Link, line: str, settings: Mqtt) -> dict[str, str]:
    """Why the broker refuses messages, by topic as an access list names it; empty if it refuses none."""
    body = encode({"schema": "rejectd.cli.check.v1", "line": line})
    kinds = {link.publish(Message(topic=topic, payload=body), 0): kind for topic, kind in _probes(line).items()}
    refused: dict[str, str] = {}
    until = time.monotonic() + _ANSWER_S
    while kinds:
        if time.monotonic() > until:
            raise LinkError(f"broker {settings.host}:{settings.port}: has not acknowledged within {_ANSWER_S:g} s")
        link.wait(0.1)
        acknowledgements, link.acknowledged = link.acknowledged, []
        for acknowledgement in acknowledgements:
            kind = kinds.pop(acknowledgement.mid, "")
            if kind and acknowledgement.refusal:
                refused[kind] = acknowledgement.refusal
    return refused


def _probes(line: str) -> Mapping[str, str]:
    """Topics to try, and the topic filter that the access list should have for each."""
    root = f"{TOPIC_ROOT}/{line}"
    return {
        f"{root}/{_CHECK}/status": f"{root}/+/status",
        f"{root}/{_CHECK}/verdict/{_CHECK}": f"{root}/+/verdict/+",
        f"{root}/{_CHECK}/defect": f"{root}/+/defect",
        f"{root}/command/golden/verdict/{_CHECK}": f"{root}/command/golden/verdict/+",
        f"{answer_topic(line)}/{_CHECK}": f"{answer_topic(line)}/#",
    }
