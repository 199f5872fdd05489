"""rejectd.drift.watched: what is compared with what, what the first parts are for, and what a restart keeps."""

from __future__ import annotations

import numpy as np
import pytest

from rejectd.drift.part import GRID, LOOKS, Reference, cells
from rejectd.drift.watched import DAMAGED, Watched

LIMIT = 1e9
LEARNING = 100
TYPICAL = {"brightness": (120.0, 5.0), "contrast": (40.0, 3.0), "sharpness": (-1.0, 0.1)}


class Parts:
    """Parts that come one after the other; what is asked for is changed from then on."""

    def __init__(self, watched: Watched, seed: int = 0) -> None:
        self.watched = watched
        self.score, self.light, self.defective = 0.0, 0.0, 0.01
        self.spot = 0.0
        self._rng = np.random.default_rng(seed)

    def pass_by(self, count: int) -> dict[str, float]:
        for _ in range(count):
            looks = [middle + spread * self._rng.standard_normal() for middle, spread in TYPICAL.values()]
            looks[0] += self.light
            of_cells = self._rng.standard_normal(GRID * GRID)
            of_cells[40] += self.spot
            score = 0.5 + self.score + 0.1 * self._rng.standard_normal()
            if self._rng.random() < self.defective:
                score = 2.0
            self.watched.observe(score, 1.0, looks, of_cells, LIMIT)
        return self.watched.signs(LIMIT).shares


def reference(*, looks: bool = True) -> Reference:
    rng = np.random.default_rng(9)
    values = {name: middle + spread * rng.standard_normal(200) for name, (middle, spread) in TYPICAL.items()}
    return Reference(scores=0.5 + 0.1 * rng.standard_normal(80), looks=values if looks else {})


@pytest.fixture
def parts() -> Parts:
    return Parts(Watched("cell@1", reference(), LEARNING))


def test_no_sign_alarms_while_nothing_changes(parts: Parts) -> None:
    assert max(parts.pass_by(3000).values()) < 0.8


def test_scores_and_looks_are_compared_with_the_bundle_from_the_first_part_on(parts: Parts) -> None:
    parts.light, parts.score = -25.0, 0.3
    shares = parts.pass_by(60)
    assert shares["brightness"] >= 1
    assert shares["score"] >= 1
    assert shares["place"] == shares["rejects"] == 0


def test_the_first_parts_show_where_things_lie_and_how_many_are_rejected(parts: Parts) -> None:
    parts.defective = 0.1
    assert parts.watched.learnt == 0
    parts.pass_by(LEARNING)
    assert parts.watched.learnt == 1
    assert max(parts.pass_by(500).values()) < 0.8
    parts.spot = 4.0
    assert parts.pass_by(60)["place"] >= 1


def test_more_rejects_do_not_move_the_scores_of_those_that_pass(parts: Parts) -> None:
    parts.pass_by(300)
    parts.defective = 0.4
    shares = parts.pass_by(150)
    assert shares["rejects"] >= 1
    assert shares["score"] < 0.5


def test_where_a_bundle_does_not_say_how_pictures_look_the_first_parts_do() -> None:
    parts = Parts(Watched("cell@1", reference(looks=False), LEARNING))
    parts.light = -25.0
    assert parts.pass_by(LEARNING + 300)["brightness"] < 0.8
    parts.light = 25.0
    assert parts.pass_by(60)["brightness"] >= 1


def test_another_threshold_compares_with_the_scores_that_pass_it() -> None:
    watched = Watched("cell@1", Reference(scores=np.linspace(0.3, 0.7, 80)), LEARNING)
    low = np.random.default_rng(1).uniform(0.3, 0.4, 300)
    for score in low:  # those above 0.4 are rejected now: the rest is as before
        watched.observe(float(score), 0.4, (0, 0, 0), np.zeros(GRID * GRID), LIMIT)
    assert watched.signs(LIMIT).shares["score"] < 0.8
    for score in low:
        watched.observe(float(score), 1.0, (0, 0, 0), np.zeros(GRID * GRID), LIMIT)
    assert watched.signs(LIMIT).shares["score"] >= 1


