"""Exports a bundle's detector as an ONNX model for other runtimes: prepared pictures in, maps and scores out.

B: pictures of a batch. C: channels. h w: the bundle's size. The graph holds normalisation, teacher, student, cosine
distances and scoring, all in float32. With the same versions, a bundle gives the same file, byte for byte.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.data.inspection_mask import InspectionMask
from revdist.data.tiles import Tiles
from revdist.engines import recording
from revdist.engines.engine import Engine
from revdist.engines.folding import optimise
from revdist.engines.openvino import onnx_detector
from revdist.engines.openvino.onnx_graph import FORMAT, OPSET, Graph, onnx_package
from revdist.errors import RevdistError
from revdist.files import folders, trouble
from revdist.networks.teacher import Teacher
from revdist.scoring import detector
from revdist.scoring.detector import Scoring

PIXELS, MAP, SCORE = "pixels", "anomaly_map", "score"
TOLERANCE = 1e-4  # relative: how far a golden picture's score may be from torch's
DESCRIPTION = (
    f"{PIXELS}: uint8 (B, h, w, 3), prepared as the metadata `preprocessing` says. {MAP}: float32 (B, h, w), smoothed. "
    f"{SCORE}: float32 (B,), raw; a part is rejected where it is over the threshold, which belongs to an engine."
)
_CPU = torch.device("cpu")
_EXAMPLE = 64  # side of the picture that networks are recorded on, pixels; any size would do


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The file that was written, and how it compares with torch."""

    path: Path
    pictures: int  # golden pictures of the bundle
    difference: float | None  # largest relative one of their scores; None without onnxruntime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkParts:
    """The parts of a detector that becomes an ONNX model."""

    name: str
    teacher: Teacher
    student: nn.Module
    tiles: Tiles  # that the networks see a picture in
    scoring: Scoring
    mask: InspectionMask | None = None  # what is not inspected


def check(output: Path) -> None:
    """Raise RevdistError, before the work, if onnx is missing or no file can be written at `output`."""
    onnx_package()
    folders.check_takes_file(output, RevdistError, what="a model cannot", hint="name a file, such as cell.onnx")


def export(source: Path, output: Path, teacher: Teacher, *, batch: int = 0) -> Exported:
    """Write the bundle at `source` as an ONNX file that takes `batch` pictures at once, or any number (0).

    The bundle is first checked on torch. The written model has passed ONNX's checker and, if onnxruntime is installed,
    scores the golden pictures as torch does. Raises RevdistError and then writes no file.
    """
    check(output)
    engine = Engine(teacher, device="cpu")
    product_bundle = bundle.load(source, engine)
    content = model(product_bundle, teacher, batch=batch)
    difference = _difference(content, product_bundle, engine, batch)
    if difference is not None and not difference <= TOLERANCE:
        raise RevdistError(
            f"{source}: onnxruntime's scores of the golden pictures differ from torch's by {difference:.1e}",
            hint="nothing was written; try other versions of onnx and onnxruntime",
        )
    try:
        folders.write_file(output, content)
    except trouble.FILE_ERRORS as error:
        raise trouble.error(RevdistError, error, output, "written", hint="choose another --output") from error
    return Exported(path=output, pictures=len(product_bundle.golden), difference=difference)


def model(product_bundle: Bundle, teacher: Teacher, *, batch: int = 0) -> bytes:
    """Return the ONNX model: `pixels` uint8 (B, h, w, 3) RGB -> `anomaly_map` float32 (B, h, w), `score` float32 (B,).

    B is `batch`, or open if `batch` is 0. `teacher` must be the teacher that the bundle was trained with.
    """
    parts = NetworkParts(
        name=product_bundle.product,
        teacher=teacher,
        student=bundle.student(product_bundle),
        tiles=product_bundle.recipe.tiles,
        scoring=bundle.scoring(product_bundle),
        mask=product_bundle.mask,
    )
    return assemble(parts, _metadata(product_bundle), batch=batch)


