"""rejectd.cli.check and rejectd.cli.places: what would go wrong is said before it does, and nothing is left behind."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from access import documented_access, guarded
from line import LINE, ROOT, digest
from peers import Mosquitto, need_peer
from PIL import Image

from rejectd.cameras import CameraError
from rejectd.cli import places
from rejectd.cli.check import _bundles, _camera, _fitting
from rejectd.cli.places import PlaceError
from rejectd.contract.messages import RejectdError
from rejectd.contract.settings import (
    Commands,
    Device,
    Engine,
    Evidence,
    FolderCamera,
    FolderMode,
    Metrics,
    Mqtt,
    Product,
    Protocol,
    Settings,
)
from rejectd.inspector import Model
from rejectd.mqtt import RightsError, connect, try_rights


def settings(directory: Path, **groups: object) -> Settings:
    """Of a line with two cameras."""
    return Settings(
        line=LINE,
        cameras={name: FolderCamera(product="cell", path=directory) for name in ("a", "b")},
        products={"cell": Product(bundle=directory)},
        state_directory=directory / "state",
        **groups,  # type: ignore[arg-type]
    )


def as_nobody(work: Callable[[], str]) -> str:
    """What it says, without the rights of root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        return work()
    except RejectdError as error:
        return str(error)
    finally:
        if root:
            os.seteuid(0)


# the evidence folder


def test_an_evidence_folder_is_tried_and_left_as_it_is(tmp_path: Path) -> None:
    wanted = settings(tmp_path, evidence=Evidence(quota_mb=10))
    said = places.evidence(wanted, tmp_path / "line.yaml")
    assert said.startswith(f"{tmp_path}/state/evidence can be written, ")
    assert list(tmp_path.iterdir()) == []
    assert "set evidence.quota_mb lower" in places.evidence(
        settings(tmp_path, evidence=Evidence(quota_mb=10**8)), tmp_path / "line.yaml"
    )
    assert places.evidence(settings(tmp_path, evidence=Evidence(enabled=False)), tmp_path) == "off"


def test_an_evidence_folder_that_cannot_be_written_is_named_with_the_cause(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "evidence"
    folder.mkdir(mode=0o755)
    wanted = settings(tmp_path, evidence=Evidence(directory=folder))
    said = as_nobody(lambda: places.evidence(wanted, tmp_path / "line.yaml"))
    assert f"evidence: {folder}: cannot be written: " in said
    (tmp_path / "file").touch()
    under_file = settings(tmp_path, evidence=Evidence(directory=tmp_path / "file" / "evidence"))
    with pytest.raises(PlaceError, match="is a file"):
        places.evidence(under_file, tmp_path / "line.yaml")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "rejectd-test", str(folder)]
    need_peer(os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0, "mounting")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_evidence_folder_on_a_read_only_disk_is_named(read_only: Path, tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match=r"Read-only file system: .* can only be read; choose another place"):
        places.evidence(settings(tmp_path, evidence=Evidence(directory=read_only / "e")), tmp_path / "line.yaml")


# the port of the metrics


