"""rejectd.control.commands: what the line is asked, carried out on a real bundle and the real engine; the broker is
missing."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contract
import cv2
import numpy as np
import pytest
from peers import wait_for
from prometheus_client import CollectorRegistry

from rejectd.batching.batcher import Batcher
from rejectd.contract.messages import GOLDEN, Exposure, Picture, Policy, Verdict
from rejectd.contract.settings import Batch, Device, Engine, FolderCamera, Judging, Product, Settings
from rejectd.control import changeover as changeover_module
from rejectd.control import showing
from rejectd.control.changeover import Changeover
from rejectd.control.commands import Commands
from rejectd.control.controls import Controls
from rejectd.control.orders import Orders
from rejectd.control.self_test import GoldenCheck
from rejectd.control.standing_orders import Order, Standing, StandingFile, ThresholdOrder
from rejectd.inspector import Inspector
from rejectd.judging import Judged
from rejectd.ledger import Ledger, Margin
from rejectd.metrics import Metrics
from rejectd.mqtt import Incoming, Message
from rejectd.pipeline import Pipeline, Stages
from rejectd.stations import Stations
from rejectd.storage.evidence import Evidence
from rejectd.storage.outbox import Entries, NewEvent, Outbox
from rejectd.storage.picture_budget import Memory
from rejectd.storage.recorder import Recorder
from revdist.bundle import bundle as bundles_of_revdist
from revdist.thresholds import conformal
from revdist.training import packing

ROOT = "rejectd/v1/l"
MARGIN_NS = 20_000_000
WAFER = 1.0


class Sent:
    """Stands where the publisher stands, before a broker that acknowledges at once."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.golden: GoldenCheck | None = None

    def verdict(self, verdict: Verdict, _body: bytes) -> None:
        self.verdicts.append(verdict)
        if self.golden:
            self.golden.delivered(verdict, time.monotonic_ns())


