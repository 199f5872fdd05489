"""Owns the device: the only file of the service that knows networks and bundles.

Other files take from the library only its decoder of pictures (cameras) and its words for files that fail.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rejectd.contract.messages import AnomalyMap, Frame, Pixels, RejectdError, Result
from rejectd.contract.settings import AnyCamera, FolderCamera, Product
from rejectd.contract.settings import Engine as EngineSettings
from rejectd.process.systemd import starting
from revdist.bundle import bundle as bundles
from revdist.bundle import choice
from revdist.data import fitting, health, images
from revdist.data.alignment import Alignment
from revdist.data.appearance import BRIGHTNESS
from revdist.data.appearance import of_pixels as looks
from revdist.data.health import Limits
from revdist.data.inspection_mask import InspectionMask
from revdist.data.reading import Fit
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.engines.lanes import Later, Worker, compute_with
from revdist.engines.loaded_product import Inspection
from revdist.errors import RevdistError
from revdist.evaluation.heatmaps import heatmap
from revdist.files.trouble import shown
from revdist.networks import teacher as teachers
from revdist.thresholds.conformal import Calibration

__all__ = ["BRIGHTNESS", "Begun", "GoldenPicture", "Inspector", "InspectorError", "Model", "heatmap", "looks"]

_NICE = 1  # with 5, beside twelve busy programs on two processors, a picture took 857 ms in the place of 319


class InspectorError(RejectdError):
    """A bundle cannot be loaded, or the device failed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenPicture:
    """A known picture of a bundle."""

    kind: str  # good, or scratch
    pixels: Pixels  # uint8 (h, w, 3), prepared
    expected: float  # its score where the bundle was made
    tolerance: float  # how far another machine's score may be from it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A loaded bundle with the threshold in force."""

    key: str  # its name in the engine: product and bundle
    product: str
    digest: str
    engine: str
    teacher: str
    size: tuple[int, int]  # height, width
    picture_size: tuple[int, int] | None  # height, width of the pictures that it was made with, if that is known
    bits: int  # of deep pictures that count, as it was trained; 0: not stated
    calibration: Calibration
    threshold: float
    golden: Sequence[GoldenPicture]
    fit: Fit = "stretch"  # how a picture comes to the aspect ratio of `size`
    mask: InspectionMask | None = None  # what is not inspected
    alignment: Alignment | None = None  # brings parts to one position; None: they lie there
    limits: Limits | None = None  # of what counts as a picture; None: not known
    looks: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)  # values of the training pictures


def check_depth(name: str, camera: AnyCamera, model: Model) -> None:
    """Raises InspectorError if a camera reads deep pictures (over 8 bits) otherwise than the model's training did."""
    bits = camera.bits if isinstance(camera, FolderCamera) else model.bits  # others give 8 bits
    if model.bits and bits != model.bits:
        raise InspectorError(
            f"camera {name}: reads deep pictures with bits: {bits}, product {model.product} was trained with "
            f"{model.bits}: set `bits: {model.bits}` of the camera"
        )


def examiner(path: Path) -> Callable[[Pixels], str]:
    """Return a function that says why a picture shows nothing: by the limits of a bundle, or usual ones without it."""
    try:
        limits = bundles.read(path, weights=False).health or health.USUAL
    except RevdistError:  # pictures are grabbed before there is a bundle
        limits = health.USUAL
    return lambda pixels: limits.fault(health.measure(pixels))


class Begun:
    """A batch that the device computes."""

    def __init__(self, begun: Future[Later[list[Result]]]) -> None:
        self._begun = begun

    def wait_for_room(self) -> bool:
        """Wait until the device can begin the next batch. Returns whether this batch is still computed then."""
        wait([self._begun])
        if self._begun.exception():
            return False
        room = self._begun.result().wait_for_room
        return room is not None and room()

    def results(self) -> list[Result]:
        """Wait for the results.

        Raises:
            InspectorError: if the device failed.
        """
        try:
            return self._begun.result().result()
        except KeyError as error:
            raise InspectorError(f"the model {error} has been put away") from error
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(f"the engine failed: {error}") from error


