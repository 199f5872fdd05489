"""GigE Vision and USB3 Vision cameras, through Aravis 0.8."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from typing import Any

from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam import network
from rejectd.cameras.genicam.aravis_features import AravisFeatures, glib_error
from rejectd.cameras.genicam.link import Buffer
from rejectd.contract.messages import StreamCounts
from rejectd.contract.settings import AravisCamera

_log = logging.getLogger(__name__)

_BUFFERS_MB = 256  # memory for pictures on their way
_BUFFERS = (4, 32)  # at least, at most
_LATE_NS = 10_000_000_000  # an arrival that lies further back was stamped by a clock that has been set since
_LISTING = threading.Lock()  # the library keeps one list of cameras for the whole process
_TAKEN = "another program controls the camera: end it, or wait some seconds until the camera has let go of it"
_STATUS = {
    "MISSING_PACKETS": "packets were lost",
    "TIMEOUT": "packets were lost",
    "SIZE_MISMATCH": "its size is not what the camera announced",
    "WRONG_PACKET_ID": "its packets are numbered wrongly",
    "ABORTED": "the stream was stopped",
}


def bindings() -> Any:
    """Aravis. Raises CameraError with how to install it."""
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ImportError, ValueError) as error:
        raise CameraError(
            f"cameras of type aravis need Aravis 0.8, which is not installed: {error}",
            hint="on Debian and Ubuntu: `apt install gir1.2-aravis-0.8 libgirepository1.0-dev libcairo2-dev pkg-config"
            " gcc python3-dev`, then `pip install 'rejectd[aravis]'`",
        ) from error
    return Aravis


class AravisLink:
    """The way to one camera."""

    first_number = 1

    def __init__(self, settings: AravisCamera) -> None:
        self.shown = f"camera {settings.camera}"
        self._settings = settings
        self._camera: Any = None
        self._stream: Any = None
        self._lost = threading.Event()
        self._handler = 0
        self._told = False
        self._packets_before = 0  # that were missing in all
        self._after_loss = 0  # pictures taken since control was lost: those that waited, even if more keep coming

    def connect(self) -> AravisFeatures:
        """Take control of the camera. Raises CameraError."""
        self._aravis, glib = bindings(), glib_error()
        self._lost, self._after_loss = threading.Event(), 0
        try:
            self._camera = self._aravis.Camera.new(self._device_id())
        except glib as error:
            hint = network.obstacle(self._settings.camera) or _why_not(error.message)
            raise CameraError(f"{self.shown}: {error.message}", hint=hint) from None
        if self._camera.is_gv_device() and not self._camera.get_device().is_controller():
            self.close()
            raise CameraError(f"{self.shown}: it lets itself be looked at, not controlled", hint=_TAKEN)
        lost = self._lost
        self._handler = self._camera.get_device().connect("control-lost", lambda *_: lost.set())
        self.first_number = 1 if self._camera.is_gv_device() else 0
        return AravisFeatures(self._camera, self.shown)

    def start(self) -> None:
        """Set the packets up, and start the stream. Raises CameraError."""
        camera, settings = self._camera, self._settings
        try:
            if camera.is_gv_device():
                if settings.packet_size is not None:
                    if obstacle := network.too_large(settings.camera, settings.packet_size):
                        raise CameraError(f"{self.shown}: its pictures would not arrive", hint=obstacle)
                    camera.gv_set_packet_size(settings.packet_size)
                if settings.packet_delay_us is not None:
                    camera.gv_set_packet_delay(round(settings.packet_delay_us * 1000))
            elif settings.packet_size is not None or settings.packet_delay_us is not None:
                raise CameraError(
                    f"{self.shown}: it is no GigE Vision camera", hint="remove `packet_size` and `packet_delay_us`"
                )
            self._stream = camera.create_stream(None, None)
            payload = camera.get_payload()
            if camera.is_gv_device():
                self._tell_of_network(payload, camera.gv_get_packet_size())
            most = _BUFFERS_MB * 1_000_000 // max(payload, 1)
            for _ in range(min(max(most, _BUFFERS[0]), _BUFFERS[1])):
                self._stream.push_buffer(self._aravis.Buffer.new_allocate(payload))
            self._packets_before = 0
            camera.start_acquisition()
        except glib_error() as error:
            raise CameraError(
                f"{self.shown}: it does not start: {error.message}", hint=_why_not(error.message)
            ) from None

    def fetch(self, timeout_s: float) -> Buffer | None:
        """The next buffer as it came. Raises CameraError when the camera no longer answers."""
        lost = self._lost.is_set()
        self._after_loss += lost
        buffer = self._stream.timeout_pop_buffer(0 if lost else round(timeout_s * 1e6))
        now_ns, now_unix_ns = time.monotonic_ns(), time.time_ns()
        if buffer is None or self._after_loss > _BUFFERS[1]:
            if lost:
                raise CameraError(
                    f"{self.shown}: the camera no longer answers, or another program controls it",
                    hint="look at its power, its cable and its address",
                )
            return None
        try:
            return self._taken(buffer, now_ns, now_unix_ns)
        finally:
            # where the first packet of a frame is lost, Aravis leaves in the buffer what it held before
            buffer.set_frame_id(0)
            buffer.set_timestamp(0)
            buffer.set_system_timestamp(0)
            self._stream.push_buffer(buffer)

    def counts(self) -> StreamCounts:
        """What Aravis counted."""
        stream = self._stream
        return StreamCounts(
            resent_packets=_count(stream, "n_resent_packets"),
            missing_packets=_count(stream, "n_missing_packets"),
            underruns=_count(stream, "n_underruns"),
            failures=_count(stream, "n_failures"),
        )

    def close(self) -> None:
        """Stop the stream and give control back. Takes some seconds if the camera no longer answers."""
        camera, self._camera = self._camera, None
        stream, self._stream = self._stream, None
        handler, self._handler = self._handler, 0
        if camera is None:
            return
        if handler:
            camera.get_device().disconnect(handler)
        if stream is not None and not self._lost.is_set():
            try:
                camera.stop_acquisition()
            except glib_error():
                return  # it has gone meanwhile: there is nothing to stop

    def _tell_of_network(self, payload: int, packet_bytes: int) -> None:
        """Log once what may cost packets."""
        wanted, told = self._settings.camera, self._told
        self._told = True
        advice = (network.small_buffer(payload), network.too_large(wanted, packet_bytes), network.filtered(wanted))
        for text in advice if not told else ():
            if text:
                _log.warning("%s: packets may be lost: %s", self.shown, text)

    def _device_id(self) -> str:
        """How Aravis finds the camera. A serial number is looked up; addresses and user-defined names it knows."""
        wanted = self._settings.camera
        try:
            ipaddress.ip_address(wanted)
        except ValueError:
            with _LISTING:
                self._aravis.update_device_list()
                for index in range(self._aravis.get_n_devices()):
                    if wanted in (
                        self._aravis.get_device_serial_nbr(index),
                        self._aravis.get_device_id(index),
                        self._aravis.get_device_physical_id(index),
                    ):
                        return str(self._aravis.get_device_id(index))
        return wanted

    def _taken(self, buffer: Any, now_ns: int, now_unix_ns: int) -> Buffer:
        status = buffer.get_status().value_name.removeprefix("ARV_BUFFER_STATUS_")
        good = status == "SUCCESS"
        came_ns = now_unix_ns - int(buffer.get_system_timestamp())
        fault = ""
        if not good:
            missing, before = _count(self._stream, "n_missing_packets"), self._packets_before
            self._packets_before = missing
            lost = f"{missing - before} packets were missing" if missing > before else _STATUS.get(status, status)
            fault = f"the picture is not whole: {lost}"
        return Buffer(
            data=bytes(buffer.get_data()) if good else b"",
            code=buffer.get_image_pixel_format() & 0xFFFFFFFF if good else 0,
            width=buffer.get_image_width() if good else 0,
            height=buffer.get_image_height() if good else 0,
            padding=buffer.get_image_padding()[0] if good else 0,
            number=int(buffer.get_frame_id()) if good or buffer.get_frame_id() else None,
            stamp_ns=int(buffer.get_timestamp()),
            arrived_ns=now_ns - (came_ns if 0 <= came_ns < _LATE_NS else 0),
            fault=fault,
        )


def _count(stream: Any, name: str) -> int:
    return int(stream.get_info_uint64_by_name(name))


def _why_not(message: str) -> str:
    """What a person can do about an error of the library."""
    if "access-denied" in message or "Access denied" in message or "access denied" in message:
        return _TAKEN
    if "not found" in message or "connect" in message:
        return (
            "is it switched on and plugged in? Its address must lie in the same subnet as the network card that it"
            " is plugged into; `arv-tool-0.8` lists the cameras that answer"
        )
    return "look at its power, its cable and its address; `arv-tool-0.8` lists the cameras that answer"
