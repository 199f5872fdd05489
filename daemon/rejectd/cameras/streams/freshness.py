"""Tells how old the pictures of a stream are when they arrive, from their time stamps (PTS).

Nothing in a stream gives the age of a picture directly. Time stamps advance with the camera's clock, so arrival minus
time stamp is constant except for the delay on the way. The smallest difference so far is taken as "no delay"; anything
above it is lag. Pictures that queued in the camera, in the network or in a stopped process show a lag: they are stale.
A delay that is there from the first picture on and never changes cannot be seen.

Time stamps jump: a recorder starts again at 0, a clock is set, one picture has a wrong stamp. Pictures arrive in the
order in which they were taken. So the lag of a picture is at most the lag of the picture before plus the time between
their arrivals. A time stamp has jumped if it claims a larger lag, or an exposure after the arrival. One jump cannot be
told from a camera that paused: a jump ahead during a stall of the network, by no more than the stall.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

STALE_S = 0.5
DRIFT = 200e-6  # how much slower than ours a camera's clock may run: quartz is good for 100 ppm
_WAITED = 0.25  # a wait of this share of the interval between pictures counts as a wait
_STEADY = 2  # so many pictures in a row that were waited for: the pictures come as they are taken
_JUMP_S = 0.1  # a stamp that is further ahead than a picture without delay can be
_AHEAD_S = 1.0  # time stamps that ran ahead of the clock by this much run too fast
_JUMPING = 10  # after a jump, more pictures than this for longer than `_JUMPING_S` without a new base: no clock
_JUMPING_S = 3.0
_FAST = 0.01  # clocks that run faster than ours by this share make no false lag
_COURSE_S = 2.0  # over which the rate of the time stamps is measured
_COURSE = 200  # pictures, at most
_RATE_OFF = 0.05  # a rate that differs from 1 by more is wrong
_RATE_STEADY = 0.2  # a rate is steady if the two halves of the course differ by less than this share


@dataclass(frozen=True, slots=True)
class Age:
    """How many seconds before its arrival a picture was taken, and why it must not be judged as new."""

    lag_s: float
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class _Arrival:
    stamp_s: float
    arrived_s: float
    waited: bool  # whether the process waited for the picture; False: the picture lay ready


@dataclass(slots=True)
class _Former:
    """The state before the time stamps jumped, in case they jump back."""

    base_s: float
    lag_s: float
    step_s: float  # usual difference between two time stamps
    jumped_s: float  # arrival of the first picture after the jump
    jumps: int = 0
    pictures: int = 0  # that arrived since the first jump
    slack_s: float = 0.0  # by how much the lag may be less than the greatest possible


class Freshness:
    """Tells the lag of one connection's pictures; a new connection needs a new object. Pure: times are handed in."""

    def __init__(self) -> None:
        self.settled = False
        self.jump_s = 0.0  # by how much the last time stamp jumped; 0: it did not
        self._base_s = 0.0  # arrival minus time stamp of an undelayed picture
        self._former: _Former | None = None  # before a jump, until pictures agree about a new base
        self._lag_s = 0.0  # of the last picture, at most
        self._steady = 0
        self._fell_s = 0.0  # how far the base fell: time stamps ran ahead
        self._crept_s = 0.0  # the part of the lag that came little by little
        self._unstamped = False
        self._course: deque[_Arrival] = deque(maxlen=_COURSE)

    def settle(self, stamp_s: float | None, arrived_s: float, waited_s: float) -> bool:
        """Whether pictures now arrive as they are taken. Call it for each picture until it returns True.

        A new connection often begins with pictures from the past. These are over when the process had to wait for two
        pictures in a row, and these did not catch up with the clock.
        """
        self._unstamped = stamp_s is None
        if stamp_s is None:
            self._steady = 0
            return False
        if self._agree(stamp_s, arrived_s, waited_s):
            self.settled = True
            self._base_s = arrived_s - stamp_s
            self._course = deque(list(self._course)[-_STEADY - 1 :], maxlen=_COURSE)  # queued pictures show no rate
        return self.settled

    def age(self, stamp_s: float | None, arrived_s: float, waited_s: float) -> Age:
        """The age of the next picture. After a jump, a picture that may be stale is stale until a new base holds."""
        assert self.settled
        self.jump_s = 0.0
        self._unstamped = stamp_s is None
        if stamp_s is None:
            return Age(0.0, "without time stamp: it may be stale")
        came_s = self._came_s(arrived_s)
        self._drift(came_s)
        claimed_s = arrived_s - stamp_s - self._base_s
        if not self._follows(stamp_s, came_s, claimed_s):
            self._lag_s = self._jumped(stamp_s, arrived_s, came_s, waited_s)
        else:
            self._lag_s = self._followed(stamp_s, arrived_s, waited_s)
        if self._lag_s > STALE_S:
            return Age(self._lag_s, self._doubt())
        return Age(max(0.0, self._lag_s - (self._former.slack_s if self._former else 0.0)))

    def trouble(self) -> tuple[str, str]:
        """Why no fresh picture comes, and what a person can do."""
        if self._unstamped:
            return "pictures come without time stamps", "set `timestamps: arrival`"
        if (rate := self._wrong_rate()) is not None:
            return (
                f"time stamps advance {rate:.2f} s in a second in which pictures come steadily",
                "correct the camera's clock and frame rate, or the network if it carries less than the camera sends;"
                " where the stamps are no clock, set `timestamps: arrival`",
            )
        if self._ran_ahead:
            return "time stamps run ahead of the clock", "where they are no clock, set `timestamps: arrival`"
        if self._crept:
            return (
                f"time stamps fell behind the clock little by little, by {self._lag_s:.1f} s",
                "the camera's clock or frame rate is wrong, or the network carries less than the camera sends;"
                " where the stamps are no clock, set `timestamps: arrival`",
            )
        if self._former is not None:
            return "time stamps jump from picture to picture", "where they are no clock, set `timestamps: arrival`"
        late = f"pictures are {self._lag_s:.1f} s late" if self.settled else "pictures that queued come first"
        return late, "look at the network and at this machine's load, or lower the camera's rate or resolution"

    @property
    def no_clock(self) -> bool:
        """Whether the time stamps run so fast, or jump so often, that they would hide a queue."""
        if self._former is None:
            return self._ran_ahead
        unsettled_s = self._course[-1].arrived_s - self._former.jumped_s
        return self._ran_ahead or (self._former.pictures > _JUMPING and unsettled_s > _JUMPING_S)

    @property
    def _crept(self) -> bool:
        """Whether the lag grew little by little, rather than at once as by a queue that formed in a stall."""
        return self._crept_s > self._lag_s / 2 > 0

    @property
    def _ran_ahead(self) -> bool:
        return self._fell_s > _AHEAD_S

    def _agree(self, stamp_s: float, arrived_s: float, waited_s: float) -> bool:
        """Whether the process waited for the last pictures, and these arrived as fast as they were taken."""
        came_s = self._came_s(arrived_s)
        before = self._course[-1] if self._course else None
        self._course.append(_Arrival(stamp_s, arrived_s, came_s > 0 and waited_s >= _WAITED * came_s))
        if before is None:
            return False
        while len(self._course) > 2 * _STEADY + 1 and arrived_s - self._course[1].arrived_s > _COURSE_S:
            self._course.popleft()
        interval_s = stamp_s - before.stamp_s
        waited = interval_s > 0 and waited_s >= _WAITED * interval_s
        as_taken = (1 - _WAITED) * interval_s <= came_s <= (1 + _WAITED) * interval_s + _JUMP_S
        self._steady = self._steady + 1 if waited and as_taken else 0
        return self._steady >= _STEADY

    def _usual(self) -> _Arrival:
        """The mean time between two recent pictures, by stamp and by arrival."""
        first, last, steps = self._course[0], self._course[-1], max(len(self._course) - 1, 1)
        return _Arrival((last.stamp_s - first.stamp_s) / steps, (last.arrived_s - first.arrived_s) / steps, True)

    def _came_s(self, arrived_s: float) -> float:
        return max(0.0, arrived_s - self._course[-1].arrived_s) if self._course else 0.0

    def _drift(self, came_s: float) -> None:
        self._base_s += DRIFT * came_s
        if self._former is not None:
            self._former.base_s += DRIFT * came_s
            self._former.pictures += 1
        self._fell_s = max(0.0, self._fell_s - _FAST * came_s)

    def _follows(self, stamp_s: float, came_s: float, claimed_s: float) -> bool:
        """Whether a time stamp continues the ones before, without a jump.

        A time stamp may step further than usual when pictures were lost or nobody triggered the camera. But in a queue,
        and shortly after a jump, such a step counts as a jump, so that no lag is forgotten.
        """
        step_s = stamp_s - self._course[-1].stamp_s
        usual_s = self._former.step_s if self._former else self._usual().stamp_s
        skips = step_s > (1 + _WAITED) * usual_s + _JUMP_S and (self._former or step_s - came_s > _JUMP_S)
        return step_s >= 0 and claimed_s >= -_JUMP_S and not skips

    def _returned(self, offset_s: float, at_most_s: float) -> bool:
        """Whether a time stamp is back where the stamps were before the jump, with no picture left out."""
        if self._former is None:
            return False
        claimed_s = offset_s - self._former.base_s
        left_out_s = at_most_s - claimed_s
        return claimed_s >= -_JUMP_S and 0 <= left_out_s <= 2 * (self._former.jumps + 1) * self._former.step_s + _JUMP_S

    def _followed(self, stamp_s: float, arrived_s: float, waited_s: float) -> float:
        """The lag of a picture whose time stamp continues the ones before."""
        offset_s = arrived_s - stamp_s
        if offset_s < self._base_s:
            self._fell_s += self._base_s - offset_s
            self._base_s = offset_s
        agree = self._agree(stamp_s, arrived_s, waited_s)
        lag_s = offset_s - self._base_s
        grew_s = lag_s - self._lag_s
        self._crept_s = max(0.0, self._crept_s + grew_s) if abs(grew_s) < _JUMP_S else 0.0
        if self._former is None:
            return lag_s
        if agree:  # pictures come steadily again: the delay is what it was before the jump, and no queue
            lag_s = min(lag_s, self._former.lag_s if self._former.lag_s <= STALE_S else 0.0)
            self._base_s, self._former = offset_s - lag_s, None
        return lag_s

    def _jumped(self, stamp_s: float, arrived_s: float, came_s: float, waited_s: float) -> float:
        """The greatest lag of a picture whose time stamp jumped; by the former base if the stamp fits that again."""
        at_most_s = self._lag_s + came_s
        usual = self._usual()
        held_up = waited_s < _WAITED * came_s or came_s > 2 * usual.arrived_s
        offset_s = arrived_s - stamp_s
        jump_s = stamp_s - self._course[-1].stamp_s - came_s
        self._course.clear()
        self._agree(stamp_s, arrived_s, waited_s)
        self._steady = 0
        if self._former is not None and self._returned(offset_s, at_most_s):
            self._base_s, self._former = min(self._former.base_s, offset_s), None
            return offset_s - self._base_s
        self.jump_s = jump_s
        if self._former is None:
            self._former = _Former(self._base_s, self._lag_s, usual.stamp_s, arrived_s)
        self._former.jumps += 1
        if not held_up:  # then the lag is that of the picture before
            self._former.slack_s += came_s
        self._base_s = offset_s - at_most_s
        return at_most_s

    def _doubt(self) -> str:
        if self._former is not None:
            return f"its time stamp jumped: it may be up to {self._lag_s:.1f} s old"
        if (rate := self._wrong_rate()) is not None:
            return f"its time stamps advance {rate:.2f} s in a second: it may be stale"
        if self._crept:
            return f"its time stamps fell behind the clock little by little: it may be {self._lag_s:.1f} s old"
        return f"stale: taken {self._lag_s:.1f} s before it came"

    def _wrong_rate(self) -> float | None:
        """The seconds that time stamps advance in a second, if steadily not 1 while the process waits for pictures."""
        if len(self._course) < 2 * _STEADY + 1:
            return None
        waited = sum(arrival.waited for arrival in self._course)
        if waited < (1 - _WAITED) * (len(self._course) - 1):
            return None
        first, middle, last = self._course[0], self._course[len(self._course) // 2], self._course[-1]
        if last.arrived_s - first.arrived_s < _COURSE_S / 2:
            return None
        rate = _rate(first, last)
        steady = abs(_rate(first, middle) - _rate(middle, last)) < _RATE_STEADY * max(1.0, rate)
        return rate if steady and abs(rate - 1) > _RATE_OFF else None


def _rate(first: _Arrival, last: _Arrival) -> float:
    return (last.stamp_s - first.stamp_s) / max(last.arrived_s - first.arrived_s, 1e-9)
