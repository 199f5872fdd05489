"""How many pictures, or tiles of them, an engine has under way: what is more goes through one part after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from revdist.target import OPENVINO, Target
from revdist.tiles import Tiles

_PROCESSOR = 4
_WIDE = 2  # of efficientnet_lite0, whose maps are large and its weights small; not in int8, with maps a quarter
_COMPILED = 1  # OpenVINO's maps stay in the caches from layer to layer, and more of them would not
_TILES = 16  # of large pictures, that any GPU's memory holds


@dataclass(frozen=True, slots=True)
class Parts:
    """On a processor what its caches hold, in powers of two, because weights are packed for each number; on a GPU all
    pictures of a batch, or so many tiles."""

    most: int  # that run together; 0: all

    @classmethod
    def fit(cls, where: Target, teacher: str) -> Parts:
        """What is fastest there."""
        if where.device.type != "cpu":
            return cls(0)
        if where.runtime == OPENVINO:
            return cls(_COMPILED)
        return cls(_WIDE if teacher == "efficientnet_lite0" and where.precision != "int8" else _PROCESSOR)

    def of(self, count: int, tiles: Tiles) -> Iterator[slice]:
        """Which of so many tiles run together."""
        begin, most = 0, self.most or (count if tiles.count == 1 else _TILES)
        while begin < count:
            while self.most and most > count - begin:
                most //= 2
            yield slice(begin, min(count, begin + most))
            begin += most

    def sizes(self, batches: Iterable[int], tiles: Tiles) -> list[int]:
        """How many tiles a part can have, ascending, where batches have so many pictures, of mixed products too."""
        counts = [pictures * tiles.count for pictures in batches]
        if self.most:
            return [2**power for power in range(min(self.most, max(counts, default=0)).bit_length())]
        return sorted({part.stop - part.start for count in counts for part in self.of(count, tiles)})
