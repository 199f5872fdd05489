"""How many pictures, or tiles of them, run together in an engine: a batch of more goes through in parts.

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
}  # with 4 in float32 efficientnet_lite0 took up to 1.4 times as long
_COMPILED = 1  # OpenVINO's maps stay in the caches from layer to layer, and more of them would not
_TILES = 16  # of large pictures, that any GPU's memory holds


@dataclass(frozen=True, slots=True)
class Parts:
    """The sizes of parts.

    On a processor a part is what its caches hold, a power of two, because weights are packed for each number of
    pictures. On a GPU it is the whole batch, or a limited number of tiles.
    """

    most: int  # that run together; 0: all
    lanes: int = 1  # threads that each have a part of their own

    @classmethod
    def fit(cls, where: Backend) -> Parts:
        """What is fastest there."""
        if where.device.type != "cpu":
            return cls(0)
        if where.runtime == OPENVINO:
            return cls(_COMPILED, where.threads)
        return cls(_PROCESSOR[where.precision], where.threads)

    def of(self, count: int, tiles: Tiles, begin: int = 0) -> Iterator[slice]:
        """The slices of `count` tiles, from tile `begin` on, that run together."""
        most = self.most or (count if tiles.count == 1 else _TILES)
        while begin < count:
            while self.most and most > count - begin:
                most //= 2
            yield slice(begin, min(count, begin + most))
            begin += most

    def side_by_side(self, count: int) -> list[slice]:
        """Parts of so many tiles for the lanes: as many for each. What is left over is less than one for each."""
        parts: list[slice] = []
        begin, size = 0, self.most
        while self.lanes > 1 and count - begin >= self.lanes:
            while size > (count - begin) // self.lanes:
                size //= 2
            parts += [slice(begin + lane * size, begin + (lane + 1) * size) for lane in range(self.lanes)]
            begin += self.lanes * size
        return parts

    def sizes(self, batches: Iterable[int], tiles: Tiles) -> list[int]:
        """How many tiles a part outside of the lanes can have, ascending; of batches of mixed products too."""
        counts = [pictures * tiles.count for pictures in batches]
        if self.most:
            alone = self.lanes - 1 if self.lanes > 1 else self.most  # more of them go into lanes
            return _powers(min(self.most, alone, max(counts, default=0)))
        return sorted({part.stop - part.start for count in counts for part in self.of(count, tiles)})

    def lane_sizes(self, batches: Iterable[int], tiles: Tiles) -> list[int]:
        """How many tiles a lane's part can have, ascending."""
        parts = self.side_by_side(max(batches, default=0) * tiles.count)
        return _powers(parts[0].stop) if parts else []


def _powers(most: int) -> list[int]:
    """The powers of two up to this number."""
    return [2**power for power in range(most.bit_length())]
