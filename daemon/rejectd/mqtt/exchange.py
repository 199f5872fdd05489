"""What a link to a broker sends, hears, may and fails with."""

from __future__ import annotations

from dataclasses import dataclass

from rejectd.contract.messages import RejectdError, Verdict

IN_FLIGHT = 20  # messages without acknowledgement, if the broker does not want fewer


class LinkError(RejectdError):
    """The broker cannot be reached, refuses us, or is gone."""


class RefusedError(LinkError):
    """The broker answered, with a no."""

    def __init__(self, message: str, *, hint: str, unsupported: bool) -> None:
        super().__init__(message, hint="" if unsupported else hint)
        self.unsupported = unsupported


class LostError(LinkError):
    """A connection that stood is gone. `reason` is the broker's own, in MQTT's words; empty if it gave none."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "", closed: bool = False) -> None:
        """`closed`: the other side ended it."""
        super().__init__(message, hint=hint)
        self.reason = reason
        self.closed = closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing to publish at QoS 1."""

    topic: str
    payload: bytes
    retain: bool = False
    verdict: Verdict | None = None  # only until its deadline
    event_seq: int | None = None  # an event of the outbox
    camera: str = ""  # whose state it is
    down: bool = False  # in which parts pass unseen
    answer: bool = False  # to a command
    correlation: bytes | None = None  # of the command
    answer_to: str | None = None  # of a command of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One thing that somebody sent us."""

    topic: str
    payload: bytes
    retained: bool
    answer_to: str | None
    correlation: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """What the broker said to one message or subscription."""

    mid: int  # packet identifier
    refusal: str = ""  # in MQTT's words; empty: it took it
    nobody: bool = False  # it took a message that nobody has subscribed to, and says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the broker's CONNACK allows."""

    packet_bytes: int | None = None  # Maximum Packet Size; None: it names none
    in_flight: int = IN_FLIGHT  # Receive Maximum, or ours if that is less

    @property
    def in_flight_others(self) -> int:
        """How many messages other than verdicts may be under way: the rest is kept free for verdicts."""
        return max(1, self.in_flight // 2)
