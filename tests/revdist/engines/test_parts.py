"""revdist.engines.parts"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from revdist.data.tiles import Tiles
from revdist.engines.parts import Parts

WHOLE = Tiles.of((64, 64), None)


@given(count=st.integers(0, 70), lanes=st.integers(1, 9))
def test_each_lane_gets_as_much_and_nothing_is_left_out(count: int, lanes: int) -> None:
    parts = Parts(4, lanes)
    sides = parts.side_by_side(count)
    begin = sides[-1].stop if sides else 0
    rest = list(parts.of(count, WHOLE, begin))
    assert [place for part in [*sides, *rest] for place in range(part.start, part.stop)] == list(range(count))
    assert count - begin < lanes or not sides
    assert bool(sides) == (1 < lanes <= count)
    sizes = [part.stop - part.start for part in sides]
    assert all(len(set(sizes[at : at + lanes])) == 1 for at in range(0, len(sizes), lanes))
    assert len(sizes) % lanes == 0
    assert set(sizes) <= set(parts.lane_sizes([count], WHOLE))
    assert {part.stop - part.start for part in rest} <= set(parts.sizes([count], WHOLE))
    assert lanes == 1 or max(parts.sizes([count], WHOLE), default=0) < lanes, "more would go into lanes"
