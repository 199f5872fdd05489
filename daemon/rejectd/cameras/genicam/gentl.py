"""Any camera whose maker has a GenTL producer, through harvesters."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rejectd.cameras.driver import CameraError
from rejectd.cameras.genicam.features import Feature, Kind, Value
from rejectd.cameras.genicam.link import Buffer
from rejectd.contract.messages import StreamCounts
from rejectd.contract.settings import GentlCamera

_BUFFERS = 16  # pictures on their way
_KINDS = {
    "IInteger": Kind.INTEGER,
    "IFloat": Kind.FLOAT,
    "IBoolean": Kind.BOOLEAN,
    "IEnumeration": Kind.CHOICE,
    "ICommand": Kind.COMMAND,
    "IString": Kind.TEXT,
}
_LOADED = threading.Lock()  # a producer can be loaded once in a process: guards what follows
_harvesters: dict[Path, Any] = {}
_open: Counter[Path] = Counter()  # cameras of each producer


def bindings() -> tuple[Any, tuple[type[Exception], ...]]:
    """The module harvesters.core, and the errors that it raises. Raises CameraError with how to install it."""
    try:
        from genicam import genapi, gentl
        from harvesters import core
    except ImportError as error:
        raise CameraError(
            f"cameras of type gentl need harvesters, which is not installed: {error}",
            hint="`pip install 'rejectd[gentl]'`",
        ) from error
    return core, (gentl.GenericException, genapi.GenericException)


class GentlLink:
    """The way to one camera."""

    first_number = 1

    def __init__(self, settings: GentlCamera) -> None:
        self.shown = f"camera {settings.camera}"
        self._settings = settings
        self._acquirer: Any = None
        self._broken = 0  # pictures that came in part, and of which nothing else is known

    def connect(self) -> GentlFeatures:
        """Take control of the camera. Raises CameraError."""
        self._core, self._errors = bindings()
        try:
            with _LOADED:
                harvester = self._producer()
                if not _open[self._settings.producer]:
                    harvester.update()  # it closes every camera of the producer
                self._acquirer = harvester.create(self._index(harvester.device_info_list))
                _open[self._settings.producer] += 1
        except self._errors as error:
            hint = "does another program have it? Look at its power, its cable and its address"
            raise CameraError(f"{self.shown}: {_first_line(error)}", hint=hint) from None
        self._acquirer.num_buffers = max(_BUFFERS, self._acquirer.min_num_buffers)
        self._acquirer.add_callback(self._acquirer.Events.INCOMPLETE_BUFFER, self._callback())
        return GentlFeatures(self._acquirer.remote_device.node_map, self.shown, self._errors)

    def start(self) -> None:
        """Start the stream. Raises CameraError."""
        try:
            self._acquirer.start()
        except self._errors as error:
            raise CameraError(f"{self.shown}: it does not start: {_first_line(error)}") from None

    def fetch(self, timeout_s: float) -> Buffer | None:
        """The next picture, or what is left of it. Raises CameraError when the camera is gone."""
        try:
            fetched = self._acquirer.try_fetch(timeout=timeout_s)
            now_ns = time.monotonic_ns()
            if fetched is None:
                return self._in_part(now_ns)
            try:
                return self._taken(fetched, now_ns)
            finally:
                fetched.queue()
        except self._errors as error:
            raise self._lost(error) from None

    def came_in_part(self) -> None:
        """Note that harvesters has thrown a picture away."""
        self._broken += 1

    def counts(self) -> StreamCounts:
        """What the producer counted; packets are its own affair."""
        try:
            streams = self._acquirer.data_streams
            return StreamCounts(
                underruns=sum(_or(0, lambda s=stream: s.num_underrun, self._errors) for stream in streams)
            )
        except self._errors as error:
            raise self._lost(error) from None

    def close(self) -> None:
        """Stop the stream and give control back."""
        acquirer, self._acquirer = self._acquirer, None
        if acquirer is None:
            return
        with _LOADED:
            _open[self._settings.producer] -= 1
            try:
                acquirer.destroy()
            except self._errors:
                return  # it has gone meanwhile

    def _producer(self) -> Any:
        path = self._settings.producer
        if path not in _harvesters:
            if not path.is_file():
                hint = "install the software of the camera's maker, and name its file that ends in .cti"
                raise CameraError(f"{self.shown}: {path}: there is no such producer", hint=hint)
            harvester = self._core.Harvester()
            harvester.add_file(str(path))
            _harvesters[path] = harvester
        return _harvesters[path]

    def _index(self, cameras: Iterable[Any]) -> int:
        seen = []
        for index, info in enumerate(cameras):
            names = [
                _or("", lambda i=info, n=name: getattr(i, n), self._errors)
                for name in ("id_", "serial_number", "user_defined_name")
            ]
            if self._settings.camera in names:
                return index
            seen.append(names[0])
        hint = f"those that answer are {', '.join(seen)}" if seen else "no camera answers at all"
        if _open[self._settings.producer]:
            hint += "; new ones are looked for only while no camera of this producer is open"
        raise CameraError(f"{self.shown}: no such camera answers", hint=hint)

    def _callback(self) -> Any:
        link = self

        class Count(self._core.Callback):  # type: ignore[misc, name-defined]
            """Harvesters throws pictures away that came in part, and tells this."""

            def emit(self, context: object = None) -> None:  # noqa: ARG002 - as harvesters calls it
                link.came_in_part()

        return Count()

    def _in_part(self, now_ns: int) -> Buffer | None:
        if not self._broken:
            return None
        self._broken -= 1
        return Buffer(
            data=b"", code=0, width=0, height=0, number=None, stamp_ns=0, arrived_ns=now_ns,
            fault="the picture is not whole",
        )  # fmt: skip

    def _taken(self, fetched: Any, now_ns: int) -> Buffer:
        module = fetched.module
        stamp_ns = int(_or(0, lambda: module.timestamp_ns, self._errors))
        number = _or(None, lambda: module.frame_id, self._errors)
        parts = fetched.payload.components
        if not parts:
            return Buffer(
                data=b"", code=0, width=0, height=0, number=number, stamp_ns=stamp_ns, arrived_ns=now_ns,
                fault="the camera delivered no picture",
            )  # fmt: skip
        return Buffer(
            data=parts[0].data.tobytes(),
            code=int(parts[0].data_format_value) & 0xFFFFFFFF,
            width=int(parts[0].width),
            height=int(parts[0].height),
            padding=int(parts[0].x_padding),
            number=number,
            stamp_ns=stamp_ns,
            arrived_ns=now_ns,
        )

    def _lost(self, error: Exception) -> CameraError:
        return CameraError(f"{self.shown}: {_first_line(error)}", hint="look at its power, its cable and its address")


class GentlFeatures:
    """The features of a connected camera."""

    def __init__(self, nodes: Any, shown: str, errors: tuple[type[Exception], ...]) -> None:
        self._nodes = nodes
        self._shown = shown
        self._errors = errors

    def feature(self, name: str) -> Feature | None:
        """A feature with its range now."""
        node = _or(None, lambda: self._nodes.get_node(name), self._errors)
        kind = _KINDS.get(type(node).__name__)
        if kind is None:
            return None
        try:
            if kind is Kind.CHOICE:
                return Feature(name=name, kind=kind, choices=tuple(node.symbolics))
            if kind in (Kind.INTEGER, Kind.FLOAT):
                step = node.inc if kind is Kind.INTEGER else 0.0
                return Feature(name=name, kind=kind, low=node.min, high=node.max, step=step, unit=str(node.unit))
        except self._errors:
            return None  # it is not offered now
        return Feature(name=name, kind=kind)

    def names(self) -> Iterable[str]:
        """All features of the camera's description."""
        return [name for name in dir(self._nodes) if name[:1].isupper()]

    def write(self, feature: Feature, value: Value) -> None:
        """Write a value, or execute a command."""
        node = self._nodes.get_node(feature.name)
        try:
            if feature.kind is Kind.COMMAND:
                node.execute()
            else:
                node.value = value
        except self._errors as error:
            raise CameraError(
                f"{self._shown}: {feature.name} cannot be set to {value}: {_first_line(error)}",
                hint="is it locked by another feature, or does another program control the camera?",
            ) from None


def _or(otherwise: Any, ask: Any, errors: tuple[type[Exception], ...]) -> Any:
    """What a producer answers, or something else where it does not know."""
    try:
        return ask()
    except errors:
        return otherwise


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")
