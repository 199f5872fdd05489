"""Bundles that somebody crafted, or a program damaged: each is refused in words, or it is one that works."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from revdist.bundle import bundle, bundle_files
from revdist.bundle.bundle import Bundle
from revdist.cli import command as cli
from revdist.cli import summary
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.errors import BundleError, RevdistError
from revdist.networks import teacher

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 0.5, 3, 10**30, -(10**400), 1e308, float("nan"), float("inf")),
    *("", "x", "\0", "../../etc/passwd", "\udcfc", "9" * 5000),
    *([], {}, [[]], [1, 2, 3], [None, None], ["x", "y"], {"x": None}, [{}], {"": {"": {"": []}}}),
)
SAMPLE = 400  # of some thousand manifests
Step = str | int


def places(value: Any, above: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Every place of a JSON value but the whole."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in pairs:
        yield (*above, step)
        yield from places(inner, (*above, step))


def changed(manifest: Any, place: tuple[Step, ...], change: Callable[[Any, Step], None]) -> Any:
    made = copy.deepcopy(manifest)
    parent = made
    for step in place[:-1]:
        parent = parent[step]
    change(parent, place[-1])
    return made


def crafted(manifest: Any) -> Iterator[tuple[str, Any]]:
    """Manifests with one odd value each, one key too few, or one too many."""
    for place in places(manifest):
        for odd in ODD:
            yield (
                f"{place} = {odd!r:.40}",
                changed(manifest, place, lambda at, step, odd=odd: at.__setitem__(step, odd)),
            )
        yield f"{place} deleted", changed(manifest, place, lambda at, step: at.__delitem__(step))
        yield (
            f"{place} beside",
            changed(manifest, place, lambda at, _: at.update(odd=1) if isinstance(at, dict) else at.append(1)),
        )


def check(path: Path, engine: Engine | None = None) -> bool:
    """Whether it is a bundle, shown and loaded; where it is none, BundleError says so."""
    try:
        made = bundle.read(path, weights=engine is not None)
        json.dumps([*summary.bundle(made)])
        if engine:
            bundle.install(made, engine, product="crafted")
            engine.remove("crafted")
    except BundleError as error:
        return not error.message
    return True


def test_a_manifest_with_an_odd_value_is_refused_in_words_or_works(
    tiny: Bundle, tiny_copy: Path, engine: Engine
) -> None:
    file = tiny_copy / bundle_files.MANIFEST
    manifest = json.loads(file.read_text())
    every = list(crafted(manifest))
    assert len(every) > 2000
    count = int(os.environ.get("REVDIST_CRAFTED", SAMPLE))
    good = 0
    for name, odd in random.Random(5).sample(every, min(count, len(every))):
        file.write_text(json.dumps(odd))
        try:
            good += check(tiny_copy, engine if random.Random(name).random() < 0.02 else None)
        except Exception as error:
            error.add_note(name)
            raise
    assert good < count / 2, "most of them are refused"
    file.write_text(json.dumps(manifest))
    assert check(tiny_copy, engine)


def write(path: Path, name: str, content: bytes) -> None:
    """Put a file into a bundle, with the right hash in its manifest."""
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(content)
    declare(path, name, hashlib.sha256(content).hexdigest())


def declare(path: Path, name: str, sha256: str) -> None:
    manifest = json.loads((path / bundle_files.MANIFEST).read_text())
    manifest["files"][name] = sha256
    (path / bundle_files.MANIFEST).write_text(json.dumps(manifest))


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "of another type": lambda weights: {name: value.half() for name, value in weights.items()},
    "whole numbers": lambda weights: {name: value.to(torch.int64) for name, value in weights.items()},
    "complex numbers": lambda weights: {name: value.to(torch.complex64) for name, value in weights.items()},
    "none": lambda weights: {},
    "of other names": lambda weights: {f"x{name}": value for name, value in weights.items()},
    "of another shape": lambda weights: {name: value[None].contiguous() for name, value in weights.items()},
    "empty": lambda weights: {name: value.flatten()[:0].contiguous() for name, value in weights.items()},
    "not finite": lambda weights: {
        name: value * float("inf") if value.is_floating_point() else value for name, value in weights.items()
    },
}


@pytest.mark.parametrize("spoil", WEIGHTS)
def test_weights_that_no_student_has_are_refused_in_words(tiny_copy: Path, engine: Engine, spoil: str) -> None:
    weights = safetensors.torch.load_file(tiny_copy / bundle.STUDENT)
    write(tiny_copy, bundle.STUDENT, safetensors.torch.save(WEIGHTS[spoil](weights)))
    with pytest.raises(BundleError, match=r"student\.safetensors: "):
        bundle.load(tiny_copy, engine)


def tensors(header: str, content: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header.encode() + content


CONTENTS = {
    "empty": b"",
    "zeros": bytes(100),
    "text": b"hello, this is no tensor at all",
    "a header as long as memory": (2**63).to_bytes(8, "little") + b"{}",
    "a header that is cut off": (1000).to_bytes(8, "little") + b'{"x":',
    "an offset out of the file": tensors('{"x":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "an unknown type": tensors('{"x":{"dtype":"F3","shape":[0],"data_offsets":[0,0]}}'),
    "eight bits": tensors('{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}', b"\0"),
    "bfloat16": safetensors.torch.save({"torch-cpu-float32": torch.ones(5, dtype=torch.bfloat16)}),
    "scores of nobody": safetensors.numpy.save({"x": np.ones(5)}),
    "no scores": safetensors.numpy.save({"torch-cpu-float32": np.ones(0)}),
    "scores that are no numbers": safetensors.numpy.save({"torch-cpu-float32": np.full(5, np.nan)}),
    "other scores": safetensors.numpy.save({"torch-cpu-float32": np.arange(5.0)}),
    "whole numbers": safetensors.numpy.save({"torch-cpu-float32": np.arange(5)}),
    "one number": safetensors.numpy.save({"torch-cpu-float32": np.array(1.0)}),
}  # fmt: skip


@pytest.mark.parametrize("name", [bundle.STUDENT, bundle.CALIBRATION, bundle.RANGES, "golden/good-0.png"])
@pytest.mark.parametrize("content", CONTENTS)
def test_a_file_of_a_bundle_that_is_something_else_is_refused_in_words(
    tiny_copy: Path, engine: Engine, name: str, content: str
) -> None:
    write(tiny_copy, name, CONTENTS[content])
    with pytest.raises(BundleError):
        bundle.load(tiny_copy, engine)


LINKS: dict[str, Callable[[Path], object]] = {
    "out": lambda file: file.symlink_to("/etc/hostname"),
    "endless": lambda file: file.symlink_to("/dev/zero"),
    "circle": lambda file: file.symlink_to(file.name),
    "to nothing": lambda file: file.symlink_to("gone"),
    "folder": lambda file: file.mkdir(),
    "pipe": os.mkfifo,
}


@pytest.mark.parametrize("name", [bundle_files.MANIFEST, bundle.STUDENT, "golden/good-0.png"])
@pytest.mark.parametrize("link", LINKS)
def test_what_is_no_file_in_a_bundle_is_refused_in_words(tiny_copy: Path, engine: Engine, name: str, link: str) -> None:
    (tiny_copy / name).unlink()
    LINKS[link](tiny_copy / name)
    with pytest.raises(BundleError):
        bundle.load(tiny_copy, engine)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/hostname", "a/../../x", "a\\b", "", ".", "x" * 300, "a\0b", "\udcfc", "golden"]
)
def test_a_name_in_the_table_of_files_that_is_no_name_is_refused_in_words(tiny_copy: Path, name: str) -> None:
    declare(tiny_copy, name, "0" * 64)
    with pytest.raises(BundleError) as raised:
        bundle.read(tiny_copy)
    assert str(raised.value).strip()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"[" * 100_000,
        b"\xff\xfe{\0}\0",
        b"NaN",
        b"1" * 5000,
        b'{"schema": 5}',
    ],
)
def test_a_manifest_that_is_no_object_is_refused_in_words(tiny_copy: Path, text: bytes) -> None:
    (tiny_copy / bundle_files.MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="not a bundle's manifest"):
        bundle.read(tiny_copy)


RANGES: dict[str, Callable[[Any], Any]] = {
    "one column": lambda table: table[:, :1],
    "no number": lambda table: table * np.float32("nan"),
    "endless": lambda table: np.where(table == 0, table, np.inf).astype(np.float32),
    "the wrong way round": lambda table: np.stack([table[:, 1] + 1, table[:, 0]], 1),
    "without 0": lambda table: table + 1,
    "fewer": lambda table: table[:3],
    "none": lambda table: table[:0],
    "more": lambda table: np.concatenate([table, table]),
    "negative features": lambda table: table - 1,
    "of nothing": lambda table: table * 0,
    "far too wide": lambda table: table * np.float32(1e30),
}


@pytest.fixture(scope="module")
def int8_bundle(tiny: Bundle, good_cells: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is calibrated for int8."""
    folder = tmp_path_factory.mktemp("int8")
    (folder / "good").mkdir()
    for path in good_cells[60:84]:
        shutil.copy(path, folder / "good")
    shutil.copytree(tiny.path, folder / "cell")
    command = [
        "calibrate",
        folder / "cell",
        "--false-reject-rate",
        0.1,
        "--engine",
        "cpu-int8",
        "--good",
        folder / "good",
    ]
    assert cli.main([str(word) for word in command]) == 0
    return folder / "cell"


@pytest.mark.skipif(not backend.computes("int8"), reason="no 8-bit instructions here: NOT TESTED")
@pytest.mark.parametrize("spoil", RANGES)
def test_ranges_that_no_network_has_are_refused_in_words(
    int8_bundle: Path, tmp_path: Path, lite0: teacher.Teacher, spoil: str
) -> None:
    engine = Engine(lite0, device="cpu", precision="int8")
    crafted_bundle = Path(shutil.copytree(int8_bundle, tmp_path / "cell"))
    tables = safetensors.numpy.load_file(crafted_bundle / bundle.RANGES)
    spoilt = {name: np.ascontiguousarray(RANGES[spoil](table)) for name, table in tables.items()}
    write(crafted_bundle, bundle.RANGES, safetensors.numpy.save(spoilt))
    with pytest.raises(RevdistError, match=r"ranges|0 is not in|, expected "):
        bundle.load(crafted_bundle, engine)
    assert not engine.products
