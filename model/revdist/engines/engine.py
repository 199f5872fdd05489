"""A detector made fast for one device and precision: one teacher, and a student for each product.

B pictures of a batch, h w their size, T tiles of each, h' w' theirs (see tiles.py). Batch norms are folded into the
convolutions, memory is channels last, and the only copy from the device that `inspect` makes is the one of the scores,
which are float32 in any precision.

A GPU computes a batch while the next one is begun (copies.py), and small batches can be CUDA graphs (graphs.py).
On a processor, operations are fused (fused.py), 8-bit (quantised.py) or OpenVINO's (compiled.py). A batch goes through
in parts that fit into the caches (parts.py), side by side in lanes: threads with one processor each (lanes.py).
daemon/README.md follows a batch through these files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from revdist.data.tiles import Size, Tiles
from revdist.engines import memory
from revdist.engines.backend import OPENVINO, TORCH, target
from revdist.engines.batch_runner import BatchRunner, Maps, scaled, scored
from revdist.engines.cuda.copies import copies
from revdist.engines.folding import on_device
from revdist.engines.lanes import Later
from revdist.engines.loaded_product import (
    Inspection,
    LoadedProduct,
    Ranges,
    Table,
    inspection,
    rows_by_product,
    scores_of,
)
from revdist.engines.openvino import compiled
from revdist.engines.processor import quantised
from revdist.engines.processor.fused import Program
from revdist.errors import ImageError, RevdistError
from revdist.networks.teacher import Teacher
from revdist.recipe import check_size
from revdist.scoring import detector

if TYPE_CHECKING:  # it needs OpenCV, which a bare machine with a GPU lacks
    from revdist.data.inspection_mask import InspectionMask


class Engine:
    """Scores batches that mix products.

    One thread calls `inspect` and `begin`; any thread may ask for the result. Another thread may call `add` and
    `remove`: they swap the table of students in one step. A batch keeps the table that it began with.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        device: str = "auto",
        precision: str = "float32",
        runtime: str = TORCH,
        graphs: bool = False,
    ) -> None:
        """Raises RevdistError for a missing runtime or device, or a precision that they do not support.

        `graphs`: give a GPU small batches as CUDA graphs. Off until a GPU has shown them right (tests/bench/gpu.py).
        """
        self._target = target(device, precision, runtime)
        self.device = self._target.device
        self.identity = self._target.identity
        self.teacher_name = teacher.name
        self.teacher_sha256 = teacher.sha256
        mean, std = (on_device(values, self.device) for values in (teacher.mean, teacher.std))
        self._passes = BatchRunner(self._target, mean, std, graphs=graphs)
        self._copies = copies(self.device)
        self._given = teacher  # int8 makes a teacher from it for each set of ranges
        self._teacher = None if self.needs_ranges else self._make_teacher(None)
        self._warmed: frozenset[int] = frozenset()  # batch sizes
        self._students: Table = MappingProxyType({})
        self._writing = threading.Lock()
        if self.device.type == "cpu":
            memory.keep()
        if self.device.type == "cuda":  # float32 means float32: TF32 would change the scores in the third digit
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
            torch.backends.cuda.matmul.fp32_precision = "ieee"

    @property
    def products(self) -> frozenset[str]:
        return frozenset(self._students)

    @property
    def needs_ranges(self) -> bool:
        """Whether `add` needs ranges: in int8."""
        return self._target.precision == "int8"

    @property
    def teaches(self) -> bool:
        """Whether this engine has `features`."""
        return self._target.runtime == TORCH and self._teacher is not None

    def size(self, product: str) -> Size:
        """The input size (h, w) of a product. Raises RevdistError for a product that was not added."""
        return self._placed(self._students, product).tiles.size

    def mask(self, product: str) -> InspectionMask | None:
        """The mask of what is not inspected. Raises RevdistError for a product that was not added."""
        return self._placed(self._students, product).mask

    def add(
        self,
        product: str,
        student: nn.Module,
        size: Size,
        scoring: detector.Scoring = detector.PLAIN,
        *,
        tile: Size | None = None,
        ranges: Ranges | None = None,
        mask: InspectionMask | None = None,
    ) -> None:
        """Add a copy of a trained student, scored as its recipe says; a product of the same name is replaced.

        `tile`: (h', w') of the tiles that the networks see; None where they see the whole picture at once. `mask`: what
        is not inspected; it is painted over before the networks see it, and 0 in the map.
        Raises RevdistError where this engine needs ranges and `ranges` is None.
        """
        check_size(size)
        tiles = Tiles.of(size, tile)
        ranges = ranges if self.needs_ranges else None
        if ranges is None and self.needs_ranges:
            raise RevdistError(
                f"engine: {product} has no ranges for int8", hint="make them: revdist calibrate --engine cpu-int8"
            )
        key = "" if ranges is None or self._target.runtime == OPENVINO else ranges.teacher.digest
        there = {placed.teacher_key: placed.teacher for placed in self._students.values()}
        teacher = there[key] if key in there else self._teacher or self._make_teacher(ranges)
        quant_params = teacher.results if isinstance(teacher, quantised.Program) else ()
        both = None if ranges is None else (ranges.teacher, ranges.student)
        combination = scoring.combination and scoring.combination.mapped(lambda tensor: on_device(tensor, self.device))
        residuals = combination.residual_scales if combination else ()
        ready = self._target.student(student, self._given, both, quant_params, residuals)
        # where features are never negative, cosines of the integers equal those of the values, whatever the scale
        if isinstance(ready, quantised.Program) and any(affine.zero for affine in (*quant_params, *ready.results)):
            raise RevdistError("engine: by its ranges features are negative", hint="calibrate for int8 again")
        spread = detector.Spread(size, self.device, scoring)
        if isinstance(ready, compiled.Program):  # compile here, because the thread that inspects cannot wait
            self._passes.compile(ready, tiles, self._warmed)
        inspected = None if mask is None else torch.tensor(mask.inspected, dtype=torch.float32).to(self.device)
        placed = LoadedProduct(teacher, key, ready, spread, tiles, scoring.top_share, mask, inspected, combination)
        with self._writing:
            self._students = MappingProxyType({**self._students, product: placed})
        self._passes.record(placed, self._warmed)

    def _make_teacher(self, ranges: Ranges | None) -> nn.Module:
        return self._target.teacher(self._given, None if ranges is None else ranges.teacher)

    @torch.inference_mode()
    def observe(self, product: str, pictures: Iterable[npt.NDArray[np.uint8]]) -> Ranges:
        """Measure the ranges of the networks' maps on prepared pictures (h, w, 3), for int8. Needs a float32 engine.

        Raises RevdistError where this engine has no fused operations in float32.
        """
        placed = self._placed(self._students, product)
        if self.identity != "torch-cpu-float32" or not isinstance(placed.student, Program):
            raise RevdistError("engine: int8 needs torch with oneDNN on a processor", hint="use float32")
        assert isinstance(placed.teacher, Program)
        parts = [part for picture in pictures for part in placed.cut(picture)]

        def seen() -> Iterator[torch.Tensor]:
            return (self._passes.normalise(self._passes.upload([part])) for part in parts)

        taught = quantised.observe(placed.teacher, seen())
        return Ranges(taught, quantised.observe(placed.student, map(placed.teacher, seen())))

    def remove(self, product: str) -> None:
        """Remove a product, if there is one of that name."""
        with self._writing:
            self._students = MappingProxyType({k: v for k, v in self._students.items() if k != product})

    def rename(self, old: str, new: str) -> None:
        """Move the student of product `old` to product `new`, which it replaces, in one step."""
        with self._writing:
            ready = self._placed(self._students, old)
            rest = {k: v for k, v in self._students.items() if k != old}
            self._students = MappingProxyType({**rest, new: ready})

    @torch.inference_mode()
    def inspect(self, pixels: Sequence[npt.NDArray[np.uint8]], products: Sequence[str]) -> Inspection:
        """Score pictures, uint8 (h, w, 3) each, prepared at the size of their product; sizes may be mixed.

        The score of a picture does not depend on the batch that it comes in (beyond rounding, 1e-6 relative).
        Raises ImageError for a picture of a wrong size, RevdistError for an unknown product.
        """
        return self.begin(pixels, products).result()

    @torch.inference_mode()
    def begin(self, pixels: Sequence[npt.NDArray[np.uint8]], products: Sequence[str]) -> Later[Inspection]:
        """Start scoring pictures as `inspect` does, and return a result to wait for.

        With lanes the next batch may begin before all lanes have ended this one; on a GPU, as soon as this returns.
        """
        students = self._students
        begun: list[tuple[list[int], Later[list[Maps]]]] = []
        with self._target.alone():
            for rows in self._groups(pixels, products, students):
                parts = [part for row in rows for part in students[products[row]].cut(pixels[row])]
                batch = self._passes.upload(parts)  # (b * T, h', w', 3)
                begun.append((rows, self._passes.see(batch, [products[row] for row in rows], students, scored)))
            if not begun:
                return Later.known(Inspection(np.empty(0, np.float32), np.empty(0, np.float32), []))
            rows, last = begun.pop()
            before = [(earlier_rows, maps.result()) for earlier_rows, maps in begun]
            groups = last.then(lambda seen: [*before, (rows, seen)])
            to_host = self._copies
            if to_host is None:
                return groups.then(lambda computed: inspection(computed, scores_of(computed).numpy()))
            queued = groups.result()  # the GPU still computes these: nothing has waited for them
            scores = to_host.begin(scores_of(queued))  # the one copy to the host
            return scores.then(lambda copied: inspection(queued, copied.numpy(), to_host.of_finished))

    @torch.inference_mode()
    def scale_maps(self, pixels: npt.NDArray[np.uint8], product: str) -> npt.NDArray[np.float32]:
        """Return a smoothed map of each scale that counts, for a prepared picture (h, w, 3): float32 (n, h, w).

        Scales stand fine to coarse. Their maps add up to the map of `inspect`, because smoothing is linear. Where
        scales multiply, the product of the smoothed maps only comes near that map.
        """
        students = self._students
        placed = self._placed(students, product)
        with self._target.alone():
            pending = self._passes.see(self._passes.upload(placed.cut(pixels)), [product], students, scaled)
            ((scales,),) = pending.result()
            return np.asarray(scales.cpu().numpy())

    def networks(self, pixels: Sequence[npt.NDArray[np.uint8]], product: str) -> Callable[[], object]:
        """Return a function to be timed: teacher and student alone on prepared pictures, in the parts of `inspect`."""
        placed = self._placed(self._students, product)
        tiles = [tile for picture in pixels for tile in placed.cut(picture)]
        batch = self._passes.normalise(self._passes.upload(tiles))

        @torch.inference_mode()
        def see(part: slice) -> None:
            placed.student(placed.teacher(batch[part]))

        return lambda: self._passes.in_parts(see, len(tiles), placed.tiles).result()

    @torch.no_grad()
    def features(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the teacher's maps (B, C, H, W) of prepared pictures of one size, on the device, for training."""
        assert self._target.runtime == TORCH, "nothing is trained with OpenVINO"
        assert self._teacher is not None, "nothing is trained in int8"
        return self._teacher(self._passes.normalise(self._passes.upload(pixels)))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def maps(self, batch: torch.Tensor, products: Sequence[str]) -> torch.Tensor:
        """Return smoothed anomaly maps of b pictures that are cut alike: float32 (b, h, w) on the device.

        `batch`: T tiles of each picture, picture by picture, on the device, uint8 (b * T, h', w', 3), painted over
        where they are masked. Pictures of one product stand next to one another.
        """
        seen = self._passes.see(batch, products, self._students, scored)
        return torch.cat([maps for maps, _ in seen.result()])

    def at_once(self, product: str) -> int:
        """Return how many pictures run in parallel; 0 means all. Time grows with the number beyond it."""
        parts = self._passes.parts
        most = parts.lanes if parts.lanes > 1 else parts.most
        return most and max(1, most // self._placed(self._students, product).tiles.count)

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Prepare all products for batches of these sizes, so that no first frame waits for set-up."""
        self._warmed |= frozenset(batch_sizes)
        students = self._students
        self._passes.warm(students.values(), self._warmed)
        for product, placed in students.items():
            whole, counts = np.zeros((*placed.tiles.size, 3), np.uint8), sorted(self._warmed)
            if self._passes.parts.most:  # parts have run already; only the joining of tiles has not
                counts = [1] if placed.tiles.count > 1 else []
            for count in counts:
                self.inspect([whole] * count, [product] * count)

    @staticmethod
    def _placed(table: Table, product: str) -> LoadedProduct:
        try:
            return table[product]
        except KeyError:
            loaded = ", ".join(sorted(table)) or "none"
            raise RevdistError(f"engine: there is no product {product!r}", hint=f"loaded: {loaded}") from None

    def _groups(
        self,
        pixels: Sequence[npt.NDArray[np.uint8]],
        products: Sequence[str],
        students: Table,
    ) -> list[list[int]]:
        """Group the rows that go through the teacher together: one size, cut alike, and in int8 equal ranges.

        In a group, rows of one product stand next to one another.
        """
        groups: dict[tuple[Tiles, str], list[int]] = {}
        for product, rows in rows_by_product(products).items():
            placed = self._placed(students, product)
            groups.setdefault((placed.tiles, placed.teacher_key), []).extend(rows)
        for picture, product in zip(pixels, products, strict=True):
            size = students[product].tiles.size
            if picture.dtype != np.uint8 or picture.shape != (*size, 3):
                raise ImageError(
                    f"engine: a picture of {product} is {picture.dtype} {picture.shape}, expected uint8 {(*size, 3)}",
                    hint="call images.prepare first",
                )
        return list(groups.values())
