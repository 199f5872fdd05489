"""Publishes everything that goes to the broker. One thread owns the socket, the queues and the messages in flight.

A connection that breaks is thrown away together with paho's queue: paho would send that queue again after a reconnect,
and a verdict that arrives late rejects the wrong part. This module decides what is sent again: verdicts until their
deadline, the latest statuses, and every event that the outbox still has.

Commands and counts of actuators arrive over the same connection and are handed on at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from rejectd.contract.messages import CameraState, CameraStatus, Verdict
from rejectd.contract.payloads import actuator_topic, camera_payload, camera_topic, command_topic, encode, verdict_topic
from rejectd.contract.settings import Mqtt, Protocol
from rejectd.metrics import Metrics
from rejectd.mqtt import certificates
from rejectd.mqtt.events import Events
from rejectd.mqtt.exchange import LinkError, LostError, Message
from rejectd.mqtt.feed import Feed
from rejectd.mqtt.link import Link, connect
from rejectd.mqtt.outcomes import Callbacks, Outcomes
from rejectd.mqtt.rate_limited_log import Rarely
from rejectd.mqtt.reasons import TOO_LARGE
from rejectd.mqtt.reconnecting import Patience
from rejectd.mqtt.send_queue import Waiting
from rejectd.mqtt.size_limits import Fitting
from rejectd.mqtt.unacknowledged import UnderWay
from rejectd.mqtt.wake import Wake
from rejectd.storage.outbox_reader import Event

log = logging.getLogger(__name__)

_LOOK_S = 0.05  # how often the queue is searched for expired verdicts while the broker is busy


class Publisher:
    """Publishes to the broker in one thread, `run`. Any thread may call the other methods, which never block."""

    def __init__(
        self,
        settings: Mqtt,
        *,
        line: str,
        status: Callable[[str], Message],
        will: Message,
        outbox: Path,
        callbacks: Callbacks,
        metrics: Metrics,
    ) -> None:
        """`status(state)` builds the line's status message."""
        self._settings = settings
        self._line = line
        self._status = status
        self._will = will
        self._callbacks = callbacks
        self._metrics = metrics
        self._client_id = settings.client_id or f"rejectd-{line}"
        self._protocol = settings.protocol  # once connected, the version that the broker spoke
        self._feed = Feed(outbox, answer=self._answered, again=self.more_events, damaged=callbacks.damaged)
        self._events = Events(self._feed.ask)
        self._rarely = Rarely(log)
        self._outcomes = Outcomes(self._events, callbacks, metrics, self._rarely)
        self._waiting = Waiting(self._outcomes.not_published)
        self._patience = Patience(settings.retry_max_s, client_id=self._client_id)
        self._fitting = Fitting(metrics)
        self._under_way = UnderWay(self._fitting)
        self._next_status = 0.0
        self._looked = 0.0
        self._connected_ns = 0
        self._denied = False
        self._trouble = ""  # why there is no connection
        self._said_goodbye = False
        self._stop_at: float | None = None
        self._connected_once = threading.Event()
        self._wake = Wake()

    @property
    def unpublished(self) -> Counter[str]:
        """Verdicts that were never sent, by camera or station."""
        return self._outcomes.unpublished

    def verdict(self, verdict: Verdict, body: bytes) -> None:
        """Publish a verdict, unless its deadline passes first."""
        topic = verdict_topic(self._line, verdict.camera, verdict.decision)
        self._waiting.add_verdict(Message(topic=topic, payload=body, verdict=verdict))
        self.wake()

    def camera(self, status: CameraStatus) -> None:
        """Publish a camera's latest status; if the camera was down meanwhile, publish that before."""
        message = Message(
            topic=camera_topic(self._line, status.camera),
            payload=encode(camera_payload(self._line, status)),
            retain=True,
            camera=status.camera,
            down=status.state is CameraState.DOWN,
        )
        self._waiting.add_camera(status.camera, message)
        self.wake()

    def answer(self, message: Message) -> None:
        """Publish the answer to a command. If too many answers wait, the oldest is dropped."""
        self._waiting.add_answer(message)
        self.wake()

    def more_events(self) -> None:
        """Note that the outbox has new events. Once `run` has ended, these stay there for the next start."""
        self._events.more()
        self.wake()

    def marked(self, numbers: Iterable[int]) -> None:
        """Note that these events are marked as acknowledged in the outbox."""
        self._events.marked(numbers)
        self.wake()

    def read_events(self) -> None:
        """Run the events thread, which reads the outbox, until `run` ends."""
        self._feed.run()

    def _answered(self, question: int, events: list[Event]) -> None:
        self._events.answer(question, events)
        self.wake()

    def problems(self) -> list[str]:
        """What is wrong with the broker or the connection, for people; empty if all is well."""
        refused = [f"the broker refuses {topic}" for topic in self._outcomes.refused_topics()]
        denied = self._deaf() if self._denied else ""
        other_problems = (denied, self._trouble, self._patience.problem(time.monotonic()), self._fitting.problem())
        return refused + [problem for problem in other_problems if problem]

    def largest_packet(self) -> int | None:
        """The largest packet in bytes that the broker takes, topic included; None if no limit is known."""
        return self._fitting.most_bytes

    def wake(self) -> None:
        """Have `run` look at its queues again. Without effect once `run` has ended."""
        self._wake.wake()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the first connection."""
        return self._connected_once.wait(timeout_s)

    def stop(self, timeout_s: float) -> None:
        """Let `run` end once everything is published, at the latest after `timeout_s`."""
        self._stop_at = time.monotonic() + timeout_s
        self.wake()

    def run(self) -> None:
        """Run the publish thread until `stop`: connect, serve the connection, connect again."""
        try:
            while not self._over():
                try:
                    settings = self._settings.model_copy(update={"protocol": self._protocol})
                    link = connect(settings, client_id=self._client_id, will=self._will)
                except LinkError as error:
                    self._protocol = self._settings.protocol  # the broker may be another one when it is back
                    if str(error) != self._trouble:
                        self._trouble = str(error)
                        log.warning(self._trouble)
                    self._pause(self._patience.failed())
                    continue
                self._trouble = ""
                self._protocol = Protocol.V5 if link.v5 else Protocol.V311
                self._pause(self._live(link))
        finally:
            self._waiting.give_up()
            self._feed.stop()
            self._wake.close()

    def _live(self, link: Link) -> float:
        """Serve one connection until its end. Returns how many seconds to wait before the next attempt."""
        began = time.monotonic()
        fields: dict[str, object] = {"mqtt": "5" if link.v5 else "3.1.1"}
        if link.limits.packet_bytes is not None:
            fields["largest_packet"] = link.limits.packet_bytes
        if link.keepalive_s != self._settings.keepalive_s:
            fields["keepalive_s"] = link.keepalive_s
        log.info("broker connected", extra={"fields": fields})
        pause_s = 0.0
        try:
            self._serve(link)
        except LostError as error:
            now = time.monotonic()
            pause_s = self._patience.ended(error, now - began, now)
            self._under_way.look_for_culprit(error, now)
            text = self._patience.problem(now) or str(error)
            self._rarely.say(logging.WARNING, text, "%s; next attempt in %.1f s", text, pause_s)
        finally:
            self._hang_up(link)
        return pause_s

    def _over(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt. Verdicts that expire meanwhile are counted."""
        until = time.monotonic() + seconds
        while (remaining_s := until - time.monotonic()) > 0 and not self._over():
            self._wake.wait(min(remaining_s, 0.2))
            self._waiting.expire(time.monotonic_ns())

    def _serve(self, link: Link) -> None:
        """Send and receive on one connection, until it breaks, or until everything is published after `stop`."""
        self._metrics.broker_connected.set(1)
        certificates.show_brokers(link.certificate, self._metrics)
        self._connected_ns = time.monotonic_ns()
        self._connected_once.set()
        self._fitting.connected(link.limits.packet_bytes)
        self._waiting.say_cameras_again()
        self._next_status = 0.0
        if self._settings.hears_commands:
            link.subscribe(command_topic(self._line, "+"))
        if self._settings.hears_counts:
            link.subscribe(actuator_topic(self._line, "+"))
        while not self._over():
            now = time.monotonic()
            self._send_all(link)
            self._look_for_stalled(now)
            if self._stop_at is not None and self._all_out():
                self._farewell(link)
                return
            patience_s = 0.1 if self._stop_at is not None else min(self._next_status - now, 0.5)
            link.wait(max(0.0, patience_s), self._wake.reader)
            self._wake.forget()
            self._take_acknowledgements(link)
            self._hear(link)

    def _all_out(self) -> bool:
        return not self._under_way and self._events.idle and self._waiting.empty

    def _farewell(self, link: Link) -> None:
        """Publish the status `offline`, after which the connection is closed in order."""
        farewell_sent = self._under_way.send(link, self._status("offline"))
        while self._under_way and not self._over():
            link.wait(0.1)
            self._take_acknowledgements(link)
        self._said_goodbye = farewell_sent and not self._under_way
        log.info("broker has everything")
        self._stop_at = time.monotonic()

    def _deaf(self) -> str:
        messages = "commands" if self._settings.hears_commands else "counts of actuators"
        return f"the broker refuses to let us hear {messages}"

    def _hear(self, link: Link) -> None:
        received, link.received = link.received, []
        for message in received:
            self._callbacks.received(message)
        denied = any(answer.refusal for answer in link.subscribed)
        if denied and not self._denied:
            log.error("%s; check its access list, or set mqtt.commands: off", self._deaf())
        if link.subscribed:
            self._denied = denied

    def _send_all(self, link: Link) -> None:
        """Send as many messages as may be in flight: verdicts first, then statuses and answers, then events."""
        while not self._under_way.full(link.limits):
            message = self._next(link)
            if message is None:
                return
            if self._under_way.must_wait(message):
                self._put_back(message)
                return
            self._send(link, message)

    def _next(self, link: Link) -> Message | None:
        verdict = self._waiting.next_verdict()
        if verdict:
            return verdict
        if self._under_way.full_for_others(link.limits):
            return None
        now = time.monotonic()
        if now >= self._next_status and self._stop_at is None:
            self._next_status = now + self._settings.heartbeat_s
            return self._status("online")
        return self._waiting.next_other() or self._events.next()

    def _look_for_stalled(self, now: float) -> None:
        """Raises LostError if the broker has acknowledged nothing for a whole keep alive: it is as good as gone."""
        if now - self._looked < _LOOK_S:
            return
        self._looked = now
        self._waiting.expire(time.monotonic_ns())
        if now - self._under_way.oldest_at(now) > self._settings.keepalive_s:
            raise LostError(f"the broker has acknowledged nothing for {self._settings.keepalive_s} s")

    def _send(self, link: Link, message: Message) -> None:
        try:
            fits = self._under_way.send(link, message)
        except LinkError:
            self._put_back(message)
            raise
        if not fits:
            self._outcomes.given_up(message)

    def _take_acknowledgements(self, link: Link) -> None:
        now_ns = time.monotonic_ns()
        for message, refusal in self._under_way.acknowledged(link):
            if not refusal:
                self._outcomes.delivered(message, now_ns, connected_ns=self._connected_ns)
            elif refusal == TOO_LARGE:
                self._put_back(message)  # it fits the next time, or is given up
            else:
                self._outcomes.refused(message, refusal)

    def _put_back(self, message: Message) -> None:
        """Put a message back into its queue, in front of those that came later."""
        if message.event_seq is not None:
            self._events.put_back(message)
        else:
            self._waiting.put_back(message)

    def _hang_up(self, link: Link) -> None:
        """Close, and take back unacknowledged messages. Without `offline`, the broker publishes the last will."""
        self._metrics.broker_connected.set(0)
        self._events.take_back()
        for message in reversed(self._under_way.take_back()):
            if message.event_seq is None:
                self._waiting.put_back(message)
        link.close() if self._said_goodbye else link.drop()