class Inspector:
    """One teacher, any number of students, and for each product the model in force.

    A frame names the model that judges it, so that a changeover happens between two frames: frames in flight are judged
    by the model that they were prepared for. Any thread may call; the networks run in a device thread or its lanes.
    """

    def __init__(self, settings: EngineSettings, products: Mapping[str, Product]) -> None:
        """Load every bundle and check its golden vectors on the device. Calibrated thresholds hold until one is set.

        Args:
            settings: where the models run.
            products: the products of the line, by name.

        Raises:
            InspectorError: with the product, the cause and what to do.
        """
        self._settings = settings
        self._loaded: dict[str, Model] = {}  # by key
        self._changing = threading.Lock()
        read_bundles = {name: self._read(name, product.bundle) for name, product in products.items()}
        self.models: Mapping[str, Model] = {}  # in force, by product
        self._device = Worker("device")  # ended by `close`, so only now that the bundles are known to be readable
        try:
            self._device.call(_give_way)
            self._device.call(compute_with, settings.threads or _processors())
            torch.set_num_threads(1)  # for this thread, and all that are still to come: cameras prepare pictures
            starting("loading the teacher")
            self._engine = self._device.call(self._start, read_bundles)
            for name, bundle in read_bundles.items():
                starting(f"loading product {name} from {shown(bundle.path)} and proving its golden pictures")
                self.use(self._device.call(self._put, name, bundle, bundles.install))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the device thread; nothing is inspected any more."""
        self._device.close()

    def prepare(self, pixels: Pixels, product: str) -> tuple[Pixels, str]:
        """Resize a picture (H, W, 3) to the input of the model in force, as training did; also returns the model's key.

        What a mask leaves out is painted over.

        Raises:
            InspectorError: if it is no picture that a model can see.
        """
        model = self.models[product]
        try:
            prepared = images.prepare(pixels, model.size, model.fit)
            return (prepared if model.mask is None else model.mask.cover(prepared)), model.key
        except RevdistError as error:
            raise InspectorError(str(error)) from error

    def align(self, pixels: Pixels, product: str) -> Pixels:
        """Bring the part of a picture (H, W, 3) to the position that the model in force was trained with.

        Raises:
            InspectorError: "part not found", with what is off.
        """
        alignment = self.models[product].alignment
        if alignment is None:
            return pixels
        try:
            return alignment.bring(pixels)
        except RevdistError as error:
            raise InspectorError(error.message, hint=error.hint) from error

    def fault(self, pixels: Pixels, product: str) -> str:
        """Why a picture (H, W, 3) shows nothing that could be judged, such as one that is black; empty if it may.

        The bundle in force has learnt the limits from good pictures.
        """
        limits = self.models[product].limits
        return "" if limits is None else limits.fault(health.measure(pixels))

    def warm(self, sizes: Iterable[int]) -> dict[int, int]:
        """Prepare for batches of these sizes, so that the first parts do not wait. Returns the time in ns by size.

        If the engine runs a batch in several parts, one part and the remainder are timed; the sum is calculated.

        Raises:
            InspectorError: if the device fails.
        """
        return self._device.call(self._warm, sizes)

    def _warm(self, sizes: Iterable[int]) -> dict[int, int]:
        model = next(iter(self.models.values()))
        blank = np.zeros((*model.size, 3), dtype=np.uint8)

        @functools.cache
        def elapsed_ns(count: int) -> int:
            started = time.perf_counter_ns()
            self._engine.inspect([blank] * count, [model.key] * count)
            return time.perf_counter_ns() - started

        try:
            self._engine.warm(sizes)
            time_ns_of = {}
            for size in sorted(sizes):
                part = self._engine.at_once(model.key) or size
                parts, remainder = divmod(size, part)
                time_ns_of[size] = (parts and parts * elapsed_ns(part)) + (remainder and elapsed_ns(remainder))
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(
                f"the engine fails: {error}", hint="try engine.device: cpu, engine.precision: float32"
            ) from error
        return time_ns_of

    def inspect(self, frames: Sequence[Frame], *, maps: bool = True) -> list[Result]:
        """Scores of a mixed batch, and, unless there is no time for `maps`, the anomaly maps of rejects.

        Raises:
            InspectorError: if the device fails; no frame of the batch is judged then.
        """
        return self.begin(frames, maps=maps).results()

    def begin(self, frames: Sequence[Frame], *, maps: bool = True) -> Begun:
        """Start inspecting a batch and return at once. Results are made in the thread that asks for them."""
        return Begun(self._device.start(self._begin, frames, maps=maps))

    def _begin(self, frames: Sequence[Frame], *, maps: bool) -> Later[list[Result]]:
        pixels = [frame.pixels for frame in frames if frame.pixels is not None]
        assert len(pixels) == len(frames), "a frame without pixels never reaches the inspector"
        started = time.perf_counter_ns()
        models = [self._loaded[frame.model] for frame in frames]

        pictures = [
            frame.picture.shape if frame.picture is not None else model.size
            for frame, model in zip(frames, models, strict=True)
        ]

        def results(inspection: Inspection) -> list[Result]:
            def over(index: int, model: Model) -> AnomalyMap:
                return fitting.over_picture(inspection.map(index), pictures[index], model.fit)

            engine_ns = begun.ended_ns() - started
            scores, maxima = inspection.scores.tolist(), inspection.maxima.tolist()  # (B,) on the host
            return [
                Result(
                    score=score,
                    score_max=score_max,
                    threshold=model.threshold,
                    p_value=model.calibration.p_value(score) if score == score else 0.0,
                    bundle=model.digest,
                    engine=model.engine,
                    engine_ns=engine_ns,
                    anomaly_map=over(index, model) if maps and score > model.threshold else None,
                )
                for index, (model, score, score_max) in enumerate(zip(models, scores, maxima, strict=True))
            ]

        begun = self._engine.begin(pixels, [frame.model for frame in frames])
        return begun.then(results)

    def load(self, product: str, path: Path) -> Model:
        """Load a bundle beside those in force, unless it is loaded already. It is neither proven nor in force yet.

        Raises:
            InspectorError: with the cause and what to do.
        """
        return self._put(product, self._read(product, path), bundles.place)

    def _put(self, product: str, bundle: bundles.Bundle, put: Callable[..., bundles.Bundle]) -> Model:
        key = f"{product}@{bundle.digest}"
        try:
            if key in self._loaded:
                bundles.check_weights(bundle)  # what lies on the disk counts too
                return self._loaded[key]
            put(bundle, self._engine, product=key)
            calibration = bundle.calibration(self._engine.identity)
            golden = [
                GoldenPicture(
                    kind=vector.kind,
                    pixels=pixels,
                    expected=expected,
                    tolerance=bundles.tolerance(bundle, self._engine.identity) * abs(expected),
                )
                for vector, pixels in bundles.golden_pictures(bundle)
                for expected in (bundle.expected(vector, self._engine.identity),)
            ]
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(f"product {product}: {error}") from error
        model = Model(
            key=key,
            product=product,
            digest=bundle.digest,
            engine=self._engine.identity,
            teacher=bundle.teacher.name,
            size=bundle.size,
            picture_size=bundle.picture_size,
            bits=bundle.recipe.bits,
            calibration=calibration,
            threshold=calibration.threshold,
            golden=golden,
            fit=bundle.recipe.fit,
            mask=bundle.mask,
            alignment=bundle.recipe.alignment,
            limits=bundle.health,
            looks=bundle.trained_appearance,
        )
        with self._changing:
            self._loaded[key] = model
        return model

    def loaded(self, key: str) -> Model | None:
        """Return a loaded model; None if it has been put away."""
        return self._loaded.get(key)

    def use(self, model: Model) -> Model:
        """Put a loaded model in force for its product, for frames that are prepared from now on."""
        with self._changing:
            model = self._loaded.setdefault(model.key, model)
            self.models = {**self.models, model.product: model}
        return model

    def unload(self, key: str) -> None:
        """Unload a model that is not in force and that no frame in flight names."""
        with self._changing:
            if any(model.key == key for model in self.models.values()):
                return
            self._loaded.pop(key, None)
        self._engine.remove(key)

    def set_threshold(self, key: str, threshold: float) -> Model:
        """Set the threshold of a loaded model, also for frames in flight. Returns the changed model."""
        with self._changing:
            model = self._loaded[key] = replace(self._loaded[key], threshold=threshold)
            if self.models.get(model.product, model).key == key:
                self.models = {**self.models, model.product: model}
        return model

    def _start(self, read: Mapping[str, bundles.Bundle]) -> Engine:
        """Start the engine with the teacher that all bundles, `read` by product, were trained with."""
        names = {bundle.teacher.name for bundle in read.values()}
        if len(names) > 1:
            teachers_of = ", ".join(f"{name}: {bundle.teacher.name}" for name, bundle in read.items())
            hint = "train them with the same --teacher, or run one service for each teacher"
            raise InspectorError(f"the products need different teachers ({teachers_of})", hint=hint)
        try:
            teacher = teachers.load(names.pop(), self._settings.teacher_weights)
            device, precision = str(self._settings.device), str(self._settings.precision)
            wanted = backend.Name(device, precision, str(self._settings.runtime))
            name = choice.engine(list(read.values()), wanted)
            engine = Engine(teacher, **asdict(name))
        except (RevdistError, RuntimeError) as error:
            hint = "" if isinstance(error, RevdistError) else "set engine.device to one that is there"
            raise InspectorError(f"the engine cannot start: {error}", hint=hint) from error
        if name.runtime == backend.OPENVINO:  # it has threads of its own; torch's would only be in their way
            torch.set_num_threads(1)
        return engine

    def _read(self, name: str, path: Path) -> bundles.Bundle:
        """Read a bundle without its weights: these are read once, when they are checked and put into the engine."""
        try:
            return bundles.read(path, weights=False)
        except RevdistError as error:
            raise InspectorError(f"product {name}: {error}") from error


@functools.cache
def _processors() -> int:
    """How many threads torch uses by default, asked before anybody sets another number."""
    return torch.get_num_threads()


def _give_way() -> None:
    """Make the device thread nice, so that threads that must answer go first. Threads that it starts are as nice."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