def assemble(parts: NetworkParts, metadata: dict[str, str], *, batch: int = 0) -> bytes:
    """Build the ONNX model of a detector, with metadata for programs that run the model."""
    if batch < 0:
        raise RevdistError(f"batch is {batch}, must be 1 or more, or 0 for any number of pictures")
    onnx, graph = onnx_package(), Graph()
    _add_detector(graph, parts)
    rows, kinds, typed = batch or "batch", onnx.TensorProto, onnx.helper.make_tensor_value_info
    inputs = [typed(PIXELS, kinds.UINT8, [rows, *parts.tiles.size, 3])]
    outputs = [typed(MAP, kinds.FLOAT, [rows, *parts.tiles.size]), typed(SCORE, kinds.FLOAT, [rows])]
    onnx_model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, parts.name, inputs, outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
        producer_name="revdist",
        producer_version=importlib.metadata.version("rejectd"),
        doc_string=DESCRIPTION,
    )
    onnx.helper.set_model_props(onnx_model, metadata)
    content: bytes = onnx_model.SerializeToString(deterministic=True)
    onnx.checker.check_model(content, full_check=True)
    return content


def _add_detector(graph: Graph, parts: NetworkParts) -> None:
    """Add everything that `Engine.inspect` computes to the graph."""
    trunk, student = optimise(parts.teacher.trunk, _CPU), optimise(parts.student, _CPU)
    picture = torch.zeros(1, 3, _EXAMPLE, _EXAMPLE)
    with torch.no_grad():
        features = trunk(picture)
    pixels = onnx_detector.normalised(graph, PIXELS, parts.teacher.mean, parts.teacher.std, parts.mask)
    tile_pixels = onnx_detector.cut(graph, pixels, parts.tiles)
    taught = graph.network(recording.record(trunk, picture), [tile_pixels])
    rebuilt = graph.network(recording.record(student, *features), taught)
    pairs = list(zip(taught, rebuilt, strict=True))
    distances = [onnx_detector.distance(graph, *pair) for pair in pairs]
    joined = [
        onnx_detector.join(graph, distance, parts.tiles, stride)
        for distance, stride in zip(distances, detector.STRIDES, strict=True)
    ]
    if parts.scoring.combination is not None:
        joined = _weighted(graph, joined, pairs, parts)
    mask, size = parts.mask, parts.tiles.size
    whole = _add_map(graph, joined, size, parts.scoring, MAP if mask is None else "whole_map")
    if mask is not None:
        inspected = torch.tensor(mask.inspected, dtype=torch.float32)
        graph.add("Mul", whole, graph.floats(inspected), results=[MAP])
    _add_score(graph, size[0] * size[1] if mask is None else int(mask.inspected.sum()), parts.scoring)


def _weighted(graph: Graph, distances: list[str], pairs: Sequence[tuple[str, str]], parts: NetworkParts) -> list[str]:
    """Add what `Combination` computes; `distances`: three, joined; `pairs`: the maps of teacher and student."""
    combination = parts.scoring.combination
    assert combination is not None
    weighted = list(distances)
    for scale, gain in combination.gains.items():
        scaled = graph.add("Mul", distances[scale - 1], graph.floats(gain))
        total = graph.add("Add", scaled, graph.floats(combination.offsets[scale]))
        if scale in combination.whitening:
            residual = onnx_detector.residual(graph, *pairs[scale - 1])
            whitening, centre = combination.whitening[scale], combination.centres[scale]
            whitened = onnx_detector.squares(graph, residual, whitening, centre)
            stride = detector.STRIDES[scale - 1]
            total = graph.add("Add", total, onnx_detector.join(graph, whitened, parts.tiles, stride))
        weighted[scale - 1] = total
    return weighted