class Rig:
    """A line with two cameras and two products that obeys commands; the cameras show nothing by themselves."""

    def __init__(self, directory: Path, inspector: Inspector, bundles: Path, *, evidence: bool = True) -> None:
        self.inspector, self.bundles = inspector, bundles
        self.settings = Settings(
            line="l",
            cameras={name: FolderCamera(product="cell", path=directory) for name in ("left", "right")},
            products=products(bundles),
            batch=Batch(max_batch=2),
        )
        self.answers: list[Message] = []
        self.largest_packet: int | None = None
        self.told: list[str] = []
        self.ledger = Ledger("run", margin=Margin(MARGIN_NS))
        cameras = [*self.settings.cameras, GOLDEN]
        self.batcher = Batcher(cameras, max_batch=2, max_wait_ns=0, queue_per_camera=8)
        metrics = Metrics(
            CollectorRegistry(), cameras=self.settings.cameras, products=[], snapshot=self.ledger.snapshot
        )
        self.outbox = Outbox(directory / "journal.sqlite", keep_ns=10**18, max_bytes=10**9)
        self.evidence_folder = directory / "evidence"
        keeper = Evidence(self.evidence_folder, quota_bytes=10**9, heatmap=lambda picture, *_: picture)
        self.recorder = Recorder(
            "l",
            outbox=self.outbox,
            evidence=keeper,
            inflight=None,
            memory=Memory(10**9),
            metrics=metrics,
            more_events=lambda: None,
            marked=lambda _numbers: None,
        )
        self.sent = Sent()
        stages = Stages(
            ledger=self.ledger,
            batcher=self.batcher,
            inspector=self.inspector,
            stations=Stations({}, Ledger("run", margin=Margin(MARGIN_NS))),
            publisher=self.sent,  # type: ignore[arg-type]
            recorder=self.recorder,
            memory=Memory(10**9),
            metrics=metrics,
            drift=lambda _part: None,
        )
        self.pipeline = Pipeline(
            stages, line="l", products={"left": "cell", "right": "cell"}, judged=Judged(Judging(), [])
        )
        self.sent.golden = GoldenCheck(self.ledger, self.pipeline)
        self.standing_file = StandingFile(directory / "standing.json")
        self.orders = Orders(self.settings, self.standing_file)
        self.orders.judge(inspector)
        self.orders.move(self.pipeline)
        self.changeover = Changeover(inspector, self.sent.golden, self.ledger, self.orders, max_batch=2)
        self.commands = Commands(
            Controls(
                settings=self.settings,
                pipeline=self.pipeline,
                inspector=self.inspector,
                golden=self.sent.golden,
                changeover=self.changeover,
                orders=self.orders,
                recorder=self.recorder,
                outbox=self.outbox,
                evidence=keeper if evidence else None,
                answer=self.answers.append,
                largest_packet=lambda: self.largest_packet,
                more_events=lambda: self.told.append("events"),
                models_changed=lambda: self.told.append("models"),
            )
        )
        self._threads = [
            threading.Thread(target=body) for body in (self.pipeline.inspect, self.pipeline.decide, self.recorder.run)
        ]
        self._thread = threading.Thread(target=self.commands.run)
        self.ended = False

    def start(self) -> None:
        for thread in (*self._threads, self._thread):
            thread.start()

    def end(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._thread.ident is None:
            self.start()
        self.commands.stop()
        with contextlib.suppress(queue.Full):
            self.commands._waiting.put_nowait(None)  # wakes it, so that fifty tests do not wait for its next look
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.batcher.close()
        self.recorder.end()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self.outbox.close()

    def send(
        self,
        name: str,
        body: bytes = b"",
        *,
        retained: bool = False,
        answer_to: str | None = f"{ROOT}/answer/me",
        correlation: bytes | None = b"7",
    ) -> None:
        topic = f"{ROOT}/command/{name}"
        self.commands.hear(
            Incoming(topic=topic, payload=body, retained=retained, answer_to=answer_to, correlation=correlation)
        )

    def ask(self, name: str, **fields: Any) -> dict[str, Any]:
        """The answer to a request, held to the schemas."""
        return self.ask_raw(name, json.dumps(fields).encode())

    def ask_raw(self, name: str, body: bytes, **how: Any) -> dict[str, Any]:
        before = len(self.answers)
        self.send(name, body, **how)
        wait_for(lambda: len(self.answers) > before, f"an answer to {name}")
        message = self.answers[before]
        contract.validate(f"{ROOT}/answer", message.payload)
        answer: dict[str, Any] = json.loads(message.payload)
        return answer

    def error(self, name: str, **fields: Any) -> str:
        answer = self.ask(name, **fields)
        assert not answer["ok"]
        return str(answer["error"])

    def kept(self) -> Standing:
        """What a restart would find."""
        return self.standing_file.load()

    def state(self) -> tuple[object, ...]:
        """All that commands can change."""
        pipeline, models = self.pipeline, self.inspector.models
        thresholds = {name: (model.key, model.threshold) for name, model in models.items()}
        return dict(pipeline.products), dict(pipeline.paused), thresholds, self.kept()


def products(bundles: Path) -> dict[str, Product]:
    """The threshold of wafers lies between the scores of the known good pictures and those of the scratched ones."""
    return {"cell": Product(bundle=bundles / "cell"), "wafer": Product(bundle=bundles / "wafer", threshold=WAFER)}


@pytest.fixture(scope="module")
def bundles(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles of two products."""
    path = tmp_path_factory.mktemp("bundles")
    for name in ("cell", "wafer"):
        shutil.copytree(bundle, path / name)
    return path


@pytest.fixture(scope="module")
def loaded(bundles: Path) -> Inspector:
    return Inspector(Engine(device=Device.CPU, threads=1), products(bundles))


@pytest.fixture
def inspector(loaded: Inspector, bundles: Path) -> Iterator[Inspector]:
    """Two products; the models are loaded once, and each test finds them as they were."""
    keys = {name: model.key for name, model in loaded.models.items()}
    yield loaded
    for name, key in keys.items():
        if loaded.models[name].key != key:
            loaded.use(loaded.load(name, bundles / name))
        loaded.set_threshold(keys[name], loaded.models[name].calibration.threshold)
    for key in set(loaded._loaded) - {model.key for model in loaded.models.values()}:
        loaded.unload(key)
    for path in bundles.iterdir():
        if path.name not in loaded.models:
            shutil.rmtree(path)


@pytest.fixture
def make(tmp_path: Path, inspector: Inspector, bundles: Path) -> Iterator[Callable[..., Rig]]:
    """Makes lines that do not run yet."""
    with contextlib.ExitStack() as stack:

        def one(**how: bool) -> Rig:
            rig = Rig(tmp_path, inspector, bundles, **how)
            stack.callback(rig.end)
            return rig

        yield one


@pytest.fixture
def rig(make: Callable[..., Rig]) -> Rig:
    made = make()
    made.start()
    return made


def variant(rig: Rig, name: str, change: Callable[[dict[str, Any]], object] = lambda manifest: None) -> Path:
    """Another bundle beside the configured ones, with another digest."""
    path = rig.bundles / name
    shutil.copytree(rig.bundles / "cell", path)
    manifest = json.loads((path / "bundle.json").read_text())
    manifest["quality"]["another"] = 1
    change(manifest)
    (path / "bundle.json").write_text(json.dumps(manifest))
    return path


# who asks, and where the answer goes


def test_the_answer_goes_to_the_response_topic_with_what_was_sent_along(rig: Rig) -> None:
    answer = rig.ask("resume", request_id="my 7th")
    (message,) = rig.answers
    assert (message.topic, message.correlation, message.answer, message.retain) == (
        f"{ROOT}/answer/me",
        b"7",
        True,
        False,
    )
    assert (answer["ok"], answer["command"], answer["request_id"]) == (True, "resume", "my 7th")


def test_without_a_response_topic_the_answer_goes_to_the_lines_own(rig: Rig) -> None:
    rig.ask_raw("resume", b"", answer_to=None, correlation=None)
    (message,) = rig.answers
    assert (message.topic, message.correlation) == (f"{ROOT}/answer", None)


FORBIDDEN = [
    f"{ROOT}/left/verdict/reject",
    f"{ROOT}/status",
    f"{ROOT}/left/status",
    f"{ROOT}/left/defect",
    f"{ROOT}/command/golden/verdict/pass",
    f"{ROOT}/command/pause",
    f"{ROOT}/actuator/left/rejected",
    "rejectd/v1/other/left/verdict/reject",
    "rejectd/v1/other/answer/me",
    f"{ROOT}/answers/me",
    f"{ROOT}/answer",
    "rejectd",
    "plant/#",
    "plant/+/answer",
    "#",
    "$SYS/broker",
    "$share/group/plant",
    "plant\0",
]


def test_nobody_can_have_the_line_say_an_answer_in_the_place_of_a_verdict(rig: Rig) -> None:
    for topic in FORBIDDEN:
        answer = rig.ask_raw("pause", b"", answer_to=topic)
        assert rig.answers[-1].topic == f"{ROOT}/answer", topic
        assert answer["error"] == (
            f"the response topic is not allowed; use a topic below {ROOT}/answer/, or outside of rejectd/"
        )
    assert rig.pipeline.paused == {}, "and it is not carried out"


def test_an_answer_may_go_anywhere_else(rig: Rig) -> None:
    for topic in (f"{ROOT}/answer/me/and/more", "plant/answers", "rejectd2/x", "/rejectd/v1/l", " "):
        assert rig.ask_raw("resume", b"", answer_to=topic)["ok"]
        assert rig.answers[-1].topic == topic


def test_a_retained_command_is_refused_for_it_would_come_again_at_every_start(rig: Rig) -> None:
    answer = rig.ask_raw("pause", b"", retained=True)
    assert "retained command is not carried out" in answer["error"]
    assert "clear the retained message" in answer["error"]
    assert rig.pipeline.paused == {}


def test_a_wrong_request_is_answered_with_its_identity_and_all_mistakes(rig: Rig) -> None:
    answer = rig.ask("product", request_id="7", produkt="cell", cameras=[])
    assert (answer["ok"], answer["request_id"], answer["result"]) == (False, "7", None)
    assert [line.partition(":")[0] for line in answer["error"].splitlines()] == ["produkt", "product", "cameras"]


def test_whatever_comes_is_answered(rig: Rig) -> None:
    bodies = [b"", b"[", b"\xff", b"[1]", b"{" * 40_000, b'{"a":' * 300 + b"1" + b"}" * 300]
    names = ["snapshot", "threshold", "no such command", "", "x" * 300, "a/b"]
    for name, body in itertools.product(names, bodies):
        answer = rig.ask_raw(name, body)
        assert not answer["ok"]
        assert not answer["error"].startswith("failed:"), "that would be our own mistake"
        assert answer["command"] == name[:64]


def test_a_huge_request_is_answered_in_a_moment(rig: Rig) -> None:
    body = b'{"request_id": "7", "fill": ' + b"[" * 10_000_000 + b"]" * 10_000_000 + b"}"
    answer = rig.ask_raw("pause", body)
    assert "send 65536 at most" in answer["error"]


def test_too_many_commands_at_once_are_refused_at_once_and_the_others_are_carried_out(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    for number in range(20):  # the thread does not run yet, as if a long command were under way
        rig.send("resume", json.dumps({"request_id": str(number)}).encode())
    refused = [json.loads(message.payload) for message in rig.answers]
    assert [answer["request_id"] for answer in refused] == ["16", "17", "18", "19"]
    assert {answer["error"] for answer in refused} == {"too many commands wait; send it again later"}
    rig.start()
    wait_for(lambda: len(rig.answers) == 20, "every request is answered")
    assert all(json.loads(message.payload)["ok"] for message in rig.answers[4:])


def test_commands_that_wait_when_the_service_stops_are_answered_but_not_carried_out(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    for _ in range(3):
        rig.send("pause")
    rig.commands.stop()
    rig.end()
    assert [json.loads(message.payload)["error"] for message in rig.answers] == [
        "the service stops; send it again later"
    ] * 3
    assert rig.pipeline.paused == {}


def test_a_mistake_of_our_own_is_answered_and_the_next_command_is_carried_out(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    del rig.pipeline.__dict__["latest"]
    assert rig.error("snapshot", camera="left").startswith("failed: AttributeError")
    assert "command snapshot failed" in caplog.text
    assert rig.ask("resume")["ok"]


# pause and resume


def test_cameras_are_paused_and_resumed_and_a_restart_finds_them_so(rig: Rig) -> None:
    assert rig.ask("pause", cameras=["left"], action="pass")["result"] == {"paused": ["left"]}
    assert rig.pipeline.paused == {"left": Policy.PASS}
    assert rig.kept().paused == {"left": Order("pass", None)}
    assert rig.ask("pause")["result"] == {"paused": ["left", "right"]}
    assert rig.pipeline.paused == {"left": None, "right": None}, "the latest command counts"
    assert rig.ask("resume", cameras=["left"])["result"] == {"paused": ["right"]}
    assert rig.kept().paused == {"right": Order(None, None)}
    assert rig.ask("resume")["result"] == {"paused": []}
    assert rig.ask("resume")["result"] == {"paused": []}, "twice does no harm"
    assert rig.kept() == Standing()


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_an_unknown_camera_changes_nothing_and_the_known_ones_are_named(rig: Rig, name: str) -> None:
    rig.ask("pause", cameras=["right"])
    before = rig.state()
    assert rig.error(name, cameras=["left", "top"]) == "there is no camera 'top'; known cameras: left, right"
    assert rig.state() == before


def test_a_command_that_cannot_be_kept_is_in_force_and_said_in_the_log(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".standing.json").mkdir()
    assert rig.ask("pause", cameras=["left"])["ok"]
    assert "left" in rig.pipeline.paused
    assert "will not outlive a restart" in caplog.text


# threshold


def ordered(rig: Rig, product: str, value: float, configured: float | None) -> ThresholdOrder:
    """The order of a threshold for the bundle in force."""
    model = rig.inspector.models[product]
    return ThresholdOrder(value=value, configured=configured, bundle=model.digest, engine=model.engine)


def test_a_threshold_is_set_and_taken_back(rig: Rig) -> None:
    calibrated = rig.inspector.models["cell"].calibration.threshold
    expected = {"product": "cell", "before": calibrated, "after": 1.0, "calibrated": calibrated, "doubt": None}
    assert rig.ask("threshold", product="cell", threshold=1.0)["result"] == expected
    assert rig.inspector.models["cell"].threshold == 1.0
    assert rig.kept().thresholds == {"cell": ordered(rig, "cell", 1.0, None)}
    back = rig.ask("threshold", product="cell", threshold=None)["result"]
    assert (back["before"], back["after"]) == (1.0, calibrated)
    assert rig.kept().thresholds == {}
    assert rig.told == ["models", "models"], "the metrics show it"


def test_a_threshold_is_taken_back_to_the_one_of_the_settings(rig: Rig) -> None:
    assert rig.ask("threshold", product="wafer", threshold=0.7)["result"]["before"] == WAFER
    assert rig.kept().thresholds == {"wafer": ordered(rig, "wafer", 0.7, WAFER)}
    assert rig.ask("threshold", product="wafer", threshold=None)["result"]["after"] == WAFER


@pytest.mark.parametrize("name", ["threshold", "product", "golden"])
def test_an_unknown_product_changes_nothing_and_the_known_ones_are_named(rig: Rig, name: str) -> None:
    before = rig.state()
    more = {"threshold": 0.5} if name == "threshold" else {}
    assert rig.error(name, product="hat", **more) == "there is no product 'hat'; known products: cell, wafer"
    assert rig.state() == before


# changeover


def test_a_changeover_moves_cameras_to_a_product_after_its_known_pictures_were_checked(rig: Rig) -> None:
    result = rig.ask("product", product="wafer", cameras=["left"])["result"]
    assert result["cameras"] == {"left": {"before": "cell", "after": "wafer"}}
    assert result["bundle"] == rig.inspector.models["wafer"].digest
    assert {picture["kind"] for picture in result["golden"]} == {"good", "scratch"}
    assert rig.pipeline.products == {"left": "wafer", "right": "cell"}
    assert rig.kept().products == {"left": Order("wafer", "cell")}
    calibrated = rig.inspector.models["wafer"].calibration.threshold
    settings = {"before": WAFER, "after": WAFER, "calibrated": calibrated, "source": "settings", "why": None}
    assert result["threshold"] == settings
    back = rig.ask("product", product="cell", cameras=["left", "right"])["result"]["cameras"]
    assert back == {"left": {"before": "wafer", "after": "cell"}, "right": {"before": "cell", "after": "cell"}}


def test_a_new_bundle_for_a_product_is_put_in_force_and_stays_so_for_the_next_changeover(rig: Rig) -> None:
    old = rig.inspector.models["cell"]
    variant(rig, "cell-2")
    result = rig.ask("product", product="cell", bundle="cell-2")["result"]
    new = rig.inspector.models["cell"]
    assert result["bundle"] == new.digest != old.digest
    assert rig.kept().bundles == {"cell": Order("cell-2", "cell")}
    assert rig.ask("product", product="cell")["result"]["bundle"] == new.digest, "without a name it is the latest"
    assert rig.ask("product", product="cell", bundle="cell")["result"]["bundle"] == old.digest


def test_without_names_a_new_bundle_moves_no_camera_that_another_product_passes(rig: Rig) -> None:
    assert rig.ask("product", product="wafer", cameras=["left"])["ok"]
    variant(rig, "cell-2")
    result = rig.ask("product", product="cell", bundle="cell-2")["result"]
    assert result["cameras"] == {"right": {"before": "cell", "after": "cell"}}
    assert rig.pipeline.products == {"left": "wafer", "right": "cell"}
    assert rig.kept().products == {"left": Order("wafer", "cell"), "right": Order("cell", "cell")}


def test_a_product_that_passes_no_camera_needs_their_names(rig: Rig) -> None:
    before, loaded = rig.state(), set(rig.inspector._loaded)
    hint = "name those that it passes from now on, such as cameras=[left, right]"
    assert rig.error("product", product="wafer") == f"product wafer passes no camera now; {hint}"
    assert (rig.state(), set(rig.inspector._loaded)) == (before, loaded)


def test_a_threshold_that_was_ordered_for_one_bundle_ends_at_the_changeover_to_another(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    old = rig.inspector.models["cell"]
    rig.ask("threshold", product="cell", threshold=1.1)
    assert rig.ask("product", product="cell")["result"]["threshold"]["source"] == "order", "the same bundle"
    variant(rig, "cell-2")
    said = rig.ask("product", product="cell", bundle="cell-2")["result"]["threshold"]
    calibrated = old.calibration.threshold
    why = f"the threshold 1.1 was ordered for bundle {old.digest[:12]} on {old.engine}: it has ended"
    expected = {"before": 1.1, "after": calibrated, "calibrated": calibrated, "source": "calibration", "why": why}
    assert said == expected
    assert why in caplog.text
    assert rig.kept().thresholds == {}, "on the disk too"
    assert rig.inspector.models["cell"].threshold == calibrated
    rig.ask("product", product="cell", bundle="cell")
    assert rig.inspector.models["cell"].threshold == calibrated, "nor does it come back with its bundle"


def test_a_changeover_for_which_a_good_picture_would_be_rejected_is_refused(rig: Rig) -> None:
    rig.ask("threshold", product="cell", threshold=0.5)
    before = rig.state()
    text = rig.error("product", product="cell", cameras=["left"])
    assert "no changeover: the good picture of cell ended as reject with score" in text
    assert rig.state() == before


def test_a_changeover_for_which_a_known_defect_would_pass_is_refused(rig: Rig) -> None:
    rig.ask("threshold", product="cell", threshold=1.5)
    assert "no changeover: the scratch picture of cell ended as pass" in rig.error("product", product="cell")


def test_a_bundle_that_was_calibrated_for_more_false_rejects_can_be_put_in_force(rig: Rig) -> None:
    """Its calibration itself rejects known good pictures, which is what somebody has asked for."""
    path = variant(rig, "cell-2")
    scores = bundles_of_revdist.read(path).calibrations["openvino-cpu-float32"].scores
    calibration = conformal.calibrate(scores, 0.9, engine="openvino-cpu-float32", fingerprint="f")
    packing.recalibrate(bundles_of_revdist.read(path), calibration, {})
    result = rig.ask("product", product="cell", bundle="cell-2")["result"]
    assert result["threshold"]["after"] == calibration.threshold
    good = [picture for picture in result["golden"] if picture["kind"] == "good"]
    assert {picture["decision"] for picture in good} == {"reject", "pass"} or {
        picture["decision"] for picture in good
    } == {"reject"}
    assert all(picture["good"] for picture in result["golden"])
    assert {tuple(picture["right"]) for picture in good} >= {("pass", "reject")}


def test_a_threshold_of_the_settings_that_names_no_bundle_forbids_one_that_it_does_not_fit(
    rig: Rig,
) -> None:
    path = variant(rig, "wafer-2")
    scores = bundles_of_revdist.read(path).calibrations["openvino-cpu-float32"].scores
    calibration = conformal.calibrate(scores / 4, 0.1, engine="openvino-cpu-float32", fingerprint="f")
    packing.recalibrate(bundles_of_revdist.read(path), calibration, {})
    before = rig.state()
    text = rig.error("product", product="wafer", bundle="wafer-2", cameras=["left"])
    assert text.startswith("products.wafer.threshold 1 is not within 0.2")
    assert "add `threshold_for: " in text
    assert rig.state() == before


def test_a_replaced_model_is_put_away_once_no_frame_names_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changeover_module, "_MIXED_S", 0.0)
    old = rig.inspector.models["cell"]
    exposure = Exposure(captured_ns=time.monotonic_ns(), captured_unix_ns=1)
    pixels = np.zeros((*old.size, 3), np.uint8)
    frame = rig.ledger.open(
        exposure,
        camera="left",
        product="cell",
        policy=Policy.PASS,
        deadline_ns=600 * 10**9,
        pixels=pixels,
        model=old.key,
    )
    variant(rig, "cell-2")
    rig.ask("product", product="cell", bundle="cell-2")
    for _ in range(3):
        rig.changeover.unload()
    assert old.key in rig.inspector._loaded, "a frame that was prepared for it is still under way"
    rig.pipeline.enter(frame)
    wait_for(lambda: not rig.ledger.in_flight(), "the frame is judged")
    assert rig.sent.verdicts[-1].result
    assert rig.sent.verdicts[-1].result.bundle == old.digest, "by the model that it was prepared for"
    wait_for(lambda: old.key not in rig.inspector._loaded, "the old model is put away")
    assert rig.ask("golden", product="cell")["result"]["pictures"]


def test_a_model_that_comes_back_before_it_was_put_away_stays(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    old = rig.inspector.models["cell"].key
    variant(rig, "cell-2")
    for name in ("cell-2", "cell"):
        assert rig.ask("product", product="cell", bundle=name)["ok"]
    monkeypatch.setattr(changeover_module, "_MIXED_S", 0.0)
    wait_for(lambda: len(rig.inspector._loaded) == 2, "the other one is put away")
    assert rig.inspector.models["cell"].key == old
    assert rig.ask("golden", product="cell")["result"]["pictures"][0]["score"] is not None


def truncate(path: Path) -> None:
    weights = path / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


FAILING: dict[str, tuple[Callable[[dict[str, Any]], object], Callable[[Path], object], str]] = {
    "absent": (lambda manifest: None, shutil.rmtree, "is not a bundle; copy it there first"),
    "no manifest": (lambda manifest: None, lambda path: (path / "bundle.json").unlink(), "is not a bundle"),
    "truncated": (lambda manifest: None, truncate, "student.safetensors: differs from the manifest"),
    "no JSON": (lambda manifest: None, lambda path: (path / "bundle.json").write_text("{"), "not a bundle's manifest"),
    "of another teacher": (
        lambda manifest: manifest["teacher"].update(name="wide_resnet50_2"),
        lambda path: None,
        "trained with teacher wide_resnet50_2",
    ),
    "for another engine": (
        lambda manifest: manifest.update(calibrations={}),
        lambda path: None,
        "no calibration for engine",
    ),
    "disagrees": (
        lambda manifest: manifest["golden"][-1].update(score=manifest["golden"][-1]["score"] * 1.5),
        lambda path: None,
        "computes otherwise than the one that trained; the line goes on with what it had",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_changeover_that_fails_changes_nothing(rig: Rig, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, damage, message = FAILING[name]
    damage(variant(rig, "broken", change))
    rig.ask("pause", cameras=["right"])
    before, loaded = rig.state(), set(rig.inspector._loaded)
    assert message in rig.error("product", product="cell", bundle="broken", cameras=["left"])
    assert rig.state() == before
    assert rig.ask("golden", product="cell")["result"]["pictures"][0]["score"] is not None, "it judges as before"
    monkeypatch.setattr(changeover_module, "_MIXED_S", 0.0)
    wait_for(lambda: set(rig.inspector._loaded) == loaded, "what was loaded for nothing is forgotten")


def test_an_unknown_camera_is_found_before_anything_is_loaded(rig: Rig) -> None:
    variant(rig, "cell-2")
    loaded = set(rig.inspector._loaded)
    assert "there is no camera 'top'" in rig.error("product", product="cell", bundle="cell-2", cameras=["top"])
    assert set(rig.inspector._loaded) == loaded


# golden


def test_the_known_pictures_of_the_products_at_work_are_checked(rig: Rig) -> None:
    golden = rig.inspector.models["cell"].golden
    scores = {picture.kind: picture.expected for picture in golden}
    middle = (scores["good"] + scores["scratch"]) / 2
    assert rig.ask("threshold", product="cell", threshold=middle)["ok"]
    answer = rig.ask("golden")
    assert answer["ok"]
    pictures = answer["result"]["pictures"]
    assert [picture["product"] for picture in pictures] == ["cell"] * len(golden), "no camera looks at wafers"
    assert all(picture["good"] and picture["latency_ms"] > 0 for picture in pictures)
    assert {verdict.camera for verdict in rig.sent.verdicts} == {GOLDEN}


def test_a_golden_check_that_fails_is_an_error_with_all_that_was_seen(rig: Rig) -> None:
    rig.ask("threshold", product="cell", threshold=1000)
    answer = rig.ask("golden", product="cell")
    assert "scratch picture of cell ended as pass" in answer["error"]
    assert {picture["kind"]: picture["good"] for picture in answer["result"]["pictures"]} == {
        "good": True,
        "scratch": False,
    }


# snapshot


def a_picture(**fields: Any) -> Picture:
    pixels = np.random.default_rng(1).integers(0, 256, (700, 1400, 3), np.uint8)
    given = {"pixels": pixels, "captured_ns": 1, "captured_unix_ns": 1_700_000_000 * 10**9, "source": "7.png"}
    return Picture(**{**given, **fields})


def test_a_snapshot_shows_the_latest_picture_and_keeps_it_whole(rig: Rig) -> None:
    rig.pipeline.latest["left"] = a_picture()
    result = rig.ask("snapshot", camera="left")["result"]
    jpeg = cv2.imdecode(np.frombuffer(base64.b64decode(result["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert jpeg.shape == (320, 640, 3)
    assert (result["width"], result["height"], result["source"]) == (1400, 700, "7.png")
    assert result["captured_at"] == "2023-11-14T22:13:20.000000Z"
    kept = cv2.cvtColor(cv2.imread(str(rig.evidence_folder / result["evidence"])), cv2.COLOR_BGR2RGB)
    assert np.array_equal(kept, a_picture().pixels)


def test_a_snapshot_is_as_small_as_the_broker_needs_it_and_says_so_where_none_fits(rig: Rig) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 1400, 3), np.uint8)
    rig.pipeline.latest["left"] = a_picture(pixels=noise)
    rig.largest_packet = 20_000
    result = rig.ask("snapshot", camera="left")["result"]
    assert len(rig.answers[-1].payload) < 20_000
    jpeg = cv2.imdecode(np.frombuffer(base64.b64decode(result["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
    assert 100 < jpeg.shape[1] < 640
    assert (result["width"], result["height"]) == (1400, 700), "of the picture that is kept"
    rig.largest_packet = 2500
    said = rig.error("snapshot", camera="left")
    assert said.startswith("no picture fits into the 2500 bytes that the broker takes; raise the broker's limit")
    assert "it is kept as evidence: " in said


def test_a_snapshot_needs_no_evidence_folder(make: Callable[..., Rig]) -> None:
    rig = make(evidence=False)
    rig.start()
    rig.pipeline.latest["left"] = a_picture(source="")
    result = rig.ask("snapshot", camera="left")["result"]
    assert (result["evidence"], result["source"]) == (None, None)
    assert result["jpeg"]


def test_without_a_picture_there_is_no_snapshot_and_the_reason_is_said(rig: Rig) -> None:
    assert rig.error("snapshot", camera="left") == "camera left: no picture yet; try again when a part has passed"
    rig.pipeline.latest["left"] = a_picture(pixels=None, fault="the lens is dirty")
    assert rig.error("snapshot", camera="left").startswith("camera left: the lens is dirty")
    assert rig.error("snapshot", camera="top") == "there is no camera 'top'; known cameras: left, right"


def test_a_disk_that_takes_no_snapshot_is_told(rig: Rig) -> None:
    rig.pipeline.latest["left"] = a_picture()
    assert rig.recorder.tried.wait(10)
    rig.evidence_folder.rmdir()
    rig.evidence_folder.write_text("a file")
    assert "evidence cannot be written" in rig.error("snapshot", camera="left")


# replay


@pytest.fixture
def acknowledged(rig: Rig) -> Rig:
    """Ten events that the broker has had."""
    events = [NewEvent(event_id=f"e{number}", topic="t", payload={}) for number in range(10)]
    rig.recorder.ask(lambda: rig.outbox.write(Entries(events=events)), 10)
    rig.recorder.ask(lambda: rig.outbox.write(Entries(acknowledged=range(1, 11))), 10)
    return rig


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"from_seq": 3, "to_seq": 5}, (3, 3, 5)),
        ({"from_seq": 8}, (3, 8, 10)),
        ({"to_seq": 2}, (2, 1, 2)),
        ({"since": "2020-01-01T00:00Z"}, (10, 1, 10)),
        ({"since": "2020-01-01T00:00:00.5+01:00", "from_seq": 10}, (1, 10, 10)),
        ({"until": "2020-01-01T00:00Z"}, (0, None, None)),
        ({"until": "9999-12-31T23:59Z"}, (10, 1, 10)),
        ({"since": "0001-01-01T00:00Z"}, (10, 1, 10)),
        ({"from_seq": 11}, (0, None, None)),
    ],
)
def test_acknowledged_events_are_marked_to_be_sent_once_more(
    acknowledged: Rig, bounds: dict[str, Any], expected: tuple[int, int | None, int | None]
) -> None:
    result = acknowledged.ask("replay", **bounds)["result"]
    assert (result["events"], result["from_seq"], result["to_seq"]) == expected
    assert "events" in acknowledged.told, "the publisher looks at once"


@pytest.mark.parametrize("until", ["2026-13-01T00:00Z", "2026-11-25T25:00Z", "0000-01-01T00:00Z"])
def test_what_looks_like_a_time_but_is_none_is_refused_with_an_example(acknowledged: Rig, until: str) -> None:
    text = acknowledged.error("replay", until=until)
    assert text == f"'{until}' is not a time; give one such as 2026-11-25T06:00Z"


def test_a_replay_of_everything_must_be_meant(acknowledged: Rig) -> None:
    assert acknowledged.error("replay") == "which events?; give from_seq, to_seq, since or until"
    assert acknowledged.told == []


def test_a_disk_that_is_too_busy_is_told(acknowledged: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(showing, "_DISK_S", 0.05)
    hangs = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(hangs.set)
        waiter = threading.Thread(target=acknowledged.recorder.ask, args=(lambda: hangs.wait(20), 20))
        waiter.start()
        stack.callback(waiter.join)
        text = acknowledged.error("replay", from_seq=1)
        assert text == "the disk is too busy; try again later; see the service's log"
        hangs.set()


def test_an_order_of_the_page_is_answered_there_and_stands_in_the_journal_with_the_person_s_name(rig: Rig) -> None:
    answers: list[dict[str, Any]] = []
    body = json.dumps({"product": "cell", "threshold": 0.6}).encode()
    rig.commands.order("threshold", body, by="anna", reply=lambda answer: answers.append(json.loads(answer)))
    wait_for(lambda: answers, "the answer")
    contract.validate(f"{ROOT}/answer", json.dumps(answers[0]).encode())
    assert answers[0]["result"]["after"] == 0.6
    assert rig.answers == [], "nothing of it goes over MQTT"
    assert rig.recorder.wait(10)
    with contextlib.closing(sqlite3.connect(rig.outbox.path)) as db:
        assert db.execute("SELECT what, subject, changed_by FROM change").fetchall() == [
            ("threshold", "cell", "threshold by anna")
        ]


def test_a_wrong_order_of_the_page_is_refused_like_one_over_mqtt(rig: Rig) -> None:
    answers: list[dict[str, Any]] = []
    rig.commands.order("threshold", b'{"product": "x"}', by="anna", reply=lambda text: answers.append(json.loads(text)))
    wait_for(lambda: answers, "the answer")
    assert not answers[0]["ok"]
    assert answers[0]["error"] == rig.error("threshold", product="x")
