"""What goes before the teacher and comes behind the student, as nodes of an ONNX graph.

B pictures, C channels, H W of a map, h w of the picture.
"""

from __future__ import annotations

import torch

from revdist import detector
from revdist.onnx_graph import Graph, onnx_package


def normalised(graph: Graph, pixels: str, mean: torch.Tensor, std: torch.Tensor) -> str:
    """As `detector.normalise`: uint8 (B, h, w, 3) -> (B, 3, h, w)."""
    floats = graph.add("Cast", pixels, to=onnx_package().TensorProto.FLOAT)  # at once: TensorRT takes uint8 only so
    centred = graph.add("Sub", floats, graph.floats(mean))
    return graph.add("Transpose", graph.add("Div", centred, graph.floats(std)), perm=[0, 3, 1, 2])


def distance(graph: Graph, taught: str, rebuilt: str) -> str:
    """As `detector.cosine_distance`: two (B, C, H, W) -> (B, H, W)."""
    dot = graph.add("ReduceSum", graph.add("Mul", taught, rebuilt), graph.integers([1]), keepdims=0)
    least = graph.floats(detector.EPSILON)
    norms = [graph.add("Max", graph.add("ReduceL2", each, axes=[1], keepdims=0), least) for each in (taught, rebuilt)]
    return graph.add("Sub", graph.floats(1.0), graph.add("Div", dot, graph.add("Mul", *norms)))
