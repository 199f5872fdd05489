"""config/guide.md and the other pages: what they tell people to type is there, and so is what they link."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import rejectd.cli
import revdist.cli

ROOT = Path(__file__).parents[3]
ROOMS = ("config", "daemon", "model", "systemd", "tests")
PAGES = sorted({*ROOT.glob("*.md"), *(page for room in ROOMS for page in ROOT.glob(f"{room}/**/*.md"))})
GUIDE = ROOT / "config" / "guide.md"
COMMANDS = sorted(
    {
        line.split("  #")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
        if line.startswith(("revdist ", "rejectd "))
    }
)


def test_the_guide_has_commands() -> None:
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_of_the_guide_has_the_options_that_it_is_given(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, command, *words = shlex.split(line)
    main = {"revdist": revdist.cli.main, "rejectd": rejectd.cli.main}[program]
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert [word for word in words if word.startswith("--") and not re.search(rf"{word}\b", told)] == []
    if command == "command":
        assert words[1] in told.replace(",", " ").split(), "a command of the line"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    lost = []
    for file, _, heading in (link.partition("#") for link in links if "://" not in link):
        target = page.parent / file if file else page
        if not target.exists() or (heading and heading not in _headings(target)):
            lost.append(f"{file}#{heading}")
    assert not lost


def _headings(page: Path) -> set[str]:
    """The headings of a page as its links spell them."""
    found = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}