@pytest.mark.parametrize("seen", [40, 400])
def test_a_restart_goes_on_with_what_was_learnt_and_found(parts: Parts, seen: int) -> None:
    parts.pass_by(seen)
    parts.light = -25.0
    before = parts.pass_by(30)
    after = Watched("cell@1", reference(), LEARNING)
    assert after.restore(parts.watched.saved())
    assert after.learnt == parts.watched.learnt
    again = after.signs(LIMIT).shares
    assert {sign: round(again[sign], 6) for sign in again if sign != "score"} == {
        sign: round(before[sign], 6) for sign in before if sign != "score"
    }
    parts.watched = after
    assert parts.pass_by(1)["score"] == pytest.approx(before["score"], abs=0.2)


def test_another_bundle_begins_anew(parts: Parts) -> None:
    parts.pass_by(LEARNING)
    other = Watched("cell@2", reference(), LEARNING)
    assert not other.restore(parts.watched.saved())
    assert other.learnt == 0


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"PK\x03\x04" + b"\0" * 60])
def test_what_is_no_state_is_refused(content: bytes) -> None:
    with pytest.raises(DAMAGED):
        Watched("cell@1", reference(), LEARNING).restore(content)


def test_a_state_that_is_cut_off_or_flipped_is_refused_or_read_but_never_worse(parts: Parts) -> None:
    parts.pass_by(40)
    content = parts.watched.saved()
    rng = np.random.default_rng(2)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] ^= 0xFF
        for piece in (bytes(damaged), content[: rng.integers(len(content))]):
            watched = Watched("cell@1", reference(), LEARNING)
            try:
                watched.restore(piece)
            except DAMAGED:
                continue
            Parts(watched).pass_by(3)


def test_cells_do_not_change_with_the_light_and_do_with_a_spot() -> None:
    ramp = np.linspace(40, 140, 96)[np.newaxis, :, np.newaxis]
    picture = (ramp + np.random.default_rng(3).uniform(0, 20, (128, 96, 3))).astype(np.uint8)
    assert np.abs(cells(picture) - cells(np.clip(picture * 1.5, 0, 255).astype(np.uint8))).max() < 0.1
    spotted = picture.copy()
    spotted[:8, :6] = 0
    change = cells(spotted) - cells(picture)
    assert int(np.abs(change).argmax()) == 0
    assert tuple(LOOKS) == tuple(TYPICAL)


def test_a_defect_that_changes_its_picture_is_no_change_of_light_or_place(parts: Parts) -> None:
    parts.pass_by(300)
    for _ in range(60):
        parts.pass_by(2)
        parts.watched.observe(2.0, 1.0, (10.0, 90.0, 3.0), np.full(GRID * GRID, 9.0), LIMIT)
    shares = parts.watched.signs(LIMIT).shares
    assert shares["rejects"] >= 1
    assert max(shares["brightness"], shares["sharpness"], shares["place"]) < 0.5


def test_once_all_parts_are_rejected_their_pictures_say_why(parts: Parts) -> None:
    parts.pass_by(300)
    parts.defective, parts.light = 1.0, -30.0
    shares = parts.pass_by(20)
    assert shares["brightness"] >= 1, "of the first rejects as well"
    assert shares["rejects"] < 1, "that waits for what says more"
    assert parts.pass_by(20)["rejects"] >= 1


def test_learning_begins_again_where_hardly_any_part_passed() -> None:
    watched = Watched("cell@1", reference(), 60)
    for number in range(60):
        watched.observe(0.5 if number % 11 == 0 else 2.0, 1.0, (120, 40, -1), np.zeros(GRID * GRID), LIMIT)
    assert watched.learnt == 0
    Parts(watched).pass_by(60)
    assert watched.learnt == 1
