"""rejectd.control.actuator_counts: what the PLC counts, as the alert wants it. `test_line` has the journal's part."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from rejectd.control.actuator_counts import ActuatorCounts
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import Incoming
from rejectd.storage.outbox import Reading


class Plc:
    """Counts, and what the metrics make of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.noted: list[Reading] = []
        ledger = Ledger("run", margin=Margin(0))
        metrics = Metrics(self.registry, cameras=["left", "right"], products=[], snapshot=ledger.snapshot)
        self._counts = ActuatorCounts(metrics, self.noted.append)

    def says(self, *bodies: bytes) -> None:
        for body in bodies:
            topic = "rejectd/v1/l/actuator/left/rejected"
            incoming = Incoming(topic=topic, payload=body, retained=False, answer_to=None, correlation=None)
            self._counts.take("left", incoming)

    def counted(self, camera: str = "left") -> float | None:
        return self.registry.get_sample_value("rejectd_actuator_rejects_total", {"camera": camera})


def test_the_first_count_is_where_counting_begins() -> None:
    plc = Plc()
    plc.says(b"1000")
    assert plc.counted() == 0
    plc.says(b"1005", b"1005", b'{"count": 1006}')
    assert plc.counted() == 6
    assert [reading.rejected for reading in plc.noted] == [1000, 1005, 1006]


def test_a_count_that_begins_again_goes_on() -> None:
    plc = Plc()
    plc.says(b"1000", b"1005", b"2", b"3")
    assert plc.counted() == 5 + 3


def test_without_a_count_there_is_no_series_that_an_alert_could_compare() -> None:
    plc = Plc()
    plc.says(b"nonsense", b"-1")
    assert plc.counted() is None
    plc.says(b"7")
    assert plc.counted() == 0
    assert plc.counted("right") is None
