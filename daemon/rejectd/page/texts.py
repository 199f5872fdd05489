"""The texts of the page, all in texts.json: a key, and its text in each language. English comes first."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from rejectd.contract.settings import Language

LANGUAGES = tuple(Language)


@cache
def all_texts() -> dict[str, list[str]]:
    """Every key with its texts, in the order of LANGUAGES."""
    texts: dict[str, list[str]] = json.loads(resources.files(__package__).joinpath("texts.json").read_text("utf-8"))
    return texts


class Texts:
    """The texts in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._number = LANGUAGES.index(language)

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key, with values in the places of `{name}`."""
        text = all_texts()[key][self._number]
        return text.format(**values) if values else text

    def some(self, *keys: str) -> dict[str, str]:
        """The texts of several keys, for a script."""
        return {key: self(key) for key in keys}


def wanted(cookie: str | None, accept_language: str, default: Language) -> Language:
    """The language that a person chose, else one that the browser asks for, else the default."""
    if cookie in set(Language):
        return Language(cookie)
    for part in accept_language.lower().split(",")[:10]:
        code = part.strip().partition(";")[0][:2]
        if code in set(Language):
            return Language(code)
    return default
