"""How many pictures, or tiles, run together in an engine: a larger batch is split into parts.

Parts follow one another or, on processors, go side by side in lanes (lanes.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from revdist.data.tiles import Tiles
from revdist.engines.backend import OPENVINO, Backend

_PROCESSOR = {
    "float32": 2,
    "bfloat16": 4,
    "int8": 4,
}  # with 4 pictures in float32, efficientnet_lite0 took up to 1.4 times as long
_COMPILED = 1  # OpenVINO's maps of one picture stay in the caches from layer to layer; those of more pictures would not
_TILES = 16  # tiles of large pictures that fit into any GPU's memory


@dataclass(frozen=True, slots=True)
class Parts:
    """Splits batches into parts.

    On a processor a part is what its caches hold, a power of two, because weights are packed for each number of
    pictures. On a GPU it is the whole batch, or a limited number of tiles.
    """

    most: int  # largest number of tiles that run together; 0: all
    lanes: int = 1  # threads that each have a part of their own

    @classmethod
    def fit(cls, where: Backend) -> Parts:
        """Return the fastest sizes for a backend."""
        if where.device.type != "cpu":
            return cls(0)
        if where.runtime == OPENVINO:
            return cls(_COMPILED, where.threads)
        return cls(_PROCESSOR[where.precision], where.threads)

    def of(self, count: int, tiles: Tiles, begin: int = 0) -> Iterator[slice]:
        """Yield the slices of `count` tiles, from tile `begin` on, that run together."""
        most = self.most or (count if tiles.count == 1 else _TILES)
        while begin < count:
            while self.most and most > count - begin:
                most //= 2
            yield slice(begin, min(count, begin + most))
            begin += most

    def side_by_side(self, count: int) -> list[slice]:
        """Split tiles into equal parts, as many for each lane; fewer tiles than lanes remain."""
        parts: list[slice] = []
        begin, size = 0, self.most
        while self.lanes > 1 and count - begin >= self.lanes:
            while size > (count - begin) // self.lanes:
                size //= 2
            parts += [slice(begin + lane * size, begin + (lane + 1) * size) for lane in range(self.lanes)]
            begin += self.lanes * size
        return parts

    def sizes(self, batches: Iterable[int], tiles: Tiles) -> list[int]:
        """Return the sizes, in tiles, that a part outside of the lanes can have, ascending; also in mixed batches."""
        counts = [pictures * tiles.count for pictures in batches]
        if self.most:
            alone = self.lanes - 1 if self.lanes > 1 else self.most  # more tiles than these go into lanes
            return _powers(min(self.most, alone, max(counts, default=0)))
        return sorted({part.stop - part.start for count in counts for part in self.of(count, tiles)})

    def lane_sizes(self, batches: Iterable[int], tiles: Tiles) -> list[int]:
        """Return the sizes, in tiles, that a lane's part can have, ascending."""
        parts = self.side_by_side(max(batches, default=0) * tiles.count)
        return _powers(parts[0].stop) if parts else []


def _powers(most: int) -> list[int]:
    """Return the powers of two up to this number."""
    return [2**power for power in range(most.bit_length())]