class Page(http.server.BaseHTTPRequestHandler):
    """A page of metrics with two cameras."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for camera in ("a", "b"):
            self.wfile.write(f'rejectd_frames_captured_total{{camera="{camera}"}} 3.0\n'.encode())

    def log_message(self, *_arguments: object) -> None:
        """Not into the output of the tests."""


def _hang_up(server: socket.socket) -> None:
    """On the next caller."""
    connection, _ = server.accept()
    connection.close()


def test_a_port_is_free_or_ours_or_another_s(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        threading.Thread(target=_hang_up, args=[taken], daemon=True).start()
        with pytest.raises(PlaceError, match=r"another program has the port; choose another metrics\.port"):
            places.metrics(settings(tmp_path, metrics=Metrics(port=port)))
    assert places.metrics(settings(tmp_path, metrics=Metrics(port=port))) == f"127.0.0.1:{port} is free"
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        wanted = settings(tmp_path, metrics=Metrics(port=server.server_port))
        assert places.metrics(wanted).endswith("is served by this line's service already")
        others = wanted.model_copy(update={"cameras": {"c": wanted.cameras["a"]}})
        with pytest.raises(PlaceError, match="a rejectd with other cameras has the port"):
            places.metrics(others)
        server.shutdown()
    with pytest.raises(PlaceError, match="this machine has no such address"):
        places.metrics(settings(tmp_path, metrics=Metrics(host="192.0.2.7")))


# rights at the broker


def test_the_documented_access_list_passes_and_what_it_lacks_is_named_with_the_line_to_add(
    mosquitto_with: Callable[[str], Mosquitto], tmp_path: Path
) -> None:
    access = documented_access()
    for lacking in ("", f"topic write {ROOT}/+/verdict/+", f"topic write {ROOT}/answer/#"):
        (directory := tmp_path / f"without-{len(lacking)}").mkdir()
        broker = guarded(mosquitto_with, directory, access=access.replace(f"{lacking}\n", "") if lacking else access)
        mqtt = Mqtt(port=broker.port, username="rejectd", password_file=directory / "rejectd.password")
        link = connect(mqtt, client_id="check")
        if not lacking:
            assert try_rights(link, LINE, mqtt) == "lets the service publish and hear"
        else:
            with pytest.raises(RightsError) as refused:
                try_rights(link, LINE, mqtt)
            assert "does not let user rejectd publish on" in str(refused.value)
            assert str(refused.value).endswith(f"its access list needs: {lacking}")
        link.close()


def test_trying_the_rights_says_nothing_that_anybody_could_take_for_a_verdict_and_keeps_nothing(
    mosquitto: Mosquitto,
) -> None:
    mqtt = Mqtt(port=mosquitto.port, commands=Commands.ANONYMOUS)
    topics: list[str] = []
    watching = connect(mqtt, client_id="watching")
    watching.subscribe("#")
    link = connect(mqtt, client_id="check")
    try_rights(link, LINE, mqtt)
    for _ in range(20):
        watching.wait(0.05)
    for message in watching.received:
        topics.append(message.topic)
        assert not message.retained
        assert b"rejectd.cli.check.v1" in message.payload
        assert not message.topic.endswith(("/pass", "/reject", "/unjudged", f"{LINE}/status"))
    assert len(topics) == 5
    late = connect(mqtt, client_id="late")
    late.subscribe("#")
    for _ in range(10):
        late.wait(0.05)
    assert late.received == [], "nothing is retained"
    for each in (watching, link, late):
        each.close()


def test_an_old_mqtt_cannot_tell(mosquitto: Mosquitto) -> None:
    mqtt = Mqtt(port=mosquitto.port, protocol=Protocol.V311)
    link = connect(mqtt, client_id="check")
    assert try_rights(link, LINE, mqtt) == "does not say what may be published"
    link.close()


# pictures


def test_a_region_beyond_the_picture_and_a_camera_of_another_shape_are_named(tmp_path: Path) -> None:
    whole = FolderCamera(product="cell", path=tmp_path)
    part = whole.model_copy(update={"region": (100, 100, 400, 300)})
    assert _fitting(whole, (300, 400, 3), (600, 800)).endswith(
        "made with pictures of 800 x 600: is that the same camera?"
    )
    assert _fitting(whole, (300, 400, 3), (300, 400)) == "400 x 300 pixels"
    assert _fitting(part, (480, 640, 3), (300, 400)) == "640 x 480 pixels, of which the region has 400 x 300"
    assert _fitting(whole, (300, 400, 3), None).endswith("the bundle does not say what pictures it was made with")
    with pytest.raises(CameraError, match=r"the region \[100, 100, 400, 300\] exceeds the picture of 400 x 300 pixels"):
        _fitting(part, (300, 400, 3), (300, 400))
    with pytest.raises(
        CameraError, match="1920 x 1080 pixels, but the bundle was made with pictures of 300 x 300; set"
    ):
        _fitting(whole, (1080, 1920, 3), (300, 300))


@pytest.mark.parametrize(("value", "said"), [(1, "black"), (255, "saturated"), (90, "of one colour")])
def test_a_picture_in_which_nothing_can_be_seen_is_named(tmp_path: Path, value: int, said: str) -> None:
    Image.fromarray(np.full((30, 40, 3), value, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(CameraError, match=f"the picture is {said}: its values are {value} to {value}"):
        _camera(FolderCamera(product="cell", path=tmp_path), None)


@pytest.mark.parametrize("mode", FolderMode)
def test_a_picture_of_12_bits_in_a_16_bit_file_is_named_with_the_setting(tmp_path: Path, mode: FolderMode) -> None:
    deep = np.linspace(0, 4095, 1200).astype(np.uint16).reshape(30, 40)
    Image.fromarray(deep).save(tmp_path / "a.png")
    with pytest.raises(CameraError, match=r"looks like 12-bit data.*unjudged"):
        _camera(FolderCamera(product="cell", path=tmp_path, mode=mode), None)
    assert _camera(FolderCamera(product="cell", path=tmp_path, mode=mode, bits=12), None)


def test_a_picture_much_darker_than_those_trained_with_is_told(bundle: Path, tmp_path: Path) -> None:
    models: dict[str, Model] = {}
    line = settings(tmp_path).model_copy(
        update={"products": {"cell": Product(bundle=bundle)}, "engine": Engine(device=Device.CPU)}
    )
    assert all(works for works, _ in _bundles(line, models))
    low, *_, high = models["cell"].looks["brightness"]
    for mean, said in ((low / 4, "much darker than every picture trained with"), ((low + high) / 2, "")):
        picture = np.full((300, 300, 3), round(mean) - 2, np.uint8)
        picture[::2] += 4
        Image.fromarray(picture).save(tmp_path / "a.png")
        told = _camera(FolderCamera(product="cell", path=tmp_path), models["cell"])
        assert said in told
        assert ("darker" in told, "brighter" in told) == (bool(said), False)


# a watched folder


@pytest.mark.parametrize(("mode", "said"), [(0o755, " is watched, on this machine"), (0o311, "cannot be watched")])
def test_a_watched_folder_is_listed_and_it_is_said_whose_clock_counts(mode: int, said: str) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "hot"
        for path, permissions in ((Path(parent), 0o755), (folder, mode)):
            path.mkdir(exist_ok=True)
            path.chmod(permissions)
        camera = FolderCamera(product="cell", path=folder, mode=FolderMode.WATCH)
        assert said in as_nobody(lambda: _camera(camera, None))


# thresholds


def test_a_threshold_is_told_with_who_says_it_and_refused_where_it_is_not_meant_for_the_bundle(bundle: Path) -> None:
    def said(**of_product: object) -> tuple[bool, str]:
        made = Product(bundle=bundle, **of_product)  # type: ignore[arg-type]
        line = settings(bundle).model_copy(
            update={"products": {"cell": made}, "engine": Engine(device=Device.CPU, threads=1)}
        )
        ((works, text),) = _bundles(line, {})
        return works, text

    works, text = said()
    assert works
    assert "(calibration), golden pictures agree" in text
    works, text = said(threshold=1.0)
    assert works
    assert "threshold 1 (settings), golden pictures agree" in text
    works, text = said(threshold=123)
    assert not works
    assert "product cell: products.cell.threshold 123 is not within 0.82" in text
    works, text = said(threshold=123, threshold_for="0" * 8)
    assert not works
    assert "is for bundle 00000000, but" in text
    assert said(threshold=123, threshold_for=digest(bundle))[0]
