"""Choose the engine for bundles where none is named, and say what a better one needs."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from revdist.bundle.bundle import Bundle
from revdist.engines import backend
from revdist.engines.backend import AUTO, Name
from revdist.engines.openvino import compiled

log = logging.getLogger("revdist")


def engine(bundles: Sequence[Bundle], wanted: Name) -> Name:
    """Return the fastest engine that this machine has and that all bundles are calibrated for.

    A bundle that is not calibrated for OpenVINO runs on torch, as it did before OpenVINO was the usual runtime: a
    warning then says how to calibrate it. Raises RevdistError for a missing runtime or device.
    """
    name = backend.fastest(wanted, [bundle.calibrations for bundle in bundles])
    if wanted.runtime != AUTO or name.runtime != backend.TORCH:
        return name
    target = backend.target(name.device, name.precision, name.runtime)
    if target.device.type != "cpu":
        return name
    better = f"{backend.OPENVINO}-{target.device.type}-{target.precision}"
    if not compiled.installed():
        log.warning(
            "computing on %s, for openvino or onnx is not installed: pip install openvino onnx", target.identity
        )
    for bundle in bundles:
        if better not in bundle.calibrations:
            log.warning(
                "%s is not calibrated for %s and runs on %s, which other programs slow down more; to calibrate it: %s",
                bundle.path, better, target.identity, bundle.command_to_calibrate(better),
            )  # fmt: skip
    return name
