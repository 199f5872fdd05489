"""ONNX nodes for normalisation before the teacher, distances behind the student, and tiles.

B pictures, T tiles of each, C channels, H W of a map, h w of the picture, h' w' of a tile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from revdist.data.tiles import Tiles
from revdist.engines.openvino.onnx_graph import Graph, onnx_package
from revdist.scoring import detector

if TYPE_CHECKING:  # it needs OpenCV, which a bare machine with a GPU lacks
    from revdist.data.inspection_mask import InspectionMask


def normalised(
    graph: Graph, pixels: str, mean: torch.Tensor, std: torch.Tensor, mask: InspectionMask | None = None
) -> str:
    """Add `detector.normalise`: uint8 (B, h, w, 3) -> (B, 3, h, w); what a mask leaves out is painted over before."""
    floats = graph.add(
        "Cast", pixels, to=onnx_package().TensorProto.FLOAT
    )  # TensorRT takes uint8 as input of a Cast alone
    if mask is not None:
        fill = graph.floats(torch.tensor(mask.fill, dtype=torch.float32))
        floats = graph.add("Where", graph.constant(mask.masked[..., None]), fill, floats)
    centred = graph.add("Sub", floats, graph.floats(mean))
    return graph.add("Transpose", graph.add("Div", centred, graph.floats(std)), perm=[0, 3, 1, 2])


def distance(graph: Graph, taught: str, rebuilt: str) -> str:
    """Add `detector.cosine_distance`: two (B, C, H, W) -> (B, H, W)."""
    dot = graph.add("ReduceSum", graph.add("Mul", taught, rebuilt), graph.integers([1]), keepdims=0)
    least = graph.floats(detector.EPSILON)
    norms = [
        graph.add("Max", graph.add("ReduceL2", feature_map, axes=[1], keepdims=0), least)
        for feature_map in (taught, rebuilt)
    ]
    return graph.add("Sub", graph.floats(1.0), graph.add("Div", dot, graph.add("Mul", *norms)))


def residual(graph: Graph, taught: str, rebuilt: str) -> str:
    """Add `combination.residual`: two (B, C, H, W) -> the same."""
    least = graph.floats(detector.EPSILON)
    units = [
        graph.add("Div", feature_map, graph.add("Max", graph.add("ReduceL2", feature_map, axes=[1], keepdims=1), least))
        for feature_map in (taught, rebuilt)
    ]
    return graph.add("Sub", *units)


def squares(graph: Graph, residuals: str, whitening: torch.Tensor, centre: torch.Tensor) -> str:
    """Add `combination.squares`: (B, C, H, W) -> (B, H, W)."""
    white = graph.add("Conv", residuals, graph.floats(whitening[:, :, None, None]), graph.floats(-centre))
    return graph.add("ReduceSumSquare", white, axes=[1], keepdims=0)


def cut(graph: Graph, pictures: str, tiles: Tiles) -> str:
    """Cut tiles: (B, C, h, w) -> (T * B, C, h', w'), tile by tile, unlike the engine: ONNX can split that evenly."""
    if tiles.count == 1:
        return pictures
    high, wide = tiles.tile
    rows, columns = tiles.spans
    parts = [
        _slice(graph, pictures, (row.start, row.start + high), (column.start, column.start + wide), axis=2)
        for row in rows
        for column in columns
    ]
    return graph.add("Concat", *parts, axis=0)


def join(graph: Graph, distances: str, tiles: Tiles, stride: int) -> str:
    """Add `Tiles.join` for tiles of `cut`: (T * B, H, W) -> (B, h / stride, w / stride)."""
    if tiles.count == 1:
        return distances
    rows, columns = tiles.spans
    parts = [f"{distances}_tile_{place}" for place in range(tiles.count)]
    graph.add("Split", distances, results=parts, axis=0)
    by_tile, joined = iter(parts), []
    for row in rows:
        kept = [
            _slice(graph, next(by_tile), _ends(row.kept(stride)), _ends(column.kept(stride)), axis=1)
            for column in columns
        ]
        joined.append(graph.add("Concat", *kept, axis=2))
    return graph.add("Concat", *joined, axis=1)


def _ends(along: slice) -> tuple[int, int]:
    return along.start, along.stop


def _slice(graph: Graph, x: str, down: tuple[int, int], along: tuple[int, int], *, axis: int) -> str:
    """Add a slice along `axis` and the next axis; `down` and `along`: (start, end)."""
    starts, ends, axes = (
        graph.integers(numbers) for numbers in ([down[0], along[0]], [down[1], along[1]], [axis, axis + 1])
    )
    return graph.add("Slice", x, starts, ends, axes)
