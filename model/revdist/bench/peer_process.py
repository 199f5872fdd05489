"""Runs one peer in a process of its own: `python -m revdist.bench.peer_process KIND FOLDER`.

A number on stdin asks for a call with that many pictures. The answer is a line of JSON with the seconds of the call and
the score of its first picture. FOLDER holds the set-up, the picture as a camera gives it, and the weights or the model.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from revdist.bench import official_loop
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines.openvino import compiled
from revdist.networks import teacher
from revdist.scoring import detector

SETUP, PICTURE, MODEL = "setup.json", "picture.npy", "model.onnx"
_ON_TORCH = ("rd4ad", "anomalib-torch")
Call = Callable[[int], float]  # number of pictures -> score of the first picture
_OPENVINO, _ANOMALIB = "openvino-", "anomalib-openvino-"  # followed by the precision


class RefusedError(Exception):
    """This machine lacks something that the peer needs."""


def main() -> int:
    """Answer until stdin ends. Whatever a library prints goes to stderr, because stdout is for answers."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        try:
            call = call_of_peer(kind, folder)
        except RefusedError as refused:
            answers.write(json.dumps({"refused": str(refused)}) + "\n")
            return 0
        answers.write(json.dumps({"ready": kind}) + "\n")
        for line in sys.stdin:
            begin = time.perf_counter()
            score = call(int(line))
            answers.write(json.dumps({"seconds": time.perf_counter() - begin, "score": score}) + "\n")
    return 0


def call_of_peer(kind: str, folder: Path) -> Call:
    """Return the function that runs a peer. Raises RefusedError."""
    setup = json.loads((folder / SETUP).read_text())
    picture: Pixels = np.load(folder / PICTURE)
    torch.set_num_threads(setup["threads"] if kind in _ON_TORCH else 1)  # one runtime a process has threads
    if kind == "rd4ad":
        return _official(folder, picture, setup)
    if kind.startswith(_OPENVINO):
        hint = _hint(kind.removeprefix(_OPENVINO))
        return _openvino(hint, (folder / MODEL).read_bytes(), picture, setup)
    return _anomalib(kind, folder, picture, setup)


def _hint(precision: str) -> str:
    """Return OpenVINO's name of a precision. Raises RefusedError."""
    if not compiled.computes(precision):
        raise RefusedError(f"OpenVINO has no {precision} on this processor")
    return compiled.HINTS[precision]


def _official(folder: Path, picture: Pixels, setup: dict[str, Any]) -> Call:
    """Return the paper's loop, which always takes one picture."""
    trunk = teacher.build(setup["teacher"])
    student = detector.Student(setup["teacher"], design=setup["design"], bottleneck=setup["bottleneck"])
    for name, module in (("teacher", trunk), ("student", student)):
        module.load_state_dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))
    taught_by, size = teacher.Teacher(setup["teacher"], trunk, "as given"), (setup["size"][0], setup["size"][1])
    device = torch.device(setup["device"])
    if setup["checkout"] is None:
        loop = official_loop.written_anew(taught_by, student, size, device)
    else:
        loop = official_loop.of_checkout(Path(setup["checkout"]), taught_by, student, size, device)
    return lambda _count: loop(picture)[1]  # the score is on the host, so the device has finished


def _openvino(hint: str, content: bytes, picture: Pixels, setup: dict[str, Any]) -> Call:
    """Return the exported model, compiled for a batch size at its first call, which suits OpenVINO best."""
    core, size = compiled.openvino_package().Core(), (setup["size"][0], setup["size"][1])
    config = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": setup["threads"],
        "PERFORMANCE_HINT": "LATENCY",
    }
    models: dict[int, Any] = {}

    def call(count: int) -> float:
        if count not in models:
            model = core.read_model(content)
            model.reshape({"pixels": [count, *size, 3]})
            models[count] = core.compile_model(model, "CPU", config)
        prepared = np.stack([images.prepare(picture, size) for _ in range(count)])
        return float(models[count]({"pixels": prepared})["score"][0])

    return call


def _anomalib(kind: str, folder: Path, picture: Pixels, setup: dict[str, Any]) -> Call:
    """Return anomalib's own model with random weights: only its time can be compared. Tested with anomalib 2.7."""
    from anomalib.models import ReverseDistillation

    model, size = ReverseDistillation(backbone=setup["teacher"], pre_trained=False).eval(), tuple(setup["size"])
    if kind == "anomalib-torch":

        @torch.inference_mode()
        def forward(count: int) -> float:
            floats = torch.from_numpy(np.stack([picture] * count)).permute(0, 3, 1, 2).float() / 255
            return float(model(floats).pred_score.flatten()[0])  # the model resizes and normalises by itself

        return forward
    from anomalib.deploy import OpenVINOInferencer

    os.chdir(folder)  # a cache folder is made in the working directory
    config = {"INFERENCE_PRECISION_HINT": _hint(kind.removeprefix(_ANOMALIB))}
    model_file = model.to_openvino(export_root=folder, input_size=size)
    inferencer = OpenVINOInferencer(path=model_file, device="CPU", config=config)

    def predict(count: int) -> float:
        for _ in range(count):  # the inferencer takes one picture at a time
            prediction = inferencer.predict(images.prepare(picture, size).astype(np.float32) / 255)
        return float(np.ravel(prediction.pred_score)[0])

    return predict


if __name__ == "__main__":
    sys.exit(main())
