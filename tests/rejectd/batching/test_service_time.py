"""rejectd.batching.service_time"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from simulated_line import MS, S

from rejectd.batching.service_time import ServiceTime


def test_nothing_known_means_no_time_at_all() -> None:
    assert ServiceTime().expect(4) == 0


def test_the_expected_time_comes_near_to_what_was_measured_and_not_below() -> None:
    service_time = ServiceTime()
    for number in range(200):
        service_time.learn(4, (95 + number % 11) * MS)
    assert 100 * MS <= service_time.expect(4) <= 115 * MS


def test_sizes_never_seen_are_estimated_from_the_others() -> None:
    service_time = ServiceTime()
    for _ in range(200):
        service_time.learn(2, 20 * MS)
        service_time.learn(8, 40 * MS)
    two, eight = service_time.expect(2), service_time.expect(8)
    assert service_time.expect(4) == two + (eight - two) // 3
    assert eight < service_time.expect(16) < 2 * eight, "a larger batch may pay, so it is worth a try"
    assert service_time.expect(1) <= two


@given(st.dictionaries(st.integers(1, 16), st.integers(1, 10**9), min_size=1))
def test_a_larger_batch_is_never_expected_to_be_faster_nor_slower_than_its_frames_in_parts(
    costs: dict[int, int],
) -> None:
    service_time = ServiceTime()
    for size, cost_ns in costs.items():
        service_time.learn(size, cost_ns)
    expected = [service_time.expect(size) for size in range(1, 33)]
    assert expected == sorted(expected)
    assert all(expected[2 * size - 1] <= 2 * expected[size - 1] + 2 for size in range(1, 17))


def test_a_hang_counts_as_a_slow_batch_and_is_forgotten() -> None:
    service_time = ServiceTime()
    for _ in range(50):
        service_time.learn(4, 10 * MS)
    before = service_time.expect(4)
    service_time.learn(4, 5 * S)
    assert service_time.expect(4) < 4 * before
    for _ in range(60):
        service_time.learn(4, 10 * MS)
    assert service_time.expect(4) < 1.2 * before


def test_a_hang_as_the_very_first_measurement_does_not_outlive_the_next() -> None:
    service_time = ServiceTime()
    service_time.learn(4, 5 * S)
    service_time.learn(4, 10 * MS)
    assert service_time.expect(4) < 20 * MS


def test_a_size_that_was_slow_once_is_judged_by_the_other_sizes() -> None:
    service_time = ServiceTime()
    service_time.learn(4, 10 * MS)
    service_time.learn(5, 5 * S)
    assert service_time.expect(5) < 20 * MS


def test_one_slow_batch_among_many_moves_the_expectation_by_little() -> None:
    service_time = ServiceTime()
    for _ in range(50):
        service_time.learn(8, 20 * MS)
    before = service_time.expect(8)
    service_time.learn(8, 60 * MS)
    assert service_time.expect(8) < 1.1 * before


def test_the_noise_of_sizes_often_seen_is_believed_of_those_seldom_seen() -> None:
    service_time = ServiceTime()
    service_time.learn(1, 10 * MS)
    for _ in range(50):
        service_time.learn(8, 20 * MS)
    assert service_time.expect(1) < 10.5 * MS


def test_a_size_that_was_slow_once_is_tried_again_and_one_that_stays_slow_is_not() -> None:
    service_time = ServiceTime()
    for size, elapsed_ms in ((1, 10), (1, 10), (8, 500)):
        service_time.learn(size, elapsed_ms * MS)
    assert service_time.expect(8) < 8 * service_time.expect(1)
    service_time.learn(8, 500 * MS)
    assert service_time.expect(8) == 8 * service_time.expect(1)


def test_an_engine_that_stays_slow_is_believed() -> None:
    service_time = ServiceTime()
    service_time.learn(1, 10 * MS)
    for _ in range(100):
        service_time.learn(1, 200 * MS)
    assert service_time.expect(1) >= 200 * MS


def test_what_was_disturbed_is_forgotten_after_a_few_measurements_that_were_not() -> None:
    service_time = ServiceTime()
    for _ in range(50):
        service_time.learn(1, 10 * MS)
    for elapsed_ms in (40, 30, 30, 30, 30):
        service_time.learn(4, elapsed_ms * MS)
    assert service_time.expect(4) < 36 * MS, "it pays again"
