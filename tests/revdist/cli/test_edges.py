"""The commands on places that cannot be read or written: a message in words, before the work where that can be."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from revdist.bundle import bundle_files
from revdist.bundle.bundle import Bundle
from revdist.data import images
from revdist.errors import BundleError, DataError

Run = Callable[..., tuple[int, str, str]]


def copy(source: Path, target: Path) -> Path:
    """A copy that everybody may read."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    return target


@pytest.fixture
def place(good_folder: Path) -> Iterator[Path]:
    """A folder for everybody: with pictures, one that nobody may enter, and one into which nobody may write."""
    folder = Path(tempfile.mkdtemp(prefix="edges-"))
    folder.chmod(0o777)
    copy(good_folder, folder / "good")
    (folder / "shut" / "inner").mkdir(parents=True)
    (folder / "shut").chmod(0)
    (folder / "fixed").mkdir()
    (folder / "fixed").chmod(0o555)
    yield folder
    for name in ("shut", "fixed"):
        (folder / name).chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def bundle_of_all(tiny: Bundle, place: Path) -> Path:
    """A bundle that everybody may read."""
    return copy(tiny.path, place / "cell")


@pytest.fixture
def nobody(bundle_of_all: Path, lite0: object) -> Iterator[None]:
    """As a user without rights, who has what the fixtures made."""
    for commands in ("bundle", "judging", "training"):  # as root: nobody may not look into an environment of root's
        import_module(f"revdist.cli.{commands}_commands")
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


SHUT = "Permission denied: it is below {place}/shut, which user "
FIXED = "Permission denied: user "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("show {place}/shut/inner", SHUT),
        ("evaluate {place}/cell --data {place}/shut/inner", SHUT),
        ("predict {place}/cell {place}/shut/a.png", SHUT),
        ("predict {place}/cell {picture} --heatmaps {place}/fixed", FIXED),
        ("predict {place}/cell {picture} --maps {place}/fixed/new", FIXED),
        ("predict {place}/cell {picture} --heatmaps {place}/shut/new", SHUT),
        ("predict {place}/cell {picture} --heatmaps {picture}", "File exists"),
        ("calibrate {place}/cell --good {place}/shut --false-reject-rate 0.1", FIXED),
        ("calibrate {place}/cell --good {place}/shut/inner --false-reject-rate 0.1", SHUT),
        ("calibrate {place}/cell --good {place}/good --false-reject-rate 0.1 --exclude {place}/shut/a.png", SHUT),
        ("{train} --good {place}/shut/inner --product cell --output {place}/new", SHUT),
        ("{train} --good {place}/good --product cell --output {place}/shut/new", SHUT),
        ("{train} --good {place}/good --product cell --output {place}/fixed/new", FIXED),
        ("{train} --good {place}/good --product cell --output {place}/new --teacher-weights {place}/shut/w", SHUT),
        (
            "{train} --good {place}/good --product cell --output {place}/{long}",
            "has 300 bytes",
        ),
        ("report {place}/cell --output {place}/fixed/report.html", FIXED),
        ("report {place}/cell --output {place}/shut/inner/report.html", SHUT),
        ("report {place}/cell --output {place}/{long}", "has 300 bytes"),
        ("bench {place}/cell --json {place}/shut/figures.json", SHUT),
        ("benchmark {place}/shut/inner --output {place}/new", SHUT),
        ("show {place}/{long}", "has 300 bytes"),
        ("predict {place}/cell {place}/{long}.png", "has 304 bytes"),
    ],
)
def test_a_place_that_is_closed_is_told_without_a_traceback(
    run: Run, place: Path, nobody: None, arguments: str, message: str
) -> None:
    words = {
        "train": "train --teacher efficientnet_lite0",
        "place": place,
        "picture": images.good_pictures(place / "good")[0],
        "long": "x" * 300,
    }
    status, _, err = run(*arguments.format(**words).split())
    assert status == 2
    assert message.format(**words) in err


def test_names_in_latin_1_go_through_every_command(run: Run, tiny: Bundle, place: Path, lite0: object) -> None:
    good = place / os.fsdecode(b"gut-f\xfcr")
    shutil.copytree(images.good_folder(place / "good"), good)
    for number, picture in enumerate(sorted(good.iterdir())):
        picture.rename(good / (os.fsdecode(b"T\xfcr-%03d" % number) + picture.suffix))
    picture = min(good.iterdir())
    assert len(images.fingerprint(sorted(good.iterdir()))) == 64
    output = place / os.fsdecode(b"h\xfctte")
    status, out, _ = run("predict", tiny.path, picture, "--heatmaps", output, "--maps", output, "--json")
    assert status == 0
    assert json.loads(out)["image"] == str(picture)
    assert {path.suffix for path in output.iterdir()} == {".npy", ".png"}
    report = output / "report.html"
    assert run("report", tiny.path, "--good", good, "--output", report)[0] == 0
    other = copy(tiny.path, output / "cell")
    status, _, err = run(
        *("calibrate", other, "--good", good, "--false-reject-rate", "0.2", "--engine", "cpu-bfloat16"),
        *("--suspects", output / "suspects"),
    )
    assert status == 0, err
    assert any(os.fsdecode(b"\xfc") in path.name for path in (output / "suspects").iterdir())
    assert run("show", other)[0] == 0


def test_a_name_with_a_null_byte_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="null byte"):
        bundle_files.check_place(tmp_path / "a\0b", replace=False)
    with pytest.raises(DataError, match="null byte"):
        images.pictures_in(tmp_path / "a\0b")
