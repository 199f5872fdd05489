"""rejectd.contract.messages: what the stages hand to each other."""

from __future__ import annotations

import dataclasses

import pytest

from rejectd.contract.messages import (
    Account,
    Cause,
    Decision,
    Frame,
    Picture,
    Policy,
    RejectdError,
    Result,
    Verdict,
    iso,
)


def a_verdict(decision: Decision, policy: Policy, cause: Cause | None = None) -> Verdict:
    return Verdict(
        event_id="run-a-7",
        camera="a",
        product="cell",
        seq=7,
        captured_ns=0,
        captured_unix_ns=0,
        deadline_ns=1,
        decided_ns=1,
        decision=decision,
        policy=policy,
        cause=cause,
    )


@pytest.mark.parametrize("policy", Policy)
def test_a_judged_part_is_acted_on_as_judged_whatever_the_policy(policy: Policy) -> None:
    assert a_verdict(Decision.PASS, policy).action is Policy.PASS
    assert a_verdict(Decision.REJECT, policy).action is Policy.REJECT


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("cause", Cause)
def test_the_policy_says_what_happens_to_an_unjudged_part(policy: Policy, cause: Cause) -> None:
    assert a_verdict(Decision.UNJUDGED, policy, cause).action is policy


def test_an_account_balances_only_if_every_frame_is_in_it_once() -> None:
    assert Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=2).balanced
    assert not Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=1).balanced
    assert not Account(captured=10, passed=5, rejected=2, unjudged=1, in_flight=3).balanced


@pytest.mark.parametrize("message", [Picture, Frame, Result, Verdict, Account])
def test_messages_cannot_be_changed_on_their_way(message: type) -> None:
    fields = dataclasses.fields(message)
    made = message(**{field.name: None for field in fields})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, fields[0].name, "other")


@pytest.mark.parametrize(
    ("unix_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000_000_000_000, "2023-11-14T22:13:20.000000Z"),
        (1_699_999_999_999_999_999, "2023-11-14T22:13:19.999999Z"),
    ],
)
def test_times_are_in_utc_with_microseconds_and_never_rounded_up(unix_ns: int, text: str) -> None:
    assert iso(unix_ns) == text


def test_an_error_says_what_is_wrong_and_what_to_do() -> None:
    assert str(RejectdError("it broke", hint="mend it")) == "it broke; mend it"
    assert str(RejectdError("it broke")) == "it broke"
