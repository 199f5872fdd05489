"""rejectd.line: what a start makes of what an earlier run left, and what the line says of itself. A real bundle."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import contract
import pytest
from line import digest
from peers import wait_for
from prometheus_client import generate_latest

from rejectd.contract.messages import GOLDEN, CameraState, CameraStatus, Cause, Exposure, Frame, Policy, Result
from rejectd.contract.payloads import encode, line_topic, verdict_payload
from rejectd.contract.settings import (
    Batch,
    Commands,
    Device,
    Engine,
    Evidence,
    FolderCamera,
    Mqtt,
    Product,
    Settings,
    Station,
)
from rejectd.control import standing_orders as standing_module
from rejectd.control.standing_orders import Order, Standing, StandingFile, ThresholdOrder
from rejectd.control.thresholds import ThresholdError
from rejectd.decision import decide, unjudged
from rejectd.ledger import Ledger, Margin
from rejectd.line import Line
from rejectd.mqtt import Incoming
from rejectd.storage.in_flight_file import NAME, in_flight_file
from rejectd.storage.state_folders import TakenError, in_memory


@pytest.fixture(scope="module")
def bundles(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two bundles for one product."""
    path = tmp_path_factory.mktemp("bundles")
    shutil.copytree(bundle, path / "cell")
    shutil.copytree(bundle, path / "cell-2")
    manifest = json.loads((path / "cell-2" / "bundle.json").read_text())
    manifest["quality"]["another"] = 1
    (path / "cell-2" / "bundle.json").write_text(json.dumps(manifest))
    return path


def settings_of(bundles: Path, **changed: Any) -> Settings:
    settings = Settings(
        line="l",
        cameras={name: FolderCamera(product="cell", path=Path("/pictures")) for name in ("left", "right")},
        products={"cell": Product(bundle=bundles / "cell")},
        stations={"gate": Station(cameras=("left", "right"))},
        batch=Batch(max_batch=1),
        engine=Engine(device=Device.CPU, threads=1),
        mqtt=Mqtt(commands=Commands.ANONYMOUS),
    )
    return settings.model_copy(update=changed)


class Site:
    """The folder of a line, and its starts; nothing runs in them. A start ends the one before, as a kill would."""

    def __init__(self, directory: Path, bundles: Path) -> None:
        self.directory, self.bundles = directory, bundles
        self.state = directory / "state"
        self._stack = ExitStack()
        self._runs = 0

    def start(self, settings: Settings | None = None) -> Line:
        self.end()
        self._runs += 1
        file = self.directory / "line.yaml"
        line = Line(settings or settings_of(self.bundles), file, f"run{self._runs}", self._stack)
        self._stack.callback(line.publisher.run)  # which closes what it owns, and does nothing else any more
        self._stack.callback(line.publisher.stop, 0)
        return line

    def record(self, settings: Settings | None = None) -> Line:
        """A start whose record thread runs until it has done what there is to do."""
        line = self.start(settings)
        line.recorder.end()
        line.recorder.run()
        return line

    def end(self) -> None:
        self._stack.close()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.state / "journal.sqlite")) as db:
            return db.execute(query).fetchall()

    def leave(self, write: Callable[[Ledger], None]) -> None:
        """A run that is killed after it has done this."""
        self.end()
        with contextlib.closing(in_flight_file(self.state, line="l")) as book:
            write(Ledger("killed", margin=Margin(0), book=book))


@pytest.fixture
def site(tmp_path: Path, bundles: Path) -> Iterator[Site]:
    made = Site(tmp_path, bundles)
    yield made
    made.end()


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, bundles: Path) -> Iterator[Line]:
    """A line for all tests that leave it as it was; what it would write waits in the recorder's queue."""
    made = Site(tmp_path_factory.mktemp("site"), bundles)
    yield made.start()
    made.end()


