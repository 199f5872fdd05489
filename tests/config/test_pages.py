"""README.md, daemon/README.md and the pages for people: what they name as ours is there, by the same name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "daemon/README.md", "model/README.md", "config/guide.md")
TOPS = ("config", "daemon", "model", "systemd", "tests")
PACKAGES = ("daemon/rejectd", "model/revdist")
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.iterdir(), *(path for top in TOPS for path in (ROOT / top).rglob("*")))
    if path.is_file()
]


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _is_there(name: str) -> bool:
    """Whether a file or folder has this path, or one that ends so."""
    return any(f"/{file}/".find(f"/{name.rstrip('/')}/") >= 0 for file in FILES)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    words = {word for code in re.findall(r"`([^`\n]+)`", _text(page)) for word in code.split()}
    ours = rf"(?:{'|'.join(TOPS)})/[\w./@-]*|[\w./-]+\.(?:py|md|toml)"
    paths = {word for word in words if re.fullmatch(ours, word)}
    assert [path for path in sorted(paths) if not _is_there(path)] == []


def _trees(page: str) -> Iterator[tuple[str, str]]:
    """Each line of the trees on a page: the folder at the margin that it stands below, and what it says."""
    for _, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", _text(page), re.DOTALL | re.MULTILINE):
        folder = ""
        for line in block.splitlines():
            if start := re.match(r"[\w/]+/(?= )", line):
                folder = start[0].rstrip("/")
            if folder:
                yield folder, line[len(start[0]) :] if start else line


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_of_the_code_names_every_room_and_nothing_else(package: str) -> None:
    named = set()
    for folder, line in _trees("daemon/README.md"):
        if folder == package and line.startswith("  "):
            names = re.split(r" {2,}", line.strip())
            named |= {name.rstrip("/") for name in names if " " not in name}
    assert named == _rooms(package)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_of_the_first_page_names_every_folder_of_the_code(package: str) -> None:
    words = " ".join(line for folder, line in _trees("README.md") if folder == package)
    named = set(re.findall(r"\b(\w+)/(?=\s|$)", words))
    assert named == {room for room in _rooms(package) if (ROOT / package / room).is_dir()}


def _rooms(package: str) -> set[str]:
    rooms = {
        path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    return rooms - {"__init__", "__main__"}


def _steps() -> list[str]:
    """The steps of the walks through the code."""
    text = _text("daemon/README.md")
    return re.findall(r"^\d+\. .*?(?=^\d+\. |^## |\Z)", text[text.index("\nThree walks") :], re.MULTILINE | re.DOTALL)


def test_there_are_three_walks() -> None:
    assert len(_steps()) > 25


@pytest.mark.parametrize("step", _steps(), ids=lambda step: " ".join(re.findall(r"\w+", step)[:6]))
def test_a_step_of_a_walk_names_what_stands_in_its_files(step: str) -> None:
    link = r"\[[^\]]*\]\((?P<file>[^)\s]+\.py)\)"
    name = r"`(?P<name>[A-Za-z_.]+)`"
    pairs = [*re.finditer(rf"{link} {name}", step), *re.finditer(rf"{name} (?:of|in) {link}", step)]
    for pair in pairs:
        assert _defines(ROOT / "daemon" / pair["file"], pair["name"]), pair[0]
    linked = [ROOT / "daemon" / file for file in re.findall(r"\]\(([^)\s]+\.py)\)", step)]
    bare = set(re.findall(r"\b\w+\.py\b", re.sub(link, "", step)))
    linked += [ROOT / file for file in FILES if file.startswith(PACKAGES) and file.rpartition("/")[2] in bare]
    strange = [word for word in re.findall(name, step) if not any(_defines(file, word) for file in linked)]
    assert strange == []


def _defines(file: Path, name: str) -> bool:
    """Whether a file defines a function, class or variable of this name; of `Engine.begin`, the last."""
    last = re.escape(name.rpartition(".")[2])
    return (
        re.search(rf"^\s*(?:def|class) {last}\b|^ *{last}\b.*[:=]", file.read_text(encoding="utf-8"), re.MULTILINE)
        is not None
    )
