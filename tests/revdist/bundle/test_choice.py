"""revdist.bundle.choice: which engine runs bundles where none is named, and what is said about a better one."""

from __future__ import annotations

import dataclasses
import logging
import sys

import pytest
import torch

from revdist.bundle import choice
from revdist.bundle.bundle import Bundle
from revdist.engines.backend import Name

AUTO = Name("auto", "auto", "auto")
CPU = Name("cpu", "auto", "auto")


def _calibrated(bundle: Bundle, *engines: str) -> Bundle:
    calibration = bundle.calibration("torch-cpu-float32")
    return dataclasses.replace(bundle, calibrations=dict.fromkeys(engines, calibration))


def test_a_new_bundle_runs_on_openvino_and_nothing_is_said(tiny: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    assert choice.engine([tiny, tiny], CPU) == Name("cpu", "float32", "openvino")
    assert caplog.text == ""


def test_an_older_bundle_goes_on_with_torch_and_a_warning_tells_the_command(
    tiny: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    older = _calibrated(tiny, "torch-cpu-float32")
    assert choice.engine([tiny, older], CPU) == Name("cpu", "float32", "torch")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "is not calibrated for openvino-cpu-float32 and runs on torch-cpu-float32" in record.getMessage()
    assert record.getMessage().endswith(
        f"revdist calibrate {tiny.path} --good DIR --false-reject-rate 0.2 --engine openvino-cpu-float32"
    )


def test_who_asks_for_torch_is_not_warned(tiny: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    older = _calibrated(tiny, "torch-cpu-float32")
    assert choice.engine([older], Name("cpu", "auto", "torch")) == Name("cpu", "float32", "torch")
    assert caplog.text == ""


def test_without_openvino_torch_computes_and_a_warning_says_what_to_install(
    tiny: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert choice.engine([tiny], CPU) == Name("cpu", "float32", "torch")
    assert [record.getMessage() for record in caplog.records] == [
        "computing on torch-cpu-float32, for openvino or onnx is not installed: pip install openvino onnx"
    ]


def test_a_gpu_comes_first(tiny: Bundle, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    bundle = _calibrated(tiny, "torch-cuda-float32", "torch-cpu-float32")
    assert choice.engine([bundle], AUTO) == Name("auto", "float32", "torch")
    assert caplog.text == ""
