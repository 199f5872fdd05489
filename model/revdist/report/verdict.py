"""Tells an engineer first what matters: a sentence for each finding, and a status in words, not in colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from revdist.evaluation.sensitivity import wilson
from revdist.report.gather import Figures, Test
from revdist.thresholds.conformal import Calibration

Status = Literal["good", "caution", "bad", "unknown"]
WORDS: dict[Status, tuple[str, str]] = {  # a sign and a word
    "good": ("✓", "good"),
    "caution": ("!", "with care"),
    "bad": ("✕", "poor"),
    "unknown": ("?", "unknown"),
}
_WORST: tuple[Status, ...] = ("bad", "caution", "unknown", "good")
MISSES_MOST = 0.5  # from this escape rate on, more defective parts pass than are found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the reader of a report should know."""

    subject: str
    status: Status
    sentence: str


def findings(figures: Figures) -> list[Finding]:
    """List the promise first, then what the test pictures say about the promise."""
    promise = _promise(figures.calibration, figures.bundle.recipe.holdout)
    facts = [promise, *_unlike("Held-out pictures", figures.bundle.held_out_unlike)]
    if figures.test is None:
        sentence = "No labelled test pictures were given. Good pictures alone say nothing about missed defects."
        return [*facts, Finding(subject="Missed defects", status="unknown", sentence=sentence)]
    facts += [_escapes(figures.test), _false_rejects(figures.test, figures.calibration)]
    facts += _unlike("Test pictures", figures.test.unlike)
    if figures.test.trained_on:
        sentence = f"The student was trained on {figures.test.trained_on} of the test pictures: the figures flatter."
        facts.append(Finding(subject="Test pictures", status="bad", sentence=sentence))
    return facts


def _unlike(subject: str, told: Sequence[str]) -> list[Finding]:
    """Report how a set of pictures differs from the training pictures; empty if it does not."""
    if not told:
        return []
    sentences = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in told)
    return [Finding(subject=subject, status="caution", sentence=f"{sentences} The threshold's promise may not hold.")]


def overall(all_findings: Sequence[Finding]) -> Status:
    """Return the worst status of all findings."""
    return next(status for status in _WORST if any(finding.status == status for finding in all_findings))


def headline(figures: Figures) -> str:
    """Sum up the report in one or two sentences."""
    calibration = figures.calibration
    if calibration.enough:
        promise = f"Promises at most {calibration.attained_rate:.2%} false rejects on average"
    else:
        promise = f"Cannot promise {calibration.false_reject_rate:.2%} false rejects yet: too few held-out pictures"
    if figures.test is None:
        return f"{promise}. What it misses is unknown without labelled test pictures."
    measured = figures.test.evaluation
    missed, rejected = figures.test.missed, figures.test.rejected
    return (
        f"Missed {missed} of {measured.defective} defective test parts and rejected {rejected} of {measured.good} "
        f"good ones. {promise}."
    )


def _promise(calibrated: Calibration, held_out_share: float) -> Finding:
    proven = f"Proven with {len(calibrated.scores)} pictures: {calibrated.proven()}"
    sentence = f"{proven}, as long as the parts to come are like them."
    if calibrated.enough:
        return Finding(subject="Promised false rejects", status="good", sentence=sentence)
    sentence += f" {calibrated.wanted(held_out_share)}."
    if calibrated.basis == "tail":
        sentence += " Until then the threshold is an estimate."
    return Finding(subject="Promised false rejects", status="caution", sentence=sentence)


def _escapes(test: Test) -> Finding:
    measured = test.evaluation
    missed = test.missed
    if not missed:
        status: Status = "good"
    else:
        status = "bad" if measured.escape_rate >= MISSES_MOST else "caution"
    summary = (
        f"{missed} of {measured.defective} defective test parts passed: {with_interval(missed, measured.defective)}."
    )
    kinds = sorted(measured.escape_rate_by_kind.items(), key=lambda kind_and_rate: -kind_and_rate[1])
    if missed and len(kinds) > 1:
        (worst, most), (best, least) = kinds[0], kinds[-1]
        summary += f" Most often {worst} ({most:.0%} passed), least often {best} ({least:.0%})."
    return Finding(subject="Missed defects", status=status, sentence=summary)


def _false_rejects(test: Test, calibrated: Calibration) -> Finding:
    measured = test.evaluation
    rejected = test.rejected
    low, _ = wilson(rejected, measured.good)
    sentence = f"{rejected} of {measured.good} good test parts were rejected: {with_interval(rejected, measured.good)}"
    if low > calibrated.bound95:
        return Finding(
            subject="False rejects",
            status="bad",
            sentence=f"{sentence}. That is more than promised: these parts differ from the held-out ones.",
        )
    return Finding(subject="False rejects", status="good", sentence=f"{sentence}, which agrees with the promise.")


def with_interval(hits: int, total: int) -> str:
    """Write a share with Wilson's 95 % interval."""
    low, high = wilson(hits, total)
    return f"{hits / total:.1%} (95% interval {low:.1%} to {high:.1%})"
