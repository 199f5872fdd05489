"""What many tests need: real photographs, a tiny bundle trained on them, a real broker."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from peers import SYSTEM_PYTHON, Mosquitto, RtspServer, need_peer
from photographs import photographs, train_tiny


@pytest.fixture(scope="session", autouse=True)
def runtime_directory() -> Iterator[None]:
    """A folder in memory for what services keep there, which ends with the tests."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        patch.setenv("RUNTIME_DIRECTORY", directory)
        yield


@pytest.fixture(scope="session")
def cells() -> list[Path]:
    """Real electroluminescence photographs of functional monocrystalline solar cells, 300 x 300 grey PNG."""
    return photographs(0)


@pytest.fixture(scope="session")
def defective_cells() -> list[Path]:
    """The same of surely defective cells."""
    return photographs(1)


@pytest.fixture(scope="session")
def bundle(cells: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle for product `cell`, trained by the command as a user would: small pictures, few steps."""
    return train_tiny(tmp_path_factory.mktemp("bundle"), cells[:40], size=64, seed=1)


@pytest.fixture(scope="session")
def other_bundle(cells: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, for product `cell` too, that sees pictures of another size."""
    return train_tiny(tmp_path_factory.mktemp("bundle"), cells[40:80], size=96, seed=2)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real broker."""
    directory = tmp_path / "mosquitto"
    directory.mkdir()
    broker = Mosquitto(directory)
    yield broker
    broker.stop()


@pytest.fixture
def mosquitto_with(tmp_path: Path) -> Iterator[Callable[[str], Mosquitto]]:
    """Makes real brokers with settings of their own."""
    brokers: list[Mosquitto] = []

    def make(settings: str) -> Mosquitto:
        directory = tmp_path / f"mosquitto{len(brokers)}"
        directory.mkdir()
        brokers.append(Mosquitto(directory, settings))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.stop()


@pytest.fixture(scope="session")
def v4l2_device(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which /dev/zero is a Video4Linux device (v4l2_device.c)."""
    compiler = shutil.which("cc")
    need_peer(compiler, "a C compiler")
    library = tmp_path_factory.mktemp("v4l2") / "device.so"
    source = Path(__file__).parent / "support" / "v4l2_device.c"
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "V4L2_DEVICE": "/dev/zero"}


@pytest.fixture
def rtsp() -> Iterator[Callable[..., RtspServer]]:
    """Starts real RTSP servers."""
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')"
    there = subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True).returncode == 0
    need_peer(there, "the GStreamer RTSP server (gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-*)")
    started: list[RtspServer] = []

    def start(codec: str = "h264", login: tuple[str, str] | None = None) -> RtspServer:
        started.append(RtspServer(codec, login))
        return started[-1]

    yield start
    for server in started:
        server.kill()
