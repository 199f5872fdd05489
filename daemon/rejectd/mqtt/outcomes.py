"""Says what becomes of each message: the broker takes it, or refuses it, or the service gives it up."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rejectd.contract.messages import Verdict
from rejectd.metrics import Metrics
from rejectd.mqtt.events import Events
from rejectd.mqtt.exchange import Incoming, Message
from rejectd.mqtt.rate_limited_log import Rarely
from rejectd.mqtt.reasons import hint_for_message

_REFUSED_S = 60.0  # how long a refused topic is a problem after the last refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """Functions that are told of the broker's acknowledgements and messages.

    The publish thread calls them, so they must not block.
    """

    delivered: Callable[[Verdict, int], None]  # the broker has a verdict, since this instant (monotonic ns)
    took: Callable[[int], None]  # ns from a decision to its acknowledgement, both on the same connection
    acknowledged: Callable[[int], None]  # the broker has the event of this number
    received: Callable[[Incoming], None]  # a command, or the count of an actuator
    damaged: Callable[[], None] = lambda: None  # the outbox seems to be damaged


class Outcomes:
    """Notes the end of each message: tells the callbacks, counts, and logs refusals."""

    def __init__(self, events: Events, callbacks: Callbacks, metrics: Metrics, rarely: Rarely) -> None:
        self._events = events
        self._callbacks = callbacks
        self._metrics = metrics
        self._rarely = rarely
        self._refusals: dict[str, float] = {}  # topics that the broker refused, and the instant of the last refusal
        self.unpublished: Counter[str] = Counter()  # verdicts that were never sent, by camera or station

    def refused_topics(self) -> list[str]:
        """The topics that the broker refused lately. Any thread may ask."""
        lately = time.monotonic() - _REFUSED_S
        topics = {topic for topic, at in dict(self._refusals).items() if at > lately}
        return [topic for topic in sorted(topics.union(self._events.refused_topics)) if topic]

    def delivered(self, message: Message, now_ns: int, *, connected_ns: int) -> None:
        """Note that the broker has a message, on the connection that began at `connected_ns`."""
        if message.event_seq is not None:
            self._acknowledged(message.event_seq)
        elif message.verdict:
            verdict = message.verdict
            self._callbacks.delivered(verdict, now_ns)
            if verdict.decided_ns > connected_ns:
                self._callbacks.took(now_ns - verdict.decided_ns)
            latency_s = (now_ns - verdict.captured_ns) / 1e9
            self._metrics.latency.labels(verdict.camera).observe(latency_s, {"event_id": verdict.event_id})
            self._metrics.stage.labels("publish").observe((now_ns - verdict.decided_ns) / 1e9)
            if now_ns > verdict.deadline_ns:
                self._metrics.missed.labels(verdict.camera).inc()

    def refused(self, message: Message, refusal: str) -> None:
        """Note that the broker refuses a message."""
        topic, hint = message.topic, hint_for_message(refusal)
        self._rarely.say(logging.ERROR, topic, "broker refuses %s: %s; %s", topic, refusal, hint)
        if not message.answer:  # others choose the topics of answers
            self._refusals[topic] = time.monotonic()
        if message.verdict:
            self.not_published(message)
        if message.event_seq is not None:
            self._events.refused(message)

    def given_up(self, message: Message) -> None:
        """Note that a message is larger than the broker takes, even when shortened."""
        if message.verdict:
            self.not_published(message)
        if message.event_seq is not None:  # the journal keeps its verdict; the event would hold up all that follow
            self._acknowledged(message.event_seq)

    def not_published(self, message: Message) -> None:
        """Count a verdict that was not sent before its deadline, and never will be."""
        assert message.verdict
        self.unpublished[message.verdict.camera] += 1
        self._metrics.unpublished.labels(message.verdict.camera).inc()
        self._metrics.missed.labels(message.verdict.camera).inc()

    def _acknowledged(self, event_seq: int) -> None:
        self._events.acknowledged(event_seq)
        self._callbacks.acknowledged(event_seq)
