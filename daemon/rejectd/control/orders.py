"""Owns the standing orders, which commands have set: puts them in force, ends them, and writes them to the disk.

An order ends when the setting that it replaces changes. The order of a threshold also ends at a changeover to a bundle
that it was not given for. An order that ends is off the disk at once, so that no restart brings it back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rejectd.contract import regions
from rejectd.contract.messages import Policy, RejectdError
from rejectd.contract.settings import Product, Settings
from rejectd.control.standing_orders import (
    Keeper,
    Order,
    StandingFile,
    ThresholdOrder,
    Value,
    configured_bundle,
    configured_product,
)
from rejectd.control.thresholds import Threshold, at_start, choose, doubt, holds
from rejectd.inspector import Inspector, Model, check_depth
from rejectd.pipeline import Pipeline

log = logging.getLogger(__name__)


class OrderError(RejectdError):
    """An order cannot be put in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One change: the product, bundle, threshold or pause of a camera or product, before and after."""

    what: str  # product, bundle, threshold or pause
    of: str  # the camera or product
    before: Value
    after: Value
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """The model and the products that a changeover has replaced."""

    before: Model  # the model that was in force for the product
    products: Mapping[str, str]  # the product that each camera had
    why: str  # why the threshold of an order or of the settings no longer holds; empty if it does

    def changed(self, model: Model) -> Iterator[Changed]:
        """Yield the changes that putting this model in force has made."""
        for camera, product in self.products.items():
            if product != model.product:
                yield Changed(what="product", of=camera, before=product, after=model.product)
        if self.before.digest != model.digest:
            yield Changed(what="bundle", of=model.product, before=self.before.digest, after=model.digest)
        if self.before.threshold != model.threshold:
            before, after = self.before.threshold, model.threshold
            yield Changed(what="threshold", of=model.product, before=before, after=after, why=self.why)


class Orders:
    """The standing orders. The thread of commands and a reload change them. Any thread may call `problems`, at once."""

    def __init__(self, settings: Settings, file: StandingFile) -> None:
        """Read the standing orders, and end those that no longer fit the settings or the bundles on the disk."""
        self._settings = settings
        self._configured = dict(settings.products)  # with the thresholds of the last reload
        self._keeper = Keeper(file)
        self._lock = threading.Lock()
        self._inspector: Inspector
        self._pipeline: Pipeline
        self._why: dict[str, str] = {}  # by product: why the threshold of the settings does not hold
        self._standing = self._keeper.load()
        before = asdict(self._standing)
        self._standing.drop_changed(settings)
        self._standing.drop_lost(settings)
        if asdict(self._standing) != before:
            self._keeper.keep(self._standing)

    def products(self) -> dict[str, Product]:
        """The products with the bundles in force."""
        bundles = {name: str(order.value) for name, order in self._standing.bundles.items()}
        return {
            name: product.model_copy(
                update={"bundle": product.bundle.with_name(bundles.get(name, product.bundle.name))}
            )
            for name, product in self._settings.products.items()
        }

    def judge(self, inspector: Inspector) -> None:
        """Put thresholds in force when the service starts.

        Raises:
            ThresholdError: if the settings give a product a threshold that is not meant for its bundle.
        """
        self._inspector = inspector
        standing = self._standing
        for name, model in inspector.models.items():
            order = standing.thresholds.get(name)
            if order and not holds(order, model):
                log.warning("product %s: %s", name, order.ended)
                del standing.thresholds[name]
                self._keeper.keep(self._standing)
                order = None
            if order or name in standing.bundles:
                self._put(model, choose(self._configured[name], model, order))
            else:
                self._put(model, at_start(self._configured[name], model))

    def move(self, pipeline: Pipeline) -> None:
        """Put products and pauses in force when the service starts."""
        self._pipeline = pipeline
        standing = self._standing
        pipeline.products.update({name: str(order.value) for name, order in standing.products.items()})
        for camera, pause in standing.paused.items():
            pipeline.paused[camera] = Policy(str(pause.value)) if pause.value else None
        for text in standing.told(self._settings):
            log.warning("still in force: %s", text)

    def bundle_name(self, product: str) -> str:
        """The name of the folder with a product's bundle in force; it lies beside the configured one."""
        order = self._standing.bundles.get(product)
        return str(order.value) if order else self._settings.products[product].bundle.name

    def threshold_for(self, model: Model) -> Threshold:
        """The threshold that will hold once a model is in force.

        Raises:
            ThresholdError: if the threshold of the settings is unlikely to be meant for this model.
        """
        return choose(self._configured[model.product], model, self._standing.thresholds.get(model.product))

    def change_over(self, model: Model, challenged: Threshold, cameras: Sequence[str], folder: str) -> Switched:
        """Put a proven model in force, and move cameras to its product.

        Raises:
            OrderError: if the model was proven with another threshold than the one that would hold now.
            InspectorError: if a camera of the product reads pictures of another depth.
        """
        product = model.product
        with self._lock:
            passing = {camera for camera, passes in self._pipeline.products.items() if passes == product}
            for camera in sorted(passing.union(cameras)):
                check_depth(camera, regions.resolved(self._settings.cameras)[camera], model)
            if self.threshold_for(model) != challenged:
                raise OrderError("the threshold was changed meanwhile", hint="send the command again")
            before = self._inspector.models[product]
            ended = self._end_threshold(product, model)
            self._put(self._inspector.use(model), challenged)
            moved = {camera: self._pipeline.products[camera] for camera in cameras}
            self._pipeline.products.update(dict.fromkeys(cameras, product))
            for camera in cameras:
                self._standing.products[camera] = Order(product, configured_product(self._settings, camera))
            self._standing.bundles[product] = Order(folder, configured_bundle(self._settings, product))
            self._keeper.keep(self._standing)
        return Switched(before=before, products=moved, why=challenged.why or ended)

    def set_threshold(self, product: str, value: float | None) -> Changed:
        """Order a threshold for a product's bundle in force, or end the order.

        Raises:
            ThresholdError: if the threshold of the settings would hold, and is unlikely to be meant for the bundle.
        """
        with self._lock:
            model, configured = self._inspector.models[product], self._configured[product]
            order = None
            if value is not None:
                order = ThresholdOrder(
                    value=value, configured=configured.threshold, bundle=model.digest, engine=model.engine
                )
            threshold = choose(configured, model, order)
            self._standing.thresholds.pop(product, None)
            if order:
                self._standing.thresholds[product] = order
            after = self._put(model, threshold)
            self._keeper.keep(self._standing)
        why = threshold.why or doubt(after.threshold, model)
        return Changed(what="threshold", of=product, before=model.threshold, after=after.threshold, why=why)

    def pause(self, cameras: Sequence[str], action: Policy | None) -> list[Changed]:
        """Stop inspecting cameras."""
        with self._lock:
            before = {camera: self._paused(camera) for camera in cameras}
            for camera in cameras:
                self._pipeline.paused[camera] = action
                self._standing.paused[camera] = Order(action, None)
            self._keeper.keep(self._standing)
            return self._changed_pauses(before)

    def resume(self, cameras: Sequence[str]) -> list[Changed]:
        """Inspect paused cameras again."""
        with self._lock:
            before = {camera: self._paused(camera) for camera in cameras}
            for camera in cameras:
                self._pipeline.paused.pop(camera, None)
                self._standing.paused.pop(camera, None)
            self._keeper.keep(self._standing)
            return self._changed_pauses(before)

    def reconfigure(self, products: Mapping[str, Product]) -> list[Changed]:
        """Take over the thresholds of changed settings: all of them, or none. A new threshold ends an order.

        If the settings name another bundle for a product too, the threshold is meant for that bundle, and both come
        into force at the next start.

        Raises:
            ThresholdError: if a threshold is unlikely to be meant for the bundle in force; nothing has changed then.
        """
        with self._lock:
            models = {name: model for name, model in self._inspector.models.items() if self._stays(name, products)}
            lasting_orders = {
                name: order
                for name, order in self._standing.thresholds.items()
                if name not in models or products[name].threshold == order.configured
            }
            chosen = {name: choose(products[name], model, lasting_orders.get(name)) for name, model in models.items()}
            for name in models:
                configured = products[name]
                self._configured[name] = self._configured[name].model_copy(
                    update={"threshold": configured.threshold, "threshold_for": configured.threshold_for}
                )
            after = {name: self._put(model, chosen[name]) for name, model in models.items()}
            if lasting_orders != self._standing.thresholds:
                self._standing.thresholds = lasting_orders
                self._keeper.keep(self._standing)
        return [
            Changed(
                what="threshold", of=name, before=model.threshold, after=after[name].threshold, why=chosen[name].why
            )
            for name, model in models.items()
            if model.threshold != after[name].threshold
        ]

    def problems(self) -> list[str]:
        """The orders and thresholds in force that a person should look at; empty if there are none."""
        problems = []
        for name, model in self._inspector.models.items():
            if strangeness := doubt(model.threshold, model):
                problems.append(f"product {name}: the threshold {model.threshold:.4g} {strangeness}")
            if why := self._why.get(name):
                problems.append(f"product {name}: {why}")
        passing = sorted(name for name in list(self._pipeline.paused) if self._passes(name))
        problems += [f"camera {name} is paused and its parts pass uninspected" for name in passing]
        if self._keeper.lost:
            problems.append(self._keeper.lost)
        if self._keeper.unsaved:
            problems.append("what commands have changed is not on the disk and would not outlive a restart")
        return problems

    def save_again(self) -> None:
        """Try once more to write orders that the disk has not taken."""
        with self._lock:
            if self._keeper.unsaved:
                self._keeper.keep(self._standing)

    def _stays(self, name: str, products: Mapping[str, Product]) -> bool:
        """Whether changed settings still name the same bundle for a product."""
        same_bundle = name in products and products[name].bundle == self._settings.products[name].bundle
        if name in products and not same_bundle:
            log.warning(
                "product %s: its bundle is another now, its threshold holds with it from the next start on", name
            )
        return same_bundle

    def _put(self, model: Model, threshold: Threshold) -> Model:
        self._why[model.product] = threshold.why
        if threshold.why:
            log.warning("product %s: %s", model.product, threshold.why)
        return self._inspector.set_threshold(model.key, threshold.value)

    def _end_threshold(self, product: str, model: Model) -> str:
        """End the order of a threshold if it was not given for this model. Returns which order ended, for people."""
        order = self._standing.thresholds.get(product)
        if order is None or holds(order, model):
            return ""
        del self._standing.thresholds[product]
        log.warning("product %s: %s", product, order.ended)
        return order.ended

    def _paused(self, camera: str) -> str | None:
        """What happens to the parts of a paused camera, for people; None if the camera is not paused."""
        if camera not in self._pipeline.paused:
            return None
        return str(self._pipeline.paused[camera] or f"policy ({self._settings.cameras[camera].policy})")

    def _changed_pauses(self, before: Mapping[str, str | None]) -> list[Changed]:
        return [
            Changed(what="pause", of=camera, before=was, after=now)
            for camera, was in before.items()
            if was != (now := self._paused(camera))
        ]

    def _passes(self, camera: str) -> bool:
        """Whether the parts of a paused camera pass: by order, by its policy, or by that of its station."""
        policies = [self._pipeline.paused.get(camera) or self._settings.cameras[camera].policy]
        policies += [station.policy for station in self._settings.stations.values() if camera in station.cameras]
        return Policy.PASS in policies
