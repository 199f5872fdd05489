"""Texts that people wrote with other programs: guess the encoding of a file that is not UTF-8."""

from __future__ import annotations

import codecs

_UTF_16 = "UTF-16, which Windows calls Unicode"
_MARKS = {
    codecs.BOM_UTF32_LE: ("UTF-32", "UTF-32"),
    codecs.BOM_UTF32_BE: ("UTF-32", "UTF-32"),
    codecs.BOM_UTF16_LE: (_UTF_16, "UTF-16"),
    codecs.BOM_UTF16_BE: (_UTF_16, "UTF-16"),
}


def text(content: bytes) -> str:
    """Decode a text in UTF-8 without its byte order mark.

    Raises UnicodeDecodeError, also where every other byte is null: such a text is valid UTF-8, but meant as UTF-16.
    """
    decoded = content.decode("utf-8-sig")
    if _wide(content):
        at = content.index(b"\0")
        raise UnicodeDecodeError("utf-8", content, at, at + 1, "null byte")
    return decoded


def cause(content: bytes) -> str:
    """Say what is wrong with a text that is not UTF-8. The text is not shown, because it may be a password."""
    name, _ = _guess(content)
    return f"is not UTF-8 text, but {name} (line {_line(content)})"


def hint(content: bytes) -> str:
    """Say how to convert the text to UTF-8."""
    _, code = _guess(content)
    return f"save it as UTF-8, such as with `iconv -f {code} -t UTF-8`" if code else "save it as UTF-8"


def _guess(content: bytes) -> tuple[str, str]:
    """Guess the encoding: its name for people and its name for iconv."""
    for mark, names in _MARKS.items():
        if content.startswith(mark):
            return names
    if order := _wide(content):
        return "probably " + _UTF_16, f"UTF-16{order}"
    if 0 in content:
        return "holds null bytes", ""
    windows = any(byte in range(0x80, 0xA0) for byte in content)
    return ("probably CP1252, as Windows saves it", "CP1252") if windows else ("probably CP1252 or Latin-1", "CP1252")


def _wide(content: bytes) -> str:
    """Return the byte order of a text of plain letters with two bytes each; empty for any other text."""
    even, odd = content[::2].count(0), content[1::2].count(0)
    if max(even, odd) * 4 <= len(content):
        return ""
    return "LE" if odd > even else "BE"


def _line(content: bytes) -> int:
    """Return the number of the first line that is not UTF-8."""
    try:
        text(content)
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 1
