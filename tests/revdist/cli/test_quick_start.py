"""revdist.cli.command and rejectd.cli.command: what needs no network is answered without waiting for torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from revdist import recipe
from revdist.cli import command
from revdist.networks import resnet, teacher

_SLOW = {  # by program: what takes long to import, and is not needed to answer
    "revdist": ("torch", "torchvision", "scipy", "cv2", "openvino"),
    "rejectd": ("torch", "torchvision", "scipy", "cv2", "openvino", "numpy", "pydantic", "yaml"),
}


@pytest.mark.parametrize("program", ["revdist", "rejectd"])
@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--help"], 0, "usage: "),
        (["--version"], 0, ""),
        (["trian"], 2, "invalid choice: 'trian'"),
        ([], 2, "required: COMMAND"),
    ],
)
def test_help_version_and_a_typing_error_are_answered_before_anything_slow_is_imported(
    program: str, words: list[str], status: int, told: str
) -> None:
    _check(program, words, status, told)


@pytest.mark.parametrize("name", ["train", "evaluate", "calibrate", "report", "predict", "bench", "import-rd4ad"])
def test_help_of_a_command_is_as_quick(name: str) -> None:
    _check("revdist", [name, "--help"], 0, f"usage: revdist {name}")


def test_a_wrong_teacher_is_refused_as_quickly() -> None:
    words = ["train", "--good", "g", "--product", "p", "--output", "o", "--teacher", "resnet19"]
    _check("revdist", words, 2, "invalid choice: 'resnet19' (choose from ")


def test_a_folder_that_holds_no_bundle_is_told_as_quickly(tmp_path: Path) -> None:
    for words in (["show", "cel"], ["predict", "cel", "a.png"], ["evaluate", "cel", "--data", "."]):
        words[1] = str(tmp_path / "cel")
        _check("revdist", words, 2, f"{tmp_path}/cel/bundle.json: cannot be read: No such file or directory")


def _check(program: str, words: list[str], status: int, told: str) -> None:
    """Run a program in a process of its own, which then tells what it imported."""
    place = {"revdist": "revdist.__main__", "rejectd": "rejectd.cli"}[program]
    code = f"""
import atexit, sys
atexit.register(lambda: print("imported", *sorted(set(sys.modules) & {set(_SLOW[program])!r}), file=sys.stderr))
from {place} import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert told.replace("'", "") in (done.stdout + done.stderr).replace("'", "")  # Python 3.12 quotes otherwise
    assert done.stderr.splitlines()[-1] == "imported"


def test_both_commands_tell_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        command.main(["--version"])
    name, version = capsys.readouterr().out.split()
    assert name == "revdist"
    assert version[0].isdigit()


def test_names_that_the_options_offer_are_those_of_the_networks() -> None:
    assert recipe.TEACHERS == teacher.NAMES
    assert recipe.RESNETS == resnet.NAMES


def test_every_command_has_a_function() -> None:
    parser = command._parser()
    (subcommands,) = [action for action in parser._actions if action.choices and action.dest == "==SUPPRESS=="]
    assert isinstance(subcommands.choices, dict)
    names = {choice.get_default("command") for choice in subcommands.choices.values()}
    assert len(names) == len(subcommands.choices)
    assert all(callable(pkgutil.resolve_name(f"revdist.cli.{name}")) for name in names)
