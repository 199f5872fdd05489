"""Who may use the page: roles, passwords (hashed with scrypt), sessions, and how often somebody may try."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from rejectd.contract.messages import RejectdError

_N, _R, _P = 2**14, 8, 1  # 16 MB and some 50 ms for each attempt
_SCRYPT_BYTES = 64 * 1024 * 1024
SHORTEST, LONGEST = 10, 200  # letters of a password
_TRIES = 5  # before somebody must wait
_TRIES_OF_ADDRESS = 20
_WAIT_S, _LONGEST_WAIT_S = 30.0, 900.0
_FORGET_S = 3600.0
_WATCHED = 4096  # names and addresses
_SESSIONS = 256
_AT_ONCE = 2  # passwords that are hashed at the same time


class Role(IntEnum):
    """What a person may do; who may do more may do all that others may."""

    VIEWER = 1
    OPERATOR = 2
    ENGINEER = 3

    @property
    def label(self) -> str:
        """The role as texts, files and the API name it."""
        return self.name.lower()

    @classmethod
    def named(cls, name: str) -> Role:
        """The role of a name. Raises AccessError if there is none."""
        try:
            return cls[name.upper()]
        except KeyError:
            raise AccessError(f"there is no role {name[:40]!r}", hint="viewer, operator or engineer") from None


class AccessError(RejectdError):
    """Somebody may not do this."""


class WaitError(AccessError):
    """Somebody has tried too often."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many wrong passwords", hint=f"try again in {seconds:.0f} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who may log in."""

    name: str
    role: Role
    password: str  # hashed
    one_time: bool  # the person must choose another password now


@dataclass(slots=True, kw_only=True)
class Session:
    """A person who has logged in with one browser."""

    user: str
    role: Role
    token: str  # that forms and scripts must show, beside the cookie
    must_change: bool
    until: float


_hashing = threading.BoundedSemaphore(_AT_ONCE)


def hashed(password: str) -> str:
    """Hash a password for the file of users."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_N}${_R}${_P}${salt.hex()}${_scrypt(password, salt, _N, _R, _P).hex()}"


def fits(password: str, hashed_password: str) -> bool:
    """Whether a password is the one that was hashed. Takes as long where there is no such user."""
    _, n, r, p, salt, expected = hashed_password.split("$")
    actual = _scrypt(password, bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(actual, bytes.fromhex(expected))


NOBODY = "scrypt$16384$8$1$" + "00" * 16 + "$" + "00" * 32  # what a password is compared with where nobody has one


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    with _hashing:
        data = password[:LONGEST].encode()
        return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=_SCRYPT_BYTES, dklen=32)


def new_password() -> str:
    """A password for once: 60 bits, easy to type."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(3))


def check_new(password: str, user: str) -> None:
    """Raises AccessError if a password is too easy to guess."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise AccessError("the password is too short or too long", hint=f"take {SHORTEST} to {LONGEST} letters")
    if user.lower() in password.lower() or len(set(password)) < 5:
        raise AccessError("the password is too easy to guess", hint="take several words, and not your name")


class Sessions:
    """Who is logged in. In memory: after a restart of the page everybody logs in again."""

    def __init__(self, lasts_s: float, clock: Callable[[], float]) -> None:
        self._lasts_s = lasts_s
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, user: User) -> str:
        """Log a person in. Returns the secret for the browser's cookie."""
        secret = secrets.token_urlsafe(32)
        session = Session(
            user=user.name,
            role=user.role,
            token=secrets.token_urlsafe(24),
            must_change=user.one_time,
            until=self._clock() + self._lasts_s,
        )
        with self._lock:
            self._sessions[_digest(secret)] = session
            while len(self._sessions) > _SESSIONS:
                self._sessions.popitem(last=False)
        return secret

    def find(self, secret: str | None) -> Session | None:
        """The session of a cookie, which lasts longer by that; None if it is unknown or has ended."""
        if not secret:
            return None
        key = _digest(secret)
        with self._lock:
            session = self._sessions.get(key)
            if session is None:
                return None
            if self._clock() >= session.until:
                del self._sessions[key]
                return None
            session.until = self._clock() + self._lasts_s
            self._sessions.move_to_end(key)
            return session

    def end(self, secret: str | None) -> None:
        """Log a browser out."""
        with self._lock:
            self._sessions.pop(_digest(secret or ""), None)

    def end_of(self, user: str) -> None:
        """Log a person out everywhere: the password or the role is another now, or the person is gone."""
        with self._lock:
            for key in [key for key, session in self._sessions.items() if session.user == user]:
                del self._sessions[key]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Attempts:
    """How often wrong passwords came, by person and address, and how long these must wait."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()  # how many, the last when

    def check(self, user: str, address: str) -> None:
        """Note an attempt, as a wrong one until `succeeded` says otherwise, so that many at once count too.

        Raises:
            WaitError: if this person or address must wait; the attempt does not count then.
        """
        now = self._clock()
        with self._lock:
            for key, most in self._keys(user, address):
                count, at = self._failures.get(key, (0, 0.0))
                wait_s = min(_LONGEST_WAIT_S, _WAIT_S * 2.0 ** min(20, count - most)) if count >= most else 0.0
                left_s = at + wait_s - now
                if left_s > 0:
                    raise WaitError(left_s)
            for key, _ in self._keys(user, address):
                count, at = self._failures.pop(key, (0, now))
                self._failures[key] = (1 if now - at > _FORGET_S else count + 1), now
            while len(self._failures) > _WATCHED:
                self._failures.popitem(last=False)

    def succeeded(self, user: str, address: str) -> None:
        """Forget the wrong passwords of a person, and that the last attempt from the address was one."""
        with self._lock:
            self._failures.pop((user, address), None)
            count, at = self._failures.get(("", address), (0, 0.0))
            if count:
                self._failures["", address] = count - 1, at

    @staticmethod
    def _keys(user: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
        return ((user, address), _TRIES), (("", address), _TRIES_OF_ADDRESS)


class Rates:
    """How many requests an address may send: so many a second, and some more at once."""

    def __init__(self, per_second: float, at_once: float, clock: Callable[[], float]) -> None:
        self._per_second, self._at_once, self._clock = per_second, at_once, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, address: str) -> bool:
        """Count a request. Returns whether it may be answered. One thread calls this."""
        now = self._clock()
        left, at = self._left.pop(address, (self._at_once, now))
        left = min(self._at_once, left + (now - at) * self._per_second)
        self._left[address] = (max(0.0, left - 1), now)
        while len(self._left) > _WATCHED:
            self._left.popitem(last=False)
        return left >= 1