def opened(ledger: Ledger, camera: str) -> Frame:
    picture = Exposure(captured_ns=time.monotonic_ns(), captured_unix_ns=time.time_ns(), source="7.png")
    return ledger.open(
        picture, camera=camera, product="cell", policy=Policy.REJECT, deadline_ns=10**9, pixels=None, trigger=112
    )


def closed(ledger: Ledger, camera: str, score: float) -> Frame:
    frame = opened(ledger, camera)
    verdict = decide(frame, Result(score=score, threshold=1, p_value=0.1, bundle="b", engine="e"), time.monotonic_ns())
    assert ledger.close(verdict, encode(verdict_payload("l", verdict)))
    return frame


# recovery


def test_what_a_killed_run_left_is_put_into_the_journal_and_its_defects_into_the_outbox(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def run(ledger: Ledger) -> None:
        opened(ledger, "left")
        closed(ledger, "left", 0.5)
        closed(ledger, "right", 2.0)
        opened(ledger, "gate")
        opened(ledger, GOLDEN)
        closed(ledger, GOLDEN, 2.0)

    site.leave(run)
    line = site.record()
    assert site.rows("SELECT event_id, decision, cause, trigger_number FROM verdict ORDER BY 1") == [
        ("killed-gate-1", "unjudged", "stopping", 112),
        ("killed-golden-1", "unjudged", "stopping", 112),
        ("killed-golden-2", "reject", None, 112),
        ("killed-left-1", "unjudged", "stopping", 112),
        ("killed-left-2", "pass", None, 112),
        ("killed-right-1", "reject", None, 112),
    ]
    events = site.rows("SELECT topic, payload FROM event ORDER BY topic")
    assert [topic for topic, _ in events] == [f"rejectd/v1/l/{name}/defect" for name in ("gate", "left", "right")]
    for topic, payload in events:
        contract.validate(topic, payload)
    assert b"rejectd_frames_recovered_total 6.0" in generate_latest(line.registry)
    assert "an earlier run was killed: 6 of its frames go into the journal now" in caplog.text
    again = site.start()
    assert b"rejectd_frames_recovered_total 0.0" in generate_latest(again.registry)


def test_a_start_that_is_killed_while_it_recovers_leaves_no_event_twice(site: Site) -> None:
    def run(ledger: Ledger) -> None:
        for _ in range(3):
            closed(ledger, "left", 2.0)

    site.leave(run)
    memory = in_memory(site.state)
    assert memory
    kept = (memory / NAME).read_bytes()
    site.record()
    site.end()
    (memory / NAME).write_bytes(kept)  # it was killed before the in-flight file was emptied
    site.record()
    assert site.rows("SELECT event_seq FROM event") == [(1,), (2,), (3,)]
    assert site.rows("SELECT count(*) FROM verdict") == [(3,)]


def test_two_services_never_share_a_state_directory(site: Site) -> None:
    site.start()
    with ExitStack() as stack, pytest.raises(TakenError, match="another rejectd uses this state directory"):
        Line(settings_of(site.bundles), site.directory / "line.yaml", "second", stack)


# commands that stand


def ordered(bundle: Path, value: float, configured: float | None = None) -> ThresholdOrder:
    return ThresholdOrder(value=value, configured=configured, bundle=digest(bundle), engine="openvino-cpu-float32")


def ask(line: Line, name: str, **fields: Any) -> None:
    """Have a line do something that runs no thread."""
    body = json.dumps(fields).encode()
    topic = f"rejectd/v1/l/command/{name}"
    line.commands.hear(Incoming(topic=topic, payload=body, retained=False, answer_to=None, correlation=None))
    line.commands._serve(line.commands._waiting.get_nowait())  # type: ignore[arg-type]


def with_threshold(bundles: Path, value: float | None, meant_for: str | None = None) -> Settings:
    product = Product(bundle=bundles / "cell", threshold=value, threshold_for=meant_for)
    return settings_of(bundles, products={"cell": product})


def test_what_commands_have_changed_stands_after_a_restart(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.state.mkdir()
    standing = Standing(
        products={"left": Order("cell", "cell")},
        bundles={"cell": Order("cell-2", "cell")},
        thresholds={"cell": ordered(site.bundles / "cell-2", 0.75)},
        paused={"left": Order("pass", None), "right": Order(None, None)},
    )
    StandingFile(site.state / "standing.json").save(standing)
    first = site.start(settings_of(site.bundles, stations={}))
    model = first.inspector.models["cell"]
    assert model.threshold == 0.75
    assert first.pipeline.paused == {"left": Policy.PASS, "right": None}
    assert first.pipeline.products == {"left": "cell", "right": "cell"}
    page = generate_latest(first.registry).decode()
    assert f'digest="{model.digest}"' in page
    assert 'rejectd_threshold{product="cell"} 0.75' in page
    assert [record.message for record in caplog.records if record.message.startswith("still in force")] == [
        "still in force: threshold of cell 0.75 (settings the calibrated one)",
        "still in force: bundle of cell cell-2 (settings cell)",
        "still in force: product of camera left cell (settings cell)",
        "still in force: pause of camera left, its parts: pass",
        "still in force: pause of camera right, its parts: reject",
    ]
    manifest = (site.bundles / "cell-2" / "bundle.json").rename(site.bundles / "elsewhere.json")
    try:
        second = site.start()
    finally:
        manifest.rename(site.bundles / "cell-2" / "bundle.json")
    assert second.inspector.models["cell"].digest != model.digest
    assert "the bundle" in caplog.text
    assert "that a command put in force is gone" in caplog.text


def test_a_threshold_that_was_commanded_after_a_reload_stands_after_a_restart(site: Site) -> None:
    reloaded = with_threshold(site.bundles, 0.9)
    line = site.start()
    assert line.reconfigure(reloaded)["cell"][1] == 0.9
    ask(line, "threshold", product="cell", threshold=1.2)
    assert line.inspector.models["cell"].threshold == 1.2
    assert site.start(reloaded).inspector.models["cell"].threshold == 1.2, "it is newer than the settings"


def test_a_reload_that_changes_a_threshold_ends_the_command_for_it(site: Site) -> None:
    line = site.start()
    ask(line, "threshold", product="cell", threshold=1.2)
    assert line.reconfigure(settings_of(site.bundles)) == {}, "nothing has changed in the file"
    assert StandingFile(site.state / "standing.json").load().thresholds == {"cell": ordered(site.bundles / "cell", 1.2)}
    assert line.reconfigure(with_threshold(site.bundles, 0.9)) == {"cell": (1.2, 0.9)}
    assert StandingFile(site.state / "standing.json").load() == Standing(), "it is off the disk at once"
    assert 'rejectd_threshold{product="cell"} 0.9' in generate_latest(line.registry).decode()


def test_a_threshold_that_has_ended_never_comes_back(site: Site) -> None:
    line = site.start()
    calibrated = line.inspector.models["cell"].threshold
    ask(line, "threshold", product="cell", threshold=1.2)
    line.reconfigure(with_threshold(site.bundles, 0.9))
    line.reconfigure(settings_of(site.bundles))
    assert line.inspector.models["cell"].threshold == calibrated
    assert site.start().inspector.models["cell"].threshold == calibrated, "after reloads"
    ask(site.start(), "threshold", product="cell", threshold=1.2)
    assert site.start(with_threshold(site.bundles, 0.9)).inspector.models["cell"].threshold == 0.9
    assert site.start().inspector.models["cell"].threshold == calibrated, "after starts with other settings"


def test_a_threshold_that_was_ordered_for_another_bundle_or_engine_ends_at_the_start(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.state.mkdir()
    orders = [ordered(site.bundles / "cell-2", 0.75), replace(ordered(site.bundles / "cell", 0.75), engine="other")]
    for order in orders:
        StandingFile(site.state / "standing.json").save(Standing(thresholds={"cell": order}))
        model = site.start().inspector.models["cell"]
        assert model.threshold == model.calibration.threshold
        assert f"was ordered for bundle {order.bundle[:12]} on {order.engine}: it has ended" in caplog.text
        assert StandingFile(site.state / "standing.json").load() == Standing()


def test_a_line_starts_with_damaged_orders_sets_them_aside_and_says_so(site: Site) -> None:
    site.state.mkdir()
    (site.state / "standing.json").write_text(
        '{"schema": 2, "standing": {"products": {"left": {"value": [], "a": 1}}}}'
    )
    line = site.start()
    (problem,) = status(line)["problems"]
    assert problem.endswith(
        "what commands have changed before no longer holds; the file is set aside as standing.json.damaged"
    )
    assert status(site.start())["problems"] == [], "once"


def test_what_the_disk_does_not_take_is_a_problem_until_it_does(site: Site) -> None:
    line = site.start()
    (site.state / ".standing.json").mkdir()
    ask(line, "pause", cameras=["left"])
    assert status(line)["problems"] == ["what commands have changed is not on the disk and would not outlive a restart"]
    (site.state / ".standing.json").rmdir()
    line.commands._tidy()
    assert status(line)["problems"] == []
    assert site.start().pipeline.paused == {"left": None}


def test_a_disk_that_does_not_answer_holds_no_order_up_and_has_the_latest_in_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = site.start()
    answers, save = threading.Event(), StandingFile.save

    def late(file: StandingFile, standing: Standing) -> None:
        assert answers.wait(20)
        save(file, standing)

    monkeypatch.setattr(standing_module, "_DISK_S", 0.05)
    monkeypatch.setattr(StandingFile, "save", late)
    ask(line, "pause", cameras=["left"])
    ask(line, "pause", cameras=["right"])
    line.reconfigure(with_threshold(site.bundles, 0.9))
    assert line.pipeline.paused == {"left": None, "right": None}
    assert "not on the disk" in str(status(line)["problems"])
    answers.set()
    monkeypatch.setattr(standing_module, "_DISK_S", 5.0)
    wait_for(lambda: not line.orders._keeper._writing.locked(), "the disk has answered")
    line.orders.save_again()
    assert status(line)["problems"] == []
    assert StandingFile(site.state / "standing.json").load().paused == {
        name: Order(None, None) for name in ("left", "right")
    }


# thresholds of the settings


def test_a_threshold_that_names_another_bundle_than_the_settings_do_ends_the_start(site: Site) -> None:
    both = digest(site.bundles / "cell"), digest(site.bundles / "cell-2")
    with pytest.raises(ThresholdError) as caught:
        site.start(with_threshold(site.bundles, 0.9, both[1]))
    assert all(name in str(caught.value) for name in both)
    line = site.start(with_threshold(site.bundles, 0.0005, both[0]))
    assert line.inspector.models["cell"].threshold == 0.0005, "whatever it is: it says what it is meant for"
    (problem,) = status(line)["problems"]
    lowest = f"{line.inspector.models['cell'].calibration.scores.min():.4g}"
    assert problem.startswith(f"product cell: the threshold 0.0005 is below {lowest}, the lowest score of a held-out")


@pytest.mark.parametrize("value", [0.5, 2.0])
def test_a_threshold_that_names_no_bundle_and_fits_none_is_refused_at_the_start_and_by_a_reload(
    site: Site, value: float
) -> None:
    with pytest.raises(ThresholdError, match=r"is not within .*add `threshold_for: [0-9a-f]{12}`") as refused:
        site.start(with_threshold(site.bundles, value))
    line = site.start(with_threshold(site.bundles, 1.0))
    calibration = line.inspector.models["cell"].calibration
    low, high = calibration.scores.min(), 1.5 * calibration.threshold
    assert f"{low:.6g} (the lowest held-out good score) and {high:.6g} (1.5 times" in str(refused.value)
    with pytest.raises(ThresholdError, match="is not within"):
        line.reconfigure(with_threshold(site.bundles, value))
    assert line.inspector.models["cell"].threshold == 1.0
    assert line.reconfigure(with_threshold(site.bundles, 1.2)) == {"cell": (1.0, 1.2)}


def test_a_reload_does_not_put_the_threshold_of_a_new_bundle_to_the_old_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    line = site.start()
    before = line.inspector.models["cell"].threshold
    moved = settings_of(site.bundles, products={"cell": Product(bundle=site.bundles / "cell-2", threshold=0.9)})
    assert line.reconfigure(moved) == {}
    assert line.inspector.models["cell"].threshold == before
    assert "its bundle is another now, its threshold holds with it from the next start on" in caplog.text
    assert site.start(moved).inspector.models["cell"].threshold == 0.9


def test_a_named_threshold_holds_for_its_bundle_alone(site: Site) -> None:
    settings = with_threshold(site.bundles, 0.95, digest(site.bundles / "cell")[:12])
    site.state.mkdir()
    moved = Standing(bundles={"cell": Order("cell-2", "cell")})
    StandingFile(site.state / "standing.json").save(moved)
    line = site.start(settings)
    model = line.inspector.models["cell"]
    assert (model.digest, model.threshold) == (digest(site.bundles / "cell-2"), model.calibration.threshold)
    (problem,) = status(line)["problems"]
    assert "the threshold 0.95 of the settings is for bundle" in problem
    assert line.reconfigure(with_threshold(site.bundles, 0.95, model.digest))["cell"][1] == 0.95
    assert status(line)["problems"] == []


# what somebody has changed


def test_a_pause_that_passes_parts_and_a_threshold_that_lets_defects_pass_are_problems(site: Site) -> None:
    line = site.start(settings_of(site.bundles, stations={}))
    ask(line, "pause", cameras=["left"], action="pass")
    ask(line, "pause", cameras=["right"], action="reject")
    ask(line, "threshold", product="cell", threshold=1000)
    calibrated = line.inspector.models["cell"].calibration.threshold
    assert status(line)["problems"] == [
        f"product cell: the threshold 1000 is more than 1.5 times the calibrated {calibrated:.4g}: defects may pass",
        "camera left is paused and its parts pass uninspected",
    ]
    ask(line, "resume")
    ask(line, "threshold", product="cell", threshold=1.5 * calibrated)
    assert status(line)["problems"] == []


def test_a_pause_passes_parts_also_by_the_policy_of_a_camera_or_a_station(site: Site) -> None:
    passing = FolderCamera(product="cell", path=Path("/pictures"), policy=Policy.PASS)
    cameras = {"left": passing, "right": passing.model_copy(update={"policy": Policy.REJECT})}
    gate = Station(cameras=("right",), policy=Policy.PASS)
    line = site.start(settings_of(site.bundles, cameras=cameras, stations={"gate": gate}))
    ask(line, "pause")
    assert status(line)["problems"] == [
        f"camera {name} is paused and its parts pass uninspected" for name in ("left", "right")
    ]


def test_every_change_is_journalled_with_old_and_new_value_and_who_asked(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    line = site.start(settings_of(site.bundles, stations={}))
    calibrated = line.inspector.models["cell"].threshold
    ask(line, "threshold", product="cell", threshold=1000, request_id="shift 3")
    ask(line, "pause", cameras=["left"], action="pass", request_id="7")
    ask(line, "pause", cameras=["left"], action="pass")
    ask(line, "resume")
    ask(line, "threshold", product="hat", threshold=1)
    line.reconfigure(with_threshold(site.bundles, 0.9))
    line.recorder.end()
    line.recorder.run()
    rows = site.rows("SELECT what, subject, before, after, changed_by, request_id FROM change ORDER BY rowid")
    assert rows == [
        ("threshold", "cell", str(calibrated), "1000.0", "threshold", "shift 3"),
        ("pause", "left", None, "pass", "pause", "7"),
        ("pause", "left", "pass", None, "resume", None),
        ("threshold", "cell", "1000.0", "0.9", "settings", None),
    ]
    said = [record for record in caplog.records if "changed by command threshold" in record.message]
    assert [(each.levelname, each.fields["before"], each.fields["after"]) for each in said] == [
        ("WARNING", calibrated, 1000)
    ]
    assert said[0].fields["request_id"] == "shift 3"


# counts of actuators


def noted(line: Line) -> list[tuple[str, int]]:
    """Camera and count of each reading on its way to the journal."""
    found = []
    while not line.recorder._items.empty():
        item = line.recorder._items.get_nowait()
        found.append((item.camera, item.rejected))  # type: ignore[union-attr]
    return found


def count(line: Line, camera: str, body: bytes) -> None:
    topic = f"rejectd/v1/l/actuator/{camera}/rejected"
    incoming = Incoming(topic=topic, payload=body, retained=False, answer_to=None, correlation=None)
    line._received(incoming)


def test_a_count_of_rejects_is_noted_when_it_changes(line: Line) -> None:
    for body in (b'{"count": 5}', b"5", b'{"count": 5, "by": "plc"}', b"6", b"6", b"0", b"7"):
        count(line, "left", body)
    count(line, "right", b"7")
    count(line, "gate", b"0")
    assert noted(line) == [("left", 5), ("left", 6), ("left", 0), ("left", 7), ("right", 7), ("gate", 0)]


def test_a_count_that_does_not_change_is_noted_once_a_minute(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    count(line, "left", b"41")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 59)
    count(line, "left", b"41")
    assert noted(line) == [("left", 41)]
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    count(line, "left", b"41")
    assert noted(line) == [("left", 41)], "so that the account knows the PLC to be there"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"-1",
        b"1.5",
        b"true",
        b"null",
        b"twelve",
        b'"12"',
        b"[12]",
        b"{}",
        b'{"count": null}',
        b'{"count": true}',
        b'{"count": -1}',
        b'{"counts": 12}',
        b"9223372036854775808",
        b"NaN",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_what_is_no_count_is_said_and_not_noted(line: Line, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    count(line, "left", body)
    assert noted(line) == []
    assert "rejectd/v1/l/actuator/left/rejected: not a count of rejected parts" in caplog.text
    count(line, "left", b"9223372036854775807")
    assert noted(line) in ([("left", 2**63 - 1)], [])


def test_a_count_of_something_else_is_nobodys(line: Line) -> None:
    for camera in ("top", "left/left", "", "golden"):
        count(line, camera, b"5")
    assert noted(line) == []
    assert line.commands._waiting.empty(), "and no command"


# what the line says of itself


GOOD = Result(score=0, threshold=1, p_value=1, bundle="b", engine="e")


def status(line: Line) -> dict[str, Any]:
    message = line.status("online")
    assert (message.topic, message.retain) == (line_topic("l"), True)
    contract.validate(message.topic, message.payload)
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def test_the_status_says_how_the_line_is(line: Line) -> None:
    said = status(line)
    assert (said["run"], said["state"], said["judging"], said["problems"]) == ("run1", "online", True, [])
    assert said["products"] == {"left": "cell", "right": "cell"}
    assert said["parts"] == {"captured": 0, "pass": 0, "reject": 0, "unjudged": 0, "in_flight": 0}
    line.pipeline.paused["right"] = None
    line.publisher.unpublished.update({"left": 2, "gate": 3})
    said = status(line)
    assert (said["paused"], said["unpublished"]) == (["right"], 5), "a gateway of a station must hear of its parts"
    del line.pipeline.paused["right"]
    line.publisher.unpublished.clear()


def test_the_heartbeat_opens_no_file(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    for opens in ("builtins.open", "io.open", "os.open", "os.scandir", "os.listdir"):
        monkeypatch.setattr(opens, refuse)
    message = line.status("online")
    monkeypatch.undo()
    assert json.loads(message.payload)["version"]


def test_the_status_shows_the_problems_that_a_person_should_look_at(line: Line) -> None:
    states = [CameraState.UP, CameraState.DOWN, CameraState.DEGRADED, CameraState.ENDED]
    for name, state in zip("abcd", states, strict=True):
        line.pipeline.states[name] = CameraStatus(camera=name, state=state, reason="no light", since_unix_ns=1)
    line.recorder._backlog.problem = "the journal cannot be written"
    assert status(line)["problems"] == [
        "camera b is down: no light",
        "camera c is degraded: no light",
        "the journal cannot be written",
    ]
    line.pipeline.states.clear()
    line.recorder._backlog.problem = ""


def test_a_line_with_an_overdue_frame_or_a_hung_device_does_not_judge(line: Line) -> None:
    assert line.judging
    line.pipeline.inspecting.busy_since_ns = time.monotonic_ns() - 29 * 10**9
    assert line.judging, "a batch may take its time"
    line.pipeline.inspecting.busy_since_ns = time.monotonic_ns() - 31 * 10**9
    assert not status(line)["judging"]
    line.pipeline.inspecting.busy_since_ns = None
    frame = opened(line.ledger, "left")
    assert line.judging
    overdue = Exposure(captured_ns=time.monotonic_ns() - 10**9, captured_unix_ns=1)
    late = line.ledger.open(
        overdue, camera="right", product="cell", policy=Policy.REJECT, deadline_ns=10**8, pixels=None
    )
    assert not status(line)["judging"]
    for each in (frame, late):
        line.ledger.close(decide(each, GOOD, 1), b"")
    assert line.judging


def test_a_line_that_answers_unjudged_most_of_the_time_does_not_judge_but_a_restart_would_not_help(line: Line) -> None:
    for _ in range(5):
        line.pipeline.judged.ended(unjudged(opened(line.stations.ledger, "gate"), Cause.LATE, 1))
    said = status(line)
    assert not said["judging"]
    assert said["problems"][0].startswith("station gate: 5 of its last 5 parts were not judged, mostly late; ")
    assert line.progressing, "the watchdog is fed"
    for _ in range(50):
        line.pipeline.judged.ended(decide(opened(line.stations.ledger, "gate"), GOOD, 1))
    assert (status(line)["judging"], status(line)["problems"]) == (True, [])
    line.pipeline.answer_all()


def test_what_is_not_a_command_never_reaches_the_commands(line: Line) -> None:
    for topic, expected in (("command/pause", 1), ("left/verdict/pass", 0), ("answer/command", 0)):
        incoming = Incoming(
            topic=f"rejectd/v1/l/{topic}", payload=b"", retained=False, answer_to=None, correlation=None
        )
        line._received(incoming)
        assert line.commands._waiting.qsize() == expected
        while not line.commands._waiting.empty():
            line.commands._waiting.get_nowait()


def test_a_line_whose_broker_knows_nobody_carries_out_nothing_and_says_so_at_its_start(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the broker has kept a subscription from a time when commands were taken."""
    line = site.start(settings_of(site.bundles, mqtt=Mqtt()))
    topic = "rejectd/v1/l/command/pause"
    line._received(Incoming(topic=topic, payload=b"", retained=False, answer_to=None, correlation=None))
    assert line.commands._waiting.empty()
    assert "no commands are taken: give it a user or certificate at the broker" in caplog.text
    count(line, "left", b"7")
    assert noted(line) == [("left", 7)], "counts change nothing"


def test_without_evidence_nothing_is_kept_beside_the_journal(site: Site) -> None:
    settings = settings_of(site.bundles)
    site.record(settings.model_copy(update={"evidence": Evidence(enabled=False)}))
    assert sorted(path.name for path in site.state.iterdir() if path.is_dir()) == []
    site.record(settings.model_copy(update={"evidence": Evidence(directory=site.directory / "pictures")}))
    assert (site.directory / "pictures").is_dir()
