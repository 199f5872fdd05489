"""Run a batch through the networks of an engine: in parts, side by side in lanes or, on a GPU, as CUDA graphs.

B pictures of a batch, h w their size, T tiles of each, h' w' theirs (see tiles.py).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from revdist.data.tiles import Tiles
from revdist.engines.backend import OPENVINO, Backend
from revdist.engines.crowd import Crowd
from revdist.engines.cuda import graphs as cuda_graphs
from revdist.engines.lanes import Lanes, Later
from revdist.engines.loaded_product import LoadedProduct, Table, rows_by_product
from revdist.engines.openvino import compiled
from revdist.engines.parts import Parts
from revdist.engines.processor.fused import Program
from revdist.scoring import combination, detector

Made = TypeVar("Made")
Maps = tuple[torch.Tensor, ...]
Make = Callable[[LoadedProduct, Sequence[torch.Tensor]], Maps]  # from the distances of pictures of one product


class BatchRunner:
    """Runs batches. One thread begins batches; another thread may call `record`."""

    def __init__(self, where: Backend, mean: torch.Tensor, std: torch.Tensor, *, graphs: bool = False) -> None:
        """`mean`, `std`: (3,) of the teacher, on the device."""
        self._target, self._mean, self._std = where, mean, std
        self.parts = Parts.fit(where)
        self._graphs = cuda_graphs.Graphs(cuda_graphs.recorder(where.device) if graphs else None)
        self._lanes: Lanes | None = None
        self._crowd = Crowd()

    def upload(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """Copy pictures to the device at once; on CUDA from pinned memory, which torch keeps until the copy is done."""
        pinned = self._target.device.type == "cuda"
        staged = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=pinned)
        np.stack(pictures, out=staged.numpy())
        return staged.to(self._target.device, non_blocking=True)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (b, h, w, 3) on the device -> normalised (b, 3, h, w); OpenVINO's networks take pixels unchanged."""
        if self._target.runtime == OPENVINO:
            return pixels
        return detector.normalise(pixels, self._mean, self._std).to(self._target.pictures)

    def see(self, batch: torch.Tensor, products: Sequence[str], table: Table, make: Make) -> Later[list[Maps]]:
        """Run teacher and students, and call `make` with the distances of some pictures of one product at a time.

        Results stand in the order of the pictures. `batch`: tiles (b * T, h', w', 3) of pictures that are ordered by
        product. Distances stand fine to coarse: (b', h / stride, w / stride) float32.
        """
        tiles = table[products[0]].tiles
        if tiles.count == 1:
            runs = self._through(batch, products, table, functools.partial(self._judged, make))
            return runs.then(lambda pairs: [maps for _, maps in pairs])
        owners = [product for product in products for _ in range(tiles.count)]
        of_product: dict[str, list[Sequence[torch.Tensor]]] = {}
        for product, distances in self._through(batch, owners, table, LoadedProduct.distances).result():
            of_product.setdefault(product, []).append(distances)
        return Later.known(
            [
                make(table[product], [tiles.join(torch.cat(scale)) for scale in zip(*parts, strict=True)])
                for product, parts in of_product.items()
            ]
        )

    def _through(
        self,
        batch: torch.Tensor,
        owners: Sequence[str],
        table: Table,
        judge: Callable[[LoadedProduct, Sequence[torch.Tensor]], Made],
    ) -> Later[list[tuple[str, Made]]]:
        """Run the teacher on tiles (n, h', w', 3), and call `judge` with its maps of one product at a time."""
        first = table[owners[0]]

        def see(part: slice) -> list[tuple[str, Made]]:  # one pass of the teacher for all products
            taught = self._graphs(first.teacher, self._teaching(first), [batch[part]], keep=False)
            return [
                (product, judge(table[product], [features[rows[0] :][own] for features in taught]))
                for product, rows in rows_by_product(owners[part]).items()
                for own in self.parts.of(len(rows), first.tiles)
            ]

        parts = self.in_parts(see, len(owners), first.tiles)
        return parts.then(lambda results: [pair for part in results for pair in part])

    def _judged(self, make: Make, placed: LoadedProduct, taught: Sequence[torch.Tensor]) -> Maps:
        """Run a student on the teacher's maps. Only scores have CUDA graphs; `scale_maps` is rare and has none."""
        judge = _judging(make, placed)
        return tuple(self._graphs(placed.student, judge, taught) if make is scored else judge(taught))

    def _teaching(self, placed: LoadedProduct) -> cuda_graphs.Function:
        """The teacher as a function of pixels, uint8 (n, h', w', 3)."""
        return lambda inputs: placed.teacher(self.normalise(inputs[0]))

    def in_parts(self, function: Callable[[slice], Made], count: int, tiles: Tiles) -> Later[list[Made]]:
        """Split so many tiles into parts and call the function for each; results stand in the order of the parts.

        Parts run in lanes as long as there is one for each lane. The rest is computed by torch's team of threads, or in
        lanes too while other programs use the processors (crowd.py).
        """
        parts = self.parts.side_by_side(count)
        rest = list(self.parts.of(count, tiles, parts[-1].stop if parts else 0))
        teams = self._target.runtime != OPENVINO and self.parts.lanes > 1
        if teams and self._crowd.around:
            return self._side_by_side().begin(function, parts + rest)
        begun = self._side_by_side().begin(function, parts) if parts else Later.known([])
        if not rest:
            return begun
        if self._lanes:  # a team beside busy lanes would slow down both several times
            self._lanes.wait()
        computed = begun.result()
        with self._crowd.watching() if teams else contextlib.nullcontext():
            return Later.known(computed + [function(part) for part in rest])

    def _side_by_side(self) -> Lanes:
        """Return the lanes, which are made when a batch first needs them."""
        self._lanes = self._lanes or Lanes(self.parts.lanes)
        return self._lanes

    def warm(self, every: Collection[LoadedProduct], batches: Collection[int]) -> None:
        """Prepare students for batches of so many pictures, so that no first frame waits for set-up.

        Where batches are split, students are prepared for each size that a part can have, also in mixed batches.
        """
        for placed in every:
            self.record(placed, batches)
            if isinstance(placed.student, compiled.Program):
                self.compile(placed.student, placed.tiles, batches)
            part = np.zeros((*placed.tiles.tile, 3), np.uint8)
            for count in self.parts.sizes(batches, placed.tiles):
                if isinstance(placed.student, Program) and placed.student.saw_one:
                    _pack(placed, count)
                else:
                    self._run(placed, [part] * count)
            self._ready_lanes(placed, batches)

    @torch.inference_mode()
    def record(self, placed: LoadedProduct, batches: Collection[int]) -> None:
        """Record a student's graphs for all batch sizes up to the largest of these; tiles are too large for graphs."""
        if not self._graphs.recording or placed.tiles.count > 1:
            return
        for count in range(1, min(cuda_graphs.MOST, max(batches, default=0)) + 1):
            blank = self.upload([np.zeros((*placed.tiles.size, 3), np.uint8)] * count)
            self._graphs.prepare(placed.teacher, self._teaching(placed), [blank])
            taught = self._teaching(placed)([blank])
            self._graphs.prepare(placed.student, _judging(scored, placed), taught)

    def compile(self, student: compiled.Program, tiles: Tiles, batches: Collection[int]) -> None:
        """Compile a student for batches of so many pictures, before a batch waits for it."""
        for count in self.parts.sizes(batches, tiles):
            student.prepare(count, tiles.tile)
        for count in self.parts.lane_sizes(batches, tiles):
            student.prepare(count, tiles.tile, side_by_side=True)

    def _ready_lanes(self, placed: LoadedProduct, batches: Collection[int]) -> None:
        """Pack the weights for each number of tiles that a lane can get.

        No network is run here. A run would take seconds of the start, and in float32 with AVX2 the first batch took
        as long without one.
        """

        if counts := self.parts.lane_sizes(batches, placed.tiles):
            self._side_by_side().begin(functools.partial(_pack, placed), counts).result()

    @torch.inference_mode()
    def _run(self, placed: LoadedProduct, parts: Sequence[npt.NDArray[np.uint8]]) -> None:
        placed.distances(placed.teacher(self.normalise(self.upload(parts))))


def _pack(placed: LoadedProduct, count: int) -> None:
    """Pack the weights for `count` tiles, in the thread that will compute with them; one tile has run before."""
    for network in (placed.teacher, placed.student):
        if isinstance(network, Program):
            network.prepare(count)


def _judging(make: Make, placed: LoadedProduct) -> cuda_graphs.Function:
    """Return a function of the teacher's maps that runs the student and calls `make` with the distances."""
    return lambda taught: make(placed, placed.distances(taught))


def scored(placed: LoadedProduct, distances: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smoothed maps (b, h, w), and their scores beside the highest values of the paper's maps (b, 2)."""
    maps = placed.shown(placed.spread(placed.weighted(distances)))
    of_paper = maps
    if placed.combination is not None:
        maps, of_paper = combination.positive(maps), placed.shown(placed.spread(distances[:3]))
    return maps, torch.stack([placed.scores(maps), detector.scores(of_paper)], 1)


def scaled(placed: LoadedProduct, distances: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
    """Return the smoothed map of each scale of one picture (n, h, w)."""
    return (placed.shown(torch.cat(list(placed.spread.scales(placed.weighted(distances))))),)
