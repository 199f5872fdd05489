"""revdist.engines.backend: names of engines, and what a machine can do."""

from __future__ import annotations

import sys

import pytest
import torch

from revdist.engines import backend
from revdist.engines.backend import Name
from revdist.engines.processor import packed
from revdist.errors import RevdistError

ALL = {"avx512_bf16": True, "avx512_vnni": True}
NONE: dict[str, bool] = {}


def _machine(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool]) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("auto", Name("auto", "float32", "torch")),
        ("cpu", Name("cpu", "float32", "torch")),
        ("cpu-int8", Name("cpu", "int8", "torch")),
        ("torch-cpu-bfloat16", Name("cpu", "bfloat16", "torch")),
        ("torch-cuda-float16", Name("cuda", "float16", "torch")),
        ("openvino-cpu", Name("cpu", "float32", "openvino")),
        ("openvino-cpu-bfloat16", Name("cpu", "bfloat16", "openvino")),
    ],
)
def test_names_of_engines(name: str, expected: Name) -> None:
    assert backend.parse(name) == expected


@pytest.mark.parametrize(
    "name", ["", "torch", "torch-", "openvino-", "cpu-", "cpu-int8-fast", "-int8", "openvino-cpu-int8-fast"]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(RevdistError, match=r"there is no engine .*write auto, cpu, cuda or such as torch-cpu-bfloat16"):
        backend.parse(name)


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("tpu", "float32", "no device 'tpu'"),
        ("mps", "float32", "not supported"),
        ("cpu", "int4", "precision 'int4' is not supported; use one of float32, bfloat16, float16, int8"),
        ("cpu", "float16", "no float16 on cpu; use one of int8, bfloat16, float32"),
        ("cuda", "int8", "no int8 on cuda; use one of float16, bfloat16, float32"),
    ],
)
def test_what_no_machine_has_is_refused(device: str, precision: str, message: str) -> None:
    with pytest.raises(RevdistError, match=message):
        backend.target(device, precision)


@pytest.mark.parametrize(
    ("precision", "needed"), [("bfloat16", "avx512_bf16 or amx_bf16 or bf16"), ("int8", "avx512_vnni or")]
)
def test_a_processor_that_would_only_imitate_a_precision_is_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, needed: str
) -> None:
    _machine(monkeypatch, NONE)
    with pytest.raises(RevdistError, match=f"this processor cannot compute in {precision}: no {needed}"):
        backend.target("cpu", precision)


@pytest.mark.skipif(not packed.available(), reason="this torch has no oneDNN: NOT TESTED")
def test_the_fastest_is_what_all_bundles_are_calibrated_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, ALL)
    auto, cpu, cuda = (Name(device, "auto", "torch") for device in ("auto", "cpu", "cuda"))
    every = {"torch-cpu-float32", "torch-cpu-bfloat16", "torch-cpu-int8"}
    assert backend.fastest(auto, [every, every]).precision == "int8"
    assert backend.fastest(auto, [every, every - {"torch-cpu-int8"}]).precision == "bfloat16"
    assert backend.fastest(cpu, [every, {"torch-cpu-float32"}]).precision == "float32"
    assert backend.fastest(cpu, [{"torch-cuda-float16"}]).precision == "float32", "the error will say what is missing"
    gpu = [{"torch-cuda-float16"}, {"torch-cuda-float16", "torch-cpu-int8"}]
    assert backend.fastest(cuda, gpu) == Name("cuda", "float16", "torch")
    _machine(monkeypatch, NONE)
    assert backend.fastest(auto, [every]).precision == "float32", "this machine has nothing else"


AUTO = Name("auto", "auto", "auto")
FLOAT32 = {"torch-cpu-float32", "openvino-cpu-float32"}


def test_auto_is_openvino_on_a_processor_or_torch_where_a_bundle_knows_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _machine(monkeypatch, ALL)
    assert backend.fastest(AUTO, [FLOAT32, FLOAT32]) == Name("auto", "float32", "openvino")
    assert backend.fastest(AUTO, [FLOAT32, {"torch-cpu-float32"}]) == Name("auto", "float32", "torch")
    assert backend.fastest(AUTO, [FLOAT32 | {"torch-cpu-int8"}]) == Name("auto", "int8", "torch"), (
        "calibrated on purpose"
    )
    assert backend.fastest(Name("cpu", "float32", "auto"), [FLOAT32]) == Name("cpu", "float32", "openvino")
    assert backend.fastest(Name("cpu", "auto", "torch"), [FLOAT32]) == Name("cpu", "float32", "torch"), "as it was set"
    assert backend.fastest(AUTO, [{"torch-cuda-float32"}]).runtime == "openvino", "what the error asks to calibrate for"


def test_auto_is_a_gpu_where_there_is_one_and_torch_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, ALL)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert backend.fastest(AUTO, [FLOAT32]) == Name("auto", "float32", "torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.fastest(AUTO, [FLOAT32 | {"torch-cuda-float16"}]) == Name("auto", "float16", "torch")
    assert backend.fastest(Name("cuda", "auto", "auto"), [{"torch-cuda-float32"}]) == Name("cuda", "float32", "torch")


def test_an_identity_is_a_name() -> None:
    found = backend.target("cpu")
    assert found.identity == "torch-cpu-float32"
    assert backend.parse(found.identity) == Name("cpu", "float32", "torch")


def test_a_runtime_that_is_not_known_is_refused() -> None:
    with pytest.raises(RevdistError, match="no runtime 'tvm'; use one of torch, openvino"):
        backend.target("cpu", runtime="tvm")
