"""rejectd.page.texts: every text in every language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rejectd.page
from rejectd.contract.settings import Language
from rejectd.page.texts import LANGUAGES, Texts, all_texts, wanted

_ROOM = Path(rejectd.page.__file__).parent


@pytest.mark.parametrize("key", all_texts())
def test_a_text_stands_in_every_language_with_the_same_values(key: str) -> None:
    texts = all_texts()[key]
    assert len(texts) == len(LANGUAGES)
    assert all(text.strip() for text in texts)
    assert len({frozenset(re.findall(r"{\w+}", text)) for text in texts}) == 1


def test_every_text_that_a_page_or_script_names_is_there() -> None:
    sources = [*_ROOM.glob("templates/*.html"), *_ROOM.glob("static/*.js"), *_ROOM.glob("*.py")]
    named = {
        (source.name, key)
        for source in sources
        for key in re.findall(r"\b(?:t|text)\(\s*[\"']([a-z_0-9]+)[\"']\s*[,)]", source.read_text())
    }
    assert len(named) > 100
    assert [(file, key) for file, key in sorted(named) if key not in all_texts()] == []


@pytest.mark.parametrize(
    ("cookie", "asked", "expected"),
    [
        (None, "de-CH,de;q=0.9,en;q=0.8", "de"),
        (None, "fr, zh-CN;q=0.5", "zh"),
        ("en", "de", "en"),
        ("fr", "", "de"),
        (None, "fr", "de"),
    ],
)
def test_the_language_is_what_a_person_chose_or_the_browser_asks_for(
    cookie: str | None, asked: str, expected: str
) -> None:
    assert wanted(cookie, asked, Language.GERMAN) == expected


def test_values_stand_in_their_places() -> None:
    assert "30 s" in Texts(Language.ENGLISH)("password_wait", seconds=30)
