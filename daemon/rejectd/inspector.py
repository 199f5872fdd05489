"""Owns the device: the only file of the service that knows the model library."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rejectd.messages import Frame, Pixels, RejectdError, Result
from rejectd.settings import Engine as EngineSettings
from rejectd.settings import Product
from revdist import bundle as bundles
from revdist import images
from revdist import teacher as teachers
from revdist.conformal import Calibration
from revdist.engine import Engine
from revdist.errors import RevdistError
from revdist.heatmaps import heatmap

__all__ = ["Inspector", "InspectorError", "Model", "heatmap"]


class InspectorError(RejectdError):
    """A bundle cannot be loaded, or the device failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded bundle with the threshold in force."""

    product: str
    digest: str
    engine: str
    teacher: str
    size: tuple[int, int]  # height, width
    calibration: Calibration
    threshold: float


class Inspector:
    """One teacher, a student for each product, and a threshold for each of them."""

    def __init__(self, settings: EngineSettings, products: Mapping[str, Product]) -> None:
        """Load every bundle and check its golden vectors on the device.

        Raises:
            InspectorError: with the product, the cause and what to do.
        """
        self._settings = settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._engine = self._start(products)
        self.models: dict[str, Model] = {name: self._load(name, product) for name, product in products.items()}

    def prepare(self, pixels: Pixels, product: str) -> Pixels:
        """Resize a picture (H, W, 3) to the model's input, exactly as training did. Safe in any thread.

        Raises:
            InspectorError: if it is no picture that a model can see.
        """
        try:
            return images.prepare(pixels, self.models[product].size)
        except RevdistError as error:
            raise InspectorError(str(error)) from error

    def warm(self, sizes: Iterable[int]) -> dict[int, int]:
        """Run batches of these sizes, so that the first parts do not wait. Returns the ns that each size takes.

        Raises:
            InspectorError: if the device fails.
        """
        product, model = next(iter(self.models.items()))
        blank = np.zeros((*model.size, 3), dtype=np.uint8)
        elapsed_ns = {}
        try:
            for size in sorted(sizes):
                self._engine.warm([size])
                started = time.perf_counter_ns()
                self._engine.inspect([blank] * size, [product] * size)
                elapsed_ns[size] = time.perf_counter_ns() - started
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(f"the engine fails: {error}", hint="try engine.device: cpu") from error
        return elapsed_ns

    def inspect(self, frames: Sequence[Frame]) -> list[Result]:
        """Scores of a mixed batch, and the anomaly maps of rejects.

        Raises:
            InspectorError: if the device fails; no frame of the batch is judged then.
        """
        pixels = [frame.pixels for frame in frames if frame.pixels is not None]
        assert len(pixels) == len(frames), "a frame without pixels never reaches the inspector"
        try:
            inspection = self._engine.inspect(pixels, [frame.product for frame in frames])
            scores = inspection.scores.tolist()  # (B,) on the host
            results = []
            for index, (frame, score) in enumerate(zip(frames, scores, strict=True)):
                model = self.models[frame.product]
                results.append(
                    Result(
                        score=score,
                        threshold=model.threshold,
                        p_value=model.calibration.p_value(score) if score == score else 0.0,
                        bundle=model.digest,
                        engine=model.engine,
                        anomaly_map=inspection.map(index) if score > model.threshold else None,
                    )
                )
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(f"the engine failed: {error}") from error
        return results

    def set_thresholds(self, products: Mapping[str, Product]) -> dict[str, tuple[float, float]]:
        """Take over thresholds from reloaded settings. Returns what changed: product to (before, after)."""
        changed = {}
        for name, model in self.models.items():
            wanted = products[name].threshold if name in products else None
            after = model.calibration.threshold if wanted is None else wanted
            if after != model.threshold:
                changed[name] = (model.threshold, after)
                self.models[name] = replace(model, threshold=after)
        return changed

    def _start(self, products: Mapping[str, Product]) -> Engine:
        """The engine with the teacher that the bundles were trained with."""
        read = {name: self._read(name, product.bundle) for name, product in products.items()}
        names = {bundle.teacher.name for bundle in read.values()}
        if len(names) > 1:
            which = ", ".join(f"{name}: {bundle.teacher.name}" for name, bundle in read.items())
            hint = "train them with the same --teacher, or run one service for each teacher"
            raise InspectorError(f"the products need different teachers ({which})", hint=hint)
        try:
            teacher = teachers.load(names.pop(), self._settings.teacher_weights)
            return Engine(teacher, device=str(self._settings.device))
        except (RevdistError, RuntimeError) as error:
            hint = "" if isinstance(error, RevdistError) else "set engine.device to one that is there"
            raise InspectorError(f"the engine cannot start: {error}", hint=hint) from error

    def _read(self, name: str, path: Path) -> bundles.Bundle:
        try:
            return bundles.read(path)
        except RevdistError as error:
            raise InspectorError(f"product {name}: {error}") from error

    def _load(self, name: str, product: Product) -> Model:
        try:
            bundle = bundles.load(product.bundle, self._engine, product=name)
            calibration = bundle.calibration(self._engine.identity)
        except (RevdistError, RuntimeError) as error:
            raise InspectorError(f"product {name}: {error}") from error
        return Model(
            product=name,
            digest=bundle.digest,
            engine=self._engine.identity,
            teacher=bundle.teacher.name,
            size=bundle.size,
            calibration=calibration,
            threshold=calibration.threshold if product.threshold is None else product.threshold,
        )