def _add_map(graph: Graph, distances: Sequence[str], size: tuple[int, int], scoring: Scoring, name: str) -> str:
    """Add what `detector.Spread` computes, three (B, H, W) -> (B, h, w), called `name`.

    The Gaussian is always a matrix product.
    """
    spread = detector.Spread(size, _CPU, scoring)
    pairs = list(zip(spread.sides, scoring.chosen(distances), strict=True))
    wide = [graph.add("MatMul", distance, graph.floats(sides.columns)) for sides, distance in pairs]  # (B, H, w)
    if scoring.combine == "add":
        stacked = graph.add("Concat", *wide, axis=1)
        all_rows = graph.floats(torch.cat([sides.rows for sides in spread.sides], 1))
        if scoring.combination is None:
            return graph.add("MatMul", all_rows, stacked, results=[name])
        return graph.add("Relu", graph.add("MatMul", all_rows, stacked), results=[name])
    maps = [
        graph.add("MatMul", graph.floats(sides.rows), wide_map)
        for sides, wide_map in zip(spread.sides, wide, strict=True)
    ]
    product = functools.reduce(functools.partial(graph.add, "Mul"), maps)
    along_rows, along_columns = (detector.spreading(side, side) for side in size)  # for maps that have the size already
    high = graph.add("MatMul", graph.floats(along_rows), product)
    return graph.add("MatMul", high, graph.floats(along_columns.T), results=[name])


def _add_score(graph: Graph, counted: int, scoring: Scoring) -> None:
    """Add what `detector.scores` computes: (B, h, w) -> (B,). `counted`: values of a map that are inspected."""
    if not scoring.top_share:
        graph.add("ReduceMax", MAP, axes=[1, 2], keepdims=0, results=[SCORE])
        return
    count = graph.integers([detector.top_count(scoring.top_share, counted)])
    highest = graph.add("TopK", graph.add("Flatten", MAP), count, results=["highest", "highest_places"])
    graph.add("ReduceMean", highest, axes=[1], keepdims=0, results=[SCORE])


def _metadata(product_bundle: Bundle) -> dict[str, str]:
    """Return what a program that runs the model may want to know."""
    thresholds = {
        f"threshold.{engine}": repr(calibration.threshold)
        for engine, calibration in product_bundle.calibrations.items()
        if engine.endswith("-float32")  # the model computes in float32
    }
    versions = {f"trained.{name}": version for name, version in product_bundle.versions.items()}
    versions |= {f"exported.{name}": importlib.metadata.version(name) for name in ("rejectd", "torch", "onnx")}
    fit = product_bundle.recipe.fit
    preprocessing = images.PREPROCESSING if fit == "stretch" else f"{images.PREPROCESSING}, {fit} to the aspect ratio"
    if product_bundle.recipe.alignment:
        preprocessing += f", after alignment to the bundle's {bundle.REFERENCE}"
    identity = {"product": product_bundle.product, "bundle_sha256": product_bundle.digest}
    identity |= {"preprocessing": preprocessing}
    identity |= {"teacher": product_bundle.teacher.name, "teacher_sha256": product_bundle.teacher.sha256}
    return {**identity, **thresholds, **versions}


def _difference(content: bytes, product_bundle: Bundle, engine: Engine, batch: int) -> float | None:
    """Return the largest relative difference between onnxruntime's and torch's score of a golden picture."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    pictures = [pixels for _, pixels in bundle.golden_pictures(product_bundle)]
    expected = engine.inspect(pictures, [product_bundle.product] * len(pictures)).scores
    at_once = batch or len(pictures)
    # whole batches: some come twice
    places = np.resize(np.arange(len(pictures)), -(-len(pictures) // at_once) * at_once)
    batches = [np.stack([pictures[place] for place in part]) for part in places.reshape(-1, at_once)]
    scores = np.concatenate([session.run([SCORE], {PIXELS: chunk})[0] for chunk in batches])[: len(pictures)]
    return float(np.max(np.abs(scores - expected) / np.abs(expected)))
