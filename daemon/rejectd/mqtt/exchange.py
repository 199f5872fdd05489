"""The messages that a link to a broker sends and receives, the broker's limits, and the errors of a link."""

from __future__ import annotations

from dataclasses import dataclass

from rejectd.contract.messages import RejectdError, Verdict

IN_FLIGHT = 20  # messages without acknowledgement, if the broker does not want fewer


class LinkError(RejectdError):
    """The broker cannot be reached, refuses us, or is gone."""


class RefusedError(LinkError):
    """The broker answered, and refuses the connection."""

    def __init__(self, message: str, *, hint: str, unsupported: bool) -> None:
        super().__init__(message, hint="" if unsupported else hint)
        self.unsupported = unsupported


class LostError(LinkError):
    """An open connection was lost. `reason` is the broker's reason in MQTT's words; empty if it gave none."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "", closed: bool = False) -> None:
        """`closed`: the broker ended the connection."""
        super().__init__(message, hint=hint)
        self.reason = reason
        self.closed = closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    verdict: Verdict | None = None  # the message is of use only until the verdict's deadline
    event_seq: int | None = None  # number of the event in the outbox
    camera: str = ""  # the camera whose state the message tells
    down: bool = False  # the state is `down`: parts pass unseen
    answer: bool = False  # the message answers a command
    correlation: bytes | None = None  # correlation data of the answered command
    answer_to: str | None = None  # where the answer to our own command shall go


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One message that somebody sent us."""

    topic: str
    payload: bytes
    retained: bool
    answer_to: str | None
    correlation: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The broker's acknowledgement of one message or subscription."""

    mid: int  # packet identifier
    refusal: str = ""  # why the broker refused, in MQTT's words; empty if it did not
    nobody: bool = False  # the broker took the message, and says that nobody has subscribed to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits that the broker names in its CONNACK."""

    packet_bytes: int | None = None  # Maximum Packet Size; None if the broker names none
    in_flight: int = IN_FLIGHT  # Receive Maximum, or our own limit if that is less

    @property
    def in_flight_others(self) -> int:
        """How many messages other than verdicts may be under way; the other places are kept free for verdicts."""
        return max(1, self.in_flight // 2)
